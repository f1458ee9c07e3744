"""Every reader of files from outside, with good files of its own: what `malformed` spoils.

A reader is given the spoilt file, in a folder of its own; what belongs beside it is in the folder
above. It returns, or raises CompressError; whatever else it raises is a fault. Commands are run in
this process, by `command`.
"""

import contextlib
import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from compressor.passes.base.errors import UsageError

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Reader:
    """Good files by name, one of which is spoilt; and what reads it."""

    files: Mapping[str, bytes]
    read: Callable[[Path], object]


class Fault(Exception):
    """What a command must not do: end with a traceback, or send control characters."""


def command(*words: str) -> None:
    """A command of the program, in this process. Raises UsageError where it ends with 2, 4 or 5."""
    from compressor.cli.app import app

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), _arguments(words):
        try:
            code = app(list(words), standalone_mode=False) or 0
        except Exception as error:  # a word that typer refuses, or a bug around a command
            if not hasattr(error, "exit_code"):
                raise
            code = error.exit_code
    text = said.getvalue()
    if code not in range(6):
        frames = re.findall(r'File ".*?([^/"]+\.py)", line (\d+), in (\w+)', text)
        last = [
            line for line in text.splitlines() if re.match(r"[\w.]+(Error|Exception|\w+):", line)
        ]
        raise Fault(f"exit {code}: {' '.join(last[-1:])[:200]} at {frames[-3:]}")
    if odd := _CONTROL.search(text):
        raise Fault(f"it wrote the control character {odd[0]!r}")
    if code not in (0, 1, 3):
        raise UsageError(f"exit {code}", why=text.strip()[-400:])


@contextlib.contextmanager
def _arguments(words: tuple[str, ...]) -> Iterator[None]:
    before, sys.argv = sys.argv, ["compressor", *words]
    try:
        yield
    finally:
        sys.argv = before


def two_products() -> bytes:
    """A small ONNX model: two matrix products with a ReLU between."""
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


# ---------------------------------------------------------------------------- ONNX


def _bench(folder: Path) -> Reader:
    (folder / "good.onnx").write_bytes(two_products())

    def read(path: Path) -> None:
        command("bench", str(folder / "good.onnx"), str(path), "--seconds", "0.1")

    return Reader({"model.onnx": two_products()}, read)


def _explain(folder: Path) -> Reader:
    from compressor.explain import explain
    from compressor.explain.roofline import measure

    roofline = measure(1, repeats=1)
    return Reader({"model.onnx": two_products()},
                  lambda path: explain(path, runs=2, roofline=roofline))  # fmt: skip


def _align(folder: Path) -> Reader:
    def read(path: Path) -> None:
        out = str(path.with_name("out.onnx"))
        command("align", str(path), "-o", out, "--seconds", "0.1", "--force")

    return Reader({"model.onnx": two_products()}, read)


def _check(folder: Path) -> Reader:
    (folder / "good.onnx").write_bytes(two_products())

    def read(path: Path) -> None:
        out = [f"--{one}={path.parent / one}" for one in ("junit", "markdown", "history")]
        command("check", str(path), f"--baseline={folder / 'good.onnx'}", "--seconds=0.1",
                "--max-growth=0%", "--max-macs-growth=0%", *out)  # fmt: skip

    return Reader({"model.onnx": two_products()}, read)


def _external(folder: Path) -> Reader:
    """A model whose tensors lie in a file beside it; either of them is spoilt."""
    import onnx

    model = onnx.load_model_from_string(two_products())
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="data",
              size_threshold=0)  # fmt: skip
    files = {name: (folder / name).read_bytes() for name in ("model.onnx", "data")}

    def read(path: Path) -> None:
        for name in files:
            if name != path.name:
                shutil.copy(folder / name, path.parent / name)
        command("bench", str(path.parent / "model.onnx"), "--seconds", "0.1")

    return Reader(files, read)


# ---------------------------------------------------------------------------- weights and plans


def tensors() -> dict[str, Any]:
    """A small state dict."""
    import torch

    return {"a.weight": torch.ones(4, 3), "b": torch.zeros(2, dtype=torch.int64)}


def _saved() -> bytes:
    from safetensors.torch import save

    return bytes(save(tensors()))


def _weights(folder: Path) -> Reader:
    import torch

    from compressor.loading.weights import read_weights

    torch.save(tensors(), folder / "w.pt")
    torch.save({"epoch": 3, "state": tensors(), "options": {"lr": 0.1}}, folder / "more.pt")
    pickles = {name: (folder / name).read_bytes() for name in ("w.pt", "more.pt")}
    return Reader({"w.safetensors": _saved(), **pickles}, read_weights)


def _shards(folder: Path) -> Reader:
    from compressor.release.shards import ShardedWeights

    def read(path: Path) -> object:
        checkpoint = ShardedWeights(path)
        return [checkpoint[name].sum() for name in checkpoint]

    return Reader({"w.safetensors": _saved()}, read)


def _index(folder: Path) -> Reader:
    from safetensors.torch import save_file

    from compressor.release.shards import ShardedWeights

    places = {name: f"{name[0]}.safetensors" for name in tensors()}
    for name, file in places.items():
        save_file({name: tensors()[name]}, folder / file)
    index = {"metadata": {"total_size": 64}, "weight_map": places}

    def read(path: Path) -> object:
        for file in places.values():
            shutil.copy(folder / file, path.parent)
        place = path.with_name("model.safetensors.index.json")
        path.rename(place)
        checkpoint = ShardedWeights(place)
        return [checkpoint[name].sum() for name in checkpoint]

    return Reader({"index.json": json.dumps(index).encode()}, read)


