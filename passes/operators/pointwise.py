"""Elementwise operators: position by position, the operands stand or fall together.

    a + b         a[i] ~ b[i]
    a * b[:, None]  broadcast first; a score per head is a row of the head's entries

Most carry torch's own `pointwise` tag and need no row here (see `rule_for`).
"""

import math
from typing import Any

import torch
from torch.fx import Node

from ..ir.call import Call
from ..ir.labels import Ledger, Value
from ..ir.program import by_name
from .kernels import ADDITION, RELU, Fusion
from .references import silent
from .table import Flat, Rule, RuleTable, overloads

aten = torch.ops.aten


def pointwise(ledger: Ledger, call: Call) -> Value:
    return ledger.merge(call.values, call.shape, f"in {call.op._schema.name[6:]}")


def gated(ledger: Ledger, call: Call) -> Value:
    """glu: each channel of the first half meets one of the second."""
    x, axis = call.x, call.axis()
    half = x.shape[axis] // 2
    parts = [
        [a.narrow(axis, at, half) if a.shape[axis] > 1 else a for a in x.arrays] for at in (0, half)
    ]
    halves = [ledger.settled(call.shape, arrays) for arrays in parts]
    return ledger.merge(halves, call.shape, "in glu")


def prelu(ledger: Ledger, call: Call) -> Value:
    """The slopes lie along axis 1."""
    x, slope = call.x, call["weight"]
    shape = tuple(n if a == 1 else 1 for a, n in enumerate(x.shape))
    if slope.shape == (1,) or x.rank < 2:
        return Value(x.shape, x.arrays)
    view = Value(shape, tuple(array.reshape(shape) for array in slope.arrays))
    return ledger.merge([x, view], call.shape, "in prelu")


def between(low: float, high: float) -> Flat:
    """An activation that is flat outside of the same two numbers always."""
    return lambda node: (low, high)


def clipped(node: Node) -> tuple[float, float] | None:
    """A clamp is flat outside of the numbers that it names."""
    given = by_name(node)
    low = given.get("min", given.get("min_val"))
    high = given.get("max", given.get("max_val"))
    if any(isinstance(one, Node) for one in (low, high)):
        return None
    return _number(low, -math.inf), _number(high, math.inf)


def _number(given: Any, default: float) -> float:
    return default if given is None else float(given)


UNTAGGED = [
    aten.copy.default, aten.copy_.default, aten.masked_fill.Scalar, aten.masked_fill.Tensor,
    aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar,
    aten.floor_divide.default, aten.floor_divide.Scalar, aten.selu.default,
    aten.rrelu.default, aten.fill.Scalar, aten.bernoulli.default,
    *overloads(aten.nan_to_num, aten.addcmul, aten.addcdiv, aten.rsub, aten.square,
               aten.true_divide, aten.clip, aten.maximum, aten.minimum, aten.pow, aten.float_power,
               aten.arctan2, aten.logical_not, aten.isfinite, aten.log_sigmoid, aten.rand_like,
               aten.randn_like),
]  # fmt: skip

CLIPS = (aten.relu6.default, aten.hardtanh.default, aten.clamp.default, aten.clamp_min.default)
ACTIVATIONS = {
    "sigmoid": (aten.sigmoid.default, "Sigmoid"),
    "tanh": (aten.tanh.default, "Tanh"),
    "leaky_relu": (aten.leaky_relu.default, "LeakyRelu"),
    "hardsigmoid": (aten.hardsigmoid.default, "HardSigmoid"),
}
"""What a runtime computes on the way out of a convolution, by what that takes (`Fusion`)."""
WORDS = {
    aten.gelu.default: "Gelu", aten.hardswish.default: "HardSwish", aten.elu.default: "Elu",
    aten.exp.default: "Exp", aten.sqrt.default: "Sqrt", aten.softplus.default: "Softplus",
    aten.mish.default: "Mish", aten.erf.default: "Erf", aten.silu.default: "Swish",
    aten.sub.Tensor: "Sub", aten.mul.Tensor: "Mul", aten.div.Tensor: "Div",
}  # fmt: skip
"""What ONNX calls others."""

FLAT = {
    aten.relu6.default: between(0, 6),
    aten.hardsigmoid.default: between(-3, 3),
}

_SLOPES = "its weights scale channels, and stay as they are"

RULES: RuleTable = {
    **{op: Rule(pointwise) for op in UNTAGGED},
    **{op: Rule(pointwise, onnx=word, flat=FLAT.get(op)) for op, word in WORDS.items()},
    **{
        op: Rule(pointwise, fusion=Fusion("activation", "clip"), flat=FLAT.get(op, clipped))
        for op in CLIPS
    },
    **{
        op: Rule(pointwise, fusion=Fusion("activation", kind), onnx=word, flat=FLAT.get(op))
        for kind, (op, word) in ACTIVATIONS.items()
    },
    aten.relu.default: Rule(pointwise, fusion=RELU, onnx="Relu", flat=between(0, math.inf)),
    aten.add.Tensor: Rule(pointwise, fusion=ADDITION, onnx="Add"),
    aten.glu.default: Rule(gated),
    aten.prelu.default: Rule(prelu, reference=silent, without=_SLOPES),
    aten._prelu_kernel.default: Rule(pointwise, reference=silent, without=_SLOPES),
    **{
        op: Rule(pointwise, reference=silent, without="its weight is a share")
        for op in overloads(aten.lerp)
    },
    **{
        op: Rule(pointwise, steps=True)
        for op in overloads(
            *(aten.round, aten.floor, aten.ceil, aten.trunc, aten.sign, aten.sgn, aten.heaviside)
        )
    },
}
