"""Checkpoints that do not fit in memory: safetensors, read and written one tensor at a time.

    model.safetensors                  one file, or
    model.safetensors.index.json       {"weight_map": {name: file}}, and the files beside it

    shrink_shards(read_plan(Path("plan.json")), Path("llama-70b"), Path("llama-small"))

Memory: the largest tensor, and what stays of it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from compressor.base.messages import existing_file, listed, near, reason
from compressor.base.untrusted import inside, read_json
from compressor.passes.base.errors import UsageError
from compressor.release import replay
from compressor.release.kept_indices import KeptIndices, cut_from, plan_json
from compressor.storage import durable

if TYPE_CHECKING:  # importing torch takes seconds: only the functions that need it do
    from torch import Tensor

SHARD_BYTES = 5_000_000_000
INDEX = ".safetensors.index.json"

_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F16": 2, "BF16": 2, "I16": 2,
    "U16": 2, "F32": 4, "I32": 4, "U32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """Where a tensor is, and what a file says of it."""

    file: Path
    dtype: str
    shape: tuple[int, ...]

    def size(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor of this type and another shape."""
        count = _BYTES[self.dtype]
        for n in shape:
            count *= n
        return count


class ShardedWeights(Mapping[str, "Tensor"]):
    """The tensors of a checkpoint by name. Each is read when it is asked for, and not kept."""

    def __init__(self, source: Path) -> None:
        self.source = source

    @cached_property
    def stored(self) -> dict[str, Stored]:
        """All tensors as the headers of the files describe them; no values are read."""
        found: dict[str, Stored] = {}
        places = _places(self.source)
        for file in dict.fromkeys(places.values()):
            with _opened(file) as opened:
                names = opened.keys()
                wanted = [name for name, at in places.items() if at == file and name]
                if absent := [name for name in wanted if name not in set(names)]:
                    raise UsageError(f"{file} has no tensor {absent[0]}", where=str(self.source),
                                     why="the index says that it has", hint=_TORN)  # fmt: skip
                for name in wanted or names:
                    part = opened.get_slice(name)
                    found[name] = Stored(file, part.get_dtype(), tuple(part.get_shape()))
        odd = {one.dtype for one in found.values()} - _BYTES.keys()
        if odd:
            raise UsageError(f"tensors of type {listed(odd)} cannot be cut", where=str(self.source))
        return found

    def __getitem__(self, name: str) -> "Tensor":
        with _opened(self.stored[name].file) as opened:  # closed again: pages read stay in memory
            found: Tensor = opened.get_tensor(name)
            return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


_TORN = "the checkpoint may be torn: fetch it again"


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UsageError(f"cannot read {file}", why=reason(error), hint=_TORN) from error


def _places(source: Path) -> dict[str, Path]:
    """The file of every tensor; of a single file only the file, under an empty name."""
    if not source.exists():
        raise UsageError(f"no such file or folder: {source}", where=f"looked from {Path.cwd()}")
    if source.is_dir():
        indexes, files = (sorted(source.glob(f"*{end}")) for end in (INDEX, ".safetensors"))
        if len(indexes) != 1 and len(files) != 1:
            raise UsageError(
                f"{source} is not a checkpoint",
                why=f"it holds {len(indexes)} index files and {len(files)} safetensors files",
                hint=f"name a folder with one of either, or the {INDEX[1:]} file itself",
            )
        source = indexes[0] if len(indexes) == 1 else files[0]
    if source.suffix == ".safetensors":
        return {"": source}
    if not source.name.endswith(INDEX):
        raise UsageError(
            f"{source} is not a safetensors checkpoint",
            hint=f"name a folder, a .safetensors file, or a {INDEX[1:]} file",
        )
    return _index(source)


def _index(path: Path) -> dict[str, Path]:
    try:
        named = read_json(path.read_bytes())["weight_map"]
        files = {str(name): str(file) for name, file in named.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"cannot read the index {path}", why=reason(error), hint=_TORN) from error
    try:
        places = {name: path.parent / inside(file) for name, file in files.items()}
    except ValueError as error:
        raise UsageError(
            f"the index {path} names a file outside its folder", why=str(error)
        ) from error
    if outside := [str(one) for one in places.values() if one.parent != path.parent]:
        raise UsageError(f"the index {path} names a file outside its folder: {outside[0]}")
    if not files:
        raise UsageError(f"the index {path} names no tensors")
    return places


# ---------------------------------------------------------------------------- plans


def read_plan(path: Path) -> KeptIndices:
    """A plan.json, or passes.json of a release. Raises UsageError where it is neither."""
    path = existing_file(path)
    found = plan_json(path.read_bytes(), path)
    if isinstance(found, dict) and "passes" in found:
        return replay.cut_by(replay.log_from(found, path), path)
    return cut_from(found, path)


