"""Faults in the rules of norms, reductions, look-ups and elementwise calls."""

from tests.tools.faults.planted import Fault

NORMS = [
    Fault(
        "running variances are not tied to their channels",
        "operators/norm.py",
        'names = ("weight", "bias", "running_mean", "running_var")',
        'names = ("weight", "bias", "running_mean")',
    ),
    Fault(
        "running statistics are not tied to their channels",
        "operators/norm.py",
        'names = ("weight", "bias", "running_mean", "running_var")',
        'names = ("weight", "bias")',
    ),
    Fault(
        "positions that a norm averages over may go",
        "operators/norm.py",
        '    x = ledger.pin(x, others, "is averaged over by a norm")\n',
        "",
    ),
    Fault(
        "the normalised shape stays",
        "operators/norm.py",
        'return {"normalized_shape": list(new.shape(x)[x.rank - len(old) :])}',
        "return {}",
    ),
    Fault(
        "the normalised shape is that of the first axes",
        "operators/norm.py",
        'return {"normalized_shape": list(new.shape(x)[x.rank - len(old) :])}',
        'return {"normalized_shape": list(new.shape(x)[1 : len(old) + 1])}',
    ),
    Fault(
        "a layer norm is tied to the wrong axis",
        "operators/norm.py",
        '    vectors = [v for v in (call.get("weight"), call.get("bias")) '
        "if isinstance(v, Value)]\n",
        "    vectors = []\n",
    ),
    Fault(
        "a layer norm counts as exact",
        "operators/norm.py",
        "    if any(x.on(axis) is not None for axis in range(first, x.rank)):\n",
        "    if False:\n",
    ),
    Fault(
        "the groups of a norm are dealt like cards",
        "operators/norm.py",
        "    grid = array.reshape(groups, -1)\n",
        "    grid = array.reshape(-1, groups).t()\n",
    ),
    Fault(
        "the groups of a norm need not be equally large",
        "operators/norm.py",
        "        ledger.grids.append((grid, call.node))\n",
        "",
    ),
    Fault(
        "the groups of a norm are no rows",
        "operators/norm.py",
        "        ledger.link(rows, grid)\n    return out",
        "    return out",
    ),
    Fault(
        "the group count of a norm stays",
        "operators/norm.py",
        'return {"num_groups": int(kept.any(1).sum())}',
        "return {}",
    ),
    Fault(
        "a norm of all its channels has one group",
        "operators/norm.py",
        'return {"num_groups": int(kept.any(1).sum())}',
        'return {"num_groups": 1}',
    ),
]

OTHERS = [
    Fault(
        "a softmax, or a maximum, over channels frees them",
        "operators/reduction.py",
        '    x = ledger.pin(x, axes, f"is needed whole by {call.op._schema.name[6:]}")\n',
        "",
    ),
    Fault(
        "a maximum drops the wrong axis",
        "operators/reduction.py",
        "keep = [axis for axis in range(x.rank) if axis not in axes]",
        "keep = [axis for axis in range(x.rank) if axis + 1 not in axes][: len(shape)]",
    ),
    Fault(
        "the scale of a weight norm is not tied",
        "operators/reduction.py",
        'return ledger.merge([v, g], call.shape, "of the weight norm\'s scale")',
        "return Value(call.shape, v.arrays)",
    ),
    Fault(
        "what is looked up by index may shrink",
        "operators/indexing.py",
        '    table = ledger.pin(table, [axis], "is looked up by index")\n',
        "    table = table\n",
    ),
    Fault(
        "what goes into an opaque operator may shrink",
        "operators/indexing.py",
        "            ledger.freeze(array, why)\n    results",
        "            pass\n    results",
    ),
    Fault(
        "only the first operand of an elementwise call has channels",
        "operators/pointwise.py",
        'return ledger.merge(call.values, call.shape, f"in {call.op._schema.name[6:]}")',
        'return ledger.merge(call.values[:1], call.shape, f"in {call.op._schema.name[6:]}")',
    ),
    Fault(
        "the halves of a glu are not tied",
        "operators/pointwise.py",
        'return ledger.merge(halves, call.shape, "in glu")',
        "return halves[0]",
    ),
    Fault(
        "glu gates with the odd channels",
        "operators/pointwise.py",
        "    parts = [\n        [a.narrow(axis, at, half) if a.shape[axis] > 1 else a "
        "for a in x.arrays] for at in (0, half)\n    ]\n",
        "    parts = [\n        [a.unflatten(axis, (half, 2)).select(axis + 1, at) "
        "if a.shape[axis] > 1 else a for a in x.arrays]\n        for at in (0, 1)\n    ]\n",
    ),
    Fault(
        "slopes of a prelu lie along the last axis",
        "operators/pointwise.py",
        "shape = tuple(n if a == 1 else 1 for a, n in enumerate(x.shape))",
        "shape = (*[1] * (x.rank - 1), slope.shape[0])",
    ),
    Fault(
        "slopes of a prelu are not tied",
        "operators/pointwise.py",
        'return ledger.merge([x, view], call.shape, "in prelu")',
        "return Value(x.shape, x.arrays)",
    ),
]

FAULTS = [*NORMS, *OTHERS]
