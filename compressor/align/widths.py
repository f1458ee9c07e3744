"""Which channel counts of an ONNX graph may grow, and what grows with them.

Axis 1 of a tensor is a row of segments: a convolution makes one, a concat puts several side by
side. Segments that an addition brings together grow together. What a padded channel holds does not
matter, as long as it is finite: every convolution that reads it has zero weights there.

Whatever this file does not know keeps its width, and so does all that meets it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compressor.onnx.model_files import inner


@dataclass(frozen=True)
class Channels:
    """Axis 1 of a tensor: its segments, and how many positions each channel has (flattened)."""

    segments: tuple[int, ...]
    repeat: int = 1


@dataclass(frozen=True)
class Widen:
    """Input `position` of a node is a constant that grows along `dim` with `channels`."""

    position: int
    dim: int
    channels: Channels
    fill: float = 0.0


@dataclass
class Widths:
    """The segments of a graph and their sizes, and what must be edited where they grow."""

    sizes: list[int] = field(default_factory=list)
    edits: dict[int, list[Widen]] = field(default_factory=dict)
    """By index of the node."""
    groups: dict[int, Channels] = field(default_factory=dict)
    """Depthwise convolutions: as many groups as channels."""
    reshapes: dict[int, Channels] = field(default_factory=dict)
    """Reshapes to [batch, features]: how many features."""
    _parent: list[int] = field(default_factory=list)
    _frozen: list[bool] = field(default_factory=list)

    def new(self, size: int, *, frozen: bool = False) -> Channels:
        """A segment of its own."""
        self.sizes.append(size)
        self._parent.append(len(self._parent))
        self._frozen.append(frozen)
        return Channels((len(self.sizes) - 1,))

    def root(self, segment: int) -> int:
        """The segment that stands for all that grow together with this one."""
        while self._parent[segment] != segment:
            segment = self._parent[segment]
        return segment

    def freeze(self, channels: Channels | None) -> None:
        """These keep their size."""
        for segment in channels.segments if channels else ():
            self._frozen[self.root(segment)] = True

    def meet(self, one: Channels, other: Channels) -> None:
        """Both grow alike, or not at all."""
        if self._cut(one) != self._cut(other):
            self.freeze(one)
            self.freeze(other)
            return
        for a, b in zip(one.segments, other.segments, strict=True):
            a, b = self.root(a), self.root(b)
            self._parent[b] = a
            self._frozen[a] |= self._frozen[b]

    def _cut(self, channels: Channels) -> tuple[tuple[int, ...], int]:
        return tuple(self.sizes[segment] for segment in channels.segments), channels.repeat

    def total(self, channels: Channels) -> int:
        """The present size of the axis."""
        return sum(self.sizes[segment] for segment in channels.segments) * channels.repeat

    def free(self) -> dict[int, int]:
        """The present size of every segment that may grow, by the one that stands for it."""
        return {
            segment: size
            for segment, size in enumerate(self.sizes)
            if self.root(segment) == segment and not self._frozen[segment]
        }

    def grown(self, segment: int, unit: int) -> int:
        """The size of a segment where all widths are multiples of `unit`."""
        size = self.sizes[segment]
        return size if self._frozen[self.root(segment)] else -(-size // unit) * unit


def constants_of(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Initializers that nothing overrides, and Constant nodes, by name."""
    inputs = {one.name for one in graph.input}
    found = {
        one.name: numpy_helper.to_array(one) for one in graph.initializer if one.name not in inputs
    }
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                found[node.output[0]] = numpy_helper.to_array(attribute.t)
            elif attribute.name in ("value_int", "value_ints", "value_float", "value_floats"):
                found[node.output[0]] = np.array(helper.get_attribute_value(attribute))
    return found


def widths_of(model: onnx.ModelProto) -> Widths:
    """Follow the channels through the graph, from its inputs to its outputs."""
    walk = Walk(onnx.shape_inference.infer_shapes(model).graph)
    for index, node in enumerate(walk.graph.node):
        walk.step(index, node)
    for one in walk.graph.output:
        walk.widths.freeze(walk.channels.get(one.name))
    return walk.widths


