"""Names and JSON from outside: one rule for every reader."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from compressor.passes.base.errors import UsageError, WrongError
from onnx import TensorProto, helper
from typer.testing import CliRunner

from compressor.base.untrusted import DEEPEST, inside, read_json
from compressor.bench.inputs import Input, random_feeds
from compressor.cli.app import app
from compressor.criteria import group_weights
from compressor.loading.example_inputs import load_inputs
from compressor.onnx import model_files
from compressor.release.shards import _index, read_plan
from compressor.storage import manifest
from compressor.timing import table

NAMES = [
    "", ".", "..", "../x", "a/../../x", "/etc/passwd", "//host/x", "C:x", "c:\\x", "a\\..\\b",
    "a:b", "~/x", "~root", "a\0b", "a\nb", "a\x1b[2Jb", "a\u202eb", "a\u2028b", "\x7f", "\x9b2J",
    "nul",
    "CON", "aux.txt", "a/com1.bin", "lpt9", "dir./x", "x ", "x.", "a?b", "a*b", "a<b", 'a"b', "a|b",
    "x" * 300, "\udcff",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_leads_elsewhere_or_cannot_be_shown_is_refused(name):
    with pytest.raises(ValueError, match=r"name|folder|seen|itself|long"):
        inside(name)


@pytest.mark.parametrize("name", [None, 3, b"x", ["x"]])
def test_what_is_no_text_is_no_name(name):
    with pytest.raises(ValueError, match="no name of a file"):
        inside(name)


@pytest.mark.parametrize(
    "name", ["model.onnx", "parity/example.safetensors", "8 ms", "50%", "Größe-π.bin", "a..b", ".x"]
)
def test_a_plain_name_stays_as_it_is(name):
    assert inside(name).as_posix() == name


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "C:x", "a\x1bb", "con", "a\\b"], ids=ascii)
def test_every_reader_refuses_such_names(name, tmp_path):
    files = {name: {"sha256": "0", "bytes": 1, "measured": False}}
    found = {"format": 1, "content": manifest.content(files), "files": files}
    (tmp_path / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(WrongError, match="is not a manifest"):
        manifest.read(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(UsageError, match="outside its folder"):
        _index(index)
    with pytest.raises(UsageError, match="cannot be read safely"):
        model_files.safe(with_data_in(tmp_path, name))


def with_data_in(folder: Path, place: str) -> Path:
    """A model whose weights are said to be in another file."""
    tensor = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "g",
        [value("x", 1, [1, 4])], [value("y", 1, [1, 4])], [tensor],
    )  # fmt: skip
    path = folder / "model.onnx"
    path.write_bytes(helper.make_model(graph, ir_version=9).SerializeToString())
    return path


@pytest.mark.skipif(not hasattr(os, "link"), reason="there are no hard links here")
def test_data_that_have_another_name_too_are_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(16))
    path = with_data_in(tmp_path, "data.bin")
    os.link(tmp_path / "secret", tmp_path / "data.bin")
    with pytest.raises(UsageError, match="cannot be read safely") as caught:
        model_files.read(path)
    assert "hard link" in caught.value.why
    os.unlink(tmp_path / "secret")
    assert onnx.load_model_from_string(model_files.read(path)).graph.initializer[0].raw_data


# ---------------------------------------------------------------------------- JSON

BROKEN = {
    "no number": b'{"a": NaN}',
    "infinite": b'{"a": Infinity}',
    "below": b"[-Infinity]",
    "overflow": b"[1e999]",
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "deep and whole": b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1),
    "twice": b'{"a": 1, "a": 2}',
    "twice within": b'[{"b": {"a": 1, "a": 1}}]',
    "no text": b"\xff\xfe\x00",
    "digits": b"[" + b"9" * 100_000 + b"]",
    "nothing": b"",
    "more": b"{} {}",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_json_has_not_is_refused(data):
    with pytest.raises(ValueError, match=r"."):
        read_json(data)


def test_a_document_is_read_as_it_is():
    found = {"a": [1, 2.5, None, True, {"b": "ä\x00"}], "c": {}}
    assert read_json(json.dumps(found).encode()) == found
    assert read_json("[" * DEEPEST + "]" * DEEPEST)


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_every_reader_of_json_answers_in_words(data, tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_bytes(data)
    (tmp_path / "manifest.json").write_bytes(data)
    for read in (_index, read_plan, table.load, group_weights.read):
        with pytest.raises(UsageError):
            read(path)
    with pytest.raises(WrongError):
        manifest.read(tmp_path)


TABLE = {
    "format": 2, "threads": 1, "environment": {}, "reference_seconds": 1e-4, "stairs": [],
    "caches": {"held": [0], "slower": [0]}, "seconds": 0, "families": [],
}  # fmt: skip


@pytest.mark.parametrize("key", ["threads", "reference_seconds", "seconds"])
@pytest.mark.parametrize(
    "value",
    [1e308 * 10, -(1e308 * 10), float("nan"), 10**400, [], {}, "x", None],
    ids=["inf", "-inf", "nan", "huge", "list", "table", "text", "null"],
)
def test_a_table_with_numbers_that_are_none_is_refused(key, value, tmp_path):
    path = tmp_path / "device.json"
    path.write_text(json.dumps({**TABLE, key: value}))
    with pytest.raises(UsageError, match="is no table of kernel times"):
        table.load(path)
    path.write_text(json.dumps(TABLE))
    assert table.load(path).reference == 1e-4


# ---------------------------------------------------------------------------- sizes


def relu(sizes: list[int | str]) -> bytes:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value("x", 1, sizes)],
        [value("y", 1, sizes)],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, ir_version=9, opset_imports=opset).SerializeToString()


@pytest.mark.parametrize("command", ["bench a.onnx a.onnx", "explain a.onnx",
                                     "check a.onnx --baseline a.onnx"])  # fmt: skip
def test_an_input_that_does_not_fit_into_memory_is_named(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.onnx").write_bytes(relu([10**6, 10**6]))
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 2
    assert "1,000,000,000,000 numbers" in done.stderr


def test_so_are_a_batch_and_example_inputs():
    with pytest.raises(UsageError, match="does not fit into memory"):
        random_feeds((Input("x", "tensor(int8)", ("n", 4)),), 10**13, np.random.default_rng(0))
    with pytest.raises(UsageError, match="does not fit into memory"):
        load_inputs(None, input_shape="1000000,1000000,1000000,1000000")


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
     RuntimeError("std::bad_alloc")],
)  # fmt: skip
def test_no_memory_is_the_machines_trouble(error, monkeypatch):
    def broken(*_):
        raise ValueError("in between") from error

    monkeypatch.setattr("compressor.config.fields.resolve", broken)
    done = CliRunner().invoke(app, ["inspect", "net.py:net"])
    assert done.exit_code == 2
    assert "not enough memory" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["no node", "constant"])
def test_a_graph_of_which_nothing_runs_is_told_so(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = onnx.load_model_from_string(relu([1, 4]))
    if kind == "no node":
        del model.graph.node[:], model.graph.output[:]
        model.graph.output.append(model.graph.input[0])
    else:
        del model.graph.input[:]
        model.graph.initializer.append(helper.make_tensor("x", 1, [1, 4], [1.0] * 4))
    onnx.save(model, "a.onnx")
    done = CliRunner().invoke(app, ["explain", "a.onnx"])
    assert done.exit_code == 2
    assert "runs no operator" in done.stderr
    for line in ("bench a.onnx a.onnx --seconds 0.2 --rounds 1", "align a.onnx -o b.onnx"):
        assert CliRunner().invoke(app, line.split()).exit_code == 0
