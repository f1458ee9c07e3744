"""einsum: a contraction with the letters of its equation, one operand after the other.

btc,oc->bto     c is summed: a matrix product with t and b as rows, o as columns
btc,btc->btc    nothing is summed: a product of entries
btc->bct        one operand: a transpose, or a sum
"""

import torch

from ..ir.call import Call, Factor
from ..ir.labels import Ledger, Value
from . import regressions
from .contraction import contract, summed
from .kernels import Kernels, elementwise
from .references import masked
from .table import Rule, RuleTable

aten = torch.ops.aten


def einsum(ledger: Ledger, call: Call) -> Value:
    """Operands are combined from left to right; letters needed later stay."""
    terms, out = _equation(call)
    if len(terms) > 1 and any(len(set(term)) < len(term) for term in terms):
        for array in (array for value in call.values for array in value.arrays):
            ledger.freeze(array, "is an argument of an einsum that takes a diagonal")
        return Value(call.shape)
    value, letters = call["tensors"][0], terms[0]
    for index, (other, term) in enumerate(zip(call["tensors"][1:], terms[1:], strict=True), 1):
        later = {*out, *(letter for term in terms[index + 1 :] for letter in term)}
        keep = [k for k in dict.fromkeys([*letters, *term]) if k in later]
        keep = list(out) if index == len(terms) - 1 else keep
        size = {
            **dict(zip(term, other.shape, strict=True)),
            **dict(zip(letters, value.shape, strict=True)),
        }
        value = contract(ledger, value, letters, other, term, keep, [size[k] for k in keep])
        letters = keep
    if len(terms) == 1:
        return _rearranged(ledger, value, letters, out, call)
    result: Value = value
    return result


def _rearranged(
    ledger: Ledger, value: Value, letters: list[str], out: list[str], call: Call
) -> Value:
    """A one-operand einsum: a transpose, or sums and diagonals that keep their axes."""
    if sorted(letters) == sorted(out) and len(set(letters)) == len(letters):
        order = [letters.index(letter) for letter in out]
        return Value(call.shape, tuple(array.permute(order) for array in value.arrays))
    if len(set(letters)) < len(letters):
        for array in value.arrays:
            ledger.freeze(array, "is an argument of an einsum that takes a diagonal")
        return Value(call.shape)
    gone = [axis for axis, letter in enumerate(letters) if letter not in out]
    left = [letter for letter in letters if letter in out]
    value = summed(ledger, value, gone, [value.shape[letters.index(k)] for k in left])
    order = [left.index(letter) for letter in out]
    return Value(call.shape, tuple(array.permute(order) for array in value.arrays))


def _equation(call: Call) -> tuple[list[list[str]], list[str]]:
    left, _, right = call["equation"].replace(" ", "").partition("->")
    terms = left.split(",")
    ranks = [value.rank for value in call["tensors"]]
    dots = max(rank - len(t.replace("...", "")) for rank, t in zip(ranks, terms, strict=True))

    def spell(term: str, rank: int) -> list[str]:
        count = rank - len(term.replace("...", ""))
        wild = [f"...{i}" for i in range(dots - count, dots)]
        before, _, after = term.partition("...")
        return [*before, *wild, *after] if "..." in term else list(term)

    if "->" not in call["equation"]:
        seen = "".join(terms).replace(".", "")
        right = ("..." if "..." in left else "") + "".join(
            sorted(letter for letter in set(seen) if seen.count(letter) == 1)
        )
    return [spell(t, r) for t, r in zip(terms, ranks, strict=True)], spell(right, len(call.shape))


def einsum_macs(call: Call, results: list[Value]) -> list[list[Factor]]:
    terms, _ = _equation(call)
    return [] if len(terms) == 1 else [list(_factors(call, terms).values())]


def _factors(call: Call, terms: list[list[str]]) -> dict[str, Factor]:
    """An axis of each letter; of those that are broadcast the longer one."""
    axes: dict[str, Factor] = {}
    for value, term in zip(call["tensors"], terms, strict=True):
        for axis, letter in enumerate(term):
            if letter not in axes or axes[letter][0].shape[axes[letter][1]] == 1:
                axes[letter] = (value, axis)
    return axes


def einsum_kernels(call: Call, results: list[Value], name: str) -> Kernels:
    """A matrix product for each operand after the first; where nothing is summed, of entries."""
    terms, out = _equation(call)
    if len(terms) == 1:
        yield from elementwise(call, results, "permute" if len(out) == len(terms[0]) else "sum")
    size, left = _factors(call, terms), terms[0]
    for index, right in enumerate(terms[1:], 1):
        later = {*out, *(letter for term in terms[index + 1 :] for letter in term)}
        inner = [k for k in left if k in right and k not in later]
        rows = [k for k in left if k not in right and k in later]
        columns = [k for k in right if k not in left and k in later]
        lead = [k for k in left if k in right and k in later]
        left = [*lead, *rows, *columns]
        if inner or (rows and columns):
            parts = (inner, rows, columns, lead)
            grows = next((place for place, part in enumerate(parts) if {*out[:1]} & {*part}), 3)
            yield "matmul", (), tuple(tuple(size[k] for k in part) for part in parts), grows
        else:
            yield from elementwise(call, results, "mul")


RULES: RuleTable = {
    aten.einsum.default: Rule(
        einsum,
        macs=einsum_macs,
        kernel=einsum_kernels,
        regression=regressions.einsum,
        reference=masked,
    ),
}
