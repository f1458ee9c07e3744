"""What the loss of channels costs after the best refit, in the order in which they go.

A layer reads x, of which channels I go, and weighs x with M (`activation_statistics.py`). The best
map from what stays to what went leaves an error that follows from P, the inverse covariance:

    error of losing I     tr(P_II⁻¹ Q_II)             Q = M at first
    afterwards            P ← P - P_:I P_II⁻¹ P_I:    the same for the weights that make Q

This is the optimal brain surgeon (Hassibi and Stork, 1993) for whole channels, greedy and with
updates, summed over all layers that read the group. What no layer reads (queries and keys go into
a product) is worth what silencing it costs, and nothing makes up for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..calibration.activation_statistics import Reading
from ..coupling.groups import Coupling, Group

DAMPING = 1e-3
"""Of a covariance, in units of its mean diagonal."""

ROUNDS = 128
"""A group of more steps loses several at a time."""


@dataclass(frozen=True, eq=False)
class Curve:
    """The channels of each cell in the order in which they go, and what each step costs."""

    order: tuple[Tensor, ...]
    losses: tuple[float, ...]


class _Place:
    """One reading of a group, with the columns of each of its units."""

    def __init__(self, reading: Reading, columns: Tensor) -> None:
        """`columns` [units, m]: numbers of columns, -1 where a unit has fewer."""
        size = len(reading.cov)
        diagonal = reading.cov.diagonal().clamp(min=0)
        damping = DAMPING * float(diagonal.mean()) + 1e-30
        eye = torch.eye(size, dtype=torch.float64)
        self.inverse = torch.linalg.inv(reading.cov + damping * eye)
        self.energy = reading.energy.clone()
        self.columns = columns

    def errors(self) -> Tensor:
        """What losing each unit, as the next one, costs: float64 [units]."""
        safe, gone = self.columns.clamp(min=0), self.columns < 0
        if safe.shape[1] == 1:
            own = safe[:, 0]
            found = self.energy[own, own] / self.inverse[own, own].clamp(min=1e-300)
            return torch.where(gone[:, 0], 0.0, found)
        rows, cols = safe[:, :, None], safe[:, None]
        empty = gone[:, :, None] | gone[:, None]
        eye = torch.eye(safe.shape[1], dtype=torch.float64)
        part = torch.where(empty, eye, self.inverse[rows, cols])
        energy = torch.where(empty, 0.0, self.energy[rows, cols])
        solved: Tensor = torch.linalg.solve(part, energy)
        return solved.diagonal(dim1=1, dim2=2).sum(1)

    def lose(self, unit: int) -> None:
        """Take the columns of a unit out, and move what they carried to the others."""
        gone = self.columns[unit]
        gone = gone[gone >= 0]
        if not len(gone):
            return
        across = self.inverse[gone]
        factor = torch.linalg.solve(self.inverse[gone][:, gone], across)
        self.inverse -= across.T @ factor
        mixed = factor.T @ self.energy[gone]
        self.energy += factor.T @ self.energy[gone][:, gone] @ factor - mixed - mixed.T
        for matrix in (self.inverse, self.energy):
            matrix[gone] = 0
            matrix[:, gone] = 0
        self.inverse[gone, gone] = 1.0
        self.columns[unit] = -1


class _Alone:
    """A group that no layer reads: its units have their own price each."""

    def __init__(self, prices: Tensor) -> None:
        self._prices = prices.clone()

    def errors(self) -> Tensor:
        """As for a place that is read."""
        return self._prices

    def lose(self, unit: int) -> None:
        """It costs nothing any more."""
        self._prices[unit] = 0


def curve(
    coupling: Coupling,
    group: Group,
    read: Sequence[Reading],
    scores: Tensor | None = None,
    gone: Tensor | None = None,
) -> Curve:
    """The cheapest next step first; or in the order of `scores` of all channels.

    Channels of `gone` go before all others, whatever they cost.
    """
    units = torch.cat(group.cells)
    cell = torch.cat([torch.full((len(own),), i) for i, own in enumerate(group.cells)])
    places = _places(coupling, units, read)
    alive = torch.ones(len(units), dtype=torch.bool)
    together = max(group.size // ROUNDS, 1)
    order: list[list[int]] = [[] for _ in group.cells]
    losses: list[float] = []
    while len(losses) < group.size:
        errors = sum((place.errors() for place in places), torch.zeros(len(units)).double())
        ranked = errors if scores is None else scores[units].double()
        if gone is not None:
            ranked = ranked.masked_fill(torch.isin(units, gone), -torch.inf)
        count = min(together, group.size - len(losses))
        steps = torch.zeros(count, dtype=torch.float64)
        for index in range(len(group.cells)):
            own = torch.nonzero(alive & (cell == index))[:, 0]
            chosen = own[torch.argsort(ranked[own], stable=True)[:count]]
            order[index] += units[chosen].tolist()
            steps += errors[chosen]
            alive[chosen] = False
            for unit in chosen.tolist():
                for place in places:
                    place.lose(unit)
        losses += steps.tolist()
    for index in range(len(group.cells)):  # what can never go, last
        rest = torch.nonzero(alive & (cell == index))[:, 0]
        order[index] += units[rest].tolist()
    return Curve(tuple(torch.tensor(own) for own in order), tuple(losses))


def _places(coupling: Coupling, units: Tensor, read: Sequence[Reading]) -> list[_Place | _Alone]:
    classes, owner = coupling.members
    number = torch.full((int(owner[-1]) + 1,), -1)
    number[units] = torch.arange(len(units))
    mine = number[owner] >= 0
    unit_of = torch.full((coupling.class_count,), -1)
    unit_of[classes[mine]] = number[owner[mine]]
    unit_of[0] = -1
    found: list[_Place | _Alone] = []
    for reading in read:
        unit = unit_of[reading.classes]
        if bool((unit < 0).all()):
            continue
        made = unit_of[reading.results]
        if bool((made >= 0).any()) and len(made) == len(unit) == 1 and made[0] == unit[0]:
            continue  # a depthwise layer: its result goes with it
        most = int(torch.bincount(unit[unit >= 0], minlength=1).max())
        columns = torch.full((len(units), most), -1)
        fill = torch.zeros(len(units), dtype=torch.long)
        for column, own in enumerate(unit.tolist()):
            if own >= 0:
                columns[own, fill[own]] = column
                fill[own] += 1
        found.append(_Place(reading, columns))
    return found or [_Alone(_prices(unit_of, len(units), read))]


def _prices(unit_of: Tensor, count: int, read: Sequence[Reading]) -> Tensor:
    """What silencing costs each unit where it costs most: factors of a product go together."""
    most = torch.zeros(count, dtype=torch.float64)
    for reading in read:
        for classes, silenced in reading.made:
            unit = unit_of[classes]
            own = torch.zeros(count, dtype=torch.float64)
            own.index_add_(0, unit[unit >= 0], silenced[unit >= 0])
            most = torch.maximum(most, own)
    return most