class Walk:
    """The state of `widths_of`: what is known of each tensor so far."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.widths = Widths()
        self.constants = constants_of(graph)
        self.channels: dict[str, Channels] = {}
        self.shapes: dict[str, list[int | None]] = {
            one.name: [dim.dim_value or None for dim in one.type.tensor_type.shape.dim]
            for one in (*graph.input, *graph.value_info, *graph.output)
            if one.type.tensor_type.HasField("shape")
        }
        self.shapes |= {name: list(array.shape) for name, array in self.constants.items()}
        self.index = 0
        for one in graph.input:
            self._keep(one.name)

    def _keep(self, name: str) -> None:
        """A tensor whose channels stay as they are, where it has any."""
        shape = self.shapes.get(name, [])
        if len(shape) > 1 and shape[1] is not None:
            self.channels[name] = self.widths.new(shape[1], frozen=True)

    def step(self, index: int, node: onnx.NodeProto) -> None:
        """One node: what its row says, or everything that it touches stays as it is."""
        self.index = index
        row = ROWS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        found = row(self, node) if row is not None and not inner([node]) else None
        if found is not None:
            self.channels[node.output[0]] = found
            return
        for name in (*node.input, *read_within([node])):
            self.widths.freeze(self.channels.get(name))
        for name in node.output:
            self._keep(name)

    def edit(self, *edits: Widen) -> None:
        """The present node needs these."""
        self.widths.edits.setdefault(self.index, []).extend(edits)

    def rank(self, name: str) -> int | None:
        shape = self.shapes.get(name)
        return None if shape is None else len(shape)


def read_within(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """What the graphs within nodes read or give: names of these graphs and of those around them."""
    for graph in inner(nodes):
        yield from (name for node in graph.node for name in node.input)
        yield from (one.name for one in graph.output)
        yield from read_within(graph.node)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute, or the default."""
    for one in node.attribute:
        if one.name == name:
            return helper.get_attribute_value(one)
    return default


# ---------------------------------------------------------------------------- rows

WidthRule = Callable[[Walk, onnx.NodeProto], Channels | None]


def _conv(walk: Walk, node: onnx.NodeProto) -> Channels | None:
    """Its outputs are its own; a depthwise one has those of its input."""
    x, weight = walk.channels.get(node.input[0]), walk.constants.get(node.input[1])
    bias = node.input[2] if len(node.input) > 2 else ""
    if x is None or weight is None or (bias and bias not in walk.constants):
        return None
    groups = int(attribute(node, "group", 1))
    turned = node.op_type == "ConvTranspose"
    made, read = (1, 0) if turned else (0, 1)
    if groups > 1:
        if weight.shape[0] != groups or weight.shape[1] != 1 or walk.widths.total(x) != groups:
            return None
        walk.widths.groups[walk.index] = out = x
        walk.edit(Widen(1, 0, out))
    else:
        out = walk.widths.new(weight.shape[made])
        walk.edit(Widen(1, read, x), Widen(1, made, out))
    if bias:
        walk.edit(Widen(2, 0, out))
    return out


def _batch_norm(walk: Walk, node: onnx.NodeProto) -> Channels | None:
    x = walk.channels.get(node.input[0])
    if x is None or any(name not in walk.constants for name in node.input[1:]):
        return None
    for position in range(1, len(node.input)):  # scale, bias, mean, variance
        walk.edit(Widen(position, 0, x, 1.0 if position == 4 else 0.0))
    return x


def _alike(walk: Walk, node: onnx.NodeProto) -> Channels | None:
    """Every element by itself, or within its channel; further inputs are settings."""
    settings = [name for name in node.input[1:] if name]
    if any(name not in walk.constants or walk.constants[name].size > 1 for name in settings):
        return None
    return walk.channels.get(node.input[0])


def _resize(walk: Walk, node: onnx.NodeProto) -> Channels | None:
    scales = walk.constants.get(node.input[2]) if len(node.input) == 3 else None
    channels = scales is not None and scales.size > 1 and scales[1] == 1
    return walk.channels.get(node.input[0]) if channels else None


