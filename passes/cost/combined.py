"""Several budgets at once: a plan meets them when the one that is worst off does.

amount   the largest of (cost / what may stay of it): 1 when all are met
gains    what each saves, of those that are still over, in the same unit
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from .costs import Block, Cost, Further
from .dimensions import NONE


class Joint:
    """A `Cost` of several others, with a target for each."""

    def __init__(self, costs: Mapping[str, Cost], targets: Mapping[str, float]) -> None:
        self.costs, self.targets = dict(costs), dict(targets)
        self.dense = self.amount(NONE)

    def amount(self, channels: Tensor) -> float:
        """The largest share of a target."""
        return max(self.shares(channels).values())

    def shares(self, channels: Tensor) -> dict[str, float]:
        """Each cost over its target."""
        return {
            kind: cost.amount(channels) / self.targets[kind] for kind, cost in self.costs.items()
        }

    def gains(self, channels: Tensor, further: Further, block: Block) -> dict[int, list[float]]:
        """What is saved of all that are over their target."""
        over = [kind for kind, share in self.shares(channels).items() if share > 1]
        found = {group: [0.0] * len(counts) for group, counts in further.items()}
        for kind in over:
            saved = self.costs[kind].gains(channels, further, block)
            for group, own in saved.items():
                found[group] = [
                    a + b / self.targets[kind] for a, b in zip(found[group], own, strict=True)
                ]
        return found

    def stops(self, order: Sequence[Tensor]) -> list[int] | None:
        """The stairs of the first that has any."""
        stairs = (cost.stops(order) for cost in self.costs.values())
        return next((one for one in stairs if one is not None), None)
