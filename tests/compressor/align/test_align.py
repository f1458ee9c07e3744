"""Zero padding changes widths and nothing else, in any ONNX model."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from compressor.passes.base.errors import GateError, UsageError
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import compressor.align as align_module
from compressor.align import align
from compressor.align.pad import padded
from compressor.align.widths import widths_of
from compressor.cli.app import app


class Net:
    """Builds an ONNX model from the input [2, 3, 8, 8], a node at a time."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.generator = np.random.default_rng(0)

    def constant(self, *shape: int, low: float = -1.0) -> str:
        return self.array(self.generator.uniform(low, 1, shape).astype(np.float32))

    def array(self, array: np.ndarray) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def __call__(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def conv(self, x: str, width: int, read: int, size: int = 1, **attributes: object) -> str:
        weight = self.constant(width, read, size, size)
        return self("Conv", x, weight, self.constant(width), pads=[size // 2] * 4, **attributes)

    def model(self, *outputs: str) -> onnx.ModelProto:
        def free(name: str) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 8, 8])
        graph = helper.make_graph(
            self.nodes, "net", [given], [free(one) for one in outputs], self.initializers
        )
        opset = [helper.make_opsetid("", 20)]
        made = helper.make_model(graph, opset_imports=opset, ir_version=10)
        return onnx.shape_inference.infer_shapes(made)


def ran(model: onnx.ModelProto) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    return session.run(None, {"x": x})


def conv_shapes(model: onnx.ModelProto) -> list[tuple[int, ...]]:
    arrays = {one.name: tuple(one.dims) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            arrays[node.output[0]] = tuple(node.attribute[0].t.dims)
    found = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    return [arrays[node.input[1]] for node in found]


def chain(net: Net) -> str:
    return net.conv(net("Relu", net.conv("x", 5, 3)), 7, 5)


def batch_norm(net: Net) -> str:
    scales = [net.constant(5, low=0.5) for _ in range(4)]
    return net.conv(net("Sigmoid", net("BatchNormalization", net.conv("x", 5, 3), *scales)), 2, 5)


def depthwise(net: Net) -> str:
    return net.conv(net.conv(net.conv("x", 6, 3), 6, 1, size=3, group=6), 2, 6)


def residual(net: Net) -> str:
    first = net.conv("x", 5, 3)
    return net.conv(net("Add", first, net.conv(first, 5, 5, size=3)), 2, 5)


def concat(net: Net) -> str:
    parts = [net.conv("x", width, 3) for width in (5, 3, 6)]
    return net.conv(net("Concat", *parts, axis=1), 2, 14, size=3)


def excitation(net: Net) -> str:
    x = net.conv("x", 6, 3)
    gate = net("Sigmoid", net.conv(net("GlobalAveragePool", x), 6, 6))
    return net.conv(net("Mul", x, gate), 2, 6)


def constants(net: Net) -> str:
    """Scales per channel, a scalar, and a division."""
    x = net("Mul", net.conv("x", 5, 3), net.constant(1, 5, 1, 1))
    x = net("Add", net("Sub", x, net.constant(5, 1, 1)), net.constant())
    return net.conv(net("Div", x, net.constant(1, 5, 1, 1, low=0.5)), 2, 5)


def flattened(net: Net) -> str:
    x = net("Flatten", net("MaxPool", net.conv("x", 5, 3), kernel_shape=[2, 2], strides=[2, 2]))
    return net("Gemm", x, net.constant(80, 4), net.constant(4))


def reshaped(net: Net) -> str:
    x = net("Reshape", net("GlobalAveragePool", net.conv("x", 5, 3)), net.array(np.array([2, 5])))
    return net("Gemm", x, net.constant(4, 5), transB=1)


def averaged(net: Net) -> str:
    x = net("ReduceMean", net.conv("x", 5, 3), net.array(np.array([2, 3])), keepdims=0)
    return net("MatMul", x, net.constant(5, 4))


def transposed(net: Net) -> str:
    weight = net.constant(5, 6, 2, 2)
    x = net("ConvTranspose", net.conv("x", 5, 3), weight, net.constant(6), strides=[2, 2])
    return net.conv(x, 2, 6)


def shared(net: Net) -> str:
    """One weight for two convolutions; only one of them may grow."""
    weight = net.constant(5, 3, 1, 1)
    out, inner = net("Conv", "x", weight), net("Conv", "x", weight)
    return net("Concat", out, net.conv(inner, 2, 5), axis=1)


GROWING = {
    chain: [(8, 3, 1, 1), (7, 8, 1, 1)],
    batch_norm: [(8, 3, 1, 1), (2, 8, 1, 1)],
    depthwise: [(8, 3, 1, 1), (8, 1, 3, 3), (2, 8, 1, 1)],
    residual: [(8, 3, 1, 1), (8, 8, 3, 3), (2, 8, 1, 1)],
    concat: [(8, 3, 1, 1), (4, 3, 1, 1), (8, 3, 1, 1), (2, 20, 3, 3)],
    excitation: [(8, 3, 1, 1), (8, 8, 1, 1), (2, 8, 1, 1)],
    constants: [(8, 3, 1, 1), (2, 8, 1, 1)],
    flattened: [(8, 3, 1, 1)],
    reshaped: [(8, 3, 1, 1)],
    averaged: [(8, 3, 1, 1)],
    transposed: [(8, 3, 1, 1), (8, 8, 2, 2), (2, 8, 1, 1)],
    shared: [(5, 3, 1, 1), (8, 3, 1, 1), (2, 8, 1, 1)],
}


def split(net: Net) -> str:
    x = net.conv("x", 6, 3)
    net.nodes.append(helper.make_node("Split", [x], ["a", "b"], axis=1, num_outputs=2))
    return net.conv(net("Add", "a", "b"), 2, 3)


def softmax(net: Net) -> str:
    return net.conv(net("Softmax", net.conv("x", 5, 3), axis=1), 2, 5)


def computed(net: Net) -> str:
    weight = net("Mul", net.constant(5, 3, 1, 1), net.constant())
    return net.conv(net("Conv", "x", weight), 2, 5)


def one_wide(net: Net) -> str:
    """One channel that is broadcast must stay one."""
    return net("Mul", net.conv("x", 1, 3), net.conv("x", 5, 3))


def divided(net: Net) -> str:
    """By an activation: zero over zero is not zero."""
    return net.conv(net("Div", net.conv("x", 5, 3), net.conv("x", 5, 3)), 2, 5)


def grouped(net: Net) -> str:
    return net.conv(net.conv(net.conv("x", 6, 3), 6, 3, group=2), 2, 6)


def captured(net: Net) -> str:
    """A branch reads the tensor from outside."""
    x = net.conv("x", 5, 3)
    out = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Relu", [x], ["inner"])], "branch", [], [out])
    yes = net.array(np.array(True))
    return net.conv(net("If", yes, then_branch=branch, else_branch=branch), 2, 5)


STAYING = [split, softmax, computed, one_wide, divided, grouped, captured]


@pytest.mark.parametrize("case", GROWING, ids=lambda case: case.__name__)
def test_widths_grow_and_the_function_stays(case):
    net = Net()
    model = net.model(case(net))
    widths = widths_of(model)
    grown = padded(model, widths, 4)
    assert conv_shapes(grown) == GROWING[case]
    for unit in (4, 16):
        other = padded(model, widths, unit)
        onnx.checker.check_model(other, full_check=True)
        for a, b in zip(ran(model), ran(other), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", STAYING, ids=lambda case: case.__name__)
def test_what_is_not_understood_stays_as_it_is(case):
    net = Net()
    model = net.model(case(net))
    widths = widths_of(model)
    keep = {5, 6, 1} & set(widths.free().values())
    assert not keep, widths.free()
    for a, b in zip(ran(model), ran(padded(model, widths, 16)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_channel_that_is_an_output_stays():
    net = Net()
    inner = net.conv("x", 5, 3)
    model = net.model(net.conv(inner, 7, 5), inner)
    assert widths_of(model).free() == {}


def test_constants_that_nobody_reads_any_more_are_gone():
    net = Net()
    model = net.model(chain(net))
    grown = padded(model, widths_of(model), 4)
    read = {name for node in grown.graph.node for name in node.input}
    assert {one.name for one in grown.graph.initializer} <= read


def wide(net: Net) -> str:
    """Widths that ONNX Runtime has no fast kernel for, with enough work to show it."""
    x = net("Resize", "x", "", net.array(np.array([1, 1, 4, 4], np.float32)))
    for read, width in ((3, 31), (31, 31), (31, 31), (31, 2)):
        x = net("Relu", net.conv(x, width, read, size=3))
    return x


def test_the_fastest_is_chosen_and_the_numbers_are_there():
    net = Net()
    data = net.model(wide(net)).SerializeToString()
    found = align(data, max_seconds=3)
    assert found.race is not None
    assert found.max_rel < 1e-5
    best = min(row.ratio.median for row in found.race.rows)
    if found.unit is None:
        assert found.data == data
    else:
        assert best < 1
        assert found.widened == 3
        assert f"multiples of {found.unit}" in {row.name for row in found.race.rows}


def test_a_model_without_anything_to_pad_is_given_back_without_a_race():
    net = Net()
    data = net.model(net.conv("x", 5, 3)).SerializeToString()
    found = align(data)
    assert (found.data, found.race, found.unit) == (data, None, None)
    assert "the model is as it was" in found.verdict


def test_a_padded_model_that_computes_something_else_is_refused(monkeypatch):
    def wrong(model: onnx.ModelProto, widths: object, unit: int) -> onnx.ModelProto:
        other = padded(model, widths, unit)
        first = other.graph.initializer[0]
        first.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(first) + 1, first.name))
        return other

    monkeypatch.setattr(align_module, "padded", wrong)
    net = Net()
    with pytest.raises(GateError, match="differs from the original"):
        align(net.model(chain(net)).SerializeToString())


def test_what_is_no_model_is_refused():
    with pytest.raises(UsageError, match="no valid ONNX model"):
        align(b"nothing")


def test_the_command_writes_the_model_and_refuses_to_overwrite(tmp_path):
    net, given, out = Net(), tmp_path / "in.onnx", tmp_path / "out.onnx"
    given.write_bytes(net.model(wide(net)).SerializeToString())
    command = ["align", str(given), "-o", str(out), "--seconds", "1"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "widths are now multiples of" in done.output or "as it was" in done.output
    before, after = (ran(onnx.load(one))[0] for one in (given, out))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-4)
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "--force" in again.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == ["in.onnx", "out.onnx"]
