"""What a program makes a runtime do: kernels, with widths that a plan changes.

    conv2d(x [B, 64, 56, 56], weight [128, 64, 3, 3])
        kind "conv", fixed: kernel 3x3, stride, padding, 56x56 pixels ... widths (64, 128)

Kernels that are alike but for their widths are measured together (`compressor/latency`); how long
one takes is no matter here. What a runtime fuses into the convolution before it (a batch norm, an
activation, an addition) and what only renames its input (a view) is no kernel of its own.
"""

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from .coupling import Coupling
from .interpret import results_of
from .labels import Value
from .rules import Call
from .rules.contraction import is_transposed
from .rules.table import Factor

Product = tuple[Factor, ...]


@dataclass(frozen=True, order=True)
class Kernel:
    """One call of a runtime at certain sizes."""

    kind: str
    fixed: tuple[tuple[str, Any], ...]
    """Settings that no plan changes, by name."""
    widths: tuple[int, ...]
    """What they are is said where the kernel is made, in `KINDS`."""


@dataclass(frozen=True, eq=False)
class Work:
    """A kernel before its widths are known: each is a product of sizes, times a number."""

    kind: str
    fixed: tuple[tuple[str, Any], ...]
    widths: tuple[Product, ...]
    scales: tuple[float, ...]
    node: Node

    def at(self, extent: Callable[[Value, int], float]) -> Kernel:
        """The kernel at these sizes."""
        sizes = (math.prod(extent(*factor) for factor in product) for product in self.widths)
        pairs = zip(sizes, self.scales, strict=True)
        return Kernel(
            self.kind, self.fixed, tuple(max(round(size * scale), 1) for size, scale in pairs)
        )


def works(coupling: Coupling, batch: int = 1) -> list[Work]:
    """The kernels of a program, in the order of its calls, for a batch of this size."""
    trace = coupling.trace
    found: list[Work] = []
    fused = _Fused(trace.calls)
    for node, call in trace.calls.items():
        name = _name(call)
        if name in FREE or node in fused.parts:
            continue
        own = 1.0
        if coupling.program.batch is not None and _batched(node):
            own = batch / coupling.program.batch
        row = KINDS.get(name, _elementwise)
        found += [
            Work(kind, tuple(sorted((*fixed, *fused.settings(node)))), widths,
                 tuple(own if i == lead else 1.0 for i in range(len(widths))), node)
            for kind, fixed, widths, lead in row(call, results_of(trace.results[node]), name)
        ]  # fmt: skip
    return found


def is_view(node: Node) -> bool:
    """Whether a call makes no numbers of its own."""
    if node.target is operator.getitem:
        return True
    name = getattr(getattr(node.target, "_schema", None), "name", "")
    return name.removeprefix("aten::") in VIEWS


Row = Iterator[tuple[str, tuple[tuple[str, Any], ...], tuple[Product, ...], int]]
"""Kind, what is fixed, the widths, and which width grows with the batch."""


def _name(call: Call) -> str:
    return call.op._schema.name.removeprefix("aten::").removesuffix("_")


def _batched(node: Node) -> bool:
    vals = node.meta["val"]
    first = vals[0] if isinstance(vals, list | tuple) else vals
    return any(isinstance(size, torch.SymInt) for size in first.shape)


def _whole(value: Value, axes: Sequence[int] | None = None) -> Product:
    return tuple((value, axis) for axis in (range(value.rank) if axes is None else axes))


# --- what is no kernel of its own ----------------------------------------------------------------

FREE = frozenset((
    "view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "expand", "alias", "detach",
    "dropout", "feature_dropout", "alpha_dropout", "lift_fresh_copy", "_assert_tensor_metadata",
    "view_as", "_unsafe_view", "contiguous", "to", "clone", "arange", "zeros", "ones", "full",
    "scalar_tensor", "zeros_like", "ones_like", "sym_size",
))  # fmt: skip
"""Other names for the same numbers, constants, and what does nothing when it is not trained."""

VIEWS = frozenset((
    "view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "expand", "alias", "detach",
    "permute", "transpose", "slice", "select", "split", "chunk", "dropout", "view_as", "t",
    "_unsafe_view", "narrow", "unbind", "split_with_sizes", "movedim",
))  # fmt: skip

_CONVS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
          "conv_transpose3d", "convolution")  # fmt: skip
