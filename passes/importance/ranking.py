"""In which order the channels of a group go, and what each step loses.

scores      from weights alone: the least important first; the last ones count more, because
            scores say nothing of how much the others can take over
a curve     measured: what each step costs after the best refit (`obs_curves.py`)

Either is multiplied by the weight of the group, where it has one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..coupling.groups import Group
from .obs_curves import Curve


@dataclass(frozen=True, eq=False)
class Ranking:
    """The order of one group. A step removes one channel of each cell."""

    order: tuple[Tensor, ...]
    """The channels of each cell, first to go first."""
    steps: tuple[float, ...]
    """Importance of what each step removes."""
    losses: tuple[float, ...]
    """What each step loses, if those before it are gone."""

    def times(self, weight: float) -> "Ranking":
        """The same order of channels that are worth so many times as much."""
        steps, losses = (tuple(one * weight for one in own) for own in (self.steps, self.losses))
        return Ranking(self.order, steps, losses)


def by_scores(group: Group, scores: Tensor) -> Ranking:
    """The least important first."""
    order = tuple(cell[torch.argsort(scores[cell], stable=True)] for cell in group.cells)
    steps = torch.stack([scores[cell[: group.size]] for cell in order]).sum(0).tolist()
    losses = [step * group.size / (group.size - n) for n, step in enumerate(steps)]
    return Ranking(order, tuple(steps), tuple(losses))


def by_curve(curve: Curve) -> Ranking:
    """As measured."""
    return Ranking(curve.order, curve.losses, curve.losses)