_PLAN = {"format": 1, "kept": {"a.weight": [[0, 2], None]}, "shapes": {"a.weight": [4, 3]},
         "buffers": [], "tied": {}, "channels": [1, 3]}  # fmt: skip


def pass_log() -> bytes:
    """The log of a build that cuts the small state dict."""
    from compressor.passes.ir.log import Entry, Log

    capture = Entry("capture", 1, {"dynamic": ["x:1=width"]}, {"call": {"value": 1}})
    prune = Entry("prune", 1, {"round_to": 2}, _PLAN, {"max_rel": 1e-16}, ("a.weight: shorter",))
    return json.dumps(Log((capture, prune, Entry("export", 1))).to_json()).encode()


def _plan(folder: Path) -> Reader:
    """Read, and cut by."""
    (folder / "w.safetensors").write_bytes(_saved())

    def read(path: Path) -> None:
        out = str(path.parent / "small")
        command("shards", str(path), str(folder / "w.safetensors"), "-o", out)

    files = {"plan.json": json.dumps(_PLAN).encode(), "passes.json": pass_log()}
    return Reader(files, read)


def _groups(folder: Path) -> Reader:
    from compressor.criteria import group_weights

    groups = {"format": group_weights.FORMAT, "rows": [{"name": "a.weight[0]", "size": 4}],
              "weights": {"a.weight[0]": 1.5}}  # fmt: skip
    return Reader({"groups.json": json.dumps(groups).encode()}, group_weights.read)


def _device(folder: Path) -> Reader:
    from compressor.timing import table

    stair = {"kind": "Conv", "place": 1, "unit": 8, "misfit": {"1": 1.5}, "first": [0.5]}
    family = {"kind": "Conv", "fixed": {"kernel": [3, 3]}, "nodes": [[8, 16]], "times": [1.0, 2.0]}
    device = {"format": table.FORMAT, "threads": 1, "environment": {}, "reference_seconds": 1.0,
              "seconds": 1.0, "stairs": [stair], "families": [family],
              "caches": {"held": [1.0], "slower": [0.5]}}  # fmt: skip

    def read(path: Path) -> object:
        found = table.load(path)
        if re.search("NaN|Infinity", json.dumps(found.to_json())):
            raise Fault("it takes numbers that are not finite")
        return found.summary()

    return Reader({"device.json": json.dumps(device).encode()}, read)


# ---------------------------------------------------------------------------- recipes and words


def _recipe(folder: Path) -> Reader:
    """Named, and only found."""
    from compressor.config import Recipe
    from compressor.config.sources import read as plain
    from compressor.config.sources import resolve
    from compressor.config.toml import commented

    good = commented(Recipe.of(model="timm:resnet18", macs=0.5)).encode()
    project = b'[project]\nname = "mine"\n[tool.compressor]\nmodel = "timm:resnet18"\nmacs = 0.5\n'
    project += b'ignore = ["head.*"]\ndata = ""\nmax-drop = 0.1\n'

    def read(path: Path) -> object:
        with contextlib.chdir(path.parent):
            resolve({}, None)
        return Recipe.checked(plain(path), str), resolve({"macs": 0.4}, path)

    return Reader({"compressor.toml": good, "pyproject.toml": project}, read)


def _case(folder: Path) -> Reader:
    """The folder of a reproducer."""
    from compressor.cli.app import parsed
    from compressor.debug import minimise

    line = b"python -m compressor build net.py:net --macs 0.5 -o out --ignore 'head.*'\n"
    return Reader({"command.txt": line}, lambda path: minimise.read(path.parent, parsed))


def _shape(folder: Path) -> Reader:
    """Example inputs and free axes, as words."""
    from compressor.loading.dynamic_axes import parse
    from compressor.loading.example_inputs import load_inputs

    def read(path: Path) -> object:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        if path.name == "axes":
            return parse((text,))
        return load_inputs(ModuleType("own"), input_shape=text)

    shapes = {"floats": b"1,3,8,8", "mixed": b"1,16:int64; 1,16:bool"}
    return Reader({**shapes, "axes": b"input_ids:1=sequence"}, read)


def _library(folder: Path) -> Reader:
    """A transformers checkpoint: config.json, and its weights."""
    from compressor.base.optional import loadable_torchvision
    from compressor.loading.short_names import load_short

    loadable_torchvision()
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=8, max_position_embeddings=16)  # fmt: skip
    BertModel(config).save_pretrained(folder / "bert")
    names = ("config.json", "model.safetensors")

    def read(path: Path) -> object:
        for name in names:
            if name != path.name:
                shutil.copy(folder / "bert" / name, path.parent / name)
        with contextlib.redirect_stderr(io.StringIO()):
            return load_short(f"hf:{path.parent}", trained=True)

    return Reader({name: (folder / "bert" / name).read_bytes() for name in names}, read)


FILES: Mapping[str, Callable[[Path], Reader]] = {
    "onnx, raced": _bench,
    "onnx, explained": _explain,
    "onnx, aligned": _align,
    "onnx, checked": _check,
    "onnx, data beside": _external,
    "weights": _weights,
    "shards": _shards,
    "index of shards": _index,
    "plan": _plan,
    "group weights": _groups,
    "device table": _device,
    "recipe": _recipe,
    "reproducer": _case,
    "input shape": _shape,
    "transformers folder": _library,
}
"""Readers of single files; `release_readers` has the others."""
