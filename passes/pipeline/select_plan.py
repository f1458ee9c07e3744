"""Which plan: each is cut and repaired on some inputs, and judged on as many others.

    plan ──> shrink ──> refit on one half ──> distance from the original on the other half

No criterion is the best one for all networks, nor any number of steps, so that none is believed. A
trial looks at fewer inputs than the repair of the winner does, and at fewer rows of each; so
another plan than the first is taken only where it is closer by more than chance would have it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..base.errors import UsageError
from ..calibration.divergence import average, distances, lead
from ..calibration.lockstep import Chunk, Room, fitting, held_out, sampled
from ..cost.costs import Cost
from ..coupling.groups import Coupling
from ..importance.measure import Measured
from ..ir.pass_base import apply
from ..ir.rebuild import clone
from ..planning.budget import Budget, Options
from ..planning.choice import Plan, Trial, choose
from ..repair.layerwise import Duet
from ..repair.repair import MEMORY
from ..transforms.prune import Shrink

INPUTS = 256
"""Of a trial, at most: one half to fit, one half to judge."""

ROWS = 25
"""Rows to fit, for each column of a layer."""

SURE = 2.0
"""Standard errors by which another plan than the first has to be closer."""


def candidates(
    coupling: Coupling,
    budget: Budget,
    options: Options,
    measured: Measured,
    time: Cost | None = None,
    spent: float = 0.0,
    steps: int = 1,
) -> list[Plan]:
    """A plan by each criterion that meets the budget, that of `measured` first.

    `spent` is what was lost in earlier `steps`. Raises UsageError, as `choose`, where none does.
    """
    plans, errors = list[Plan](), list[UsageError]()
    for criterion, curves in measured.by_criterion.items():
        own = replace(options, criterion=criterion)
        try:
            plan = choose(coupling, budget, own, curves=curves, time=time, spent=spent)
        except UsageError as error:
            errors.append(error)
            continue
        told = Trial(criterion, plan.reached / plan.dense, None, None, steps)
        plans.append(replace(plan, trials=(told,), samples=measured.samples, why=measured.why))
    if not plans:
        raise errors[0]
    return plans


def best(plans: Sequence[Plan], calls: Iterable[tuple[Any, Any]]) -> Plan:
    """The plan whose network agrees best with the original after a repair."""
    first = plans[0]
    others = [
        plan
        for index, plan in enumerate(plans)
        if not any(torch.equal(plan.channels, one.channels) for one in plans[:index])
    ][1:]
    if not others:
        return first
    chunks = inputs(first.coupling, calls)
    own = _distances(first, chunks)
    found = [(plan, _distances(plan, chunks)) for plan in others]
    leads = [lead(own, distances) for _, distances in found]
    told = [_told(first, own, None)]
    told += [_told(*one, noise) for one, (_, noise) in zip(found, leads, strict=True)]
    sure = [index for index, (gain, noise) in enumerate(leads, 1) if gain > SURE * noise]
    taken = max(sure, key=lambda index: leads[index - 1][0], default=0)
    told.insert(0, told.pop(taken))
    return replace((first, *others)[taken], trials=tuple(told))


def _told(plan: Plan, distances: list[Tensor], noise: float | None) -> Trial:
    return replace(plan.trials[0], divergence=average(distances), noise=noise)


def inputs(coupling: Coupling, calls: Iterable[tuple[Any, Any]]) -> list[Chunk]:
    """The few that a trial looks at."""
    program, found = coupling.program, list[Room]()

    def limit(chunk: Chunk) -> int:
        found.append(Room.of([program.module] * 2, program, chunk, MEMORY))
        return min(INPUTS // chunk.samples, found[0].total)

    chunks, _ = sampled(calls, program, limit=limit)
    return fitting(chunks, program, found[0])


def _distances(plan: Plan, chunks: list[Chunk]) -> list[Tensor]:
    """How far the repaired network is from the original, on the half that it does not know."""
    held = held_out(chunks, 2)
    small = apply(Shrink(plan), plan.coupling.program).program
    duet = Duet(plan, clone(small), chunks, held, rows=ROWS, memory=MEMORY)
    duet.run()
    outputs = (duet.teacher.outputs, duet.pupil.outputs)
    wanted, own = ([one for one, out in zip(of, duet.held, strict=True) if out] for of in outputs)
    return distances(wanted, own)
