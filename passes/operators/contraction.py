"""Contractions: linear, matmul, attention, convolutions.

    out[b, o] = sum_i x[b, i] * weight[o, i]

    summed letters      x and weight are tied along i
    other letters       pass to the result
    both vary on (h, i) the result carries one new label a row h, which goes when all of row h goes

Everything here is one function, `contract`, with the axes of each operand named by letters; a
convolution is a contraction whose channel axis is viewed as ``[groups, channels / groups]``.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..ir.call import Call, Factor, is_transposed
from ..ir.labels import Ledger, Value, reshaped, varying
from . import kernels, regressions
from .kernels import Fusion
from .references import masked, silent
from .table import Resizing, Rule, RuleTable, overloads

aten = torch.ops.aten
Letters = Sequence[Hashable]


def contract(
    ledger: Ledger, x: Value, xs: Letters, y: Value, ys: Letters, out: Letters, shape: Sequence[int]
) -> Value:
    """Labels of ``sum over the letters not in out of x[xs] * y[ys]``; `shape` is the result's."""
    every = list(dict.fromkeys([*out, *xs, *ys]))
    x, y = _in_line(ledger, x, xs, out), _in_line(ledger, y, ys, out)
    x, y = _spread(x, xs, every), _spread(y, ys, every)
    done: set[int] = set()
    for axis in range(len(out), len(every)):
        mine, theirs = x.on(axis), y.on(axis)
        if axis in done:
            continue
        if x.shape[axis] == 1 or y.shape[axis] == 1:  # a plain sum of one of them
            x, y = (_total(ledger, v, axis, range(len(out), len(every))) for v in (x, y))
            continue
        if mine is None or theirs is None:
            why = "is summed with an unlabelled axis"
            x, y = ledger.pin(x, [axis], why), ledger.pin(y, [axis], why)
            continue
        ledger.meet(mine, theirs)
        done |= {*varying(mine), *varying(theirs)}
        gone = range(len(out), len(every))
        x, y = ledger.rows(x, mine, gone), ledger.rows(y, theirs, gone)
    head = [
        Value(v.shape[: len(out)], tuple(a.reshape(a.shape[: len(out)]) for a in v.arrays))
        for v in (x, y)
    ]
    return ledger.merge(head, shape, "of the other factor")


def _in_line(ledger: Ledger, value: Value, letters: Letters, out: Letters) -> Value:
    """Where rows are summed and their entries are left, entries stand in line: they are tied."""
    for array in value.arrays:
        *rows, last = varying(array)
        if letters[last] in out:
            gone = [axis for axis in rows if letters[axis] not in out]
            value = ledger.pin(value, gone, "is summed") if gone else value
    return value


def _total(ledger: Ledger, value: Value, axis: int, gone: range) -> Value:
    array = value.on(axis)
    return value if array is None else ledger.rows(value, array, gone)


def _spread(value: Value, letters: Letters, every: Letters) -> Value:
    """Permute the axes into the order of `every`, with size 1 for letters it does not have."""
    order = [letters.index(letter) for letter in every if letter in letters]
    sizes = [value.shape[letters.index(k)] if k in letters else 1 for k in every]
    arrays = []
    for array in value.arrays:
        inner = iter(array.permute(order).shape)
        full = [next(inner) if letter in letters else 1 for letter in every]
        arrays.append(array.permute(order).reshape(full))
    return Value(tuple(sizes), tuple(arrays))


def _plus(ledger: Ledger, value: Value, bias: Any, axis: int) -> Value:
    """Add a bias that lies along `axis`."""
    if not isinstance(bias, Value):
        return value
    size = [n if a == axis else 1 for a, n in enumerate(value.shape)]
    view = Value(tuple(size), tuple(array.reshape(size) for array in bias.arrays))
    return ledger.merge([value, view], value.shape, "of the bias")


# --- linear algebra ------------------------------------------------------------------------------