def small_shape(kept: list[Any], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of what stays of a tensor of sizes `shape`."""
    return tuple(n if one is None else _count(one) for one, n in zip(kept, shape, strict=True))


def _count(kept: list[Any]) -> int:
    """How many stay along a dimension: indices, or the indices of each kept row."""
    return len(kept[0]) if isinstance(kept[0], list) else len(kept)


def cut(tensor: "Tensor", kept: list[Any]) -> "Tensor":
    """What stays of a tensor, in its original order."""
    import torch

    rows = None
    for axis, indices in enumerate(kept):
        if indices is None:
            continue
        if isinstance(indices[0], list):
            rows = axis, torch.tensor(indices)
        else:
            tensor = tensor.index_select(axis, torch.tensor(indices))
    if rows is not None:  # each row of axis 0, by now the kept ones, keeps others
        axis, index = rows
        size = [-1 if a in (0, axis) else 1 for a in range(tensor.dim())]
        size[0], size[axis] = index.shape
        full = [n if a in (0, axis) else tensor.shape[a] for a, n in enumerate(size)]
        tensor = tensor.gather(axis, index.reshape(size).expand(full))
    return tensor


# ---------------------------------------------------------------------------- shrinking


@dataclass(frozen=True)
class ShrunkShards:
    """What came of a checkpoint."""

    files: tuple[str, ...]
    tensors: int
    cut: int
    """Tensors that are smaller than they were."""
    bytes_before: int
    bytes_after: int


def shrink_shards(
    plan: KeptIndices, source: Path, target: Path, shard_bytes: int = SHARD_BYTES
) -> ShrunkShards:
    """Write what the plan leaves of the checkpoint `source` into the new folder `target`.

    Tensor by tensor, into files of at most `shard_bytes` (but a tensor is never split). Raises
    UsageError where the plan is not for this checkpoint; nothing is written then.
    """
    from compressor.release import layout

    checkpoint = ShardedWeights(source)
    stored = checkpoint.stored
    check_fits(plan, checkpoint)
    shapes = {
        name: small_shape(plan.kept[name], one.shape) if name in plan.kept else one.shape
        for name, one in stored.items()
    }
    sizes = {name: one.size(shapes[name]) for name, one in stored.items()}
    shards = _packed(sizes, shard_bytes)
    total = sum(sizes.values())
    with layout.prepared(target) as folder:
        for file, names in shards.items():
            header = _header({n: (stored[n].dtype, shapes[n], sizes[n]) for n in names})
            tensors = (_bytes_of(checkpoint[name], plan.kept.get(name)) for name in names)
            durable.write(folder / file, chain([header], tensors))
        if len(shards) > 1:
            index = {name: file for file, names in shards.items() for name in names}
            text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1)
            durable.write(folder / f"model{INDEX}", [f"{text}\n".encode()])
    before = sum(one.size(one.shape) for one in stored.values())
    smaller = sum(shapes[name] != one.shape for name, one in stored.items())
    return ShrunkShards(tuple(shards), len(stored), smaller, before, total)


def check_fits(plan: KeptIndices, checkpoint: ShardedWeights) -> None:
    """Raise UsageError unless the checkpoint has what the plan cuts, in the original's sizes."""
    stored = checkpoint.stored
    wrong = [
        f"{name} is {list(stored[name].shape)} in the checkpoint, {shape} in the plan"
        for name, shape in plan.shapes.items()
        if name in stored and list(stored[name].shape) != list(shape)
    ]
    if wrong:
        raise UsageError(
            "the plan is for a model of other sizes",
            where=str(checkpoint.source),
            why=listed(wrong, "; "),
            hint="a checkpoint is cut once, and by the plan of the model that it belongs to",
        )
    owner = {name: plan.tied.get(name, name) for name in plan.kept}
    there = {owner[name] for name in plan.kept if name in stored}
    missing = [n for n in plan.kept if owner[n] not in there and n not in plan.buffers]
    if missing:
        raise UsageError(
            f"the checkpoint has no {missing[0]}",
            where=str(checkpoint.source),
            why=f"the plan cuts {len(missing)} tensors that it does not have: {listed(missing)}",
            hint=near(missing[0], stored),
        )


def _packed(sizes: Mapping[str, int], limit: int) -> dict[str, list[str]]:
    """Tensors in their order, as many to a file as the limit allows: file name -> names."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    count = len(shards)
    return {f"model-{i:05}-of-{count:05}.safetensors": s for i, s in enumerate(shards, 1)}


def _header(tensors: Mapping[str, tuple[str, tuple[int, ...], int]]) -> bytes:
    """The head of a safetensors file: eight bytes of length, then JSON up to a multiple of 8."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: "Tensor", kept: list[Any] | None) -> memoryview:
    import torch

    small = tensor if kept is None else cut(tensor, kept)
    found: memoryview = small.contiguous().reshape(-1).view(torch.uint8).numpy().data
    return found
