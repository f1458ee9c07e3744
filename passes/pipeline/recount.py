"""A plan or a repair that was kept and read again: is it what it says of itself?

A plan      channels of the program, as many of each group as it says, at the cost that it says,
            within its budget
A repair    a network of the small one's form, finite, and as far from the original as it says, on
            the inputs that nothing was fitted to; no further than the sliced network
"""

import math

import torch
from torch import Tensor

from ..base.errors import WrongError
from ..ir.program import Program
from ..planning.budget import Budget
from ..planning.choice import Plan, cost_of
from ..repair.repair import Repair, Repaired

NEAR = 1e-2
"""How far a distance that is counted again may be from the one before, as a share."""
NOTHING = 1e-9
"""Distances that are rounding."""


def recount(plan: Plan, budget: Budget, least: int = 1) -> None:
    """Raise WrongError where a plan is none for this budget, or not what it says. Not for latency.

    `least` channels stay in every group that has as many.
    """
    if plan.budget != budget:
        raise WrongError(f"the plan is for another budget: {plan.budget}")
    channels = plan.channels
    known = channels.dtype == torch.int64 and channels.dim() == 1
    if not known or not _ascend(channels, plan.coupling.channel_count):
        raise WrongError("the channels that go are not channels of this network")
    _recount_widths(plan, least)
    for kind in budget.kinds:
        cost = cost_of(plan.coupling, kind, None)
        amount, target = cost.amount(channels), budget.target(kind).of(cost.dense)
        if amount > target * (1 + NOTHING):
            raise WrongError(f"the plan costs {amount:,.0f} {kind}, the budget is {target:,.0f}")
        said = (plan.dense, plan.reached)
        if kind == budget.kind and not all(map(_same, said, (cost.dense, amount))):
            raise WrongError(f"the plan costs {amount:,.0f} {kind}, and says {plan.reached:,.0f}")
    trials = [one.reached for one in plan.trials]
    if not all(map(math.isfinite, (plan.loss, *trials))):
        raise WrongError("the plan is worth no number")


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=NOTHING, abs_tol=NOTHING)


def _ascend(channels: Tensor, count: int) -> bool:
    inside = not len(channels) or (int(channels[0]) >= 0 and int(channels[-1]) < count)
    return inside and bool((channels.diff() > 0).all())


def _recount_widths(plan: Plan, least: int) -> None:
    gone = plan.channels
    counted = 0
    for group, width in plan.widths:
        lost = [int(torch.isin(cell, gone).sum()) for cell in group.cells]
        if any(one != group.size - width for one in lost):
            raise WrongError(f"{group.name} does not keep {width} of {group.size}")
        if lost[0] and width < (1 if group.rows else min(least, group.size)):
            raise WrongError(f"{group.name} keeps {width}, and {least} were to stay")
        counted += sum(lost)
    if counted != len(gone):
        raise WrongError("channels go that are of no group")


def look_again(step: Repair, small: Program, found: Repaired) -> None:
    """Raise WrongError where a repair is not one of this network, or not as good as it says."""
    old, new = small.tensors(), found.program.tensors()
    if old.keys() != new.keys() or any(
        old[name].shape != one.shape or old[name].dtype != one.dtype for name, one in new.items()
    ):
        raise WrongError("the repaired network is of another form")
    wild = [name for name, one in new.items() if _wild(one, old[name])]
    if wild:
        raise WrongError(f"{wild[0]} is not finite after the repair")
    if found.chosen not in found.divergences:
        raise WrongError("the repair does not say what was chosen")
    sliced, own = step.judged([small, found.program])
    said = found.divergences[found.chosen]
    if not (own <= sliced * (1 + NEAR) + NOTHING):
        raise WrongError(
            f"the repaired network is {own:.3g} from the original, the sliced {sliced:.3g}"
        )
    if not math.isclose(own, said, rel_tol=NEAR, abs_tol=NOTHING):
        raise WrongError(
            f"the repaired network is {own:.3g} from the original, and says {said:.3g}"
        )


def _wild(new: Tensor, old: Tensor) -> bool:
    return new.is_floating_point() and bool((~torch.isfinite(new) & torch.isfinite(old)).any())
