"""What the silenced original gives at a call: how silence reaches through an operator.

    silent        as it is: zeros in the parameters are all that is needed
    masked        products and sums: every operand is masked to what stays of it
    statistics    over what stays of the input, masked in place; removed positions give zero

This path shares neither literals nor slicing with the surgery.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..ir.call import Call
from ..ir.labels import Value

Given = Mapping[str, Any]
"""The arguments of the call as it runs, by name."""
Stays = Callable[[Value, Tensor], Tensor]
"""Which positions of a tensor stay, from its labels and itself."""
Reference = Callable[[Call, Given, Stays], Tensor]


def silent(call: Call, given: Given, stays: Stays) -> Tensor:
    return call.op(**given)  # type: ignore[no-any-return]


def masked(call: Call, given: Given, stays: Stays) -> Tensor:
    found = {name: _masked(one, call.given[name], stays) for name, one in given.items()}
    return call.op(**found)  # type: ignore[no-any-return]


def _masked(argument: Any, value: Any, stays: Stays) -> Any:
    if isinstance(value, Value):
        return argument * stays(value, argument)
    if isinstance(value, list):
        return [_masked(a, v, stays) for a, v in zip(argument, value, strict=True)]
    return argument


def _input(call: Call, given: Given, stays: Stays) -> tuple[Tensor, Tensor]:
    """The first tensor, and which positions of it stay."""
    x: Tensor = next(value for value in given.values() if isinstance(value, Tensor))
    return x, stays(call.x, x).expand(x.shape)


# --- norms ---------------------------------------------------------------------------------------


def over_last_axes(*, centred: bool) -> Reference:
    """layer_norm and, not centred, rms_norm."""

    def reference(call: Call, given: Given, stays: Stays) -> Tensor:
        x, kept = _input(call, given, stays)
        axes = list(range(x.dim() - len(call["normalized_shape"]), x.dim()))
        return _scaled(_normalised(call, x, kept, axes, centred=centred), given) * kept

    return reference


def per_channel(*lead: int) -> Reference:
    """Norms by statistics of the input, over all pixels and the axes `lead`."""

    def reference(call: Call, given: Given, stays: Stays) -> Tensor:
        x, kept = _input(call, given, stays)
        y = _normalised(call, x, kept, [*lead, *range(2, x.dim())])
        return _scaled(y, given, [-1, *[1] * (x.dim() - 2)]) * kept

    return reference


def group_norm(call: Call, given: Given, stays: Stays) -> Tensor:
    x, kept = _input(call, given, stays)
    shape = (x.shape[0], int(call["num_groups"]), -1)
    y = _normalised(call, x.reshape(shape), kept.reshape(shape), [2]).reshape(x.shape)
    return _scaled(y, given, [-1, *[1] * (x.dim() - 2)]) * kept


def weight_norm(call: Call, given: Given, stays: Stays) -> Tensor:
    x, kept = _input(call, given, stays)
    scaled: Tensor = torch._weight_norm(x * kept, given["g"], call.axis())
    return scaled


def _normalised(
    call: Call, x: Tensor, stays: Tensor, axes: list[int], *, centred: bool = True
) -> Tensor:
    eps = call.get("eps")
    eps = torch.finfo(x.dtype).eps if eps is None else float(eps)
    count = stays.sum(axes, keepdim=True).clamp(min=1)
    x = x * stays
    if centred:
        x = (x - x.sum(axes, keepdim=True) / count) * stays
    return x * torch.rsqrt(x.square().sum(axes, keepdim=True) / count + eps)


def _scaled(y: Tensor, given: Given, shape: Sequence[int] | None = None) -> Tensor:
    """With the weight and the bias of a norm, in this shape."""
    for key, combine in (("weight", torch.mul), ("bias", torch.add)):
        own = given.get(key)
        if own is not None:
            y = combine(y, own if shape is None else own.reshape(shape))
    return y


# --- statistics written out by hand --------------------------------------------------------------


def mean(call: Call, given: Given, stays: Stays) -> Tensor:
    x, kept = _input(call, given, stays)
    axes, keep = call.axes(), bool(call.get("keepdim"))
    count = kept.sum(axes, keepdim=keep).clamp(min=1)
    return (x * kept).sum(axes, keepdim=keep) / count


def length(call: Call, given: Given, stays: Stays) -> Tensor:
    x, kept = _input(call, given, stays)
    order = float(call.get("ord", call.get("p", 2)) or 2)
    norm: Tensor = torch.linalg.vector_norm(
        x * kept, order, call.axes(), keepdim=bool(call.get("keepdim"))
    )
    return norm


def variance(call: Call, given: Given, stays: Stays) -> Tensor:
    x, kept = _input(call, given, stays)
    axes, keep = call.axes(), bool(call.get("keepdim"))
    centre = (x * kept).sum(axes, keepdim=True) / kept.sum(axes, keepdim=True).clamp(min=1)
    correction = call.get("correction")
    free = float(bool(call.get("unbiased", True)) if correction is None else correction)
    count = (kept.sum(axes, keepdim=keep).clamp(min=1) - free).clamp(min=1)
    found: Tensor = ((x - centre) * kept).square().sum(axes, keepdim=keep) / count
    return found


def deviation(call: Call, given: Given, stays: Stays) -> Tensor:
    return variance(call, given, stays).sqrt()
