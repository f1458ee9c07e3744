"""Normalisations.

batch, instance norm   weight, bias and statistics are tied to axis 1                exact
                       statistics of the input itself over other channels            inexact
layer, RMS norm        weight and bias are tied to the normalised axes; the          inexact
                       statistics then run over fewer channels
group norm             axis 1 viewed as [groups, channels / groups]: whole groups    inexact
                       can go, or equally many channels of each
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import Node

from ..ir.call import Call
from ..ir.labels import Ledger, Value
from ..ir.program import shape_of
from . import batch_norm, kernels, references
from .contraction import summed
from .kernels import NORM
from .table import Resizing, Rule, RuleTable, overloads

aten = torch.ops.aten


def _lying_along(axis: int, rank: int, vectors: Iterable[Any]) -> list[Value]:
    views = []
    for vector in vectors:
        if isinstance(vector, Value):
            shape = tuple(vector.shape[0] if a == axis else 1 for a in range(rank))
            views.append(Value(shape, tuple(array.reshape(shape) for array in vector.arrays)))
    return views


def per_channel(ledger: Ledger, call: Call) -> Value:
    """batch_norm, instance_norm: everything lies along axis 1.

    Statistics taken from the input itself (standardised weights are batch-normed so) run over the
    other axes: over fewer positions where channels lie along those alone.
    """
    x = call["input"]
    array = x.on(1)
    own = call.get("running_mean") is None or call.get("training") or call.get("use_input_stats")
    others = [
        axis for axis in range(x.rank) if axis != 1 and array is not None and array.shape[axis] > 1
    ]
    x = ledger.pin(x, others, "is averaged over by a norm")
    if own and any(x.on(axis) is not None for axis in range(x.rank) if axis != 1):
        ledger.inexact.append(call.node)
    names = ("weight", "bias", "running_mean", "running_var")
    vectors = _lying_along(1, x.rank, [call.get(name) for name in names])
    return ledger.merge([x, *vectors], call.shape, "of the norm's parameters")


def over_last_axes(ledger: Ledger, call: Call) -> Value:
    """layer_norm, rms_norm."""
    x = call["input"]
    first = x.rank - len(call["normalized_shape"])
    if any(x.on(axis) is not None for axis in range(first, x.rank)):
        ledger.inexact.append(call.node)
    vectors = [v for v in (call.get("weight"), call.get("bias")) if isinstance(v, Value)]
    return ledger.merge([x, *vectors], call.shape, "of the norm's parameters")


def normalized_shape(new: Resizing) -> dict[str, Any]:
    x, old = new.call["input"], new.call["normalized_shape"]
    return {"normalized_shape": list(new.shape(x)[x.rank - len(old) :])}


def group_norm(ledger: Ledger, call: Call) -> Value:
    x, groups = call["input"], int(call["num_groups"])
    vectors = _lying_along(1, x.rank, [call.get("weight"), call.get("bias")])
    out = ledger.merge([x, *vectors], call.shape, "of the norm's parameters")
    array = out.on(1)
    if array is None:
        return out
    out = ledger.pin(out, [a for a in range(x.rank) if a != 1 and array.shape[a] > 1],
                     "shares its statistics with other positions")  # fmt: skip
    array = out.on(1)
    assert array is not None
    grid = array.reshape(groups, -1)
    if grid.shape[1] == 1:
        return out
    ledger.inexact.append(call.node)
    if groups > 1:
        ledger.grids.append((grid, call.node))
        rows = ledger.fresh([groups, 1])
        ledger.link(rows, grid)
    return out


def norm_groups(new: Resizing) -> dict[str, Any]:
    groups = int(new.call["num_groups"])
    kept = new.kept(new.call["input"], 1).reshape(groups, -1)
    return {"num_groups": int(kept.any(1).sum())}


# --- statistics written out by hand --------------------------------------------------------------


def statistic(ledger: Ledger, call: Call) -> Value:
    """mean, var, std over channels, where the result is put back onto its input; vector norms.

    ``x * rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)`` is a norm; any other mean over channels
    keeps them all. The length of a vector is a sum: what is gone adds nothing.
    """
    x, axes = call.x, call.axes()
    labelled = [axis for axis in axes if x.on(axis) is not None]
    back = call.get("keepdim") and put_back(call.node, x.shape, labelled)
    if labelled and not (back or _is_length(call)):
        x = ledger.pin(x, labelled, f"is reduced by {call.op._schema.name[6:]}")
        labelled = []
    if labelled:
        ledger.inexact.append(call.node)
        _some_stay(ledger, call, labelled)
    return summed(ledger, x, axes, call.shape)


def _some_stay(ledger: Ledger, call: Call, axes: list[int]) -> None:
    """An unbiased deviation is 0/0 over a single entry: the first two stay."""
    correction = call["correction"] if "correction" in call.given else call.get("unbiased", 0)
    least = 1 + (1 if correction is None else int(correction))
    for axis in call.axes() if least > 1 else ():
        if axis not in axes:
            least = -(-least // call.x.shape[axis])
    if least > 1:
        for array in call.x.arrays:
            if array.shape[axes[0]] > 1:
                ledger.freeze(array.narrow(axes[0], 0, min(least, array.shape[axes[0]])),
                              "is needed for an unbiased deviation")  # fmt: skip


def _is_length(call: Call) -> bool:
    order = call.get("ord", call.get("p"))
    return "norm" in call.op._schema.name and (order is None or float(order) > 0)


def put_back(node: Node, shape: tuple[int, ...], axes: list[int]) -> bool:
    """Whether the reduced result meets the full axes again within a few elementwise calls."""
    frontier, seen = [node], {node}
    for _ in range(8):
        frontier = [user for at in frontier for user in at.users if user not in seen]
        seen.update(frontier)
        for user in frontier:
            if not isinstance(user.meta.get("val"), torch.Tensor):
                return False
            result = shape_of(user)
            if len(result) == len(shape) and all(result[a] == shape[a] for a in axes):
                return True
            target = user.target
            same = isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags
            if not same:
                return False
    return False


_SCALES = "its weights scale channels: batch norms are fitted by themselves, others stay"

RULES: RuleTable = {
    aten.batch_norm.default: Rule(
        per_channel,
        fusion=NORM,
        regression=batch_norm.batch_norm,
        reference=references.per_channel(0),
        finite=True,
        without=_SCALES,
    ),
    aten.instance_norm.default: Rule(
        per_channel, reference=references.per_channel(), without=_SCALES
    ),
    **{
        op: Rule(
            over_last_axes,
            normalized_shape,
            kernel=kernels.layer_norm,
            reference=references.over_last_axes(centred=op is aten.layer_norm.default),
            without=_SCALES,
        )
        for op in (aten.layer_norm.default, aten.rms_norm.default)
    },
    aten.group_norm.default: Rule(
        group_norm, norm_groups, reference=references.group_norm, without=_SCALES
    ),
    **{
        op: Rule(statistic, reference=reference, onnx=word)
        for packet, reference, word in (
            (aten.var, references.variance, "ReduceMean"),
            (aten.std, references.deviation, ""),
            (aten.linalg_vector_norm, references.length, ""),
            (aten.norm, references.length, ""),
        )
        for op in overloads(packet)
        if "dim" in [argument.name for argument in op._schema.arguments]
    },
    **{
        op: Rule(statistic, kernel=kernels.mean, reference=references.mean, onnx="ReduceMean")
        for op in (*overloads(aten.mean), aten.mean.default)
        if op is aten.mean.default or "dim" in [one.name for one in op._schema.arguments]
    },
}
