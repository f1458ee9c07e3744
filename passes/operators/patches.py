"""Patches and windows of pictures, and pictures out of channels.

im2col (F.unfold)      [B, C, H, W] -> [B, C * taps, places]     a channel is `taps` rows
col2im (F.fold)        the other way round
x.unfold(2, 8, 4)      windows along one axis, which keeps its size
pixel_shuffle          blocks of channels become blocks of pixels
"""

from typing import Any

import torch

from ..ir.call import Call
from ..ir.labels import Ledger, Value
from .movement import in_full, moved, row
from .table import Rule, RuleTable

aten = torch.ops.aten


def _taps(call: Call) -> int:
    return int(torch.Size(call["kernel_size"]).numel())


def patches(ledger: Ledger, call: Call) -> Value:
    """im2col: every channel is as many rows as a patch has pixels."""
    x = call.x
    axis = x.rank - 3
    x = ledger.pin(x, (axis + 1, axis + 2), "is a spatial axis")
    arrays = [array.squeeze(-1) for array in x.arrays]
    times = [a.repeat_interleave(_taps(call), axis) if a.shape[axis] > 1 else a for a in arrays]
    return Value(call.shape, tuple(times))


def from_patches(ledger: Ledger, call: Call) -> Value:
    """col2im: the rows of one channel are added up, so they stand or fall together."""
    x = call.x
    axis, taps = x.rank - 2, _taps(call)
    x = ledger.pin(x, [axis + 1], "is a place of a patch")
    split = (*x.shape[:axis], x.shape[axis] // taps, taps, x.shape[axis + 1])
    sizes = [
        [*a.shape[:axis], *split[axis : axis + 2], 1] if a.shape[axis] > 1 else [*a.shape, 1]
        for a in x.arrays
    ]
    arrays = [a.reshape(size) for a, size in zip(x.arrays, sizes, strict=True)]
    value = ledger.settled(split, arrays)
    value = ledger.pin(value, [axis + 1], "is a pixel of a patch")
    return Value(call.shape, value.arrays)


def windows(ledger: Ledger, call: Call) -> Value:
    """unfold: the places in a window come last."""
    x = ledger.pin(call.x, [call.axis("dimension")], "is cut into windows")
    return Value(call.shape, tuple(array.unsqueeze(-1) for array in x.arrays))


def diagonal(ledger: Ledger, call: Call) -> Value:
    """Two axes become one, which comes last."""
    axes = sorted(call.axis(name) for name in ("dim1", "dim2"))
    x = ledger.pin(call.x, axes, "is taken the diagonal of")
    arrays = [array.squeeze(axes[1]).squeeze(axes[0]).unsqueeze(-1) for array in x.arrays]
    return Value(call.shape, tuple(arrays))


def pixels(ledger: Ledger, call: Call) -> Any:
    """pixel_shuffle: pictures keep their size, so the channels of one block of pixels are one."""
    value = moved(in_full)(ledger, call)
    return ledger.pin(value, [value.rank - 2, value.rank - 1], "is an axis of the picture")


RULES: RuleTable = {
    aten.im2col.default: Rule(patches),
    aten.col2im.default: Rule(from_patches),
    aten.unfold.default: Rule(windows),
    aten.diagonal.default: Rule(diagonal),
    aten.pixel_shuffle.default: Rule(pixels, move=in_full),
    aten.pixel_unshuffle.default: row(in_full),
}
