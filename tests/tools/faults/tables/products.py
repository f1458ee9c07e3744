"""Faults in the rules of contractions and of recurrent layers."""

from tests.tools.faults.planted import Fault

PRODUCTS = [
    Fault(
        "the summed axes of a product are not tied",
        "operators/contraction.py",
        "        ledger.meet(mine, theirs)\n",
        "",
    ),
    Fault(
        "an axis summed with an unlabelled one may shrink",
        "operators/contraction.py",
        "            x, y = ledger.pin(x, [axis], why), ledger.pin(y, [axis], why)\n",
        "",
    ),
    Fault(
        "the result of a product has the channels of its first factor only",
        "operators/contraction.py",
        "        for v in (x, y)\n",
        "        for v in (x,)\n",
    ),
    Fault(
        "a bias is not tied to its filters",
        "operators/contraction.py",
        "    if not isinstance(bias, Value):\n",
        "    if True:\n",
    ),
    Fault(
        "the operands of a product keep their own order of axes",
        "operators/contraction.py",
        "arrays.append(array.permute(order).reshape(full))",
        "arrays.append(array.reshape(full))",
        ("case:attention_by_einsum", "case:matmul", "case:bmm", "case:einsum_of_three"),
    ),
    Fault(
        "a linear weight is read the other way round",
        "operators/contraction.py",
        'ys = ["o", "i"] if weight.rank == 2 else ["i"]',
        'ys = ["i", "o"] if weight.rank == 2 else ["i"]',
    ),
    Fault(
        "the second factor of a matrix product is transposed",
        "operators/contraction.py",
        '"k", "n"] if y.rank > 1 else ["k"]',
        '"n", "k"] if y.rank > 1 else ["k"]',
    ),
    Fault(
        "a bias added to a matrix product is forgotten",
        "operators/contraction.py",
        "return ledger.merge([bias, _product(ledger, x, y, call.shape)], call.shape,",
        "return ledger.merge([_product(ledger, x, y, call.shape)], call.shape,",
    ),
    Fault(
        "an einsum's letters that are needed later are summed",
        "operators/einsum.py",
        "        keep = [k for k in dict.fromkeys([*letters, *term]) if k in later]\n",
        "        keep = [k for k in dict.fromkeys([*letters, *term]) if k in out]\n",
    ),
    Fault(
        "einsum takes diagonals like any axis",
        "operators/einsum.py",
        "if len(terms) > 1 and any(len(set(term)) < len(term) for term in terms):",
        "if False:",
    ),
    Fault(
        "key heads are dealt to query heads like cards",
        "operators/contraction.py",
        "array.repeat_interleave(times, axis) if array.shape[axis] > 1 else array",
        "array.repeat([times if a == axis else 1 for a in range(array.dim())]) "
        "if array.shape[axis] > 1 else array",
    ),
    Fault(
        "the bias of attention scores is forgotten",
        "operators/contraction.py",
        "    if isinstance(mask, Value):\n",
        "    if False:\n",
    ),
    Fault(
        "attention scores scale by the new head size",
        "operators/contraction.py",
        'return {"scale": float(q.shape[-1]) ** -0.5}',
        'return {"scale": float(new.extent(q, q.rank - 1)) ** -0.5}',
    ),
    Fault(
        "attention is left to choose its scale",
        "operators/contraction.py",
        'return {"scale": float(q.shape[-1]) ** -0.5}',
        "return {}",
    ),
    Fault(
        "attention with a scale of its own gets another",
        "operators/contraction.py",
        'if new.call.get("scale") is not None or new.extent(q, q.rank - 1) == q.shape[-1]:',
        "if new.extent(q, q.rank - 1) == q.shape[-1]:",
    ),
    Fault(
        "transposed convolutions are read like plain ones",
        "operators/contraction.py",
        'names = ["i", "o"] if transposed else ["o", "i"]',
        'names = ["o", "i"]',
    ),
    Fault(
        "groups of a convolution are dealt like cards",
        "operators/contraction.py",
        "    arrays = [reshaped(array, value.shape, shape) for array in value.arrays]\n"
        "    result = ledger.settled(shape, arrays)\n    ledger.grids",
        "    turned = (*value.shape[:axis], value.shape[axis] // groups, groups, "
        "*value.shape[axis + 1 :])\n"
        "    arrays = [reshaped(array, value.shape, turned).transpose(axis, axis + 1)\n"
        "              for array in value.arrays]\n"
        "    result = ledger.settled(shape, arrays)\n    ledger.grids",
    ),
    Fault(
        "the groups of a convolution need not be equally large",
        "operators/contraction.py",
        "    ledger.grids += [(array, ledger.node) for array in result.arrays "
        "if len(varying(array)) > 1]\n",
        "",
    ),
    Fault(
        "the group count of a convolution stays",
        "operators/contraction.py",
        'return {"groups": int(kept.any(1).sum())}',
        "return {}",
    ),
    Fault(
        "a convolution keeps the groups that lost nothing",
        "operators/contraction.py",
        'return {"groups": int(kept.any(1).sum())}',
        'return {"groups": max(int(kept.all(1).sum()), 1)}',
    ),
    Fault(
        "the group count of a convolution is its inputs",
        "operators/contraction.py",
        'return {"groups": int(kept.any(1).sum())}',
        'return {"groups": int(kept.sum())}',
    ),
    Fault(
        "kernel axes may shrink",
        "operators/contraction.py",
        'weight = ledger.pin(weight, range(2, weight.rank), "is a kernel axis of a convolution")',
        "weight = weight",
        ("own:standardised", "case:weight_norm"),
    ),
    Fault(
        "pictures may shrink under a convolution",
        "operators/contraction.py",
        'x = ledger.pin(x, range(lead + 1, x.rank), "is a spatial axis of a convolution")',
        "x = x",
        ("own:places",),
    ),
]

RECURRENT = [
    Fault(
        "gates of a recurrent layer are dealt like cards",
        "operators/recurrent.py",
        "ledger.tie(own.reshape(gates, -1), hidden)",
        "ledger.tie(own.reshape(-1, gates).t(), hidden)",
    ),
    Fault(
        "only the first gate of a recurrent layer is tied",
        "operators/recurrent.py",
        "ledger.tie(own.reshape(gates, -1), hidden)",
        "ledger.tie(own.reshape(gates, -1)[0], hidden)",
    ),
    Fault(
        "the input of a recurrent layer is not tied",
        "operators/recurrent.py",
        "        _tie_input(ledger, cell[0], below)\n",
        "",
    ),
    Fault(
        "the backward direction comes first",
        "operators/recurrent.py",
        "below, outputs = torch.cat(outputs), []",
        "below, outputs = torch.cat(outputs[::-1]), []",
    ),
    Fault(
        "the initial state is not tied",
        "operators/recurrent.py",
        '        state = ledger.merge([state, initial], initial.shape, "of the initial state")\n',
        "        pass\n",
    ),
    Fault(
        "a gated recurrent unit has four gates",
        "operators/recurrent.py",
        '"gru": 3',
        '"gru": 2',
        ("case:gru", "case:gru_of_two_layers_both_ways"),
    ),
]

FAULTS = [*PRODUCTS, *RECURRENT]
