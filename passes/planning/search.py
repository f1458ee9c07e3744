"""The search of a plan: blocks of channels go where least is lost for most cost saved.

best       the least loss of all plans, where these are few
compete    greedy, at the present sizes, until the budget is met
uniform    the same share of every group
put_back   what the budget has room for
swap       one block for another, where less is lost in all
exchange   one block more for others, where that comes closer
"""

import bisect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise, product

import numpy as np
import torch
from torch import Tensor

from ..cost.costs import Cost
from ..cost.dimensions import NONE
from ..coupling.groups import Coupling, Group
from ..importance.ranking import Ranking
from .budget import UNITS, Options

SWAPS = 200
"""Pairs of blocks that are tried before a swap is given up."""

FEW = 1024
"""Plans that are all looked at."""

Removed = list[int]
"""Steps removed of each group."""


class Search:
    """The state of a search is a number of steps for each group; the rest is looked up."""

    def __init__(
        self,
        coupling: Coupling,
        costs: Cost,
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
        self.stops = [self._allowed(index) for index in range(len(self.groups))]
        self.lost = [self._blocks_lost(index) for index in range(len(self.groups))]
        self._known: dict[tuple[int, ...], float] = {}

    def _allowed(self, index: int) -> list[int]:
        """Numbers of removed steps that leave an allowed width, ascending from 0."""
        group = self.groups[index]
        if self.options.round_to is None:
            stairs = self.costs.stops(self.order[index])
            if stairs is not None:
                return [n for n in stairs if group.size - n >= self.options.least or n == 0]
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

    # --- all ------------------------------------------------------------------------------------

    def best(self, target: float, lowest: float) -> Removed | None:
        """Of all plans between these amounts the one that loses least; None if none is.

        None also where there are more than `FEW`.
        """
        if math.prod(map(len, self.stops)) > FEW:
            return None
        plans = [list(plan) for plan in product(*self.stops)]
        close = [plan for plan in plans if lowest <= self.amount(plan) <= target]
        return min(close, key=self.lost_by, default=None)

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
            blocks = sorted(self._blocks(removed))
            quota, taken = (now - target) / 4, 0.0
            for _, group, stop, saved in blocks:
                removed[group] = max(removed[group], stop)
                taken += saved
                if taken >= quota:
                    break
            if not blocks:
                raise AssertionError("the floor meets the budget, but no block is left")
        return removed

    def _blocks(self, removed: Removed) -> list[tuple[float, int, int, float]]:
        """(loss per saving, group, steps removed then, saving) of every block still there."""
        further = {
            index: [stop - n for stop in self.stops[index] if stop > n]
            for index, n in enumerate(removed)
            if n < self.stops[index][-1]
        }

        def block(index: int, count: int) -> Tensor:
            start = removed[index]
            return torch.cat([cell[start : start + count] for cell in self.order[index]])

        found = []
        gains = self.costs.gains(self.channels(removed), further, block)
        for group, counts in further.items():
            worst, at, lost = 0.0, removed[group], 0.0
            before = 0.0
            by_stop = dict(zip(self.stops[group], self.lost[group], strict=True))
            for count, gain in zip(counts, gains[group], strict=True):
                stop = at + count
                lost += by_stop[stop]
                if gain <= before and count < counts[-1]:
                    continue  # it saves nothing by itself: part of the next block that does
                saved = max(gain - before, 1e-12)
                worst = max(worst, lost / saved)
                found.append((worst, group, stop, saved))
                before, lost = max(gain, before), 0.0
        return found

    # --- polish ---------------------------------------------------------------------------------

    def put_back(self, removed: Removed, target: float, *, quick: bool = False) -> Removed:
        """Undo blocks, the most important first, as long as the budget holds."""
        removed = list(removed)
        for undo in (self._largest_loss,) if quick else (self._largest_loss, self._any):
            tried: set[tuple[int, int]] = set()
            while (group := undo(removed, tried)) is not None:
                stops = self.stops[group]
                less = stops[stops.index(removed[group]) - 1]
                tried.add((group, removed[group]))
                trial = [less if i == group else n for i, n in enumerate(removed)]
                if self.amount(trial) <= target:
                    removed = trial
        return removed

    def swap(self, removed: Removed, target: float) -> Removed:
        """Give a stair of one group for stairs of others, as long as less is lost in all."""
        best, loss = removed, self.lost_by(removed)
        improved = True
        while improved:
            improved = False
            for trial in self._swaps(best):
                if self.amount(trial) > target:
                    continue
                trial = self.put_back(trial, target, quick=True)
                if (lost := self.lost_by(trial)) < loss * (1 - 1e-6):
                    best, loss, improved = trial, lost, True
                    break
        return best

    def _swaps(self, removed: Removed) -> Iterator[Removed]:
        """One group a stair less, another a stair more, the most promising first."""
        pairs = []
        for back, n in enumerate(removed):
            if not n:
                continue
            wider = self.stops[back][self.stops[back].index(n) - 1]
            won = sum(self._losses[back][wider:n])
            for gone, m in enumerate(removed):
                at = self.stops[gone].index(m) + 1
                if gone == back or at == len(self.stops[gone]):
                    continue
                lost = sum(self._losses[gone][m : self.stops[gone][at]])
                if lost < won:
                    pairs.append((lost - won, back, wider, gone, self.stops[gone][at]))
        for _, back, wider, gone, narrower in sorted(pairs)[:SWAPS]:
            trial = list(removed)
            trial[back], trial[gone] = wider, narrower
            yield trial

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
