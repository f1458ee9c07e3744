"""Readers on malformed files: each is read, or refused in plain words; never a traceback or a hang.

A good file of each kind is spoilt by a seed: bits flipped, bytes cut, added, repeated, replaced by
numbers that are too large. Readers run in one process with a limit on memory, one file at a time.
"""

import json
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compressor.passes.errors import CompressError

SECONDS = 10.0
MEMORY = 6 << 30
"""Bytes of address space that all readers together may take beside what is taken before."""


@dataclass(frozen=True)
class Read:
    """One file, and what became of it."""

    kind: str
    seed: int
    outcome: str
    """`read`, `refused`, or `crash`."""
    seconds: float
    why: str = ""


def spoilt(good: bytes, seed: int) -> bytes:
    """The same, with something wrong."""
    rng = random.Random(seed)
    data = bytearray(good)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:]
            case 2:
                data[at:at] = rng.randbytes(rng.choice((1, 4, 100)))
            case 3:
                data[at : at + 8] = rng.choice(_NUMBERS)
            case 4:
                del data[at : at + rng.choice((1, 8, 64))]
            case _:
                data[at:at] = data[at : at + 64] * rng.choice((1, 50))
    return bytes(data)


_NUMBERS = (b"\xff" * 8, b"\x00" * 8, (2**62).to_bytes(8, "little"), b"-1", b"1e999", b"[" * 2000,
            b"null", b"NaN", b"{}", b'"../../x"')  # fmt: skip


def readers(folder: Path) -> dict[str, tuple[bytes, str, Callable[[Path], object]]]:
    """By kind: a good file, its suffix, and what reads it. `folder` is for making the good ones."""
    import torch
    from safetensors.torch import save

    from compressor import group_weights, manifest
    from compressor.latency import table
    from compressor.load.weights import read_weights
    from compressor.recipe import Recipe
    from compressor.recipe.sources import read
    from compressor.recipe.toml import commented
    from compressor.shards import Checkpoint, read_plan

    tensors = {"a.weight": torch.ones(4, 3), "b": torch.zeros(2, dtype=torch.int64)}
    torch.save(tensors, folder / "good.pt")
    plan = {"format": 1, "kept": {"a.weight": [[0, 2], None]}, "shapes": {"a.weight": [4, 3]},
            "buffers": [], "tied": {}, "channels": [1, 3]}  # fmt: skip
    files = {"model.onnx": {"sha256": "0" * 64, "bytes": 3, "measured": False}}
    listed = {"format": 1, "files": files, "content": manifest.content(files)}
    stair = {"kind": "Conv", "place": 1, "unit": 8, "misfit": {"1": 1.5}, "first": [0.5]}
    family = {"kind": "Conv", "fixed": {"kernel": [3, 3]}, "nodes": [[8, 16]], "times": [1.0, 2.0]}
    device = {"format": table.FORMAT, "threads": 1, "environment": {}, "reference_seconds": 1.0,
              "seconds": 1.0, "stairs": [stair], "families": [family],
              "caches": {"held": [1.0], "slower": [0.5]}}  # fmt: skip
    groups = {"format": group_weights.FORMAT, "rows": [{"name": "a.weight[0]", "size": 4}],
              "weights": {"a.weight[0]": 1.5}}  # fmt: skip

    def recipe(path: Path) -> object:
        return Recipe.checked(read(path), str)

    def release(path: Path) -> object:
        whole = path.parent / "release"
        whole.mkdir(exist_ok=True)
        (whole / "manifest.json").write_bytes(path.read_bytes())
        return manifest.read(whole)

    def shards(path: Path) -> object:
        checkpoint = Checkpoint(path)
        return [checkpoint[name].sum() for name in checkpoint]

    return {
        "onnx": (_onnx(), ".onnx", _session),
        "safetensors": (save(tensors), ".safetensors", read_weights),
        "shards": (save(tensors), ".safetensors", shards),
        "checkpoint": ((folder / "good.pt").read_bytes(), ".pt", read_weights),
        "recipe": (commented(Recipe.of(model="a.py:b", macs=0.5)).encode(), ".toml", recipe),
        "plan": (json.dumps(plan).encode(), ".json", read_plan),
        "manifest": (json.dumps(listed).encode(), ".json", release),
        "device table": (json.dumps(device).encode(), ".json", table.load),
        "group weights": (json.dumps(groups).encode(), ".json", group_weights.read),
    }


def _onnx() -> bytes:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    value = helper.make_tensor_value_info
    weights = [numpy_helper.from_array(np.ones((4, 4), np.float32), name) for name in "vw"]
    nodes = [helper.make_node("MatMul", ["x", "v"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
             helper.make_node("MatMul", ["r", "w"], ["y"])]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "two",
        [value("x", TensorProto.FLOAT, ["batch", 4])],
        [value("y", TensorProto.FLOAT, ["batch", 4])],
        weights,
    )
    opset = [helper.make_opsetid("", 17)]
    data: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return data


def _session(path: Path) -> object:
    from compressor.bench.sessions import CPU, line_up

    return line_up({"m": path}, inputs=None, batch=1, threads=1, providers=(CPU,), seed=0)


def run(folder: Path, count: int, seed: int = 0) -> Iterator[Read]:
    """`count` malformed files in turn over all kinds. Memory is limited from here on."""
    known = readers(folder)
    for good, suffix, read in known.values():
        path = folder / f"good{suffix}"
        path.write_bytes(good)
        read(path)  # the good one is read, and what is imported late is imported now
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    for index in range(count):
        kind = list(known)[index % len(known)]
        good, suffix, read = known[kind]
        path = folder / f"case{suffix}"
        path.write_bytes(spoilt(good, seed + index))
        yield _read(kind, seed + index, path, read)
        path.unlink()


def _read(kind: str, seed: int, path: Path, read: Callable[[Path], object]) -> Read:
    outcome, why, start = "read", "", time.perf_counter()
    try:
        read(path)
    except CompressError as error:
        outcome, why = "refused", error.what.replace(str(path.parent), "")[:80]
    except Exception as error:  # what must not happen
        outcome, why = "crash", f"{type(error).__name__}: {error}"[:300]
    return Read(kind, seed, outcome, time.perf_counter() - start, why)


def summary(rows: list[Read]) -> dict[str, Any]:
    """Counts by kind, the slowest, and everything that must not happen."""
    bad = [row for row in rows if row.outcome == "crash" or row.seconds > SECONDS]
    kinds = dict.fromkeys(row.kind for row in rows)
    return {
        "files": len(rows),
        "memory_limit_bytes": MEMORY,
        "slowest_seconds": round(max((row.seconds for row in rows), default=0.0), 3),
        "kinds": {k: dict(Counter(row.outcome for row in rows if row.kind == k)) for k in kinds},
        "bad": [asdict(row) for row in bad],
    }
