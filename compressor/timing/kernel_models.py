"""Small ONNX models that run kernels: one node or a few for each, side by side in one graph.

    x3 -> conv -> relu -> y3        names begin with "k3_", so a profile says what kernel 3 took

Kernels do not read each other's results. Weights and inputs are numbers around 0, none tiny.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compressor.passes.cost.kernels import Kernel
from compressor.passes.operators import ONNX

OPSET = 20
_BLOCK = np.random.default_rng(0).standard_normal(1 << 16).astype(np.float32)


class Graph:
    """An ONNX graph in the making."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.feeds: dict[str, np.ndarray] = {}
        self._prefix = ""

    def add(self, kernel: Kernel) -> str:
        """Append a kernel; returns what its nodes' names begin with."""
        self._prefix = f"k{len(self.outputs)}_"
        result = BUILDERS[kernel.kind](self, kernel, dict(kernel.fixed))
        self.outputs.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, None))
        return self._prefix

    def input(self, *shape: int) -> str:
        name = f"{self._prefix}x{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        self.feeds[name] = numbers(*shape)
        return name

    def weight(self, *shape: int) -> str:
        """A constant, small enough that results stay around 1."""
        scale = np.float32(1 / math.sqrt(max(math.prod(shape[1:]), 1)))
        return self.constant(numbers(*shape) * scale)

    def constant(self, array: np.ndarray) -> str:
        name = f"{self._prefix}w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{self._prefix}{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_y"], name=name, **attributes))
        return f"{name}_y"

    def model(self) -> bytes:
        """The finished model."""
        graph = helper.make_graph(self.nodes, "kernels", self.inputs, self.outputs, self.weights)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=9)
        return bytes(model.SerializeToString())


def numbers(*shape: int) -> np.ndarray:
    """Numbers around 0, the same ones each time."""
    return np.resize(_BLOCK, shape)


# --- one function a kind -------------------------------------------------------------------------


def _pads(fixed: Mapping[str, Any]) -> dict[str, Any]:
    padding = fixed["padding"]
    if isinstance(padding, str):
        return {"auto_pad": {"same": "SAME_UPPER", "valid": "VALID"}[padding]}
    return {"pads": [*padding, *padding]}


