"""How large things are once some channels are gone, and how to cut a tensor down to that.

What stays of a label array on several axes must be a rectangle: every axis but the last keeps
whole indices, and each row keeps equally many entries of the last axis (perhaps other ones).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base.errors import ContractError
from ..ir.labels import Axes, Value, varying

Array = np.ndarray[Any, Any]


def overlapping(value: Value) -> list[tuple[Axes, tuple[Tensor, ...]]]:
    """The value's arrays, those that share an axis together, with the axes they cover."""
    found: list[tuple[set[int], list[Tensor]]] = []
    for array in value.arrays:
        axes, arrays = set(varying(array)), [array]
        apart = []
        for other_axes, others in found:
            if other_axes & axes:
                axes |= other_axes
                arrays = [*others, *arrays]
            else:
                apart.append((other_axes, others))
        found = [*apart, (axes, arrays)]
    return [(tuple(sorted(axes)), tuple(arrays)) for axes, arrays in found]


class Sizes:
    """Sizes of values when the classes in `gone` (bool, by class) are removed.

    `classes` is the class of every label. Only what is asked for is looked up, and masks are made
    in numpy: torch would start threads for a few hundred elements.
    """

    def __init__(self, gone: Array, classes: Array) -> None:
        self._gone, self._classes = gone, classes
        self._masks: dict[tuple[int, ...], Tensor] = {}

    def mask(self, arrays: Sequence[Tensor], axes: Axes) -> Tensor:
        """Which positions stay: bool, one dimension for each of `axes`."""
        key = tuple(id(array) for array in arrays)
        if key not in self._masks:
            stays = self._stays(arrays[0])
            for array in arrays[1:]:
                stays = stays & self._stays(array)
            self._masks[key] = torch.from_numpy(stays.reshape([stays.shape[a] for a in axes]))
        return self._masks[key]

    def _stays(self, array: Tensor) -> Array:
        return ~self.gone(array)

    def gone(self, labels: Tensor) -> Array:
        """Which of these labels are removed: bool, of their shape."""
        found: Array = self._gone[self._classes[labels.numpy()]]
        return found

    def extent(self, value: Value, axis: int) -> int:
        """Size of `axis` after removal."""
        for axes, arrays in overlapping(value):
            if axis in axes:
                return rectangle(self.mask(arrays, axes))[axes.index(axis)]
        return value.shape[axis]

    def shape(self, value: Value) -> tuple[int, ...]:
        """All sizes after removal."""
        return tuple(self.extent(value, axis) for axis in range(value.rank))

    def kept(self, value: Value, axis: int) -> Tensor:
        """Which indices along `axis` keep anything: bool [size]."""
        for axes, arrays in overlapping(value):
            if axis in axes:
                stays = self.mask(arrays, axes)
                return stays.movedim(axes.index(axis), 0).reshape(value.shape[axis], -1).any(1)
        return torch.ones(value.shape[axis], dtype=torch.bool)

    def stays(self, value: Value) -> Tensor:
        """Which elements stay: bool, broadcastable to the value's shape."""
        whole = np.ones([1] * value.rank, dtype=bool)
        for array in value.arrays:
            whole = whole & self._stays(array)
        return torch.from_numpy(whole)

    def cut(self, tensor: Tensor, value: Value) -> Tensor:
        """The tensor (shaped like `value`, or compact) with only what stays, order kept."""
        for axes, arrays in sorted(
            overlapping(value), key=lambda pair: pair[0]
        ):  # rows copy fastest
            stays = self.mask(arrays, axes)
            if bool(stays.all()):
                continue
            index = torch.from_numpy(np.flatnonzero(stays.numpy()))
            full = [value.shape[a] if a in axes else n for a, n in enumerate(tensor.shape)]
            if len(axes) == 1:
                tensor = tensor.expand(full).index_select(axes[0], index)
                continue
            rest = [axis for axis in range(tensor.dim()) if axis not in axes]
            front = tensor.expand(full).permute(*axes, *rest).flatten(0, len(axes) - 1)
            small = front.index_select(0, index).reshape(*rectangle(stays), *front.shape[1:])
            order = [*axes, *rest]
            tensor = small.permute([order.index(axis) for axis in range(tensor.dim())])
        return tensor.contiguous()


def rectangle(stays: Tensor) -> tuple[int, ...]:
    """Sizes of what stays. Raises ContractError where it is not a rectangle."""
    if stays.dim() == 1:
        return (int(stays.sum()),)
    sizes = is_rectangle(stays)
    if sizes is None:
        raise ContractError(f"rows of different lengths: {stays.sum(-1).unique().tolist()}")
    return sizes


def is_rectangle(stays: Tensor) -> tuple[int, ...] | None:
    """Sizes of what stays, or None where rows differ in length or holes are left."""
    rows = stays.any(-1)
    sizes = []
    for axis in range(rows.dim()):
        others = [other for other in range(rows.dim()) if other != axis]
        sizes.append(int((rows.any(others) if others else rows).sum()))
    count, total = int(rows.sum()), int(stays.sum())
    if count == 0:
        return None
    lengths = stays.sum(-1)[rows]
    if bool((lengths != lengths[0]).any()) or count != int(torch.Size(sizes).numel()):
        return None
    return (*sizes, total // count)
