"""The plan in the user's own names: which indices of every parameter stay."""

from typing import Any

from .coupling import Coupling
from .labels import Value
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
