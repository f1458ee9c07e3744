"""Data movement: run the operator itself on the label arrays.

    view, permute, slice, split, roll, ...      labels move as the data does

No index arithmetic is written by hand, so channel shuffles, window partitions, head splits and
unequal splits are exact by construction.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..ir.aliases import is_written_later
from ..ir.call import Call, Result
from ..ir.labels import Ledger, Value, reshaped, varying
from .kernels import nothing
from .table import Move, Resize, Resizing, Rule, RuleTable, overloads

aten = torch.ops.aten

# --- moves: from the compact array of the input to that of the result -----------------------------


def viewed(call: Call, array: Tensor) -> Tensor:
    return reshaped(array, call.x.shape, call.shape)


def rerun(call: Call, array: Tensor) -> Tensor:
    """Operators that do the same to an axis of size 1 as to the real one: permute, flip, ..."""
    return call.rerun(array)  # type: ignore[no-any-return]


def broadcast(call: Call, array: Tensor) -> Tensor:
    return array.reshape((1,) * (len(call.shape) - array.dim()) + array.shape)


def along_axis(call: Call, array: Tensor) -> Tensor:
    """Operators that touch one axis: slice, narrow, roll, index_select, repeat_interleave."""
    axes = call.axes("dims" if "dims" in call.given else "dim")
    if all(array.shape[axis] == 1 for axis in axes):
        return array
    full = [call.x.shape[a] if a in axes else size for a, size in enumerate(array.shape)]
    return rerun(call, array.expand(full))


def selected(call: Call, array: Tensor) -> Tensor:
    axis = call.axis()
    return array.select(axis, int(call["index"]) if array.shape[axis] > 1 else 0)


def pieces(call: Call, array: Tensor) -> Sequence[Tensor]:
    """split, chunk, tensor_split, unbind: one result a piece."""
    axis = call.axis()
    if array.shape[axis] > 1:
        return call.rerun(array)  # type: ignore[no-any-return]
    piece = array.squeeze(axis) if call.op is aten.unbind.int else array
    return [piece] * len(call.shapes)


def tiled(call: Call, array: Tensor) -> Tensor:
    times = [int(n) for n in call.get("repeats", call.get("dims"))]
    array = array.reshape((1,) * (len(times) - array.dim()) + array.shape)
    times = [1] * (array.dim() - len(times)) + times
    return array.repeat([n if size > 1 else 1 for n, size in zip(times, array.shape, strict=True)])


def in_full(call: Call, array: Tensor) -> Tensor:
    """Operators that mix several axes: run on the whole array (exact in float64 to 2**53)."""
    whole = array.expand(call.x.shape).double()
    return rerun(call, whole).round().long()


# --- labels --------------------------------------------------------------------------------------

Prepare = Callable[[Ledger, Call], Value]
"""The input, with what the operator's literals cannot follow tied or frozen first."""


def first_argument(ledger: Ledger, call: Call) -> Value:
    return call.x


def span(call: Call) -> tuple[int, int]:
    """slice, narrow, select: the first position that is taken, and the first one after."""
    given, size = call.given, call.x.shape[call.axis()]
    if "index" in given:
        first = int(given["index"]) % size
        return first, first + 1
    end = int(given["start"]) % size + int(given["length"]) if "length" in given else given["end"]
    first, end, _ = slice(given["start"], end).indices(size)
    return first, end


def cut(ledger: Ledger, call: Call) -> Value:
    """slice, narrow, select: literals count positions, so there must be as many in every row."""
    x, axis = call.x, call.axis()
    array = x.on(axis)
    if array is None:
        return x
    rows = [other for other in varying(array) if other < axis]
    first, end = span(call)
    if any(isinstance(raw, Node) for raw in call.node.args[2:4]):
        return ledger.pin(x, [axis], "is cut where the batch size says")
    apart = len(varying(array)) > 1 or len(x.arrays) > 1 or is_written_later(call.node)
    if call.get("step", 1) != 1 and apart:  # else it is a gather
        return ledger.pin(x, [axis], "is cut in steps")
    middle = first > 0 and end < x.shape[axis]
    return ledger.pin(x, rows, "is cut inside its rows") if middle else x


def shuffled(ledger: Ledger, call: Call) -> Value:
    """channel_shuffle: a gather takes its place, unless the channels are split into rows."""
    x, array = call.x, call.x.on(1)
    apart = array is not None and len(varying(array)) > 1
    return ledger.pin(x, [1], "is shuffled") if apart else x


