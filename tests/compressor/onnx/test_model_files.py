"""ONNX files of strangers: nothing outside their folder is opened, no size is believed."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from compressor.passes.base.errors import UsageError
from onnx import TensorProto, helper, numpy_helper

from compressor.onnx import model_files

COMMANDS = ("bench {0} --seconds 0.1 --quiet", "explain {0} --runs 1", "align {0} -o {1}/a.onnx",
            "check {0} --baseline {0} --seconds 0.1")  # fmt: skip


def model(weight: TensorProto) -> onnx.ModelProto:
    """One product with `weight`, [4, 4]."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "one",
        [value("x", TensorProto.FLOAT, ["batch", 4])],
        [value("y", TensorProto.FLOAT, ["batch", 4])],
        [weight],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def outside(place: str, **more: str) -> TensorProto:
    """A weight that is said to lie at `place`."""
    found = TensorProto(name="w", dims=[4, 4], data_type=TensorProto.FLOAT)
    found.data_location = TensorProto.EXTERNAL
    for key, value in {"location": place, **more}.items():
        found.external_data.add(key=key, value=value)
    return found


def saved(folder: Path, weight: TensorProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model(weight).SerializeToString())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with tensor data in it, and some beside it."""
    (tmp_path / "secret").write_bytes(np.ones(16, np.float32).tobytes())
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "data").write_bytes(np.ones(16, np.float32).tobytes())
    return tmp_path / "model"


def test_data_in_the_folder_are_read(folder):
    path = saved(folder, outside("data"))
    assert model_files.safe(path) == path
    whole = onnx.load_model_from_string(model_files.read(path))
    assert numpy_helper.to_array(whole.graph.initializer[0]).sum() == 16


@pytest.mark.parametrize("place", ["../secret", "{0}/secret", "a/../../secret", "..\\secret", "",
                                   "C:\\secret", "\0", "nowhere", "."])  # fmt: skip
@pytest.mark.parametrize("line", COMMANDS)
def test_no_command_reads_data_outside_the_folder(line, place, folder, command):
    path = saved(folder, outside(place.format(folder.parent)))
    done = command(line.format(path, folder))
    assert done.exit_code == 2, done.output
    assert "has a tensor that cannot be read safely: 'w'" in done.stderr
    assert not (folder / "a.onnx").exists()


@pytest.mark.skipif(os.name == "nt", reason="links need a permission there")
@pytest.mark.parametrize("name", ["link", "deep/link", "linked/secret"])
def test_data_behind_a_link_are_not_read(name, folder):
    (folder / "deep").mkdir()
    for link in ("link", "deep/link"):
        (folder / link).symlink_to(folder.parent / "secret")
    (folder / "linked").symlink_to(folder.parent)
    with pytest.raises(UsageError, match="cannot be read safely") as caught:
        model_files.safe(saved(folder, outside(name)))
    assert "which is a link" in caught.value.why


@pytest.mark.parametrize(
    "more",
    [{"offset": "1"}, {"length": "32"}, {"offset": "-4"}, {"length": "999"}, {"offset": "x"}],
)
def test_data_of_another_size_than_declared_are_refused(more, folder):
    with pytest.raises(UsageError, match="cannot be read safely"):
        model_files.safe(saved(folder, outside("data", **more)))


@pytest.mark.parametrize("dims", [[10**6, 10**6], [2**62, 8], [-1, 4], [4, 5], []])
def test_a_size_that_is_declared_and_not_there_is_refused(dims, folder):
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    weight.dims[:] = dims
    with pytest.raises(UsageError, match="cannot be read safely"):
        model_files.safe(saved(folder, weight))


def test_tensors_in_branches_and_functions_are_looked_at(folder):
    inner = model(outside("../secret"))
    branch = helper.make_node("If", ["c"], ["z"], then_branch=inner.graph)
    whole = model(numpy_helper.from_array(np.ones((4, 4), np.float32), "w"))
    whole.graph.node.append(branch)
    (folder / "model.onnx").write_bytes(whole.SerializeToString())
    with pytest.raises(UsageError, match="cannot be read safely"):
        model_files.safe(folder / "model.onnx")
    constant = helper.make_node("Constant", [], ["k"], value=outside("../secret"))
    opset = [helper.make_opsetid("", 17)]
    whole = model(numpy_helper.from_array(np.ones((4, 4), np.float32), "w"))
    whole.functions.append(helper.make_function("d", "f", [], ["k"], [constant], opset))
    (folder / "model.onnx").write_bytes(whole.SerializeToString())
    with pytest.raises(UsageError, match="cannot be read safely"):
        model_files.safe(folder / "model.onnx")


def test_a_name_that_is_no_text_is_refused(folder):
    whole = model(numpy_helper.from_array(np.ones((4, 4), np.float32), "w")).SerializeToString()
    assert whole.count(b"batch") == 2
    (folder / "model.onnx").write_bytes(whole.replace(b"batch", b"bat\xe3h"))
    with pytest.raises(UsageError, match="is not an ONNX file"):
        model_files.safe(folder / "model.onnx")


@pytest.mark.parametrize("line", COMMANDS)
def test_what_is_no_onnx_file_is_refused_by_every_command(line, folder, command):
    (folder / "model.onnx").write_bytes(b"\x80\x04not a model at all" * 50)
    done = command(line.format(folder / "model.onnx", folder))
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.stderr
