"""What a plan costs: a sum of products of sizes, so that every size counts its neighbours.

params    product of the sizes of each parameter and buffer
bytes     the same, times the size of an element
macs      per sample, from the `macs` column of the rule table
channels  how many of the channels that can go are still there
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from ..coupling.groups import Coupling
from ..coupling.propagate import results_of
from ..ir.call import Factor
from ..ir.labels import Value
from ..operators import rule_for
from .dimensions import NONE, Factors

KINDS = ("channels", "macs", "params", "bytes")


@dataclass(frozen=True)
class Term:
    coefficient: float
    factors: tuple[Factor, ...]


def terms(coupling: Coupling, kind: str) -> list[Term]:
    """The cost `kind` as products of sizes (for "channels" see `Costs`)."""
    if kind == "macs":
        batch = coupling.program.batch or _static_batch(coupling)
        return [
            Term(1 / batch, tuple(product))
            for node, call in coupling.trace.calls.items()
            if (macs := rule_for(call.op).macs) is not None
            for product in macs(call, results_of(coupling.trace.results[node]))
        ]
    found, seen = [], set()
    for name, tensor in coupling.program.tensors().items():
        value = coupling.state[name]
        if id(value) in seen:  # a tied weight is stored once
            continue
        seen.add(id(value))
        weight = float(tensor.element_size()) if kind == "bytes" else 1.0
        found.append(Term(weight, tuple((value, axis) for axis in range(value.rank))))
    return found


def _static_batch(coupling: Coupling) -> int:
    inputs = [n for n in coupling.program.module.graph.nodes if n.op == "placeholder"]
    values = [coupling.trace.results[node] for node in inputs]
    sizes = [v.shape[0] for v in values if isinstance(v, Value) and v.rank > 0]
    return max(sizes[0], 1) if sizes else 1


Further = Mapping[int, Sequence[int]]
"""Groups by their place, each with ascending numbers of further steps that it could lose."""
Block = Callable[[int, int], Tensor]
"""The channels of the next so many steps of a group."""


class Cost(Protocol):
    """What a plan costs. Anything that answers these can be planned by: `Costs`, a table of times
    (`latency.py`), memory (`memory.py`), or several at once (`combined.py`)."""

    @property
    def dense(self) -> float:
        """What the original costs."""

    def amount(self, channels: Tensor) -> float:
        """The cost once these channels (numbers, int64) are removed."""

    def gains(self, channels: Tensor, further: Further, block: Block) -> dict[int, list[float]]:
        """What each number of further steps of each group saves, at the sizes without `channels`;
        exact, or to first order."""

    def stops(self, order: Sequence[Tensor]) -> list[int] | None:
        """Numbers of steps, from 0, after which a group (its cells, in the order in which they go)
        is worth stopping: the tops of its stairs. None where every width is as good."""


class Costs:
    """The cost `kind` of removing channels, and what one more step of each group would save."""

    def __init__(self, coupling: Coupling, kind: str) -> None:
        self.coupling, self.kind = coupling, kind
        self._prunable = self._count(coupling.members[0])
        self._factors = Factors(coupling)
        rows: list[list[int]] = []
        coefficients: list[float] = []
        for term in [] if kind == "channels" else terms(coupling, kind):
            constant, row = term.coefficient, []
            for value, axis in term.factors:
                index = self._factors.index(value, axis)
                if index is None:
                    constant *= value.shape[axis]
                else:
                    row.append(index)
            coefficients.append(constant)
            rows.append(row)
        width = max(map(len, rows), default=0)
        one = len(self._factors)  # an extra factor that is always 1 fills short rows
        self._rows = np.array([row + [one] * (width - len(row)) for row in rows], dtype=np.int64)
        self._coefficients = np.array(coefficients)
        self.dense = self.amount(NONE)

    def _count(self, classes: Tensor) -> int:
        """How many of these classes are channels of a parameter."""
        found = np.zeros(self.coupling.class_count, dtype=bool)
        found[classes.numpy()] = True
        return int((found & self.coupling.held).sum())

    def amount(self, channels: Tensor) -> float:
        """The cost once these channels (numbers, int64) are removed."""
        if self.kind == "channels":
            return float(self._prunable - self._count(self.coupling.classes_of(channels)))
        if not len(self._rows):
            return 0.0
        extents = self._factors.sizes(channels)
        return float((self._coefficients * extents[self._rows].prod(1)).sum())

    def gains(self, channels: Tensor, further: Further, block: Block) -> dict[int, list[float]]:
        """To first order: what one step saves, times the steps."""
        saved = self.savings(channels, {group: block(group, 1) for group in further})
        return {group: [saved[group] * n for n in counts] for group, counts in further.items()}

    def stops(self, order: Sequence[Tensor]) -> list[int] | None:
        """Every width is as good as the next."""
        return None

    def savings(self, channels: Tensor, steps: Mapping[int, Tensor]) -> dict[int, float]:
        """What one more step (its channels) of each group saves, at the sizes without `channels`.

        To first order: the slope of the cost along each size, times what the step takes off it.
        """
        if self.kind == "channels":
            return {
                group: float(self._count(self.coupling.classes_of(step)))
                for group, step in steps.items()
            }
        factors = self._factors
        extents = factors.sizes(channels)
        slope = np.zeros(len(extents))
        product = extents[self._rows]
        for place in range(product.shape[1]):
            others = np.delete(product, place, 1).prod(1) * self._coefficients
            np.add.at(slope, self._rows[:, place], others)
        found = {}
        for group, step in steps.items():
            touched = factors.touched(step)
            less = factors.whole[touched] - factors.extents(self.coupling.without(step), touched)
            found[group] = float((slope[touched] * less).sum())
        return found
