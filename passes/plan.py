"""Choose which channels go: least importance lost for most cost saved, until the budget is met.

    global    groups compete; losing one of the last channels of a group is dearer than one of many
    uniform   the same share of every group

Then channels are put back, most important first, where the budget has room for them (with
`uniform` only if it is missed otherwise).
"""

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .cost import NONE, Costs
from .coupling import Coupling, Group
from .curves import Curve
from .errors import NothingError, UsageError
from .importance import Weights, channel_scores
from .kept import kept_indices
from .options import BY_DATA
from .options import UNITS as UNITS
from .options import Budget as Budget
from .options import Options as Options
from .ranking import Ranking, by_curve, by_scores
from .sizes import Sizes
from .threads import one_thread

TOLERANCE = 0.02
"""A budget counts as met within this share of the original amount, from below."""


WORTH = 0.1
"""How much more may be lost, where it is measured, for the sake of whole blocks."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Which channels go, and what that costs."""

    coupling: Coupling
    budget: Budget
    channels: Tensor
    """Numbers of the channels (or whole rows) that go: int64, ascending."""
    widths: tuple[tuple[Group, int], ...] = ()
    """How many steps of each group stay."""
    dense: float = 0.0
    """What the original costs, in units of the budget."""
    reached: float = 0.0
    """What the plan costs."""
    unit: int = 1
    """Kept widths are multiples of this, or the original width."""
    loss: float = 0.0
    """What the channels that go were worth, in units of the ranking."""

    @property
    def sizes(self) -> Sizes:
        """Sizes of everything under this plan."""
        return self.coupling.without(self.channels)

    @property
    def kept(self) -> dict[str, list[Any]]:
        """Kept indices of each dimension of every tensor that shrinks (see `kept_indices`)."""
        return kept_indices(self.coupling, self.sizes)


@one_thread()
def choose(
    coupling: Coupling,
    budget: Budget,
    options: Options,
    weights: Weights | None = None,
    curves: Sequence[Curve] | None = None,
) -> Plan:
    """Meet the budget from below, within `TOLERANCE` of the original amount.

    Channels are scored by `weights` (by name), or by the program's own; where there is a curve for
    each group, it says what goes first, and what it costs. Raises UsageError that states the least
    reachable amount, and what is frozen.
    """
    if not coupling.groups:
        raise NothingError(
            "no channel of this model can go", where=_where(coupling), why=_why(coupling)
        )
    costs = Costs(coupling, budget.kind)
    target = budget.target(costs.dense)
    if target >= costs.dense:
        raise UsageError(f"the budget of {target:,.0f} {budget.kind} is met already: "
                         f"the model has {costs.dense:,.0f}")  # fmt: skip
    if curves is None:
        if options.criterion in BY_DATA and options.criterion != "auto":
            raise UsageError(
                f"the criterion '{options.criterion}' needs calibration inputs",
                why="it is measured, not read off the weights",
                hint="give some by --data, or take another criterion",
            )
        criterion = "l2" if options.criterion == "auto" else options.criterion
        scores = channel_scores(coupling, criterion, options.seed, weights)
        rankings = {group: by_scores(group, scores) for group in coupling.groups}
    else:
        pairs = zip(coupling.groups, curves, strict=True)
        rankings = {group: by_curve(curve) for group, curve in pairs}
    units = UNITS if options.round_to is None else (options.round_to,)
    found: list[Plan] = []
    for unit in units:
        try:
            found.append(_choose(_Search(coupling, costs, options, unit, rankings), budget, target))
        except UsageError:
            if unit == units[-1] and not found:
                raise
        if found and curves is None:
            break  # scores cannot tell what rounding costs
    least = min(plan.loss for plan in found)
    return next(plan for plan in found if plan.loss <= least * (1 + WORTH))


def _choose(search: "_Search", budget: Budget, target: float) -> Plan:
    coupling, costs, options = search.coupling, search.costs, search.options
    least = search.amount(search.floor())
    if least > target:
        raise _unreachable(coupling, budget, target, least, costs.dense)
    removed = search.uniform(target) if options.uniform else search.compete(target)
    lowest = target - TOLERANCE * costs.dense
    if not options.uniform or search.amount(removed) < lowest:
        removed = search.put_back(removed, target)
    if search.amount(removed) < lowest:
        starts = (removed, search.put_back(search.uniform(target), target))
        closer = [search.exchange(start, target, lowest) for start in starts]
        removed = max(closer, key=search.amount)
    reached = search.amount(removed)
    if reached < lowest:
        nearest_ratio = math.ceil(reached / costs.dense * 1e4) / 1e4
        raise UsageError(
            f"the budget of {budget} cannot be met closely: the nearest amount below it "
            f"is {reached:,.0f} ({reached / costs.dense:.1%})",
            where=_where(coupling),
            why=f"a single step is more than {TOLERANCE:.0%} of the model",
            hint=f"ask for {nearest_ratio:.4f}, or lower --round-to if it is set",
        )
    widths = tuple((g, g.size - n) for g, n in zip(search.groups, removed, strict=True))
    channels = search.channels(removed)
    loss = search.lost_by(removed)
    return Plan(coupling, budget, channels, widths, costs.dense, reached, search.unit, loss)


