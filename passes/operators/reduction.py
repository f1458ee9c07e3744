"""Operators that need an axis whole: reductions, softmax, sorting, pooling, interpolation.

softmax(x, dim)      the axis keeps its size; the others pass
amax(x, dim)         the same, and the axis is gone from the result
max_pool2d(x)        pictures keep their size; channels pass
"""

from collections.abc import Callable

import torch
from torch._ops import OpOverload

from ..ir.call import Call, Result
from ..ir.labels import Ledger, Value
from . import kernels, references
from .kernels import Fusion, KernelRow
from .table import Rule, RuleTable, overloads

aten = torch.ops.aten
Label = Callable[[Ledger, Call], Result]


def whole_axis(ledger: Ledger, call: Call) -> Result:
    """The argument `dim` keeps its size, or disappears; every result carries the other axes."""
    x = call.x
    axes = call.axes() if "dim" in call.given else list(range(x.rank))
    x = ledger.pin(x, axes, f"is needed whole by {call.op._schema.name[6:]}")
    results = []
    for shape in call.shapes:
        arrays = list(x.arrays)
        if len(shape) != x.rank:
            keep = [axis for axis in range(x.rank) if axis not in axes]
            arrays = [array.reshape([array.shape[axis] for axis in keep]) for array in arrays]
        results.append(Value(shape, tuple(arrays)))
    return results if isinstance(call.node.meta["val"], list | tuple) else results[0]


def unpooled(ledger: Ledger, call: Call) -> Value:
    """max_unpool: places are those of the same channel of a pool."""
    dims = 2 if "2d" in call.op._schema.name else 3
    x = ledger.merge(call.values, call.x.shape, "of the places")
    x = ledger.pin(x, range(x.rank - dims, x.rank), "is a spatial axis")
    return Value(call.shape, x.arrays)


def spatial(dims: int) -> Label:
    """The last `dims` axes are a picture (or a sound): they are pinned, channels pass."""

    def label(ledger: Ledger, call: Call) -> Result:
        x = call.x
        x = ledger.pin(x, range(x.rank - dims, x.rank), "is a spatial axis")
        for other in call.values[1:]:  # a sampling grid, say
            ledger.pin(other, range(other.rank), f"is an argument of {call.op._schema.name[6:]}")
        results = [Value(shape, x.arrays) for shape in call.shapes]
        return results if isinstance(call.node.meta["val"], list | tuple) else results[0]

    return label


def weight_norm(ledger: Ledger, call: Call) -> Value:
    """v * g / |v|: the norm runs over all axes but one, over what stays of them."""
    v, g = call["v"], call["g"]
    if any(v.on(axis) is not None for axis in range(v.rank) if axis != call.axis()):
        ledger.inexact.append(call.node)
    return ledger.merge([v, g], call.shape, "of the weight norm's scale")


def _spatial(op: OpOverload, dims: int, kernel: KernelRow | None = None) -> Rule:
    pads = op._schema.name.startswith("aten::max_pool")
    return Rule(spatial(dims), kernel=kernel, fusion=Fusion("max pool") if pads else None)


RULES: RuleTable = {
    **{
        op: Rule(whole_axis, kernel=kernels.softmax)
        for op in overloads(aten.softmax, aten._softmax)
    },
    **{op: Rule(whole_axis, onnx="ReduceMean") for op in overloads(aten.amax)},
    **{
        op: Rule(whole_axis)
        for op in overloads(
            aten.log_softmax, aten._log_softmax, aten.prod,
            aten.amin, aten.max, aten.min, aten.argmax, aten.argmin, aten.any, aten.all,
            aten.sort, aten.argsort, aten.topk, aten.cumsum, aten.cumprod, aten.logsumexp,
            aten.median, aten.var_mean, aten.std_mean, aten.count_nonzero, aten.aminmax,
            aten.logcumsumexp, aten.cummax,
        )
        if "other" not in [argument.name for argument in op._schema.arguments]
    },
    **{
        op: _spatial(op, dims, kernels.pool)
        for dims, packets in {
            1: (aten.avg_pool1d, aten.max_pool1d, aten.adaptive_avg_pool1d),
            2: (aten.avg_pool2d, aten.max_pool2d, aten.adaptive_avg_pool2d,
                aten.adaptive_max_pool2d, aten.max_pool2d_with_indices),
            3: (aten.avg_pool3d, aten.max_pool3d, aten.adaptive_avg_pool3d),
        }.items()
        for op in overloads(*packets)
    },
    **{
        op: _spatial(op, dims)
        for dims, packets in {
            1: (aten.adaptive_max_pool1d, aten.max_pool1d_with_indices, aten.upsample_nearest1d,
                aten.upsample_linear1d, aten.reflection_pad1d, aten.replication_pad1d),
            2: (aten._adaptive_avg_pool2d, aten.upsample_nearest2d, aten.upsample_bilinear2d,
                aten.upsample_bicubic2d, aten._upsample_bilinear2d_aa, aten._upsample_bicubic2d_aa,
                aten._upsample_nearest_exact2d, aten.grid_sampler, aten.grid_sampler_2d,
                aten.reflection_pad2d, aten.replication_pad2d),
            3: (aten.max_pool3d_with_indices, aten.upsample_nearest3d, aten.upsample_trilinear3d,
                aten.reflection_pad3d, aten.replication_pad3d),
        }.items()
        for op in overloads(*packets)
    },
    aten.max_unpool2d.default: Rule(unpooled),
    aten.max_unpool3d.default: Rule(unpooled),
    aten._weight_norm.default: Rule(weight_norm, reference=references.weight_norm),
}  # fmt: skip
