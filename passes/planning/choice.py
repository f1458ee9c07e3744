"""Choose which channels go: least importance lost for most cost saved, until the budget is met.

    global    groups compete; losing one of the last channels of a group is dearer than one of many
    uniform   the same share of every group

Then channels are put back, most important first, where the budget has room for them (with
`uniform` only if it is missed otherwise).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from ..base.errors import NothingError, UsageError
from ..base.threads import one_thread
from ..cost.combined import Joint
from ..cost.costs import Cost, Costs
from ..cost.memory import Memory
from ..coupling.groups import Coupling, Group
from ..coupling.kept_indices import kept_indices
from ..coupling.sizes import Sizes
from ..importance.gradient import by_data
from ..importance.magnitude import Weights, channel_scores
from ..importance.obs_curves import Curve
from ..importance.ranking import Ranking, by_curve, by_scores
from .budget import ALL_KINDS as ALL_KINDS
from .budget import UNITS as UNITS
from .budget import Budget as Budget
from .budget import Options as Options
from .search import Search
from .search import nearest as nearest

TOLERANCE = 0.02
"""A budget counts as met within this share of the original amount, from below."""


WORTH = 0.1
"""How much more may be lost, where it is measured, for the sake of whole blocks."""


@dataclass(frozen=True)
class Trial:
    """What was tried, and what came of it (see `pipeline/select_plan.py`)."""

    criterion: str
    reached: float
    """What its plan costs, as a share of the original."""
    divergence: float | None
    """How far the repaired network is from the original, on inputs that nothing was fitted to; None
    where there was nothing to choose from."""
    noise: float | None = None
    """Standard error of the difference from the first that was tried; None for that one."""
    steps: int = 1
    """In how many its channels were chosen."""


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
    trials: tuple[Trial, ...] = ()
    """The plans that were tried, this one first."""
    samples: int = 0
    """Inputs that the channels were measured on."""
    why: str = ""
    """Why they could not be measured, where there were inputs."""
    note: str = ""
    """Why it stays far below the budget, where it does."""

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
    time: Cost | None = None,
    spent: float = 0.0,
    dense: Mapping[str, float] | None = None,
) -> Plan:
    """The plan that is closest below the budget, with a note where no step ends within `TOLERANCE`
    of the original amount below it.

    Channels are scored by `weights` (by name), or by the program's own; where there is a curve for
    each group, it says what goes first, and what it costs. `time` says what a plan takes, for a
    budget of latency; `spent` is what was lost before the curves were measured; `dense` is what the
    user's network costs, by kind, where the program was made of it by another pass. Raises
    UsageError that states the least reachable amount, and what is frozen.
    """
    if not coupling.groups:
        raise NothingError(
            "no channel of this model can go", where=_where(coupling), why=_why(coupling)
        )
    costs = {kind: cost_of(coupling, kind, time) for kind in budget.kinds}
    whole = {kind: cost.dense for kind, cost in costs.items()} | dict(dense or {})
    targets = {kind: budget.target(kind).of(whole[kind]) for kind in costs}
    for kind, cost in costs.items():
        if targets[kind] >= cost.dense and len(costs) == 1:
            raise _met_already(budget, kind, cost.dense)
    aim = _Aim(budget, costs, targets, whole)
    rankings = _rankings(coupling, options, weights, curves)
    units = UNITS if options.round_to is None else (options.round_to,)
    found, far = list[Plan](), list[Plan]()
    for unit in units:
        try:
            plan = _choose(Search(coupling, aim.cost, options, unit, rankings), aim)
        except UsageError:
            if unit == units[-1] and not found and not far:
                raise
            continue
        (far if plan.note else found).append(replace(plan, loss=plan.loss + spent))
        if found and (curves is None or aim.stairs):
            break  # scores cannot tell what rounding costs, and stairs need no rounding
    if not all(math.isfinite(plan.loss) for plan in (*found, *far)):
        raise UsageError(
            "what the channels cost is no finite number",
            why="scores or measured losses hold NaN or infinities",
            hint="look at the weights, at the calibration data, and at the loss of the criterion",
        )
    if not found:
        return max(far, key=lambda plan: plan.reached)
    least = min(plan.loss for plan in found)
    return next(plan for plan in found if plan.loss <= least * (1 + WORTH))


def _met_already(budget: Budget, kind: str, dense: float) -> UsageError:
    has = f"takes {dense * 1e3:.3g} ms" if kind == "latency" else f"has {dense:,.0f}"
    return UsageError(f"the budget of {budget} is met already: the model {has}")


def _rankings(
    coupling: Coupling,
    options: Options,
    weights: Weights | None,
    curves: Sequence[Curve] | None,
) -> dict[Group, Ranking]:
    """What goes first in each group, and what it is worth: times the weight of the group."""
    if curves is None:
        if by_data(options.criterion) and options.criterion != "auto":
            raise UsageError(
                f"the criterion '{options.criterion}' needs calibration inputs",
                why="it is measured, not read off the weights",
                hint="give some by --data, or take another criterion",
            )
        criterion = "l2" if options.criterion == "auto" else options.criterion
        scores = channel_scores(coupling, criterion, options.seed, weights)
        found = {group: by_scores(group, scores) for group in coupling.groups}
    else:
        pairs = zip(coupling.groups, curves, strict=True)
        found = {group: by_curve(curve) for group, curve in pairs}
    factors = dict(options.group_weights)
    if unknown := factors.keys() - {group.name for group in found}:
        raise UsageError(
            f"no group is called {min(unknown)!r}",
            where=_where(coupling),
            why="the weights are those of another model, or it is frozen here",
        )
    return {group: one.times(factors.get(group.name, 1.0)) for group, one in found.items()}


def cost_of(coupling: Coupling, kind: str, time: Cost | None) -> Cost:
    """What a budget of this kind counts; `time` is for latency. Raises UsageError without it."""
    if kind == "memory":
        return Memory(coupling)
    if kind != "latency":
        return Costs(coupling, kind)
    if time is None:
        raise UsageError(
            "a budget of latency needs a device's times",
            hint="make a table of them with `compressor profile`, and plan by it",
        )
    return time


@dataclass(frozen=True, eq=False)
class _Aim:
    """What is to be met: one cost and its target, or several in one."""

    budget: Budget
    costs: Mapping[str, Cost]
    targets: Mapping[str, float]
    whole: Mapping[str, float]
    """What the user's network costs."""

    @property
    def stairs(self) -> bool:
        """Whether widths are read off stairs."""
        return "latency" in self.costs

    @cached_property
    def cost(self) -> Cost:
        first = next(iter(self.costs.values()))
        return first if len(self.costs) == 1 else Joint(self.costs, self.targets)

    @property
    def target(self) -> float:
        return next(iter(self.targets.values())) if len(self.targets) == 1 else 1.0

    @property
    def lowest(self) -> float:
        """The least amount that counts as close; stairs can be steep, several costs far apart."""
        if self.stairs or len(self.costs) > 1:
            return 0.0
        return self.target - TOLERANCE * self.whole[self.budget.kind]


