"""Channel shuffles: where moving data around is the same as picking channels by index.

    [B, C, H, W] ─ view ─> [B, g, C/g, H, W] ─ transpose ─ flatten ─> [B, C, H, W]
    x[:, ::2]    roll along channels    x[:, order]

Inside a shuffle rows would have to stay equally long. Seen from outside it only reorders an axis,
so once channels go it is replaced by one `index_select`, and every channel is free.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from ..ir.aliases import is_view, is_written_later
from ..ir.call import Call
from ..ir.labels import Value, compact, varying
from ..operators import row_of
from ..operators.table import position_ids
from .propagate import Trace


@dataclass(frozen=True, eq=False)
class Gather:
    """Position i of `exit` along `axis` is position `source[i]` of `entry`."""

    entry: Node
    exit: Node
    inside: tuple[Node, ...]
    axis: int
    source: Tensor
    """int64 [size of the axis in `exit`]"""


def find_gathers(trace: Trace) -> tuple[Gather, ...]:
    """All regions of data movement that only reorder one labelled axis."""
    found = []
    for node, call in trace.calls.items():
        if not _move(trace, node) or _on_several_axes(call.x):
            continue
        if _on_several_axes(trace.results[node]) or row_of(node).reorders:
            gather = _follow(trace, node)
            if gather is not None:
                found.append(gather)
    return tuple(found)


def _move(trace: Trace, node: Node) -> bool:
    return (
        node in trace.calls
        and isinstance(trace.results[node], Value)
        and row_of(node).move is not None
    )


def _on_several_axes(value: object) -> bool:
    return isinstance(value, Value) and any(len(varying(array)) > 1 for array in value.arrays)


def _follow(trace: Trace, first: Node) -> Gather | None:
    """From the call that splits an axis along single users to the call that flattens it again."""
    entry = first.args[0]
    assert isinstance(entry, Node)
    start = trace.results[entry]
    inside, node = [], first
    ids = [position_ids(start, axis) for axis in range(start.rank)]
    while True:
        call = trace.calls[node]
        move = row_of(node).move
        if move is None or not isinstance(trace.results[node], Value):
            return None
        moved = [move(call, array) for array in ids]
        if not all(isinstance(array, Tensor) for array in moved):
            return None
        ids = [compact(array) for array in moved if isinstance(array, Tensor)]
        if not _on_several_axes(trace.results[node]):
            break
        inside.append(node)
        if len(node.users) != 1:
            return None
        node = next(iter(node.users))
        if not _move(trace, node) or node.args[0] is not inside[-1]:
            return None
    if not _is_copied([*inside, node]) and is_written_later(node):
        return None
    return _permutation(entry, start, call, trace.results[node], tuple(inside), ids)


def _is_copied(path: Sequence[Node]) -> bool:
    """Whether a chain of calls, each on the result of the one before, gives memory of its own."""
    turned = False
    for node in path:
        alias = row_of(node).alias
        if not is_view(node) or (turned and alias == "at times"):
            return True
        turned = turned or alias == "turned"
    return False


def _permutation(
    entry: Node, start: Value, exit: Call, end: Value, inside: tuple[Node, ...], ids: list[Tensor]
) -> Gather | None:
    if start.rank != end.rank or not start.arrays:
        return None
    moved = [a for a, one in enumerate(ids) if not torch.equal(one, position_ids(start, a))]
    rolled = exit.axes("dims") if "shifts" in exit.given else ()
    own = moved[0] if moved else rolled[0] if rolled else varying(start.arrays[0])[0]
    along = [[varying(array) for array in value.arrays if array.shape[own] > 1]
             for value in (start, end)]  # fmt: skip
    if along != [[(own,)], [(own,)]]:
        return None
    source = ids[own].flatten() - 1
    if row_of(exit.node).reorders != "positions" and bool((source.diff() == 1).all()):
        return None  # a plain slice: its bounds follow
    for axis, array in enumerate(ids):
        if any(array.shape[other] > 1 and other != axis for other in range(array.dim())):
            return None
        if axis != own and not torch.equal(array, position_ids(start, axis)):
            return None
    return Gather(entry, exit.node, inside, own, source)
