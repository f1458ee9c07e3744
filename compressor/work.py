"""The work folder of a build: what a stage that takes long made, so that a killed build goes on.

    build/.net.work/repair.<key>        one file a result, under a digest of everything it came from

It lies beside the output, and is there only while the build is not complete: a kill or an interrupt
leaves it, success and an error take it away. Keys hold the network, its tensors, the options of the
stage, our source and the versions, so what is found is what would be computed again. Capture and
coupling are always made anew, and so is a plan by time, or by a loss of the user's. The library
keeps nothing.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.files import write_file
from compressor.manifest import source_digest

if TYPE_CHECKING:
    from compressor.recipe import Recipe

STAGES = (
    *("load", "capture", "couple", "sparse", "measure", "profile", "plan", "shrink", "prove"),
    *("repair", "distill", "finetune", "export", "parity", "simplify", "evaluate", "race", "write"),
)
"""In the order in which they run; some only where they were asked for."""


def stages_of(recipe: "Recipe") -> tuple[str, ...]:
    """The stages that a build of this recipe has."""
    has_data = recipe.data is not None
    where = {
        "sparse": recipe.sparse_train > 0,
        "measure": has_data,
        "profile": recipe.latency is not None,
        "repair": has_data,
        "distill": recipe.distill > 0,
        "finetune": recipe.finetune > 0 or recipe.train_with is not None,
        "evaluate": bool(recipe.evaluate),
    }
    return tuple(stage for stage in STAGES if where.get(stage, True))


_PACKAGES = (
    "torch",
    "torch-pruning",
    "onnx",
    "onnxscript",
    "onnxsim",
    "onnxruntime",
    "numpy",
    "safetensors",
)


class Work:
    """Results by stage and key. `start`: the first stage whose results are not taken from here."""

    def __init__(self, folder: Path | None = None, start: str | None = None) -> None:
        self.folder, self.start = folder, start

    @classmethod
    def of(cls, output: Path, start: str | None = None) -> "Work":
        """The work folder that belongs to an output."""
        return cls(output.parent / f".{output.name}.work", start)

    def once(self, stage: str, parts: Mapping[str, Any], make: Callable[[], bytes]) -> bytes:
        """What `make` gives, or gave for the same parts."""
        if self.folder is None:
            return make()
        path = self.folder / f"{stage}.{_key(stage, parts)}"
        if (found := self._recalled(stage, path)) is not None:
            return found
        made = make()
        write_file(path, hashlib.sha256(made).digest() + made)
        return made

    def _recalled(self, stage: str, path: Path) -> bytes | None:
        """None where it has to be made: it is not there, is torn, or is not wanted."""
        if self.start is not None and STAGES.index(stage) >= STAGES.index(self.start):
            return None
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None

    def once_json(self, stage: str, parts: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """The same for plain values."""
        return json.loads(self.once(stage, parts, lambda: json.dumps(make()).encode()))

    def forget(self) -> None:
        """Delete all of it."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def there(self) -> dict[str, int]:
        """Bytes of the results that are kept, by stage."""
        found: dict[str, int] = {}
        if self.folder is not None and self.folder.is_dir():
            for path in self.folder.iterdir():
                stage = path.name.partition(".")[0]
                if stage in STAGES:
                    found[stage] = found.get(stage, 0) + path.stat().st_size
        return {stage: found[stage] for stage in STAGES if stage in found}


def _key(stage: str, parts: Mapping[str, Any]) -> str:
    versions = {name: _version(name) for name in _PACKAGES}
    text = json.dumps([stage, parts, versions, source_digest()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# ---------------------------------------------------------------------------- what goes in


def digest(*values: Any) -> str:
    """Of tensors in any structure, bytes and plain values."""
    from torch import Tensor
    from torch.utils import _pytree as pytree

    found = hashlib.sha256()
    for leaf in pytree.tree_leaves(values):
        if isinstance(leaf, Tensor):
            plain = leaf.detach().cpu().contiguous()
            found.update(f"{plain.dtype}{list(plain.shape)}".encode())
            found.update(plain.reshape(-1).view(_byte()).numpy().data)
        elif isinstance(leaf, bytes):
            found.update(leaf)
        else:
            found.update(repr(leaf).encode())
    return found.hexdigest()


def _byte() -> Any:
    import torch

    return torch.uint8


def of_program(program: Any) -> str:
    """A digest of a network: its graph, its tensors and its example inputs."""
    tensors = dict(sorted(program.tensors().items()))
    axes = {place: dict(one) for place, one in program.axes.items()}
    return digest(
        program.module.graph.python_code("self").src,
        list(tensors),
        list(tensors.values()),
        program.args,
        dict(program.kwargs),
        repr((program.batch, axes)),
    )


# ---------------------------------------------------------------------------- plan and repair


def planned(work: Work, parts: Mapping[str, Any], coupling: Any, make: Callable[[], Any]) -> Any:
    """A plan, or what was chosen of the same network with the same inputs and options."""
    from torch import tensor

    from compressor.passes import Budget, Plan, Trial

    fresh: list[Any] = []

    def made() -> dict[str, Any]:
        fresh.append(make())
        found = fresh[0]
        plain = ("budget", "dense", "reached", "unit", "loss", "trials", "samples", "why")
        facts = {name: getattr(found, name) for name in plain}
        facts["budget"] = asdict(found.budget)
        facts["trials"] = [asdict(one) for one in found.trials]
        facts["widths"] = [(group.name, width) for group, width in found.widths]
        return facts | {"channels": found.channels.tolist()}

    facts = work.once_json("plan", parts, made)
    if fresh:
        return fresh[0]
    facts["budget"] = Budget(**facts["budget"])
    facts["trials"] = tuple(Trial(**one) for one in facts["trials"])
    groups = {group.name: group for group in coupling.groups}
    facts["widths"] = tuple((groups[name], width) for name, width in facts["widths"])
    facts["channels"] = tensor(facts["channels"])
    return Plan(coupling, **facts)


def repaired(work: Work, parts: Mapping[str, Any], small: Any, make: Callable[[], Any]) -> Any:
    """A repair, or what it gave for the same network and inputs."""
    from safetensors.torch import load, save

    from compressor.passes import Repaired
    from compressor.passes.refit import Layer
    from compressor.train.nets import with_tensors

    fresh: list[Any] = []

    def made() -> bytes:
        fresh.append(make())
        found = fresh[0]
        facts = asdict(replace(found, program=None)) | {"changes": list(found.changes)}
        tensors = {name: one.detach().clone() for name, one in found.program.tensors().items()}
        return save(tensors, {"facts": json.dumps(facts)})

    data = work.once("repair", parts, made)
    if fresh:
        return fresh[0]
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    facts = json.loads(header["__metadata__"]["facts"])
    facts["layers"] = tuple(Layer(**one) for one in facts["layers"])
    facts["changes"] = tuple(facts["changes"])
    return Repaired(**(facts | {"program": with_tensors(small, load(data))}))
