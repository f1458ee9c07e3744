"""The original network with the removed channels silenced: what the small one must equal.

Wherever silence stays silent (convolution, linear, batch norm, attention over tokens, elementwise,
pooling) zeros in the parameters are all that is needed. Where it does not, the original call is
interpreted on the kept part of its input, masked in place: statistics and sums over labelled
channels, and products of two activations. That path shares neither literals nor slicing with the
surgery.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from .coupling import Coupling
from .interpret import results_of
from .labels import Value
from .program import variances
from .rules import Call
from .sizes import Sizes

aten = torch.ops.aten


def silenced(
    coupling: Coupling, sizes: Sizes, tensors: Mapping[str, Tensor] | None = None
) -> Mapping[str, Tensor]:
    """Every tensor of the original with the elements of removed channels set to zero.

    Running variances stay: they are divided by. `tensors`: other values of the same sizes. Each is
    made when it is asked for: together they are as large as the model.
    """
    own = coupling.program.tensors() if tensors is None else tensors
    return _Silent(coupling, sizes, own)


class _Silent(Mapping[str, Tensor]):
    def __init__(self, coupling: Coupling, sizes: Sizes, own: Mapping[str, Tensor]) -> None:
        self._coupling, self._sizes, self._own = coupling, sizes, own
        self._variances = variances(coupling.program)

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._own[name].detach()
        if name in self._variances or not tensor.is_floating_point():
            return tensor
        return tensor * self._sizes.stays(self._coupling.state[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)


class Silenced(Interpreter):
    """The silenced original; calls in `_MASKED` see only the kept part of their inputs."""

    def __init__(self, coupling: Coupling, sizes: Sizes, silent: GraphModule) -> None:
        super().__init__(silent)
        nodes = zip(silent.graph.nodes, coupling.program.module.graph.nodes, strict=True)
        self._original = dict(nodes)
        self._coupling, self._sizes = coupling, sizes

    def run_node(self, n: Node) -> Any:
        original = self._original[n]
        call = self._coupling.trace.calls.get(original)
        if call is None:
            return super().run_node(n)
        return self._contained(call, self._called(n, original, call))

    def _called(self, n: Node, original: Node, call: Call) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        given = {a.name: value for a, value in zip(call.op._schema.arguments, args, strict=False)}
        given |= kwargs
        if original in self._coupling.inexact:
            x = next(value for value in given.values() if isinstance(value, Tensor))
            return _statistics(call, given, self._stays(call.x, x))
        if call.op in _PRODUCTS and self._shrinks(call):
            pairs = zip(args, call.given.values(), strict=False)
            return call.op(*(self._masked(a, v) for a, v in pairs), **kwargs)
        return super().run_node(n)

    def _shrinks(self, call: Call) -> bool:
        return any(self._sizes.shape(v) != v.shape for v in results_of(list(call.given.values())))

    def _stays(self, value: Value, tensor: Tensor) -> Tensor:
        """What stays of a tensor, also where heads are folded into a batch, or a length, of another
        size: they repeat with a period that divides both."""
        stays = self._sizes.stays(value)
        for axis, size in enumerate(stays.shape):
            if size not in (1, tensor.shape[axis]):
                once = stays.narrow(axis, 0, math.gcd(size, tensor.shape[axis]))
                times = tensor.shape[axis] // once.shape[axis]
                stays = once.repeat([times if a == axis else 1 for a in range(stays.dim())])
        return stays

    def _contained(self, call: Call, result: Any) -> Any:
        """Silence that was divided by silence is silence, where it belongs to removed channels."""
        value = self._coupling.trace.results[call.node]
        if not isinstance(value, Value) or not isinstance(result, Tensor) or not value.arrays:
            return result
        if not result.is_floating_point() or bool(torch.isfinite(result).all()):
            return result
        return torch.where(self._stays(value, result) | torch.isfinite(result), result, 0.0)

    def _masked(self, argument: Any, value: Any) -> Any:
        if isinstance(value, Value):
            return argument * self._stays(value, argument)
        if isinstance(value, list):
            return [self._masked(a, v) for a, v in zip(argument, value, strict=True)]
        return argument


_PRODUCTS = {
    aten.matmul.default,
    aten.bmm.default,
    aten.einsum.default,
    aten.scaled_dot_product_attention.default,
    aten.bilinear.default,
    aten.cdist.default,
    aten.cosine_similarity.default,
    aten.sum.default,
    aten.sum.dim_IntList,
    aten.nansum.default,
}


def _statistics(call: Call, given: Mapping[str, Any], stays: Tensor) -> Tensor:
    """A norm, or a statistic, over the kept part of its input; removed positions give zero."""
    name = call.op._schema.name.removeprefix("aten::")
    x: Tensor = next(value for value in given.values() if isinstance(value, Tensor))
    stays = stays.expand(x.shape)
    if name in ("layer_norm", "rms_norm"):
        axes = list(range(x.dim() - len(call["normalized_shape"]), x.dim()))
        return _normalised(name, call, given, x, stays, axes)
    if name in ("batch_norm", "instance_norm"):
        axes = [axis for axis in range(x.dim()) if axis > 1 or (axis == 0 and name[0] == "b")]
        return _scaled(_normalised(name, call, {}, x, stays, axes), given) * stays
    if name == "group_norm":
        shape = (x.shape[0], int(call["num_groups"]), -1)
        y = _normalised(name, call, {}, x.reshape(shape), stays.reshape(shape), [2])
        return _scaled(y.reshape(x.shape), given) * stays
    if name == "_weight_norm":
        scaled: Tensor = torch._weight_norm(x * stays, given["g"], call.axis())
        return scaled
    axes, keep = call.axes(), bool(call.get("keepdim"))
    count = stays.sum(axes, keepdim=keep).clamp(min=1)
    if name == "mean":
        return (x * stays).sum(axes, keepdim=keep) / count
    if name in ("linalg_vector_norm", "norm"):
        order = float(call.get("ord", call.get("p", 2)) or 2)
        norm: Tensor = torch.linalg.vector_norm(x * stays, order, axes, keepdim=keep)
        return norm
    centre = (x * stays).sum(axes, keepdim=True) / stays.sum(axes, keepdim=True).clamp(min=1)
    given_free = call.get("correction")
    free = float(given_free) if given_free is not None else float(bool(call.get("unbiased", True)))
    square: Tensor = ((x - centre) * stays).square().sum(axes, keepdim=keep) / (count - free).clamp(
        min=1
    )
    return square if name == "var" else square.sqrt()


def _scaled(y: Tensor, given: Mapping[str, Any]) -> Tensor:
    """With the weight and the bias of a norm, which lie along axis 1."""
    view = [-1 if axis == 1 else 1 for axis in range(y.dim())]
    for key, combine in (("weight", torch.mul), ("bias", torch.add)):
        if given.get(key) is not None:
            y = combine(y, given[key].reshape(view))
    return y


def _normalised(
    name: str,
    call: Call,
    given: Mapping[str, Any],
    x: Tensor,
    stays: Tensor,
    axes: list[int],
) -> Tensor:
    eps = call.get("eps")
    eps = torch.finfo(x.dtype).eps if eps is None else float(eps)
    count = stays.sum(axes, keepdim=True).clamp(min=1)
    x = x * stays
    if name != "rms_norm":
        x = (x - x.sum(axes, keepdim=True) / count) * stays
    y = x * torch.rsqrt(x.square().sum(axes, keepdim=True) / count + eps)
    if given.get("weight") is not None:
        y = y * given["weight"]
    if given.get("bias") is not None:
        y = y + given["bias"]
    return y * stays
