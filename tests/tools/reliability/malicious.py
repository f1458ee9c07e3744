"""Inputs that are made to harm: each must be refused, run nothing, read and write nothing outside.

Each makes its files in a folder and gives the command line that reads them. What one of them would
run writes `EXECUTED` there; what one would read is `SECRET`, in the folder above.
"""

import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from tests.tools.reliability.disks import ROOT

EXECUTED = "executed"
SECRET = b"the secret of another user....."
NET = """
import torch

def net():
    return torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))

def example_inputs():
    return torch.ones(2, 4)
"""
BUILD = ["build", "net.py:net", "--macs", "0.5", "-o", "out"]


class _Runs:
    """What a pickle can do when it is loaded."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (EXECUTED,)


def _checkpoint(folder: Path) -> list[str]:
    """A checkpoint in torch's format, one of whose values runs code."""
    import torch

    torch.save({"0.weight": _Runs()}, folder / "w.pt")
    return [*BUILD, "--weights", "w.pt"]


def _bare_pickle(folder: Path) -> list[str]:
    """The same as a bare pickle, which is torch's older format."""
    (folder / "w.pth").write_bytes(pickle.dumps(_Runs()))
    return [*BUILD, "--weights", "w.pth"]


def _whole_model(folder: Path) -> list[str]:
    """A pickle in the place of the model."""
    (folder / "model.pt").write_bytes(pickle.dumps(_Runs()))
    return ["build", "model.pt", "--macs", "0.5", "-o", "out"]


def _exported(folder: Path) -> list[str]:
    """An exported program, whose parts are pickles."""
    with zipfile.ZipFile(folder / "model.pt2", "w") as archive:
        for name in ("version", "data/weights/weight_0", "models/model.json", "data.pkl"):
            archive.writestr(f"model/{name}", pickle.dumps(_Runs()))
    return ["build", "model.pt2", "--macs", "0.5", "-o", "out"]


def _found_recipe(folder: Path) -> list[str]:
    """A recipe that lies in the folder of a stranger, and names code."""
    (folder / "evil.py").write_text(f"import os\nos.mkdir({EXECUTED!r})\ndef net(): ...\n")
    (folder / "compressor.toml").write_text('model = "evil.py:net"\nmacs = 0.5\n')
    return ["inspect"]


def _bomb(folder: Path) -> list[str]:
    """An archive that becomes a thousand times larger."""
    with zipfile.ZipFile(folder / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        block = bytes(1 << 24)
        with archive.open("archive/data/0", "w", force_zip64=True) as file:
            for _ in range(16):
                file.write(block)
    return [*BUILD, "--weights", "w.pt"]


def _huge_safetensors(folder: Path) -> list[str]:
    """A tensor of 2^60 bytes in a file of 100."""
    entry = {"0.weight": {"dtype": "F32", "shape": [2**29, 2**29], "data_offsets": [0, 2**60]}}
    head = json.dumps(entry).encode()
    (folder / "w.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(16))
    return [*BUILD, "--weights", "w.safetensors"]


def _huge_onnx(folder: Path) -> list[str]:
    """A tensor of a terabyte of which four bytes are there."""
    _onnx(folder, dims=(2**18, 2**20), raw=b"1234")
    return ["bench", "model.onnx", "--seconds", "0.1"]


def _outside(folder: Path) -> list[str]:
    """Weights that are said to lie in a file above the model's folder."""
    _onnx(folder, place="../secret")
    return ["bench", "model.onnx", "--seconds", "0.1"]


def _link(folder: Path) -> list[str]:
    """The same by a link."""
    (folder / "data").symlink_to(folder.parent / "secret")
    _onnx(folder, place="data")
    return ["align", "model.onnx", "-o", "aligned.onnx"]


def _shards(folder: Path) -> list[str]:
    """A checkpoint whose index names a file outside of it."""
    (folder / "w").mkdir()
    index = {"weight_map": {"0.weight": "../../secret"}}
    (folder / "w" / "model.safetensors.index.json").write_text(json.dumps(index))
    plan = {"format": 1, "kept": {}, "shapes": {}, "buffers": [], "tied": {}}
    (folder / "plan.json").write_text(json.dumps(plan))
    return ["shards", "plan.json", "w", "-o", "out"]


def _release(folder: Path) -> list[str]:
    """A release whose manifest names a file outside of it."""
    from compressor.storage import manifest

    (folder / "given").mkdir()
    files = {"../../secret": {"sha256": "0" * 64, "bytes": len(SECRET), "measured": False}}
    whole = {"format": 1, "files": files, "content": manifest.content(files), "tolerance": 1.0}
    (folder / "given" / "manifest.json").write_text(json.dumps(whole))
    return ["verify", "given"]


def _linked_release(folder: Path) -> list[str]:
    """A release that consists of links."""
    (folder / "given").mkdir()
    for name in ("manifest.json", "model.onnx"):
        (folder / "given" / name).symlink_to(folder.parent / "secret")
    return ["verify", "given"]


INPUTS: Mapping[str, Callable[[Path], list[str]]] = {
    "checkpoint that runs code": _checkpoint,
    "bare pickle that runs code": _bare_pickle,
    "pickle in the place of the model": _whole_model,
    "exported program that runs code": _exported,
    "recipe of a stranger's folder": _found_recipe,
    "archive that grows": _bomb,
    "safetensors of 2^60 bytes": _huge_safetensors,
    "ONNX tensor of a terabyte": _huge_onnx,
    "ONNX data above the folder": _outside,
    "ONNX data behind a link": _link,
    "index that leads outside": _shards,
    "manifest that leads outside": _release,
    "release made of links": _linked_release,
}


def made(name: str, folder: Path) -> list[str]:
    """The files of an input, in `folder`, and the command line that reads them."""
    (folder.parent / "secret").write_bytes(SECRET * 8)
    (folder / "net.py").write_text(NET)
    return INPUTS[name](folder)


def harm(folder: Path, before: set[str], code: int, said: str) -> str:
    """What an input has done, or the empty string."""
    there = names(folder) - before
    if EXECUTED in there:
        return "it ran code"
    if there:
        return f"it wrote {sorted(there)}"
    if SECRET.decode() in said:
        return "it read what is outside"
    if code not in (2, 5):
        return f"it ended with {code}"
    return "it ended with a traceback" if "Traceback" in said else ""


MEMORY, SECONDS = 4 << 30, 120


def trials(folder: Path) -> Iterator[tuple[str, str]]:
    """Each input by the command line, in a process with limits; what it has done, or nothing."""
    for index, name in enumerate(INPUTS):
        place = folder / str(index) / "here"
        place.mkdir(parents=True)
        line = made(name, place)
        before = names(place)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "compressor", *line],
                cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                capture_output=True, text=True, check=False, timeout=SECONDS,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            yield name, f"it took more than {SECONDS} s"
        else:
            yield name, harm(place, before, done.returncode, done.stdout + done.stderr)


def names(folder: Path) -> set[str]:
    """Everything in a folder but Python's own caches."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    return {name for name in found if "__pycache__" not in name}


def _onnx(folder: Path, dims: tuple[int, ...] = (), raw: bytes = b"", place: str = "") -> None:
    """One product with a weight that is not what it says."""
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    if place:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=place)
    else:
        weight.dims[:], weight.raw_data = dims, raw
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "one",
        [value("x", TensorProto.FLOAT, ["batch", 4])],
        [value("y", TensorProto.FLOAT, ["batch", 4])],
        [weight],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
