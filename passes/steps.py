"""The choice in several steps: cut a little, repair, measure again what the next channels cost.

    step k      a part of the way to the budget: amounts shrink by the same factor each time
    repair      on a few inputs, as in a trial; towards the outputs of the step before
    inflate     the repaired weights in the places of the original's, zero where channels went

The network that is measured has the original's sizes, so that channels keep their numbers. Only the
last plan counts: it is cut from the original, proven and repaired as any other.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .contract import apply
from .cost import Costs
from .coupling import Coupling, couple
from .duet import clone, held_out
from .errors import ContractError, UsageError
from .measure import Measured
from .memory import Memory
from .options import Budget, Options
from .plan import Plan, Trial
from .program import Program, variances
from .refit import Duet
from .shrink import Shrink
from .trial import ROWS, contest, inputs

Measure = Callable[[Coupling, Options, Tensor], Measured]
"""Curves of a network in which these channels went already: they go first again."""


def stepwise(
    coupling: Coupling,
    budget: Budget,
    options: Options,
    calls: Iterable[tuple[Any, Any]],
    measure: Measure,
    steps: int,
) -> Plan:
    """The plan that is left after so many steps.

    Raises UsageError as `choose` does, and for a budget of latency.
    """
    if "latency" in budget.kinds:
        raise UsageError(
            "a budget of latency is met in one step", hint="give --macs, or leave --steps out"
        )
    at, gone = coupling, torch.zeros(0, dtype=torch.long)
    trials: tuple[Trial, ...] = ()
    for part in _parts(coupling, budget, steps):
        try:
            plan = contest(at, part, options, measure(at, options, gone), calls)
        except UsageError:
            continue  # nothing is close to this part of the way: go on from where we are
        trials = trials or plan.trials
        options, gone = replace(options, criterion=plan.trials[0].criterion), plan.channels
        small = _repaired(replace(plan, coupling=coupling), calls)
        at = _again(inflated(replace(plan, coupling=coupling), small), coupling, options.ignore)
    plan = contest(at, budget, options, measure(at, options, gone), calls)
    return replace(plan, coupling=coupling, trials=trials or plan.trials)


def _parts(coupling: Coupling, budget: Budget, steps: int) -> list[Budget]:
    """The budgets of all steps but the last: the same factor each time."""
    ratios = {}
    for kind in budget.kinds:
        cost = Memory(coupling) if kind == "memory" else Costs(coupling, kind)
        ratios[kind] = min(budget.target(cost.dense, kind) / cost.dense, 1.0)
    return [
        Budget(**{kind: min(ratio ** (step / steps), 0.999) for kind, ratio in ratios.items()})
        for step in range(1, steps)
    ]


def _repaired(plan: Plan, calls: Iterable[tuple[Any, Any]]) -> Program:
    """The small network after a quick repair towards the original."""
    chunks = inputs(plan.coupling, calls)
    small = clone(apply(Shrink(plan), plan.coupling.program).program)
    Duet(plan, small, chunks, held_out(len(chunks)), rows=ROWS).run()
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
        tensor.data.view(-1)[places.reshape(-1)] = own[name].detach().reshape(-1)
    return result


def _again(program: Program, before: Coupling, ignore: tuple[str, ...]) -> Coupling:
    """The coupling of the same graph with other values: everything keeps its number."""
    found = couple(program, ignore)
    if not torch.equal(found.classes, before.classes):
        raise ContractError("other values have other channels")
    return found