def linear(ledger: Ledger, call: Call) -> Value:
    x, weight = call["input"], call["weight"]
    lead = list(range(x.rank - 1))
    out = [*lead, "o"] if weight.rank == 2 else lead
    ys = ["o", "i"] if weight.rank == 2 else ["i"]
    result = contract(ledger, x, [*lead, "i"], weight, ys, out, call.shape)
    return _plus(ledger, result, call.get("bias"), result.rank - 1)


def linear_macs(call: Call, results: list[Value]) -> list[list[Factor]]:
    x, weight = call["input"], call["weight"]
    return [[(x, axis) for axis in range(x.rank)] + ([(weight, 0)] if weight.rank == 2 else [])]


def _product(ledger: Ledger, x: Value, y: Value, shape: Sequence[int]) -> Value:
    lead = range(max(x.rank, y.rank) - 2)
    xs = [*list(lead)[len(lead) - max(x.rank - 2, 0) :], "m", "k"] if x.rank > 1 else ["k"]
    ys = [*list(lead)[len(lead) - max(y.rank - 2, 0) :], "k", "n"] if y.rank > 1 else ["k"]
    out = [*lead] + ["m"] * (x.rank > 1) + ["n"] * (y.rank > 1)
    return contract(ledger, x, xs, y, ys, out, shape)


def matmul(ledger: Ledger, call: Call) -> Value:
    x, y = call.values[:2]
    return _product(ledger, x, y, call.shape)


def matmul_macs(call: Call, results: list[Value]) -> list[list[Factor]]:
    x = call.values[-2]
    return [[(results[0], axis) for axis in range(results[0].rank)] + [(x, x.rank - 1)]]


def outer(ledger: Ledger, call: Call) -> Value:
    x, y = call.values[:2]
    return contract(ledger, x, ["m"], y, ["n"], ["m", "n"], call.shape)


def add_matmul(ledger: Ledger, call: Call) -> Value:
    """addmm, baddbmm: a matrix product plus a broadcast operand."""
    bias, x, y = call.values
    return ledger.merge([bias, _product(ledger, x, y, call.shape)], call.shape, "of the sum")


def bilinear(ledger: Ledger, call: Call) -> Value:
    """sum over i and j of x[i] * weight[o, i, j] * y[j]"""
    x, y, weight = call["input1"], call["input2"], call["weight"]
    lead = list(range(x.rank - 1))
    inner = (*x.shape[:-1], *weight.shape[::2])
    half = contract(ledger, x, [*lead, "i"], weight, ["o", "i", "j"], [*lead, "o", "j"], inner)
    result = contract(ledger, half, [*lead, "o", "j"], y, [*lead, "j"], [*lead, "o"], call.shape)
    return _plus(ledger, result, call.get("bias"), result.rank - 1)


def bilinear_macs(call: Call, results: list[Value]) -> list[list[Factor]]:
    x, weight = call["input1"], call["weight"]
    return [[(x, axis) for axis in range(x.rank)] + [(weight, 0), (weight, 2)]]


def distances(ledger: Ledger, call: Call) -> Value:
    """cdist: x [.., m, k] and y [.., n, k] to [.., m, n]; channels that are gone add nothing."""
    x, y = call["x1"], call["x2"]
    transposed = Value((*y.shape[:-2], y.shape[-1], y.shape[-2]), tuple(a.mT for a in y.arrays))
    return _product(ledger, x, transposed, call.shape)


def distance_macs(call: Call, results: list[Value]) -> list[list[Factor]]:
    x = call["x1"]
    return [[(results[0], axis) for axis in range(results[0].rank)] + [(x, x.rank - 1)]]


def cosine(ledger: Ledger, call: Call) -> Value:
    """cosine_similarity along one axis."""
    x, y = call["x1"], call["x2"]
    shape = torch.broadcast_shapes(x.shape, y.shape)
    both = ledger.merge([x, y], shape, "in cosine_similarity")
    return summed(ledger, both, [int(call["dim"]) % len(shape)], call.shape)