def _conv(graph: Graph, fixed: Mapping[str, Any], batch: int, sizes: tuple[int, int, int]) -> str:
    inputs, outputs, groups = sizes
    x = graph.input(batch, inputs, *fixed["pixels"])
    settings = {
        "strides": fixed["stride"],
        "dilations": fixed["dilation"],
        "kernel_shape": fixed["kernel"],
        "group": groups,
        **_pads(fixed),
    }
    if fixed["transposed"]:
        weight = graph.weight(inputs, outputs // groups, *fixed["kernel"])
        y = graph.node("ConvTranspose", x, weight, graph.weight(outputs), **settings)
    else:
        weight = graph.weight(outputs, inputs // groups, *fixed["kernel"])
        y = graph.node("Conv", x, weight, graph.weight(outputs), **settings)
    if fixed["activation"] == "clip":
        limits = (graph.constant(np.array(limit, np.float32)) for limit in (0, 6))
        return graph.node("Clip", y, *limits)
    return graph.node(ONNX[fixed["activation"] or "relu"], y)


def _dense(graph: Graph, kernel: Kernel, fixed: Mapping[str, Any]) -> str:
    inputs, outputs, batch = kernel.widths
    return _conv(graph, fixed, batch, (inputs, outputs, 1))


def _depthwise(graph: Graph, kernel: Kernel, fixed: Mapping[str, Any]) -> str:
    channels, batch = kernel.widths
    return _conv(graph, fixed, batch, (channels, channels, channels))


def _grouped(graph: Graph, kernel: Kernel, fixed: Mapping[str, Any]) -> str:
    """Where channels do not divide into groups, as many as do."""
    own, other, each, batch = kernel.widths
    groups = max(own // each, 1)
    sizes = groups * each, max(other // groups, 1) * groups
    inputs, outputs = sizes[::-1] if fixed["transposed"] else sizes
    return _conv(graph, fixed, batch, (inputs, outputs, groups))


def _linear(graph: Graph, kernel: Kernel, fixed: Mapping[str, Any]) -> str:
    inputs, outputs, rows = kernel.widths
    x = graph.input(rows, inputs) if fixed["flat"] else graph.input(1, rows, inputs)
    y = graph.node("MatMul", x, graph.weight(inputs, outputs))
    return graph.node("Add", y, graph.weight(outputs)) if fixed["bias"] else y


def _matmul(graph: Graph, kernel: Kernel, fixed: Mapping[str, Any]) -> str:
    inner, rows, columns, count = kernel.widths
    return graph.node("MatMul", graph.input(count, rows, inner), graph.input(count, inner, columns))


def _softmax(graph: Graph, kernel: Kernel, fixed: Mapping[str, Any]) -> str:
    width, rows = kernel.widths
    return graph.node("Softmax", graph.input(rows, width), axis=-1)


def _layer_norm(graph: Graph, kernel: Kernel, fixed: Mapping[str, Any]) -> str:
    width, rows = kernel.widths
    scale, shift = graph.weight(width), graph.weight(width)
    return graph.node("LayerNormalization", graph.input(rows, width), scale, shift, axis=-1)


def _pool(graph: Graph, kernel: Kernel, fixed: Mapping[str, Any]) -> str:
    x = graph.input(1, kernel.widths[0], *fixed["pixels"])
    if fixed["op"] == "global":
        axes = graph.constant(np.arange(2, 2 + len(fixed["pixels"])))
        return graph.node("ReduceMean", x, axes, keepdims=1)
    op = "MaxPool" if fixed["op"] == "max" else "AveragePool"
    settings = {"kernel_shape": fixed["kernel"], "strides": fixed["stride"], **_pads(fixed)}
    return graph.node(op, x, **settings)


def _elementwise(graph: Graph, kernel: Kernel, fixed: Mapping[str, Any]) -> str:
    (count,) = kernel.widths
    word = ONNX.get(fixed["op"], "Neg")  # as much to read and write as anything
    if word == "Swish":  # which ONNX knows of since opset 24
        x = graph.input(count)
        return graph.node("Mul", x, graph.node("Sigmoid", x))
    if word == "Transpose":
        columns = max(int(math.sqrt(count)), 1)
        x = graph.input(1, columns, max(count // columns, 1))
        return graph.node(word, x, perm=[0, 2, 1])
    if word == "ReduceMean":
        x = graph.input(max(count // 64, 1), min(count, 64))
        return graph.node(word, x, graph.constant(np.array([1])), keepdims=0)
    if word == "Concat":
        half = max(count // 2, 1)
        return graph.node(word, graph.input(half), graph.input(half), axis=0)
    inputs = range(onnx.defs.get_schema(word, OPSET).min_input)
    return graph.node(word, *(graph.input(count) for _ in inputs))


BUILDERS: Mapping[str, Callable[[Graph, Kernel, Mapping[str, Any]], str]] = {
    "conv": _dense,
    "depthwise": _depthwise,
    "grouped": _grouped,
    "linear": _linear,
    "matmul": _matmul,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "pool": _pool,
    "elementwise": _elementwise,
}


def effort(kernel: Kernel) -> float:
    """Multiply-accumulates, or numbers read: what a kernel's time is roughly proportional to."""
    fixed, widths = dict(kernel.fixed), kernel.widths
    product = float(math.prod(widths))
    if kernel.kind in ("conv", "depthwise", "grouped"):
        taps, pixels = math.prod(fixed["kernel"]), math.prod(fixed["pixels"])
        strides = 1 if fixed["transposed"] else math.prod(fixed["stride"])
        own = product / widths[0] if kernel.kind == "grouped" else product
        return float(own * taps * pixels / strides)
    if kernel.kind == "pool":
        return product * float(math.prod(fixed["pixels"]))
    return product


def weights(kernel: Kernel) -> float:
    """How many numbers its weights are."""
    fixed, widths = dict(kernel.fixed), kernel.widths
    if kernel.kind == "linear":
        return float(widths[0] * widths[1])
    if kernel.kind not in ("conv", "depthwise", "grouped"):
        return 0.0
    each = {"conv": widths[0], "depthwise": 1, "grouped": widths[-2]}[kernel.kind]
    outputs = widths[0] if kernel.kind == "depthwise" else widths[1]
    return float(math.prod(fixed["kernel"]) * each * outputs)


def numbers_held(kernels: Sequence[Kernel]) -> float:
    """Roughly how many numbers the inputs, weights and results of these kernels are."""
    total = sum(map(weights, kernels))
    for kernel in kernels:
        fixed, widths = dict(kernel.fixed), kernel.widths
        if kernel.kind in ("conv", "depthwise", "grouped"):
            channels = widths[0] + (widths[1] if kernel.kind != "depthwise" else widths[0])
            total += channels * math.prod(fixed["pixels"]) * widths[-1]
        elif kernel.kind == "linear":
            total += (widths[0] + widths[1]) * widths[2]
        elif kernel.kind == "matmul":
            inner, rows, columns, count = widths
            total += count * (inner * rows + inner * columns + rows * columns)
        else:
            total += 2 * effort(kernel)
    return total