_NORMS = ("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm")
_ACTIVATIONS = {"relu": "", "relu6": "clip", "hardtanh": "clip", "clamp": "clip",
                "clamp_min": "clip", "sigmoid": "sigmoid", "tanh": "tanh",
                "leaky_relu": "leaky_relu", "hardsigmoid": "hardsigmoid"}  # fmt: skip
"""A kernel computes a ReLU on the way out; the others go over the whole result once more, which
makes a depthwise convolution take half as long again."""


class _Fused:
    """What becomes part of a convolution: its norms, one addition, one activation."""

    def __init__(self, calls: Mapping[Node, Call]) -> None:
        self.parts: set[Node] = set()
        self._activations: dict[Node, str] = {}  # of every convolution
        self._open: dict[Node, tuple[Node, int]] = {}
        """Results of a convolution: which, and how far: 0 convolution or norm, 1 added, 2 done."""
        for node, call in calls.items():
            self._read(node, _name(call))

    def settings(self, node: Node) -> tuple[tuple[str, Any], ...]:
        """What a convolution's kernel has besides its own settings."""
        found = self._activations.get(node)
        return () if found is None else (("activation", found),)

    def _read(self, node: Node, name: str) -> None:
        if name in _CONVS:
            self._open[node], self._activations[node] = (node, 0), ""
            return
        before = [one for one in node.all_input_nodes if one in self._open]
        alone = [one for one in before if len(one.users) == 1]
        if not alone:
            return
        convolution, stage = self._open[alone[0]]
        if name in _NORMS and stage == 0:
            self._open[node] = convolution, 0
        elif name == "add" and stage == 0 and len(node.all_input_nodes) == 2:
            self._open[node] = convolution, 1
        elif name in _ACTIVATIONS and stage < 2:
            self._open[node] = convolution, 2
            self._activations[convolution] = _ACTIVATIONS[name]
        else:
            return
        self.parts.add(node)


# --- kernels -------------------------------------------------------------------------------------


def _pairs(**fixed: Any) -> tuple[tuple[str, Any], ...]:
    plain = {name: tuple(v) if isinstance(v, list | tuple) else v for name, v in fixed.items()}
    return tuple(sorted(plain.items()))


def _filled(given: Any, spatial: int) -> Any:
    """A setting for each spatial axis: torch takes one for all."""
    if isinstance(given, str):
        return given
    values = tuple(given) if isinstance(given, list | tuple) else (given,)
    return values * spatial if len(values) == 1 else values


def _convolution(call: Call, results: list[Value], name: str) -> Row:
    """conv: (in, out); depthwise: (channels,); grouped: (in, out, in of each group), or turned
    round where it is transposed: (out, in, out of each group). And the batch."""
    x, weight, groups = call["input"], call["weight"], int(call["groups"])
    spatial = weight.rank - 2
    axis = x.rank - spatial - 1
    fixed = _pairs(
        kernel=weight.shape[2:],
        stride=_filled(call["stride"], spatial),
        padding=_filled(call["padding"], spatial),
        dilation=_filled(call["dilation"], spatial),
        transposed=is_transposed(call),
        pixels=x.shape[axis + 1 :],
    )
    made, read = (results[0], axis), (x, axis)
    if groups == 1:
        yield "conv", fixed, ((read,), (made,), _whole(x, range(axis))), 2
    elif groups == x.shape[axis] == results[0].shape[axis]:
        yield "depthwise", fixed, ((made,), _whole(x, range(axis))), 1
    else:
        ends = (made, read) if is_transposed(call) else (read, made)
        yield "grouped", fixed, (*((end,) for end in ends), ((weight, 1),),
                                 _whole(x, range(axis))), 3  # fmt: skip


def _linear(call: Call, results: list[Value], name: str) -> Row:
    """linear: (in, out, rows)"""
    x, weight = call["input"], call["weight"]
    out = ((weight, 0),) if weight.rank == 2 else ()
    fixed = _pairs(bias=isinstance(call.get("bias"), Value), flat=x.rank <= 2)
    yield "linear", fixed, (((x, x.rank - 1),), out, _whole(x, range(x.rank - 1))), 2


