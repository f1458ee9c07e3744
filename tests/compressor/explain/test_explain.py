"""Where the time goes, and what bounds it."""

import json

import numpy as np
import onnx
import pytest
from compressor.passes.base.errors import UsageError
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from compressor.cli.app import app
from compressor.explain import explain, render, stairs
from compressor.explain.judge import _bound
from compressor.explain.profile import Operator, profile
from compressor.explain.roofline import Roofline, measure

ROOF = Roofline(macs=1e9, bytes=1e9)


def convolutions(*widths: int) -> bytes:
    """3x3 convolutions of an image with 32 channels, one after another."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 32, 24, 24])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", widths[-1], 24, 24])
    nodes, weights, name, read = [], [], "x", 32
    for index, width in enumerate(widths):
        weight = np.random.default_rng(index).standard_normal((width, read, 3, 3))
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"w{index}"))
        out = "y" if index == len(widths) - 1 else f"t{index}"
        nodes.append(helper.make_node("Conv", [name, f"w{index}"], [out], pads=[1] * 4))
        name, read = out, width
    graph = helper.make_graph(nodes, "net", [x], [y], weights)
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def operator(kind: str, seconds: float, **more) -> Operator:
    given = {"inputs": (), "outputs": (), "bytes": 0, **more}
    return Operator("node", kind, "CPUExecutionProvider", seconds, **given)


def test_every_operator_has_its_time_shapes_and_work():
    found = profile(convolutions(48, 31), runs=5)
    convs = [one for one in found if one.kind == "Conv"]
    assert [one.outputs for one in convs] == [((1, 48, 24, 24),), ((1, 32, 24, 24),)]
    assert convs[0].macs == 48 * 24 * 24 * 32 * 9
    assert all(one.seconds > 0 and one.bytes > 0 for one in convs)


def test_products_are_counted_whichever_way_they_lie():
    shapes = {"inputs": ((7, 20), (20, 30)), "outputs": ((7, 30),)}
    assert operator("MatMul", 1.0, **shapes).macs == 7 * 20 * 30
    turned = {"inputs": ((7, 20), (30, 20), (30,)), "outputs": ((7, 30),)}
    assert operator("Gemm", 1.0, **turned).macs == 7 * 20 * 30
    heads = {"inputs": ((2, 4, 7, 20), (2, 4, 20, 7)), "outputs": ((2, 4, 7, 7),)}
    assert operator("MatMul", 1.0, **heads).macs == 2 * 4 * 7 * 7 * 20
    up = {"inputs": ((1, 8, 5, 5), (8, 4, 2, 2)), "outputs": ((1, 4, 10, 10),)}
    assert operator("ConvTranspose", 1.0, **up).macs == 8 * 5 * 5 * 4 * 2 * 2
    assert operator("Relu", 1.0, **shapes).macs == 0


CONV = {"inputs": ((1, 64, 10, 10), (64, 64, 1, 1)), "outputs": ((1, 64, 10, 10),)}
ODD = {"inputs": ((1, 62, 10, 10), (64, 62, 1, 1)), "outputs": ((1, 64, 10, 10),)}


@pytest.mark.parametrize(
    ("one", "before", "bound"),
    [
        (operator("Conv", 5e-4, bytes=10, **CONV), None, "compute"),
        (operator("Conv", 5e-4, bytes=450_000, **CONV), None, "memory"),
        (operator("Conv", 5e-3, bytes=10, **CONV), None, "slow"),
        (operator("Conv", 5e-4, bytes=10, **ODD), None, "width"),
        (operator("ReorderInput", 1e-4, bytes=10), None, "reorder"),
        (operator("Add", 2e-6, bytes=10), None, "overhead"),
        (
            operator("Relu", 1e-4, bytes=51_200, inputs=((1, 64, 10, 10),)),
            operator("Conv", 5e-4, bytes=10, **CONV),
            "unfused",
        ),
        (operator("Relu", 1e-4, bytes=51_200, inputs=((1, 64, 10, 10),)), None, "memory"),
    ],
)
def test_what_bounds_an_operator(one, before, bound):
    assert _bound(one, before, ROOF) == bound


def test_a_width_without_a_fast_kernel_is_named():
    found = explain(convolutions(62, 62, 32), runs=3)
    bounds = {one.outputs[0][1]: bound for one, bound in found.rows if "Conv" in one.kind}
    assert "width" in bounds.values()
    assert found.seconds == pytest.approx(sum(found.by_kind().values()))
    assert found.seconds == pytest.approx(sum(found.by_bound().values()))


def product(rows: int, width: int) -> bytes:
    """A matrix product with weights, and a bias."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 20])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, width])
    weights = [numpy_helper.from_array(np.ones(shape, np.float32), name)
               for name, shape in (("w", (20, width)), ("b", (width,)))]  # fmt: skip
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="gemm")
    graph = helper.make_graph([node], "net", [x], [y], weights)
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def test_weights_that_were_packed_for_their_kernel_count():
    (one,) = profile(product(7, 30), runs=2)
    assert one.inputs[:2] == ((7, 20), (20, 30))
    assert one.macs == 7 * 20 * 30
    assert one.bytes == 4 * (7 * 20 + 20 * 30 + 30 + 7 * 30)


