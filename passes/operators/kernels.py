"""What a runtime computes for a call: kernels, each with what is fixed and with its widths.

    conv2d(x [B, 64, 56, 56], weight [128, 64, 3, 3])
        "conv", kernel 3x3, stride, padding, 56x56 pixels ...; widths (64, 128) and the batch

A width is a product of sizes, which a plan changes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..ir.call import Call, Factor, is_transposed
from ..ir.labels import Value

Product = tuple[Factor, ...]
Kernels = Iterator[tuple[str, tuple[tuple[str, Any], ...], tuple[Product, ...], int]]
"""Kind, what is fixed, the widths, and which width grows with the batch."""
KernelRow = Callable[[Call, list[Value], str], Kernels]
"""From a call, its results and the operator's name."""


@dataclass(frozen=True)
class Fusion:
    """What a call may become part of: a runtime computes it on the way out of a convolution, or
    pads on the way into a max pool."""

    role: Literal["convolution", "norm", "addition", "activation", "padding", "max pool"]
    activation: str = ""
    """One that is no ReLU goes over the whole result once more, which makes a depthwise convolution
    take half as long again."""


ADDITION, NORM, RELU = Fusion("addition"), Fusion("norm"), Fusion("activation")


def nothing(call: Call, results: list[Value], name: str) -> Kernels:
    """Another name for the same numbers, a constant, or what does nothing in eval mode."""
    yield from ()


def _whole(value: Value, axes: Sequence[int] | None = None) -> Product:
    return tuple((value, axis) for axis in (range(value.rank) if axes is None else axes))


def _pairs(**fixed: Any) -> tuple[tuple[str, Any], ...]:
    plain = {name: tuple(v) if isinstance(v, list | tuple) else v for name, v in fixed.items()}
    return tuple(sorted(plain.items()))


def _filled(given: Any, spatial: int) -> Any:
    """A setting for each spatial axis: torch takes one for all."""
    if isinstance(given, str):
        return given
    values = tuple(given) if isinstance(given, list | tuple) else (given,)
    return values * spatial if len(values) == 1 else values


def convolution(call: Call, results: list[Value], name: str) -> Kernels:
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


def linear(call: Call, results: list[Value], name: str) -> Kernels:
    """linear: (in, out, rows)"""
    x, weight = call["input"], call["weight"]
    out = ((weight, 0),) if weight.rank == 2 else ()
    fixed = _pairs(bias=isinstance(call.get("bias"), Value), flat=x.rank <= 2)
    yield "linear", fixed, (((x, x.rank - 1),), out, _whole(x, range(x.rank - 1))), 2


def matmul(call: Call, results: list[Value], name: str) -> Kernels:
    """matmul: (inner, rows, columns, how many products)"""
    x, y = call.values[-2:]
    out = results[0]
    rows = ((out, out.rank - 2),) if x.rank > 1 and y.rank > 1 else ()
    columns = ((out, out.rank - 1),) if out.rank else ()
    lead = _whole(out, range(max(out.rank - 2, 0)))
    yield "matmul", (), (((x, x.rank - 1),), rows, columns, lead), 3


def attention(call: Call, results: list[Value], name: str) -> Kernels:
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


def layer_norm(call: Call, results: list[Value], name: str) -> Kernels:
    """layer_norm: (width, rows)"""
    x = call["input"]
    count = len(call["normalized_shape"])
    width = _whole(x, range(x.rank - count, x.rank))
    yield "layer_norm", (), (width, _whole(x, range(x.rank - count))), 1


def softmax(call: Call, results: list[Value], name: str) -> Kernels:
    """softmax: (width, rows)"""
    x, axis = call.x, call.axis()
    rest = [a for a in range(x.rank) if a != axis]
    yield "softmax", (), (((x, axis),), _whole(x, rest)), 1


def pool(call: Call, results: list[Value], name: str) -> Kernels:
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


def mean(call: Call, results: list[Value], name: str) -> Kernels:
    """Over all pixels it is a pool."""
    x = call.x
    axes = set(call.axes())
    if x.rank == 4 and axes == {2, 3}:
        fixed = _pairs(kernel=x.shape[2:], stride=x.shape[2:], padding=(0, 0), pixels=x.shape[2:],
                       op="global")  # fmt: skip
        yield "pool", fixed, (_whole(x, range(2)),), 0
    else:
        yield "elementwise", _pairs(op="mean"), (_whole(x),), 0


def elementwise(call: Call, results: list[Value], name: str) -> Kernels:
    """elementwise: (numbers made, or read where they are more,)"""
    values = [*results, *call.values]
    largest = max(values, key=lambda v: math.prod(v.shape), default=None)
    if largest is not None and largest.rank:
        yield "elementwise", _pairs(op=name), (_whole(largest),), 0