def _matmul(call: Call, results: list[Value], name: str) -> Row:
    """matmul: (inner, rows, columns, how many products)"""
    x, y = call.values[-2:]
    out = results[0]
    rows = ((out, out.rank - 2),) if x.rank > 1 and y.rank > 1 else ()
    columns = ((out, out.rank - 1),) if out.rank else ()
    lead = _whole(out, range(max(out.rank - 2, 0)))
    yield "matmul", (), (((x, x.rank - 1),), rows, columns, lead), 3


def _attention(call: Call, results: list[Value], name: str) -> Row:
    """Two products with a softmax between them, as it is exported."""
    q, k, v = call["query"], call["key"], call["value"]
    lead = _whole(q, range(q.rank - 2))
    tokens, others = ((q, q.rank - 2),), ((k, k.rank - 2),)
    yield "matmul", (), (((q, q.rank - 1),), tokens, others, lead), 3
    yield "softmax", (), (others, (*lead, *tokens)), 1
    yield "matmul", (), (others, tokens, ((v, v.rank - 1),), lead), 3
    yield "elementwise", _pairs(op="mul"), (_whole(q),), 0
    yield "elementwise", _pairs(op="mul"), (_whole(k),), 0
    yield "elementwise", _pairs(op="permute"), (_whole(k),), 0


def _layer_norm(call: Call, results: list[Value], name: str) -> Row:
    """layer_norm: (width, rows)"""
    x = call["input"]
    count = len(call["normalized_shape"])
    width = _whole(x, range(x.rank - count, x.rank))
    yield "layer_norm", (), (width, _whole(x, range(x.rank - count))), 1


def _softmax(call: Call, results: list[Value], name: str) -> Row:
    """softmax: (width, rows)"""
    x, axis = call.x, call.axis()
    rest = [a for a in range(x.rank) if a != axis]
    yield "softmax", (), (((x, axis),), _whole(x, rest)), 1


def _pool(call: Call, results: list[Value], name: str) -> Row:
    """pool: (channels with the batch,)"""
    x = call.x
    spatial = x.rank - 2 if x.rank > 3 else x.rank - 1
    pixels = x.shape[x.rank - spatial :]
    lead = _whole(x, range(x.rank - spatial))
    if name.startswith("adaptive"):
        whole = all(size == 1 for size in results[0].shape[x.rank - spatial :])
        made = results[0].shape[x.rank - spatial :]
        kernel = pixels if whole else tuple(-(-p // m) for p, m in zip(pixels, made, strict=True))
        fixed = _pairs(kernel=kernel, stride=kernel, padding=(0,) * spatial, pixels=pixels,
                       op="global" if whole else "average")  # fmt: skip
    else:
        stride = call.get("stride") or call["kernel_size"]
        fixed = _pairs(
            kernel=_filled(call["kernel_size"], spatial),
            stride=_filled(stride, spatial),
            padding=_filled(call["padding"], spatial),
            pixels=pixels,
            op="max" if "max" in name else "average",
        )
    yield "pool", fixed, (lead,), 0


def _mean(call: Call, results: list[Value], name: str) -> Row:
    """Over all pixels it is a pool."""
    x = call.x
    axes = set(call.axes())
    if x.rank == 4 and axes == {2, 3}:
        fixed = _pairs(kernel=x.shape[2:], stride=x.shape[2:], padding=(0, 0), pixels=x.shape[2:],
                       op="global")  # fmt: skip
        yield "pool", fixed, (_whole(x, range(2)),), 0
    else:
        yield "elementwise", _pairs(op="mean"), (_whole(x),), 0


def _elementwise(call: Call, results: list[Value], name: str) -> Row:
    """elementwise: (numbers made, or read where they are more,)"""
    values = [*results, *call.values]
    largest = max(values, key=lambda v: math.prod(v.shape), default=None)
    if largest is not None and largest.rank:
        yield "elementwise", _pairs(op=name), (_whole(largest),), 0


_POOLS = ("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
          "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
          "adaptive_max_pool2d", "max_pool2d_with_indices")  # fmt: skip
KINDS: Mapping[str, Callable[[Call, list[Value], str], Row]] = {
    **dict.fromkeys(_CONVS, _convolution),
    **dict.fromkeys(_POOLS, _pool),
    "linear": _linear,
    **dict.fromkeys(("matmul", "bmm", "mm", "addmm", "baddbmm"), _matmul),
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    **dict.fromkeys(("softmax", "_softmax"), _softmax),
    "mean": _mean,
}