def _unreachable(
    coupling: Coupling, budget: Budget, target: float, least: float, dense: float
) -> UsageError:
    return UsageError(
        f"the budget of {budget} ({target:,.0f}) cannot be reached; "
        f"the least is {least:,.0f} ({least / dense:.1%})",
        where=_where(coupling),
        why=_why(coupling),
        hint="ask for a larger amount, or lower --round-to and --min-channels",
    )


def _where(coupling: Coupling) -> str:
    return f"{len(coupling.groups)} groups can shrink, {len(coupling.frozen)} axes are frozen"


def _why(coupling: Coupling) -> str:
    """The largest frozen axes with their reasons."""
    largest = sorted(coupling.frozen, key=lambda f: -f.size)[:3]
    return "; ".join(f"{f.axis} ({f.size}) {f.why}" for f in largest)


Removed = list[int]
"""Steps removed of each group."""


class _Search:
    """The state of a search is a number of steps for each group; the rest is looked up."""

    def __init__(
        self,
        coupling: Coupling,
        costs: Costs,
        options: Options,
        unit: int,
        rankings: Mapping[Group, Ranking],
    ) -> None:
        self.coupling, self.costs, self.options, self.unit = coupling, costs, options, unit
        self.groups: Sequence[Group] = _chosen_groups(coupling, options)
        ranked = [rankings[group] for group in self.groups]
        self.order = [one.order for one in ranked]
        self.loss = [one.steps for one in ranked]
        self._losses = [one.losses for one in ranked]
        self.stops = [self._allowed(group) for group in self.groups]
        self.lost = [self._blocks_lost(index) for index in range(len(self.groups))]
        self._known: dict[tuple[int, ...], float] = {}

    def _allowed(self, group: Group) -> list[int]:
        """Numbers of removed steps that leave an allowed width, ascending from 0."""
        unit = 1 if group.rows else self.unit
        if self.options.round_to is None:
            unit = next(one for one in UNITS if one <= unit and (2 * one <= group.size or one == 1))
        least = max(1 if group.rows else self.options.least, min(unit, group.size))
        kept = [n for n in range(group.size, 0, -1) if n == group.size or n % unit == 0]
        return [group.size - n for n in kept if n >= least or n == group.size]

    def _blocks_lost(self, index: int) -> list[float]:
        """What the block before each stop loses."""
        losses, stops = self._losses[index], self.stops[index]
        return [0.0, *(sum(losses[start:end]) for start, end in pairwise(stops))]

    def lost_by(self, removed: Removed) -> float:
        """What these steps lose in all."""
        return sum(sum(own[:n]) for own, n in zip(self._losses, removed, strict=True))

    def floor(self) -> Removed:
        return [stops[-1] for stops in self.stops]

    def channels(self, removed: Removed) -> Tensor:
        pairs = zip(self.order, removed, strict=True)
        gone = [cell[:count] for order, count in pairs for cell in order]
        return torch.cat([NONE, *gone]).sort().values

    def amount(self, removed: Removed) -> float:
        key = tuple(removed)
        if key not in self._known:
            self._known[key] = self.costs.amount(self.channels(removed))
        return self._known[key]

    # --- uniform --------------------------------------------------------------------------------

    def uniform(self, target: float) -> Removed:
        """A common share, by bisection; the least pruned groups then give single blocks."""
        low, high = 0.0, 1.0
        for _ in range(16):
            share = (low + high) / 2
            if self.amount(self._share(share)) <= target:
                high = share
            else:
                low = share
        removed = self._share(low)
        while self.amount(removed) > target:
            group = max(
                (g for g, n in enumerate(removed) if n < self.stops[g][-1]),
                key=lambda g: (1 - removed[g] / self.groups[g].size, self.groups[g].size),
            )
            stops = self.stops[group]
            removed[group] = stops[stops.index(removed[group]) + 1]
        return removed

    def _share(self, share: float) -> Removed:
        wanted = [share * group.size for group in self.groups]
        return [nearest(stops, want) for stops, want in zip(self.stops, wanted, strict=True)]

    # --- global ---------------------------------------------------------------------------------

    def compete(self, target: float) -> Removed:
        """Remove blocks in the order of importance lost for cost saved, at current sizes.

        Each round removes a part of what is still too much, then looks at the sizes again.
        """
        removed = [0] * len(self.groups)
        while (now := self.amount(removed)) > target:
            savings = self._savings(removed)
            blocks = sorted(self._blocks(removed, savings))
            quota, taken = (now - target) / 4, 0.0
            for _, group, stop, saved in blocks:
                removed[group] = max(removed[group], stop)
                taken += saved
                if taken >= quota:
                    break
            if not blocks:
                raise AssertionError("the floor meets the budget, but no block is left")
        return removed

    def _savings(self, removed: Removed) -> dict[int, float]:
        steps = {
            index: torch.stack([cell[n] for cell in order])
            for index, (order, n) in enumerate(zip(self.order, removed, strict=True))
            if n < self.stops[index][-1]
        }
        return self.costs.savings(self.channels(removed), steps)

    def _blocks(
        self, removed: Removed, savings: dict[int, float]
    ) -> list[tuple[float, int, int, float]]:
        """(loss per saving, group, steps removed then, saving) of every block still there."""
        found = []
        for group, saved in savings.items():
            worst, at = 0.0, removed[group]
            for stop, lost in zip(self.stops[group], self.lost[group], strict=True):
                if stop <= at:
                    continue
                gain = max(saved * (stop - at), 1e-12)
                worst = max(worst, lost / gain)  # a later block never goes before an earlier one
                found.append((worst, group, stop, gain))
                at = stop
        return found

    # --- polish ---------------------------------------------------------------------------------

    def put_back(self, removed: Removed, target: float) -> Removed:
        """Undo blocks, the most important first, as long as the budget holds."""
        removed = list(removed)
        for undo in (self._largest_loss, self._any):
            tried: set[tuple[int, int]] = set()
            while (group := undo(removed, tried)) is not None:
                stops = self.stops[group]
                less = stops[stops.index(removed[group]) - 1]
                tried.add((group, removed[group]))
                trial = [less if i == group else n for i, n in enumerate(removed)]
                if self.amount(trial) <= target:
                    removed = trial
        return removed

    def exchange(self, removed: Removed, target: float, lowest: float) -> Removed:
        """Take a block more from one group to put back others, while that comes closer."""
        improved = True
        while improved and self.amount(removed) < lowest:
            improved = False
            for group, count in enumerate(removed):
                stops = self.stops[group]
                if count == stops[-1]:
                    continue
                more = stops[stops.index(count) + 1]
                trial = [more if i == group else n for i, n in enumerate(removed)]
                trial = self.put_back(trial, target)
                if self.amount(removed) < self.amount(trial) <= target:
                    removed, improved = trial, True
                    break
        return removed

    def _largest_loss(self, removed: Removed, tried: set[tuple[int, int]]) -> int | None:
        return self._next(removed, tried, lambda g: -self.loss[g][removed[g] - 1])

    def _any(self, removed: Removed, tried: set[tuple[int, int]]) -> int | None:
        return self._next(removed, tried, lambda g: g)

    def _next(
        self, removed: Removed, tried: set[tuple[int, int]], key: Callable[[int], float]
    ) -> int | None:
        open_ = [g for g, n in enumerate(removed) if n and (g, n) not in tried]
        return min(open_, key=key, default=None)


def nearest(stops: Sequence[int], wanted: float) -> int:
    """The member of an ascending sequence that is closest to `wanted`."""
    place = bisect.bisect_left(stops, wanted)
    return min(stops[max(place - 1, 0) : place + 1], key=lambda stop: abs(stop - wanted))


def _chosen_groups(coupling: Coupling, options: Options) -> list[Group]:
    """All groups; with `uniform`, rows only where their parameters cannot go one by one."""
    if not options.uniform:
        return list(coupling.groups)
    single = torch.cat([NONE, *(cell for g in coupling.groups if not g.rows for cell in g.cells)])
    alone = np.zeros(coupling.class_count, dtype=bool)
    alone[coupling.classes_of(single).numpy()] = True
    alone &= coupling.held
    return [
        group
        for group in coupling.groups
        if not group.rows or not alone[coupling.classes_of(group.cells[0]).numpy()].any()
    ]