def _pad(walk: Walk, node: onnx.NodeProto) -> Channels | None:
    pads = walk.constants.get(node.input[1]) if len(node.input) in (2, 3) else None
    still = pads is not None and pads[1] == 0 and pads[len(pads) // 2 + 1] == 0
    return walk.channels.get(node.input[0]) if still else None


def _reduce(walk: Walk, node: onnx.NodeProto) -> Channels | None:
    """Over anything but batch and channels, which stay where they are."""
    rank = walk.rank(node.input[0])
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1 and node.input[1] in walk.constants:
        axes = walk.constants[node.input[1]].reshape(-1).tolist()
    if rank is None or not axes or any(axis % rank < 2 for axis in axes):
        return None
    return walk.channels.get(node.input[0])


def _together(walk: Walk, node: onnx.NodeProto) -> Channels | None:
    """Elementwise on several tensors: their channels are the same ones."""
    ranks = {walk.rank(name) for name in node.input if name not in walk.constants}
    if len(ranks) != 1 or None in ranks:
        return None
    rank: int = ranks.pop() or 0
    found = [walk.channels.get(name) for name in node.input if name not in walk.constants]
    wide = [one for one in found if one is not None and walk.widths.total(one) != 1]
    if None in found or not wide:
        return None
    for one in found:
        if one is not None and walk.widths.total(one) == 1:
            walk.widths.freeze(one)  # it is broadcast over the channels
    fill = 1.0 if node.op_type == "Div" else 0.0
    edits = []
    for position, name in enumerate(node.input):
        array = walk.constants.get(name)
        if array is None or array.size == 1:
            continue
        dim = array.ndim - rank + 1
        if dim < 0 or array.shape[dim] == 1:
            continue
        if array.ndim > rank or array.shape[dim] != walk.widths.total(wide[0]):
            return None
        edits.append(Widen(position, dim, wide[0], fill))
    for other in wide[1:]:
        walk.widths.meet(wide[0], other)
    walk.edit(*edits)
    return wide[0]


def _divided(walk: Walk, node: onnx.NodeProto) -> Channels | None:
    """By a constant without zeros: nothing else is finite for sure."""
    divisor = walk.constants.get(node.input[1])
    return None if divisor is None or not divisor.all() else _together(walk, node)


def _concat(walk: Walk, node: onnx.NodeProto) -> Channels | None:
    rank = walk.rank(node.input[0])
    parts = [walk.channels.get(name) for name in node.input]
    if rank is None or int(attribute(node, "axis", 0)) % rank != 1:
        return None
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or len({part.repeat for part in known}) > 1:
        return None
    return Channels(tuple(one for part in known for one in part.segments), known[0].repeat)


def _flatten(walk: Walk, node: onnx.NodeProto) -> Channels | None:
    x, shape = walk.channels.get(node.input[0]), walk.shapes.get(node.input[0], [])
    if x is None or x.repeat != 1 or int(attribute(node, "axis", 1)) != 1:
        return None
    return _pixels(x, shape)


def _reshape(walk: Walk, node: onnx.NodeProto) -> Channels | None:
    """To [batch, features]: the same as flattening."""
    x, shape = walk.channels.get(node.input[0]), walk.shapes.get(node.input[0], [])
    wanted = walk.constants.get(node.input[1])
    if x is None or x.repeat != 1 or wanted is None or wanted.size != 2:
        return None
    flat = _pixels(x, shape)
    if flat is None or wanted[1] not in (-1, walk.widths.total(flat)):
        return None
    if wanted[1] == -1 and wanted[0] != 0 and wanted[0] != shape[0]:
        return None
    walk.widths.reshapes[walk.index] = flat
    return flat


def _pixels(x: Channels, shape: list[int | None]) -> Channels | None:
    count = 1
    for size in shape[2:]:
        if size is None:
            return None
        count *= size
    return Channels(x.segments, count)


def _gemm(walk: Walk, node: onnx.NodeProto) -> Channels | None:
    """Reads flattened channels; its own outputs have no grid, so they stay."""
    x, weight = walk.channels.get(node.input[0]), walk.constants.get(node.input[1])
    if x is None or weight is None or weight.ndim != 2 or walk.rank(node.input[0]) != 2:
        return None
    if attribute(node, "transA", 0):
        return None
    across = bool(attribute(node, "transB", 0))
    walk.edit(Widen(1, 1 if across else 0, x))
    return walk.widths.new(weight.shape[0 if across else 1], frozen=True)


_ALIKE = (
    "Abs", "AveragePool", "Cast", "Ceil", "Clip", "Elu", "Erf", "Floor", "Gelu",
    "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
    "LpPool", "MaxPool", "Mish", "Neg", "Relu", "Round", "Selu", "Sigmoid", "Softplus", "Softsign",
    "Tanh",
)  # fmt: skip
ROWS: Mapping[str, WidthRule] = {
    **dict.fromkeys(_ALIKE, _alike),
    **dict.fromkeys(("Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean"), _together),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), _reduce),
    **dict.fromkeys(("Conv", "ConvTranspose"), _conv),
    **dict.fromkeys(("Gemm", "MatMul"), _gemm),
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Div": _divided,
    "Flatten": _flatten,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
}