def summed(ledger: Ledger, x: Value, axes: Sequence[int], shape: Sequence[int]) -> Value:
    """Labels of a sum over `axes`: what is gone adds nothing, rows of it (heads) get a label."""
    for axis in axes:
        if (array := x.on(axis)) is not None:
            x = ledger.rows(x, array, axes)
    keep = [a for a in range(x.rank) if a not in axes] if len(shape) < x.rank else range(x.rank)
    arrays = tuple(array.reshape([array.shape[a] for a in keep]) for array in x.arrays)
    return Value(tuple(shape), arrays)


def total(ledger: Ledger, call: Call) -> Value:
    """sum, nansum"""
    axes = call.axes() if "dim" in call.given else list(range(call.x.rank))
    return summed(ledger, call.x, axes, call.shape)


# --- attention -----------------------------------------------------------------------------------


def attention(ledger: Ledger, call: Call) -> Value:
    """softmax(q k^T * scale + mask) v. Key heads are repeated for their grouped queries."""
    q, k, v, mask = call["query"], call["key"], call["value"], call.get("attn_mask")
    if call.get("enable_gqa"):
        k, v = _repeated(k, q.shape[-3]), _repeated(v, q.shape[-3])
    lead: list[Hashable] = list(range(q.rank - 2))
    scores = contract(ledger, q, [*lead, "t", "d"], k, [*lead, "s", "d"], [*lead, "t", "s"],
                      (*q.shape[:-1], k.shape[-2]))  # fmt: skip
    if isinstance(mask, Value):
        scores = ledger.merge([scores, mask], scores.shape, "of the attention mask")
    scores = ledger.pin(scores, [scores.rank - 1], "is normalised by a softmax")
    return contract(ledger, scores, [*lead, "t", "s"], v, [*lead, "s", "e"], [*lead, "t", "e"],
                    call.shape)  # fmt: skip


def _repeated(value: Value, heads: int) -> Value:
    times, axis = heads // value.shape[-3], value.rank - 3
    shape = tuple(n * times if a == axis else n for a, n in enumerate(value.shape))
    arrays = tuple(
        array.repeat_interleave(times, axis) if array.shape[axis] > 1 else array
        for array in value.arrays
    )
    return Value(shape, arrays)


def attention_macs(call: Call, results: list[Value]) -> list[list[Factor]]:
    q, k, v = call["query"], call["key"], call["value"]
    scores = [(q, axis) for axis in range(q.rank)] + [(k, k.rank - 2)]
    mix = [(q, axis) for axis in range(q.rank - 1)] + [(k, k.rank - 2), (v, v.rank - 1)]
    return [scores, mix]


def head_scale(new: Resizing) -> dict[str, Any]:
    """The scale stays that of the original head size."""
    q = new.call["query"]
    if new.call.get("scale") is not None or new.extent(q, q.rank - 1) == q.shape[-1]:
        return {}
    return {"scale": float(q.shape[-1]) ** -0.5}


# --- convolutions --------------------------------------------------------------------------------


