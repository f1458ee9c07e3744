"""Steps that treat every position alike: of one stream, of a stream and a parameter, of two."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .table import Do, StepKind, StepTable, Stream, chained, one_of, param, pure, some_of, twin

aten = torch.ops.aten


def below(x: Tensor) -> Tensor:
    """A flag at every position."""
    return x > 0.1


def stepped(x: Tensor) -> Tensor:
    """The stream plus steps of it, of every kind."""
    found = x.round() + x.floor() + x.ceil() + x.trunc() + x.sign() + x.sgn()
    return x + 0.1 * (found + x.round(decimals=1) + torch.heaviside(x, x.new_ones(())))


UNARY = {
    # activations
    "relu": F.relu,
    "relu_": lambda x: F.relu_(x + 0.1),
    "leaky": F.leaky_relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "elu": F.elu,
    "celu": F.celu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softsign": F.softsign,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "relu6": aten.relu6.default,
    "selu": F.selu,
    "hardswish": F.hardswish,
    "hardswish_": lambda x: F.hardswish(x * 2, inplace=True),
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "rrelu": nn.RReLU().eval(),
    "softplus": F.softplus,
    "log_sigmoid": F.logsigmoid,
    # arithmetic
    "exp": lambda x: (-x.abs()).exp(),
    "sin": torch.sin,
    "cos": torch.cos,
    "erf": torch.erf,
    "sqrt": lambda x: (x.abs() + 0.1).sqrt(),
    "rsqrt": lambda x: (x.abs() + 1).rsqrt(),
    "log1p": lambda x: x.abs().log1p(),
    "reciprocal": lambda x: (x.abs() + 1).reciprocal(),
    "neg": torch.neg,
    "abs": torch.abs,
    "square": lambda x: torch.square(x.tanh()),
    "pow": lambda x: x.tanh() ** 3,
    "pow_of_number": lambda x: 2.0 ** x.tanh(),
    "float_power": lambda x: x.tanh().float_power(2).to(x.dtype),
    "float_power_of_number": lambda x: torch.float_power(2.0, x.tanh()).to(x.dtype),
    "rsub_from_number": lambda x: 1 - x,
    "rsub_by_name": lambda x: torch.rsub(x, 0.7),
    "add_number": lambda x: x + 0.7,
    "div_number": lambda x: x / 3,
    "true_divide_by_number": lambda x: aten.true_divide.Scalar(x, 3.0),
    "floor_divide_by_number": lambda x: x + aten.floor_divide.Scalar(x, 0.37),
    "steps": stepped,
    "clamp": lambda x: x.clamp(-1, 1),
    "clip": lambda x: x.clip(-0.7, 1.5),
    "nan_to_num": torch.nan_to_num,
    "add_to_itself": lambda x: x + torch.relu(x),
    "mul_to_itself": lambda x: x * torch.sigmoid(x),
    "addcmul": lambda x: torch.addcmul(x, x.tanh(), x.sigmoid(), value=0.5),
    "addcdiv": lambda x: torch.addcdiv(x, x.tanh(), x.abs() + 1),
    "lerp": lambda x: torch.lerp(x, x.tanh(), 0.3),
    "maximum": lambda x: torch.maximum(x, x.tanh() * 0.2),
    "minimum": lambda x: torch.minimum(x, x.tanh() * 0.2),
    "arctan2": lambda x: torch.arctan2(x, x.abs() + 1),
    # flags and choices
    "masked_fill": lambda x: x.masked_fill(below(x), 0.5),
    "masked_fill_of_tensor": lambda x: x.masked_fill(below(x), torch.tensor(0.5)),
    "masked_fill_": lambda x: x.clone().masked_fill_(below(x), 0.5),
    "where_other": lambda x: torch.where(below(x), x, 0.25),
    "where_self": lambda x: torch.where(below(x), 0.25, x),
    "where_numbers": lambda x: x * torch.where(below(x), 0.25, 1.5),
    "where": lambda x: torch.where(below(x), x, x.tanh()),
    "logical_not": lambda x: x * below(x).logical_not(),
    "isfinite": lambda x: x * x.isfinite(),
    "fill": lambda x: x * aten.fill.Scalar(x, 0.5),
    "fill_": lambda x: x * torch.relu(x).fill_(0.5),
    "bernoulli_of_one": lambda x: x * torch.bernoulli(torch.ones_like(x)),
    "rand_like_of_no_weight": lambda x: x + torch.rand_like(x) * 0,
    "randn_like_of_no_weight": lambda x: x + torch.randn_like(x) * 0,
    # nothing at all
    "clone": torch.clone,
    "contiguous": aten.contiguous.default,
    "detach": lambda x: x.detach(),
    "detach_by_name": aten.detach.default,
    "detach_": lambda x: aten.detach_.default(x.clone()),
    "alias": aten.alias.default,
    "lift_fresh_copy": aten.lift_fresh_copy.default,
    "positive": torch.positive,
    "dropout": nn.Dropout(0.5).eval(),
    "feature_dropout": lambda x: torch.feature_dropout(x, 0.5, False),
    "alpha_dropout": nn.AlphaDropout(0.5).eval(),
    "to_device": lambda x: x.to("cpu"),
    "to_device_and_dtype": lambda x: x.to("cpu", torch.float64).to(x),
    "to_dtype": lambda x: x.to(torch.float64).to(x.dtype),
    "to_other": lambda x: aten.to.other(x, x),
    "_to_copy": aten._to_copy.default,
    "type_as": lambda x: x.type_as(x),
    "copy": lambda x: aten.copy.default(x, torch.relu(x)),
    "copy_": lambda x: torch.relu(x).copy_(torch.sigmoid(x)),
    "zeros_like": lambda x: x + torch.zeros_like(x),
    "ones_like": lambda x: x * torch.ones_like(x) + 0.5 * torch.full_like(x, 0.5),
}

PARAM = {
    "add": torch.add,
    "mul": torch.mul,
    "add_": lambda x, p: (x * 1.5).add_(p),
    "mul_": lambda x, p: (x + 0.5).mul_(p),
    "sub": lambda x, p: p - x,
    "div": lambda x, p: x / (p.abs() + 1),
    "true_divide": lambda x, p: torch.true_divide(x, p.abs() + 1),
    "floor_divide": lambda x, p: x + x // (p.abs() + 1),
    "rsub": torch.rsub,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "clip": lambda x, p: x.clip(p - 1, p + 1),
    "where": lambda x, p: torch.where(below(x), x, p),
    "lerp": lambda x, p: torch.lerp(x, p, 0.3),
    "lerp_of_tensors": lambda x, p: torch.lerp(x, torch.relu(x), p),
    "addcmul": lambda x, p: torch.addcmul(x, x.tanh(), p, value=0.5),
    "addcdiv": lambda x, p: torch.addcdiv(x, x.tanh(), p.abs() + 1),
    "arctan2": lambda x, p: torch.arctan2(x, p.abs() + 1),
    "pow": lambda x, p: (x.tanh().abs() + 0.1) ** p,
    "float_power": lambda x, p: (x.tanh().abs() + 0.1).float_power(p).to(x.dtype),
    "prelu_kernel": lambda x, p: aten._prelu_kernel.default(x, p[None]),
    "expanded": lambda x, p: x + p.expand(x.shape[1:]),
    "gate_of_the_batch": lambda x, p: x * p.sigmoid().expand(x.shape[0], *p.shape),
}

BINARY = {
    "add": torch.add,
    "mul": torch.mul,
    "sub": torch.sub,
    "gate": lambda a, b: a * torch.sigmoid(b),
    "swiglu": lambda a, b: F.silu(a) * b,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "where": lambda a, b: torch.where(below(a), a, b),
    "lerp": lambda a, b: torch.lerp(a, b, a.sigmoid()),
    "addcmul": lambda a, b: torch.addcmul(a, a.tanh(), b.tanh()),
    "mean_of_two": lambda a, b: (a + b) / 2,
    "difference": lambda a, b: (a - b).abs(),
    "arctan2": lambda a, b: torch.arctan2(a, b.abs() + 1),
    "add_in_place": lambda a, b: a.clone().add_(b),
    "in_place_of_slice": lambda a, b: replaced(a, b),
}


def replaced(a: Tensor, b: Tensor) -> Tensor:
    """The first half of the channels (or tokens) of `a`, the rest of `b`."""
    y = a.clone()
    half = y.shape[1] // 2
    y[:, half:] = b[:, half:]
    return y


def unary(x: Stream, *, fns: list[str]) -> nn.Module:
    return chained(UNARY, fns)


def with_param(x: Stream, *, fns: list[str]) -> nn.Module:
    def run(m: Any, a: Tensor) -> Tensor:
        for name in fns:
            a = PARAM[name](a, m.p)
        return a

    return Do(run, p=param(*x.lying()))


def binary(x: Stream, y: Stream, *, fn: str) -> nn.Module:
    return pure(BINARY[fn])


def prelu(x: Stream, *, shared: bool) -> nn.Module:
    if x.axis != 1 and not shared:
        layer = nn.PReLU(x.channels)
        return Do(lambda m, a: m.layer(a.transpose(1, 2)).transpose(1, 2), layer=layer)
    return nn.PReLU(1 if shared else x.channels)


STEPS: StepTable = {
    "unary": StepKind(unary, some_of(UNARY, 5), weight=10),
    "param": StepKind(with_param, some_of(PARAM, 3), weight=4),
    "binary": StepKind(binary, one_of(BINARY), find=twin, weight=8),
    "prelu": StepKind(prelu, lambda r, x: {"shared": r.random() < 0.2}, weight=0.7),
}
