"""Joined tensors and constants: labels from several places, and new ones.

cat, stack          labels follow one another along the joined axis, and are tied across it
pad, zeros, full    a uniform constant can shrink: labels of its own
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..ir.call import Call
from ..ir.labels import Ledger, Value, varying
from .kernels import Fusion, nothing
from .movement import output_sizes
from .table import Resizing, Rule, RuleTable

aten = torch.ops.aten


def concatenated(ledger: Ledger, call: Call) -> Value:
    """Along the joined axis labels follow one another; across it they are tied.

    Channel arrays of stacked tensors are laid side by side instead: `stack([q, k, v])`.
    """
    shape, values = call.shape, [v for v in call["tensors"] if v.shape != (0,)]
    stack = call.op is aten.stack.default
    axis = call.axis(rank=len(shape))
    if stack:
        values = [_unsqueezed(value, axis) for value in values]
    joined = {
        other
        for v in values
        for array in v.arrays
        if stack or array.shape[axis] > 1
        for other in varying(array)
    } | {axis}
    parts, rests = [], []
    for value in values:
        own = [array for array in value.arrays if joined & set(varying(array))]
        rests.append(value.without(*own))
        size = [value.shape[a] if a == axis else 1 for a in range(value.rank)]
        if len(own) > 1:
            for array in own:
                ledger.freeze(array, "several labelled axes are joined at once")
            own = []
        parts.append(own[0].expand(_widened(own[0], size)) if own else torch.zeros(size).long())
    along = torch.cat(_matched(ledger, parts, axis), axis)
    flat = [
        Value(tuple(1 if a == axis else n for a, n in enumerate(v.shape)), v.arrays) for v in rests
    ]
    across = ledger.merge(
        flat, [1 if a == axis else n for a, n in enumerate(shape)], "of another joined tensor"
    )
    arrays = [*across.arrays, along] if bool(along.any()) else list(across.arrays)
    return ledger.settled(shape, arrays)


def _unsqueezed(value: Value, axis: int) -> Value:
    shape = (*value.shape[:axis], 1, *value.shape[axis:])
    return Value(shape, tuple(array.unsqueeze(axis) for array in value.arrays))


def _widened(array: Tensor, size: Sequence[int]) -> list[int]:
    return [max(a, b) for a, b in zip(array.shape, size, strict=True)]


def _matched(ledger: Ledger, parts: list[Tensor], axis: int) -> list[Tensor]:
    """Parts that vary on the same axes across the joined one; an unlabelled part has label 0.

    Where only some are split into rows, each channel takes all rows with it.
    """
    rank = parts[0].dim()
    labelled = [part for part in parts if bool(part.any())]
    for across in (a for a in range(rank) if a != axis):
        if any(part.shape[across] == 1 for part in labelled):
            for index, part in enumerate(parts):
                parts[index] = part.narrow(across, 0, 1)
                ledger.tie(parts[index], part)
    size = [max(part.shape[a] for part in parts) for a in range(rank)]
    return [
        part.expand([part.shape[a] if a == axis else size[a] for a in range(rank)])
        for part in parts
    ]


def padded(ledger: Ledger, call: Call) -> Value:
    """On a labelled axis the padding gets labels of its own; elsewhere it changes nothing."""
    x, pad = call.x, [int(n) for n in call["pad"]]
    shape, arrays = call.shape, list(x.arrays)
    constant = call.get("mode", "constant") == "constant"
    for index in range(len(pad) // 2):
        axis, (low, high) = x.rank - 1 - index, pad[2 * index : 2 * index + 2]
        if not (low or high):
            continue
        for at, array in enumerate(arrays):
            if array.shape[axis] == 1:
                continue
            if not constant or low < 0 or high < 0:
                ledger.freeze(array, "is padded with its own entries, or cropped")
                arrays[at] = array[:0]
                continue
            sides = [  # the same labels in every row: the widths are literals
                ledger.fresh([n if a == axis else 1 for a in range(x.rank)]).expand(
                    [n if a == axis else size for a, size in enumerate(array.shape)]
                )
                for n in (low, high)
            ]
            arrays[at] = torch.cat([sides[0], array, sides[1]], axis)
    return ledger.settled(shape, [array for array in arrays if array.numel()])


LARGEST_CONSTANT = 1 << 16
"""A constant with more positions (a mask, usually) keeps its size."""


def constant(ledger: Ledger, call: Call) -> Value:
    """A uniform constant (`zeros`, `full`) fits whatever it meets: its literal axes get labels."""
    shape = call.shape
    sizes = call.get("size")
    literal = call.node.args[0] if "size" in call.given else None
    if "self" in call.given:  # new_zeros(x, size)
        literal = call.node.args[1] if len(call.node.args) > 1 else None
    if sizes is None or not isinstance(literal, list | tuple):
        return Value(shape)
    free = [n if isinstance(raw, int) else 1 for n, raw in zip(shape, literal, strict=True)]
    if not any(n > 1 for n in free) or torch.Size(free).numel() > LARGEST_CONSTANT:
        return Value(shape)
    return Value(shape, (ledger.fresh(free),))


def like(ledger: Ledger, call: Call) -> Value:
    """`zeros_like(x)` follows x."""
    return Value(call.shape, call.x.arrays)


def pad_widths(new: Resizing) -> dict[str, Any]:
    x, pad = new.call.x, [int(n) for n in new.call["pad"]]
    for index in range(len(pad) // 2):
        axis = x.rank - 1 - index
        if x.on(axis) is not None and new.results[0].on(axis) is not None:
            kept = new.kept(new.results[0], axis)
            low, high = pad[2 * index], pad[2 * index + 1]
            pad[2 * index] = int(kept[:low].sum())
            pad[2 * index + 1] = int(kept[len(kept) - high :].sum())
    return {"pad": pad}


RULES: RuleTable = {
    # joining
    aten.cat.default: Rule(concatenated, onnx="Concat"),
    aten.concat.default: Rule(concatenated),
    aten.stack.default: Rule(concatenated, onnx="Concat"),
    # constants
    aten.constant_pad_nd.default: Rule(padded, pad_widths, fusion=Fusion("padding")),
    aten.pad.default: Rule(padded, pad_widths, fusion=Fusion("padding")),
    **{
        op: Rule(constant, output_sizes("size"), kernel=nothing)
        for op in (aten.zeros.default, aten.ones.default, aten.full.default)
    },
    **{
        op: Rule(constant, output_sizes("size"))
        for op in (
            aten.empty.memory_format, aten.new_zeros.default, aten.new_ones.default,
            aten.new_full.default,
        )
    },
    aten.zeros_like.default: Rule(like, kernel=nothing),
    aten.ones_like.default: Rule(like, kernel=nothing),
    aten.full_like.default: Rule(like),
}  # fmt: skip