def convolution(ledger: Ledger, call: Call) -> Value:
    """x [B, g*i, s...] with weight [g*o, i, k...]; transposed: weight [g*i, o, k...]."""
    x, weight, groups = call["input"], call["weight"], int(call["groups"])
    spatial, transposed = weight.rank - 2, is_transposed(call)
    lead = x.rank - spatial - 1
    x = ledger.pin(x, range(lead + 1, x.rank), "is a spatial axis of a convolution")
    weight = ledger.pin(weight, range(2, weight.rank), "is a kernel axis of a convolution")
    here = list(range(lead))
    grid = [f"s{i}" for i in range(spatial)]
    x = _split(ledger, x, lead, groups)
    weight = _split(ledger, weight, 0, groups)
    names = ["i", "o"] if transposed else ["o", "i"]
    kernel = [f"k{i}" for i in range(spatial)]
    shape = list(call.shape)
    shape[lead : lead + 1] = [groups, shape[lead] // groups]
    # Only channels are contracted: kernel taps and pixels carry no labels here.
    flat_x = Value((*x.shape[: lead + 2], *([1] * spatial)), x.arrays)
    flat_w = Value((*weight.shape[:3], *([1] * spatial)), weight.arrays)
    result = contract(ledger, flat_x, [*here, "g", "i", *grid], flat_w, ["g", *names, *kernel],
                      [*here, "g", "o", *grid], shape)  # fmt: skip
    folded = ledger.together(result.arrays, lambda array: [reshaped(array, shape, call.shape)])
    arrays = [array for found in folded for array in found]
    return _plus(ledger, ledger.settled(call.shape, arrays), call.get("bias"), lead)


def _split(ledger: Ledger, value: Value, axis: int, groups: int) -> Value:
    """View the channel axis as [groups, channels / groups]."""
    shape = (*value.shape[:axis], groups, value.shape[axis] // groups, *value.shape[axis + 1 :])
    if groups == 1:
        return Value(shape, tuple(array.unsqueeze(axis) for array in value.arrays))
    arrays = [reshaped(array, value.shape, shape) for array in value.arrays]
    result = ledger.settled(shape, arrays)
    ledger.grids += [(array, ledger.node) for array in result.arrays if len(varying(array)) > 1]
    return result


def convolution_macs(call: Call, results: list[Value]) -> list[list[Factor]]:
    large = call["input"] if is_transposed(call) else results[0]
    weight = call["weight"]
    return [[(large, a) for a in range(large.rank)] + [(weight, a) for a in range(1, weight.rank)]]


def group_count(new: Resizing) -> dict[str, Any]:
    """As many groups as still have an input channel."""
    call, groups = new.call, int(new.call["groups"])
    if groups == 1:
        return {}
    axis = call["input"].rank - (call["weight"].rank - 2) - 1
    kept = new.kept(call["input"], axis).reshape(groups, -1)
    return {"groups": int(kept.any(1).sum())}


CONVOLUTIONS = (
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
    aten.convolution.default,
)
CONVOLUTION = Rule(
    convolution,
    group_count,
    macs=convolution_macs,
    kernel=kernels.convolution,
    fusion=Fusion("convolution"),
    regression=regressions.convolution,
    reference=silent,
    finite=True,
)
MATMUL = Rule(matmul, macs=matmul_macs, kernel=kernels.matmul, regression=regressions.product,
              reference=masked)  # fmt: skip
ADDED = replace(MATMUL, label=add_matmul, regression=regressions.added_product)
VECTOR = Rule(matmul, macs=matmul_macs, reference=masked,
              without="too few numbers to fit, and no kernel of its own")  # fmt: skip

RULES: RuleTable = {
    aten.linear.default: Rule(
        linear, macs=linear_macs, kernel=kernels.linear, regression=regressions.linear,
        reference=silent, finite=True,
    ),
    aten.matmul.default: MATMUL,
    aten.bmm.default: MATMUL,
    aten.mm.default: MATMUL,
    aten.mv.default: VECTOR,
    aten.dot.default: VECTOR,
    aten.outer.default: replace(VECTOR, label=outer, macs=None),
    aten.addmm.default: replace(ADDED, finite=True),
    aten.baddbmm.default: ADDED,
    **{op: Rule(total, reference=masked, onnx="ReduceMean") for op in overloads(aten.sum)},
    **{op: Rule(total, reference=masked) for op in overloads(aten.nansum)},
    aten.cdist.default: Rule(distances, macs=distance_macs, reference=masked),
    aten.cosine_similarity.default: Rule(cosine, reference=masked),
    aten.bilinear.default: Rule(
        bilinear, macs=bilinear_macs, reference=masked,
        without="its weight meets two inputs: not refitted, not timed",
    ),
    aten.scaled_dot_product_attention.default: Rule(
        attention, head_scale, macs=attention_macs, kernel=kernels.attention, reference=masked
    ),
    **dict.fromkeys(CONVOLUTIONS, CONVOLUTION),
}  # fmt: skip
