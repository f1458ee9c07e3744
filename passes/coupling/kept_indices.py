"""The plan in the user's own names: which indices of every parameter stay."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from ..ir.labels import Value
from .groups import Coupling
from .sizes import Sizes


def kept_indices(coupling: Coupling, sizes: Sizes) -> dict[str, list[Any]]:
    """The kept indices of each dimension of every tensor that shrank, by `state_dict` name.

    None where nothing went; one list where the same indices stay everywhere; one list for each
    kept row where rows keep other entries (axis 1 of a grouped convolution).
    """
    kept: dict[str, list[Any]] = {}
    for name, value in coupling.state.items():
        if sizes.shape(value) == value.shape:
            continue
        dims: list[Any] = []
        for axis in range(value.rank):
            dims.append(_kept_along(sizes, value, axis))
        kept[name] = dims
    tied = coupling.program.aliases.items()
    return kept | {alias: kept[name] for alias, name in tied if name in kept}


def _kept_along(sizes: Sizes, value: Value, axis: int) -> Any:
    if sizes.extent(value, axis) == value.shape[axis]:
        return None
    array = value.on(axis)
    assert array is not None
    union = sizes.kept(value, axis)
    if int(union.sum()) == sizes.extent(value, axis):
        return union.nonzero().flatten().tolist()
    whole = sizes.stays(value).movedim(axis, -1).reshape(-1, value.shape[axis])
    return [row.nonzero().flatten().tolist() for row in whole if bool(row.any())]


def makes(whole: Tensor, kept: list[Any], small: Tensor) -> bool:
    """Whether what is kept of the whole tensor is the small one, to the bit.

    Read as a user reads `kept`, and not with what the surgery knows.
    """
    ragged = None
    for dim, indices in enumerate(kept):
        if indices is not None and any(isinstance(index, list) for index in indices):
            ragged = dim
        elif indices is not None:
            if indices != sorted(set(indices) & set(range(whole.shape[dim]))):
                return False
            whole = whole.index_select(dim, torch.tensor(indices, device=whole.device))
    if ragged is None:
        return _equal(whole, small)
    return any(_equal(one, small) for one in _ragged(whole, ragged, kept[ragged]))


def _ragged(whole: Tensor, dim: int, rows: list[list[int]]) -> Iterator[Tensor]:
    """The tensor with other entries of `dim` in every row, for all axes that rows may lie along."""
    others = [axis for axis in range(whole.dim()) if axis != dim]
    for count in range(1, len(others) + 1):
        for lead in combinations(others, count):
            sizes = [whole.shape[axis] for axis in lead]
            if torch.Size(sizes).numel() != len(rows) or len({len(row) for row in rows}) != 1:
                continue
            rest = [axis for axis in others if axis not in lead]
            front = whole.permute(*lead, *rest, dim).flatten(0, count - 1)
            index = torch.tensor(rows, device=whole.device)
            picked = torch.stack(
                [row.index_select(-1, own) for row, own in zip(front, index, strict=True)]
            ).unflatten(0, sizes)
            order = [*lead, *rest, dim]
            yield picked.permute([order.index(axis) for axis in range(whole.dim())])


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())
