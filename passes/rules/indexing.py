"""Look-ups: the axis that is indexed keeps its size unless the indices are known constants.

embedding(table [V, C], ids)       rows are looked up; [..., C] passes
table[index] (relative positions)  the looked-up axis stays, heads pass
"""

import torch
from torch import Tensor

from ..labels import Ledger, Value
from .table import Call, Result, Rule, RuleTable

aten = torch.ops.aten


def _replace_axis(array: Tensor, axis: int, rank: int) -> Tensor:
    """An array of size 1 along `axis` as seen after that axis became `rank` index axes."""
    return array.reshape([*array.shape[:axis], *([1] * rank), *array.shape[axis + 1 :]])


def _looked_up(ledger: Ledger, table: Value, axis: int, index: Value, call: Call) -> Value:
    table = ledger.pin(table, [axis], "is looked up by index")
    ledger.pin(index, range(index.rank), "is an index")
    arrays = [_replace_axis(array, axis, index.rank) for array in table.arrays]
    return Value(call.shape, tuple(arrays))


def embedding(ledger: Ledger, call: Call) -> Value:
    return _looked_up(ledger, call["weight"], 0, call["indices"], call)


def index_select(ledger: Ledger, call: Call) -> Value:
    return _looked_up(ledger, call.x, call.axis(), call["index"], call)


def index(ledger: Ledger, call: Call) -> Value:
    """x[:, i]: one index tensor replaces its axis by its own; several keep all axes they index."""
    x, indices = call.x, call["indices"]
    used = [axis for axis, one in enumerate(indices) if isinstance(one, Value)]
    if len(used) == 1:
        return _looked_up(ledger, x, used[0], indices[used[0]], call)
    x = ledger.pin(x, used, "is looked up by index")
    rank = max(indices[axis].rank for axis in used)
    together = used == list(range(used[0], used[-1] + 1))
    arrays = []
    for array in x.arrays:
        rest = [array.shape[axis] for axis in range(x.rank) if axis not in used]
        at = used[0] if together else 0
        arrays.append(array.reshape([*rest[:at], *([1] * rank), *rest[at:]]))
    return Value(call.shape, tuple(arrays))


def gather(ledger: Ledger, call: Call) -> Value:
    x = ledger.pin(call.x, [call.axis()], "is looked up by index")
    return (
        ledger.merge([x, call["index"]], call.shape, "of the index")
        if not x.arrays
        else _frozen(ledger, x, call)
    )


def _frozen(ledger: Ledger, x: Value, call: Call) -> Value:
    ledger.pin(x, range(x.rank), f"is an argument of {call.op._schema.name[6:]}")
    return Value(call.shape)


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


RULES: RuleTable = {
    aten.embedding.default: Rule(embedding),
    aten.index_select.default: Rule(index_select),
    aten.index.Tensor: Rule(index),
    aten.gather.default: Rule(gather),
    **{
        op: Rule(unlabelled)
        for op in (
            aten.arange.default, aten.arange.start, aten.arange.start_step, aten.linspace.default,
            aten.tril.default, aten.triu.default, aten.one_hot.default, aten.eye.default,
            aten.scalar_tensor.default, aten.nonzero.default, aten.randn.default, aten.rand.default,
            aten.bucketize.Tensor, aten.masked_select.default, aten.item.default,
        )
    },
}  # fmt: skip
