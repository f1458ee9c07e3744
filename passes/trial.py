"""Which criterion: a plan by each, cut and repaired on some inputs, judged on as many others.

    plan ──> shrink ──> refit on one half ──> distance from the original on the other half

No criterion is the best one for all networks, so that none is believed. A trial looks at fewer
inputs than the repair of the winner does, and at fewer rows of each; so another criterion than the
first is taken only where it is closer by more than chance would have it.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .agreement import average, distances, lead
from .contract import apply
from .cost import Cost
from .coupling import Coupling
from .curves import Curve
from .duet import Chunk, clone, frontier, held_out, sampled
from .errors import UsageError
from .measure import Measured
from .options import Budget, Options
from .plan import Plan, Trial, choose
from .refit import Duet
from .repair import MEMORY
from .shrink import Shrink

INPUTS = 256
"""Of a trial, at most: one half to fit, one half to judge."""

ROWS = 25
"""Rows to fit, for each column of a layer."""

SURE = 2.0
"""Standard errors by which another criterion than the first has to be closer."""


def contest(
    coupling: Coupling,
    budget: Budget,
    options: Options,
    measured: Measured,
    calls: Iterable[tuple[Any, Any]],
    time: Cost | None = None,
    original: Coupling | None = None,
    spent: float = 0.0,
) -> Plan:
    """The plan whose network agrees best with the original after a repair.

    What is cut and repaired is the `original`, where `coupling` is that of the same network with
    other weights; `spent` is what it lost before. Raises UsageError as `choose` does, where no
    criterion meets the budget.
    """
    if not measured.others or measured.curves is None:
        own = replace(options, criterion=measured.criterion)
        plan = choose(coupling, budget, own, curves=measured.curves, time=time, spent=spent)
        told = _told(measured.criterion, plan, None)
        return replace(plan, coupling=original or coupling, trials=(told,))
    curves = {measured.criterion: measured.curves, **measured.others}
    found = _plans(coupling, budget, options, curves, time, spent)
    plans = {name: replace(one, coupling=original or coupling) for name, one in found.items()}
    if len(plans) == 1:
        ((name, plan),) = plans.items()
        return replace(plan, trials=(_told(name, plan, None),))
    chunks = inputs(original or coupling, calls)
    far = {name: _distances(plan, chunks) for name, plan in plans.items()}
    first, *_ = far
    leads = {name: lead(far[first], own) for name, own in far.items()}
    sure = [name for name, (gain, noise) in leads.items() if gain > SURE * noise]
    best = max(sure, key=lambda name: leads[name][0], default=first)
    order = sorted(plans, key=lambda name: name != best)
    trials = tuple(
        _told(name, plans[name], average(far[name]), None if name == first else leads[name][1])
        for name in order
    )
    return replace(plans[best], trials=trials)


def _told(criterion: str, plan: Plan, distance: float | None, noise: float | None = None) -> Trial:
    return Trial(criterion, plan.reached / plan.dense, distance, noise)


def _plans(
    coupling: Coupling,
    budget: Budget,
    options: Options,
    curves: dict[str, tuple[Curve, ...]],
    time: Cost | None,
    spent: float,
) -> dict[str, Plan]:
    """A plan by each criterion that meets the budget; equal ones once."""
    plans: dict[str, Plan] = {}
    first: UsageError | None = None
    for name, own in curves.items():
        try:
            plan = choose(coupling, budget, options, curves=own, time=time, spent=spent)
        except UsageError as error:
            first = first or error
            continue
        if not any(torch.equal(plan.channels, other.channels) for other in plans.values()):
            plans[name] = plan
    if first is not None and not plans:
        raise first
    return plans


def inputs(coupling: Coupling, calls: Iterable[tuple[Any, Any]]) -> list[Chunk]:
    """The few that a trial looks at."""
    module = coupling.program.module

    def limit(chunk: Chunk) -> int:
        return min(INPUTS // chunk.samples, MEMORY // max(2 * frontier(module, chunk), 1))

    return sampled(calls, coupling.program, limit=limit)[0]


def _distances(plan: Plan, chunks: list[Chunk]) -> list[Tensor]:
    """How far the repaired network is from the original, on the half that it does not know."""
    held = held_out(len(chunks), 2)
    small = apply(Shrink(plan), plan.coupling.program).program
    duet = Duet(plan, clone(small), chunks, held, rows=ROWS)
    duet.run()
    outputs = (duet.teacher.outputs, duet.pupil.outputs)
    wanted, own = ([one for one, out in zip(of, held, strict=True) if out] for of in outputs)
    return distances(wanted, own)
