"""What a plan costs: a sum of products of sizes, so that every size counts its neighbours.

params    product of the sizes of each parameter and buffer
bytes     the same, times the size of an element
macs      per sample, from the `macs` column of the rule table
channels  how many of the channels that can go are still there
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .coupling import Coupling
from .interpret import results_of
from .labels import Axes, Value
from .rules import rule_for
from .rules.table import Factor
from .sizes import Sizes, overlapping

NONE = torch.zeros(0, dtype=torch.long)
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


class Costs:
    """The cost `kind` of removing channels, and what one more step of each group would save."""

    def __init__(self, coupling: Coupling, kind: str) -> None:
        self.coupling, self.kind = coupling, kind
        self._prunable = self._count(coupling.members[0])
        self._keys: dict[tuple[tuple[int, ...], int], int] = {}
        self._factors: list[tuple[Axes, tuple[Tensor, ...], int]] = []
        rows: list[list[int]] = []
        coefficients: list[float] = []
        for term in [] if kind == "channels" else terms(coupling, kind):
            constant, row = term.coefficient, []
            for value, axis in term.factors:
                index = self._index(value, axis)
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
        self._whole = np.array([*self._extents(coupling.without(NONE)), 1.0])
        self.dense = self.amount(NONE)

    def _count(self, classes: Tensor) -> int:
        """How many of these classes are channels of a parameter."""
        found = np.zeros(self.coupling.class_count, dtype=bool)
        found[classes.numpy()] = True
        return int((found & self.coupling.held).sum())

    def _index(self, value: Value, axis: int) -> int | None:
        for axes, arrays in overlapping(value):
            if axis in axes:
                key = (tuple(id(array) for array in arrays), axes.index(axis))
                if key not in self._keys:
                    self._keys[key] = len(self._factors)
                    self._factors.append((axes, arrays, axes.index(axis)))
                return self._keys[key]
        return None

    @cached_property
    def _kinds(self) -> tuple[np.ndarray, list[list[int]]]:
        """A kind for each class, and the factors of each kind: classes of a kind lie in the same.

        There are millions of classes in a large network, but only as many kinds as groups.
        """
        classes = self.coupling.classes.numpy()
        random = np.random.default_rng(0)
        total = np.zeros(self.coupling.class_count, dtype=np.uint64)
        for _, arrays, _ in self._factors:
            for array in arrays:
                total[classes[array.numpy()]] += random.integers(1, 2**63, dtype=np.uint64)
        _, first, kind = np.unique(total, return_index=True, return_inverse=True)
        sample = np.zeros(len(total), dtype=bool)
        sample[first] = True
        touched: list[list[int]] = [[] for _ in first]
        for index, (_, arrays, _) in enumerate(self._factors):
            here = [classes[array.numpy()].reshape(-1) for array in arrays]
            for one in np.unique(np.concatenate([own[sample[own]] for own in here])):
                touched[kind[one]].append(index)
        return kind, touched

    def _touched(self, classes: Tensor) -> list[int]:
        """The factors that get smaller without these classes."""
        kind, touched = self._kinds
        return sorted({f for one in np.unique(kind[classes.numpy()]) for f in touched[one]})

    def _extents(self, sizes: Sizes, which: Sequence[int] | None = None) -> np.ndarray:
        which = range(len(self._factors)) if which is None else which
        return np.array([self._extent(sizes, index) for index in which])

    def _sizes(self, channels: Tensor) -> np.ndarray:
        """All factors without these channels, and the one that is always 1."""
        found = self._whole.copy()
        touched = self._touched(self.coupling.classes_of(channels))
        found[touched] = self._extents(self.coupling.without(channels), touched)
        return found

    def _extent(self, sizes: Sizes, index: int) -> float:
        """Size of a factor; while rows are uneven (inside a step) their mean length counts."""
        axes, arrays, place = self._factors[index]
        stays = sizes.mask(arrays, axes)
        if stays.dim() == 1:
            return float(stays.sum())
        if place < stays.dim() - 1:
            return float(stays.movedim(place, 0).flatten(1).any(1).sum())
        return float(stays.sum()) / max(int(stays.any(-1).sum()), 1)

    def amount(self, channels: Tensor) -> float:
        """The cost once these channels (numbers, int64) are removed."""
        if self.kind == "channels":
            return float(self._prunable - self._count(self.coupling.classes_of(channels)))
        if not len(self._rows):
            return 0.0
        extents = self._sizes(channels) if len(channels) else self._whole
        return float((self._coefficients * extents[self._rows].prod(1)).sum())

    def savings(self, channels: Tensor, steps: Mapping[int, Tensor]) -> dict[int, float]:
        """What one more step (its channels) of each group saves, at the sizes without `channels`.

        To first order: the slope of the cost along each size, times what the step takes off it.
        """
        if self.kind == "channels":
            return {
                group: float(self._count(self.coupling.classes_of(step)))
                for group, step in steps.items()
            }
        extents = self._sizes(channels)
        slope = np.zeros(len(extents))
        product = extents[self._rows]
        for place in range(product.shape[1]):
            others = np.delete(product, place, 1).prod(1) * self._coefficients
            np.add.at(slope, self._rows[:, place], others)
        found = {}
        for group, step in steps.items():
            sizes = self.coupling.without(step)
            touched = self._touched(self.coupling.classes_of(step))
            less = self._whole[touched] - self._extents(sizes, touched)
            found[group] = float((slope[touched] * less).sum())
        return found