def rolled(ledger: Ledger, call: Call) -> Value:
    """roll: the shift counts positions; a gather follows it along one axis that is not split."""
    x, axes = call.x, call.axes("dims")
    apart = len(axes) > 1 or len(x.arrays) > 1 or any(len(varying(a)) > 1 for a in x.arrays)
    return ledger.pin(x, axes, "is rolled") if apart else x


def moved(move: Move, prepared: Prepare = first_argument) -> Any:
    """The label rule of an operator that only moves data."""

    def label(ledger: Ledger, call: Call) -> Result:
        several = isinstance(call.node.meta["val"], list | tuple)

        def parts(array: Tensor) -> Sequence[Tensor]:
            out = move(call, array)
            assert out is not None
            return [out] if isinstance(out, Tensor) else out

        arrays = prepared(ledger, call).arrays
        results = ledger.together(arrays, parts) or [[] for _ in call.shapes]
        values = [
            ledger.settled(shape, found) for shape, found in zip(call.shapes, results, strict=True)
        ]
        return values if several else values[0]

    return label


def viewed_as(ledger: Ledger, call: Call) -> Value:
    """view_as: the sizes are those of another tensor, so it shrinks together with it."""
    here = moved(viewed)(ledger, call)
    return ledger.merge([here, call["other"]], call.shape, f"in {call.op._schema.name[6:]}")


def stretched(move: Move) -> Any:
    """expand, repeat: copies along an axis of size 1 are a constant, which fits what it meets."""

    def label(ledger: Ledger, call: Call) -> Value:
        value: Value = moved(move)(ledger, call)
        raw: Any = call.node.args[1]
        shape = (1,) * (value.rank - call.x.rank) + call.x.shape
        fresh = [
            ledger.fresh([n if a == axis else 1 for a in range(value.rank)])
            for axis, (n, given) in enumerate(zip(value.shape, raw, strict=True))
            if isinstance(given, int) and n > 1 == shape[axis]
        ]
        return Value(value.shape, (*value.arrays, *fresh))

    return label


def repeats(new: Resizing) -> dict[str, Any]:
    """repeat: along an axis of size 1, as often as the result is now long."""
    old, x = [int(n) for n in new.call["repeats"]], new.call.x
    shape = (1,) * (len(old) - x.rank) + x.shape
    times = [out if n == 1 else was for n, was, out in zip(shape, old, new.out, strict=True)]
    return {"repeats": times}


def expanded_as(ledger: Ledger, call: Call) -> Value:
    """expand_as: where `x` is repeated, the result has the channels of the other tensor."""
    return ledger.merge([call.x, call["other"]], call.shape, "in expand_as")


# --- literal arguments that change ---------------------------------------------------------------


def output_sizes(name: str) -> Resize:
    """view, expand, zeros: the sizes of the result."""

    def resize(new: Resizing) -> dict[str, Any]:
        return {name: list(new.out)}

    return resize


def unflattened(new: Resizing) -> dict[str, Any]:
    axis, count = new.call.axis(), len(new.call["sizes"])
    return {"sizes": list(new.out[axis : axis + count])}


def squeezed(new: Resizing) -> dict[str, Any]:
    """squeeze: a single channel that is left of several is not taken out.

    All other axes are named, whatever their size: a batch of one is taken out as before.
    """
    x = new.call.x
    single = [a for a in range(x.rank) if new.extent(x, a) == 1 and x.shape[a] > 1]
    if not single:
        return {}
    axes = new.call.axes() if "dim" in new.call.given else range(x.rank)
    rest = [axis for axis in axes if axis not in single]
    return {"op": aten.squeeze.dims, "dim": rest} if rest else {"op": aten.alias.default}


def piece_sizes(new: Resizing) -> dict[str, Any]:
    """Pieces may become unequal, so `split_with_sizes` takes the place of split and chunk."""
    axis = new.call.axis()
    if new.call.x.on(axis) is None:
        return {}
    sizes = [new.extent(value, axis) for value in new.results]
    return {"op": aten.split_with_sizes.default, "split_sizes": sizes}


def bounds(new: Resizing) -> dict[str, Any]:
    """slice: the bounds move to where the kept positions are now."""
    if new.call.x.on(new.call.axis()) is None:
        return {}
    first, end = new_span(new)
    return {"start": first, "end": end}


def start_and_length(new: Resizing) -> dict[str, Any]:
    if new.call.x.on(new.call.axis()) is None:
        return {}
    first, end = new_span(new)
    return {"start": first, "length": end - first}


def index_of(new: Resizing) -> dict[str, Any]:
    return {} if new.call.x.on(new.call.axis()) is None else {"index": new_span(new)[0]}