def _choose(search: "Search", aim: _Aim) -> Plan:
    coupling, options, target, lowest = search.coupling, search.options, aim.target, aim.lowest
    least = search.floor()
    if search.amount(least) > target:
        raise _unreachable(coupling, aim, search.channels(least))
    removed = None if options.uniform else search.best(target, lowest)
    if removed is None:
        removed = _searched(search, aim)
    channels = search.channels(removed)
    kind = aim.budget.kind
    reached, dense = aim.costs[kind].amount(channels), aim.whole[kind]
    note = ""
    if search.amount(removed) < lowest:
        note = (
            f"The nearest amount below the budget is {reached:,.0f} ({reached / dense:.1%}): "
            f"a single step is more than {TOLERANCE:.0%} of the model."
        )
    widths = tuple((g, g.size - n) for g, n in zip(search.groups, removed, strict=True))
    loss = search.lost_by(removed)
    return Plan(
        coupling, aim.budget, channels, widths, dense, reached, search.unit, loss, note=note
    )


def _searched(search: "Search", aim: _Aim) -> list[int]:
    """Steps removed of each group: a plan that meets the target, and is close to it if that can be.

    Greedy, then polished: what there is room for goes back, and blocks are swapped.
    """
    uniform, target, lowest = search.options.uniform, aim.target, aim.lowest
    removed = search.uniform(target) if uniform else search.compete(target)
    if not uniform or search.amount(removed) < lowest:
        removed = search.put_back(removed, target)
    if aim.stairs and not uniform:
        removed = search.put_back(search.swap(removed, target), target)
    if search.amount(removed) >= lowest:
        return removed
    starts = (removed, search.put_back(search.uniform(target), target))
    closer = [search.exchange(start, target, lowest) for start in starts]
    close = [one for one in closer if search.amount(one) >= lowest]
    return min(close, key=search.lost_by) if close else max(closer, key=search.amount)


def _unreachable(coupling: Coupling, aim: _Aim, floor: Tensor) -> UsageError:
    amounts = {kind: cost.amount(floor) for kind, cost in aim.costs.items()}
    kind = max(amounts, key=lambda one: amounts[one] / aim.targets[one])
    least, dense = amounts[kind], aim.whole[kind]
    said = {name: "" if name == "latency" else f"{n:,.0f}" for name, n in amounts.items()}
    wanted = "" if kind == "latency" else f" ({aim.targets[kind]:,.0f})"
    return UsageError(
        f"the budget of {aim.budget}{wanted} cannot be reached; "
        f"the least is {said[kind]} ({least / dense:.1%})".replace("  ", " "),
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
