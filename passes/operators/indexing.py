"""Look-ups: the axis that is indexed keeps its size unless a buffer holds the indices.

embedding(table [V, C], ids)       rows are looked up; [..., C] passes
table[index] (relative positions)  the looked-up axis stays, heads pass
gather, scatter, index_add         the indexed axis stays; along all others positions meet
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..ir.call import Call, Result
from ..ir.labels import Ledger, Value, varying
from ..ir.program import fetch
from .kernels import nothing
from .references import silent
from .table import Rule, RuleTable, overloads

aten = torch.ops.aten


def _replace_axis(array: Tensor, axis: int, rank: int) -> Tensor:
    """An array of size 1 along `axis` as seen after that axis became `rank` index axes."""
    return array.reshape([*array.shape[:axis], *([1] * rank), *array.shape[axis + 1 :]])


def picked(call: Call, array: Tensor) -> Tensor | None:
    """index, index_select with a constant: each position comes from where the constant says."""
    found = _constant(call)
    if found is None:
        return None
    axis, index = found
    return array.index_select(axis, index) if array.shape[axis] > 1 else array


def _constant(call: Call) -> tuple[int, Tensor] | None:
    """The axis that is indexed and the list of positions, where a buffer holds them."""
    raw: Any = call.node.args[1]
    if "indices" in call.given:
        used = [axis for axis, one in enumerate(raw) if one is not None]
        axis, node = used[0], raw[used[0]]
    else:
        used, axis, node = [0], call.axis(), call.node.args[2]
    if len(used) > 1 or node.op != "get_attr":
        return None
    index: Tensor = fetch(node.graph.owning_module, str(node.target))
    whole = index.dim() == 1 and index.dtype in (torch.int32, torch.int64)
    return (axis, index % call.x.shape[axis]) if whole else None


def _reordered(ledger: Ledger, call: Call) -> Value | None:
    """A constant choice of channels (`permutations.py`), where they lie on one axis alone."""
    found, arrays = _constant(call), call.x.arrays
    if found is None or len(arrays) != 1 or varying(arrays[0]) != (found[0],):
        return None
    if len(found[1].unique()) < 2:
        return None
    return Value(call.shape, (arrays[0].index_select(*found),))


def _looked_up(ledger: Ledger, table: Value, axis: int, index: Value, call: Call) -> Value:
    table = ledger.pin(table, [axis], "is looked up by index")
    ledger.pin(index, range(index.rank), "is an index")
    arrays = [_replace_axis(array, axis, index.rank) for array in table.arrays]
    return Value(call.shape, tuple(arrays))


def embedding(ledger: Ledger, call: Call) -> Value:
    return _looked_up(ledger, call["weight"], 0, call["indices"], call)


def index_select(ledger: Ledger, call: Call) -> Value:
    if (reordered := _reordered(ledger, call)) is not None:
        return reordered
    return _looked_up(ledger, call.x, call.axis(), call["index"], call)


def index(ledger: Ledger, call: Call) -> Value:
    """x[:, i, j]: index tensors replace their axes by their own, which lie where the first is.

    Where indexed axes do not follow one another, theirs come first.
    """
    if (reordered := _reordered(ledger, call)) is not None:
        return reordered
    return Value(call.shape, _indexed(ledger, call).arrays)


def _by_axis(ledger: Ledger, call: Call) -> list[Value | None]:
    """What each axis is indexed with; a mask on several axes counts as a list of positions each."""
    found: list[Value | None] = []
    nodes: Any = call.node.args[1]
    for node, value in zip(nodes, call["indices"], strict=True):
        if value is None:
            found.append(None)
            continue
        ledger.pin(value, range(value.rank), "is an index")
        mask = node.meta["val"].dtype in (torch.bool, torch.uint8)
        found += [Value((1,))] * value.rank if mask else [value]
    return found


def _indexed(ledger: Ledger, call: Call) -> Value:
    x, indices = call.x, _by_axis(ledger, call)
    used = [axis for axis, one in enumerate(indices) if one is not None]
    given = [one for one in indices if one is not None]
    x = ledger.pin(x, used, "is looked up by index")
    inner = torch.broadcast_shapes(*(one.shape for one in given))
    together = used == list(range(used[0], used[-1] + 1))
    at = used[0] if together else 0

    def placed(sizes: Sequence[int], inner: Sequence[int]) -> tuple[int, ...]:
        rest = [n for axis, n in enumerate(sizes) if axis not in used]
        return (*rest[:at], *inner, *rest[at:])

    ones = [1] * len(inner)
    arrays = tuple(array.reshape(placed(array.shape, ones)) for array in x.arrays)
    return Value(placed(x.shape, inner), arrays)


def embedding_bag(ledger: Ledger, call: Call) -> list[Value]:
    """Sums, means or maxima of rows; the other results count positions."""
    weight = ledger.pin(call["weight"], [0], "is looked up by index")
    size = weight.shape[1]
    return [
        Value(shape, weight.arrays if len(shape) == 2 and shape[1] == size else ())
        for shape in call.shapes
    ]


def _met(ledger: Ledger, values: Sequence[Value], axis: int) -> Value:
    """What operands say of all axes but one, which keeps its size in all of them."""
    values = [ledger.pin(value, [axis], "is looked up by index") for value in values if value.rank]
    shapes = [[1 if a == axis else n for a, n in enumerate(v.shape)] for v in values]
    full = [max(sizes) for sizes in zip(*shapes, strict=True)]
    for shape in list(shapes):  # an operand may be shorter than the rest
        short = [a for a, n in enumerate(shape) if n != full[a]]
        if short:
            values = [ledger.pin(value, short, "is met by fewer positions") for value in values]
            shapes = [[1 if a in short else n for a, n in enumerate(one)] for one in shapes]
            full = [1 if a in short else n for a, n in enumerate(full)]
    flat = [Value(tuple(shape), v.arrays) for shape, v in zip(shapes, values, strict=True)]
    return ledger.merge(flat, full, "of an index")


def gather(ledger: Ledger, call: Call) -> Value:
    """out[i][j][k] = x[index[i][j][k]][j][k], and the same for other axes."""
    axis = call.axis()
    return Value(call.shape, _met(ledger, [call.x, call["index"]], axis).arrays)


def scatter(ledger: Ledger, call: Call) -> Value:
    """scatter, scatter_add, scatter_reduce: gather the other way round."""
    return Value(call.shape, _met(ledger, call.values, call.axis()).arrays)


def index_add(ledger: Ledger, call: Call) -> Value:
    """index_add, index_copy, index_fill: the source lies along x, except on the indexed axis."""
    ledger.pin(call["index"], range(call["index"].rank), "is an index")
    values = [call.x, *(call[name] for name in ("source",) if name in call.given)]
    return Value(call.shape, _met(ledger, values, call.axis()).arrays)


def index_put(ledger: Ledger, call: Call) -> Value:
    """x[:, i] = values: what is written lies along what it replaces."""
    looked_up = _indexed(ledger, call)
    ledger.merge([looked_up, call["values"]], looked_up.shape, "that is written by index")
    used = [axis for axis, one in enumerate(_by_axis(ledger, call)) if one is not None]
    return ledger.pin(call.x, used, "is looked up by index")


def unlabelled(ledger: Ledger, call: Call) -> Result:
    """Results that depend on no channel: positions, shapes, random numbers."""
    return opaque(ledger, call, f"is an argument of {call.op._schema.name[6:]}")


def opaque(ledger: Ledger, call: Call, why: str) -> Result:
    """Everything that goes in keeps its size; what comes out carries no channels."""
    for value in call.values:
        for array in value.arrays:
            ledger.freeze(array, why)
    results = [Value(shape) for shape in call.shapes]
    return results if isinstance(call.node.meta["val"], list | tuple) else results[0]


_LOOKED_UP = "its weights are looked up, not multiplied"

RULES: RuleTable = {
    aten.embedding.default: Rule(embedding, reference=silent, without=_LOOKED_UP),
    aten.index_select.default: Rule(index_select, move=picked, reorders="positions"),
    aten.index.Tensor: Rule(index, move=picked, reorders="positions"),
    aten.gather.default: Rule(gather),
    aten.embedding_bag.padding_idx: Rule(
        embedding_bag, reference=silent, without=_LOOKED_UP
    ),
    **{op: Rule(scatter) for op in overloads(aten.scatter, aten.scatter_add, aten.scatter_reduce)},
    aten.index_add.default: Rule(index_add),
    aten.index_copy.default: Rule(index_add),
    aten.index_fill.int_Scalar: Rule(index_add),
    aten.index_put.default: Rule(index_put),
    **{
        op: Rule(unlabelled, kernel=nothing)
        for op in (
            aten.arange.default, aten.arange.start, aten.arange.start_step,
            aten.scalar_tensor.default,
        )
    },
    **{
        op: Rule(unlabelled)
        for op in (
            aten.linspace.default, aten.tril.default, aten.triu.default, aten.one_hot.default,
            aten.eye.default, aten.nonzero.default, aten.randn.default, aten.rand.default,
            aten.bucketize.Tensor, aten.masked_select.default,
        )
    },
}  # fmt: skip