def new_span(new: Resizing) -> tuple[int, int]:
    """Where the positions that were taken are now. Rows may keep other entries, but as many."""
    x, axis = new.call.x, new.call.axis()
    first, end = span(new.call)
    kept, size = new.kept(x, axis), new.extent(x, axis)
    if int(kept.sum()) == size:
        before = int(kept[:first].sum())
        return before, before + int(kept[first:end].sum())
    taken = 1 if "index" in new.call.given else new.extent(new.results[0], axis)
    return (0, taken) if first == 0 else (size - taken, size)


def row(
    move: Move, resize: Resize | None = None, prepared: Prepare = first_argument, **columns: Any
) -> Rule:
    """Data movement; further columns as in `Rule`."""
    return Rule(label=moved(move, prepared), resize=resize, move=move, **columns)


def named(move: Move, resize: Resize | None = None, **columns: Any) -> Rule:
    """Another name for the same numbers in the same order: nothing is computed."""
    return row(move, resize, kernel=nothing, view=True, **columns)


def part(
    move: Move, resize: Resize | None = None, prepared: Prepare = first_argument, **columns: Any
) -> Rule:
    """Some of the numbers, or in another order: shared in torch, and copied by a runtime."""
    return row(move, resize, prepared, view=True, **columns)


def same(call: Call, array: Tensor) -> Tensor:
    return array


COPIES = [
    aten.clone.default, aten.lift_fresh_copy.default, *overloads(aten.to),
]  # fmt: skip
RULES: RuleTable = {
    **{op: row(same, kernel=nothing) for op in COPIES},
    aten.contiguous.default: row(same, kernel=nothing, alias="at times"),
    **{op: row(same) for op in (aten.positive.default, *overloads(aten._to_copy, aten.type_as))},
    aten.detach.default: named(same),
    aten.detach_.default: named(same),
    aten.alias.default: named(same),
    aten.dropout.default: named(same),
    aten.feature_dropout.default: row(same, kernel=nothing),
    aten.alpha_dropout.default: row(same, kernel=nothing),
    # views
    aten.view.default: named(viewed, output_sizes("size")),
    aten._unsafe_view.default: named(viewed, output_sizes("size")),
    aten.reshape.default: named(viewed, output_sizes("shape"), alias="at times"),
    aten.view_as.default: Rule(viewed_as, move=viewed, kernel=nothing, view=True),
    aten.reshape_as.default: Rule(viewed_as, move=viewed),
    aten.flatten.using_ints: named(viewed, alias="at times"),
    aten.unflatten.int: named(viewed, unflattened),
    aten.squeeze.default: named(viewed, squeezed),
    aten.squeeze.dim: named(viewed, squeezed),
    aten.squeeze.dims: named(viewed, squeezed),
    aten.unsqueeze.default: named(viewed),
    aten.permute.default: part(rerun, alias="turned", onnx="Transpose"),
    aten.transpose.int: part(rerun, alias="turned", onnx="Transpose"),
    aten.t.default: part(rerun, alias="turned"),
    aten.numpy_T.default: row(rerun, alias="turned"),
    aten.mT.default: row(rerun, alias="turned"),
    aten.movedim.int: part(rerun, alias="turned"),
    aten.movedim.intlist: part(rerun, alias="turned"),
    aten.swapaxes.default: row(rerun, alias="turned"),
    aten.expand.default: Rule(
        stretched(broadcast), output_sizes("size"), broadcast, kernel=nothing, view=True
    ),
    aten.expand_as.default: Rule(expanded_as),
    # parts
    aten.slice.Tensor: part(along_axis, bounds, cut, reorders="order"),
    aten.narrow.default: part(along_axis, start_and_length, cut),
    aten.select.int: part(selected, index_of, cut),
    aten.split.Tensor: part(pieces, piece_sizes),
    aten.split.sizes: part(pieces, piece_sizes),
    aten.split_with_sizes.default: part(pieces, piece_sizes),
    aten.chunk.default: part(pieces, piece_sizes),
    aten.tensor_split.sections: row(pieces, piece_sizes),
    aten.tensor_split.indices: row(pieces, piece_sizes),
    aten.unbind.int: part(pieces),
    # reordering
    aten.flip.default: row(along_axis, reorders="order"),
    aten.roll.default: row(along_axis, prepared=rolled, reorders="positions"),
    aten.repeat.default: Rule(stretched(tiled), repeats, tiled),
    aten.tile.default: row(tiled),
    aten.repeat_interleave.self_int: row(along_axis),
    aten.channel_shuffle.default: row(in_full, prepared=shuffled, reorders="positions"),
}  # fmt: skip
