"""The choice with calibration inputs: in one step or in several, whichever agrees better.

    measure     what each channel costs the outputs, in the network as it is
    step k      a part of the way to the budget: amounts shrink by the same factor each time
    repair      on a few inputs, as in a trial, towards the original
    inflate     the repaired weights in the places of the original's, zero where channels went
    measure     again: what the next channels cost
    try         the plans of one step and of several, by a few criteria (`select_plan.py`)

The network that is measured has the original's sizes, so that channels keep their numbers. Only the
last plan counts: it is cut from the original, proven and repaired as any other.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..base.errors import ContractError, UsageError
from ..calibration.lockstep import held_out
from ..cost.costs import Cost
from ..cost.dimensions import NONE
from ..coupling.groups import Coupling, couple
from ..importance.measure import Measured
from ..ir.pass_base import apply
from ..ir.program import Program, variances
from ..ir.rebuild import clone
from ..planning.budget import Budget, Options
from ..planning.choice import Plan, choose, cost_of
from ..planning.targets import Ratio
from ..repair.layerwise import Duet
from ..repair.repair import MEMORY
from ..transforms.prune import Shrink
from .select_plan import ROWS, best, candidates, inputs

STEPS = 4
"""That one step is tried against, where nobody says how many."""

Measure = Callable[[Coupling, Tensor, bool], Measured]
"""Curves of a network in which these channels went already: they go first again. The flag is for
the curves that are tried, where the criterion is to be found out."""


def contest(
    coupling: Coupling,
    budget: Budget,
    options: Options,
    calls: Iterable[tuple[Any, Any]],
    measure: Measure | None = None,
    steps: int | None = None,
    time: Cost | None = None,
) -> Plan:
    """The plan whose network agrees best with the original after a repair on some of the inputs.

    Channels are chosen in so many steps; without `steps`, in one and in `STEPS`. Without `measure`,
    curves are those of `Measured.of`. `time` is for a budget of latency. Raises UsageError as
    `choose` does.
    """
    measure = measure or _by_own(calls, options)
    measured = measure(coupling, NONE, steps == 1)
    plans: list[Plan] = []
    if steps in (None, 1) or measured.curves is None:
        plans += candidates(coupling, budget, options, measured, time)
    if steps != 1 and measured.curves is not None:  # scores of weights do not change on the way
        parts = _parts(coupling, budget, steps or STEPS, time)
        plans += _stepwise(coupling, (*parts, budget), options, calls, measured, measure, time)
    if not plans:
        raise UsageError(
            f"channels of this model cannot be chosen in {steps} steps",
            why="with zeros in the place of channels its results are no numbers: it divides by "
            "the size of its weights, as weight normalisation does",
            hint="leave --steps out",
        )
    return best(plans, calls)


def _stepwise(
    coupling: Coupling,
    budgets: Sequence[Budget],
    options: Options,
    calls: Iterable[tuple[Any, Any]],
    measured: Measured,
    measure: Measure,
    time: Cost | None,
) -> list[Plan]:
    """The plans that are left after steps to these budgets, a criterion each.

    None where zeros in the place of channels break the network.
    """
    at, spent = coupling, 0.0
    *parts, last = budgets
    for place, part in enumerate(parts):
        own = replace(options, criterion=measured.criterion)
        try:
            plan = choose(at, part, own, curves=measured.curves, time=time, spent=spent)
        except UsageError:
            continue  # this part of the way cannot be reached alone: go on from where we are
        if plan.note:
            continue  # nor closely
        spent, plan = plan.loss, replace(plan, coupling=coupling)
        at = _again(inflated(plan, _repaired(plan, calls)), coupling, options.ignore)
        measured = measure(at, plan.channels, place == len(parts) - 1)
        if not measured.finite:
            return []
    found = candidates(at, last, options, measured, time, spent, len(budgets))
    return [replace(plan, coupling=coupling) for plan in found]


def _by_own(calls: Iterable[tuple[Any, Any]], options: Options) -> Measure:
    return lambda at, gone, trial: Measured.of(
        at, calls, options.criterion, options.seed, gone=gone, trial=trial
    )


def _parts(coupling: Coupling, budget: Budget, steps: int, time: Cost | None) -> list[Budget]:
    """The budgets of all steps but the last: the same factor each time."""
    ratios = {}
    for kind in budget.kinds:
        cost = cost_of(coupling, kind, time)
        ratios[kind] = min(budget.target(kind).of(cost.dense) / cost.dense, 1.0)
    return [
        Budget(**{kind: Ratio(ratio ** (step / steps)) for kind, ratio in ratios.items()})
        for step in range(1, steps)
    ]


def _repaired(plan: Plan, calls: Iterable[tuple[Any, Any]]) -> Program:
    """The small network after a quick repair towards the original."""
    chunks = inputs(plan.coupling, calls)
    small = clone(apply(Shrink(plan), plan.coupling.program).program)
    Duet(plan, small, chunks, held_out(chunks), rows=ROWS, memory=MEMORY).run()
    return small


def inflated(plan: Plan, small: Program) -> Program:
    """The original with the tensors of `small` where they came from, and zeros elsewhere."""
    coupling, sizes = plan.coupling, plan.sizes
    result = clone(coupling.program)
    divisors = variances(result)
    own = small.tensors()
    for name, tensor in result.tensors().items():
        value = coupling.state.get(name)
        if value is None or name not in own:
            continue
        places = sizes.cut(torch.arange(tensor.numel()).reshape(tensor.shape), value)
        if places.shape != own[name].shape:
            raise ContractError(f"{name} is not as this plan cuts it")
        if name not in divisors and tensor.is_floating_point():
            tensor.data.zero_()
        tensor.data[torch.unravel_index(places, tensor.shape)] = own[name].detach()
    return result


def _again(program: Program, before: Coupling, ignore: tuple[str, ...]) -> Coupling:
    """The coupling of the same graph with other values: everything keeps its number."""
    found = couple(program, ignore)
    if not torch.equal(found.classes, before.classes):
        raise ContractError("other values have other channels")
    return found
