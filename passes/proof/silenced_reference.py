"""The original network with the removed channels silenced: what the small one must equal.

Wherever silence stays silent (convolution, linear, batch norm, attention over tokens, elementwise,
pooling) zeros in the parameters are all that is needed. Where it does not, the original call is
interpreted on the kept part of its input, masked in place: statistics and sums over labelled
channels, and products of two activations (`operators/references.py`).
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from ..coupling.groups import Coupling
from ..coupling.propagate import results_of
from ..coupling.sizes import Sizes
from ..ir.call import Call
from ..ir.labels import Value
from ..ir.program import variances
from ..operators import rule_for
from ..operators.references import masked


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
    """The silenced original; where silence would not stay silent its rows say what comes out."""

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
        reference = rule_for(call.op).reference
        masks = reference is masked and self._shrinks(call)
        if original not in self._coupling.inexact and not masks:
            return super().run_node(n)
        assert reference is not None, f"no reference for {call.op}"
        return reference(call, given, self._stays)

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