def test_the_dearest_layers_are_measured_around_their_widths(monkeypatch, tmp_path):
    monkeypatch.setattr(stairs, "BELOW", 2)
    monkeypatch.setattr(stairs, "ABOVE", 1)
    monkeypatch.setattr(stairs, "REPEATS", 1)
    found = stairs.stairs(explain(convolutions(48, 32, 24), runs=2, roofline=ROOF))
    alike = [(48, (46, 47, 48, 49)), (32, (30, 31, 32, 33))]  # 24 channels run as 32
    assert sorted(((one.width, one.widths) for one in found), reverse=True) == [*alike, alike[1]]
    assert all(took > 0 for one in found for took in one.seconds)
    assert all(one.width <= one.free <= one.width + 1 for one in found)
    (line,) = stairs.stairs(explain(product(7, 1), runs=2, roofline=ROOF))
    assert line.widths == (1, 2), "no layer has no channel"
    stairs.write({"net.onnx": found, "<b>": [line]}, tmp_path / "stairs.html")
    page = (tmp_path / "stairs.html").read_text()
    assert page.count("<polyline") == 4
    assert "&lt;b&gt;" in page


def test_a_step_lasts_from_half_a_channel_before_to_half_a_channel_after():
    one = stairs.Stairs("conv", "Conv", 5, (4, 5), (1.0, 2.0))
    assert one.line() == [(0, 50), (50, 50), (50, 100), (100, 100)]
    assert one.here == 75


def test_the_roofline_is_of_this_world():
    roof = measure(repeats=3)
    assert 1e8 < roof.macs < 1e14
    assert 1e8 < roof.bytes < 1e13
    assert roof.seconds(roof.macs, 0) == pytest.approx(1)


def test_two_models_stand_side_by_side_and_everything_is_json():
    found = {name: explain(convolutions(width, 32), runs=2, roofline=ROOF)
             for name, width in (("a", 31), ("b", 32))}  # fmt: skip
    tables = render(found)
    assert len(tables) == 4
    assert json.loads(json.dumps(found["a"].to_json()))["operators"]


def test_what_cannot_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot load the model"):
        profile(b"nothing")
    with pytest.raises(UsageError, match="one at least"):
        profile(convolutions(3), runs=0)
    done = CliRunner().invoke(app, ["explain", str(tmp_path / "no.onnx")])
    assert done.exit_code == 2


def test_the_command_prints_tables(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(onnx.load_model_from_string(convolutions(31, 32)), path)
    done = CliRunner().invoke(app, ["explain", str(path), "--runs", "2", "-q", "--json"])
    assert json.loads(done.stdout)["net.onnx"]["by_bound"]
    done = CliRunner().invoke(app, ["explain", str(path), "--runs", "2"])
    assert "bound by" in done.stdout
    assert not (tmp_path / "stairs.html").exists()


def test_the_command_draws_the_stairs(tmp_path, monkeypatch):
    monkeypatch.setattr(stairs, "LAYERS", 1)
    monkeypatch.setattr(stairs, "REPEATS", 1)
    path, page = tmp_path / "net.onnx", tmp_path / "stairs.html"
    onnx.save(onnx.load_model_from_string(convolutions(31, 32)), path)
    command = ["explain", str(path), "--runs", "2", "-q", "--json", "--stairs", str(page)]
    done = CliRunner().invoke(app, command)
    (one,) = json.loads(done.stdout)["net.onnx"]["stairs"]
    assert len(one["widths"]) == len(one["seconds"])
    assert page.read_text().count("<polyline") == 1
