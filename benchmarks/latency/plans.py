"""Plans by time, and what a race says of them."""

import time
from typing import Any

import torch
from compressor.passes.base.errors import GateError
from compressor.passes.planning.targets import Ratio

from benchmarks.latency.subjects import (
    coupled,
    exported,
    made,
    peer,
    ratio,
    timing,
    written,
)
from compressor import align, bench, compress, passes
from compressor.pipeline.variant_race import raced
from compressor.timing.closed_loop import refuse_slower

SECONDS = 20.0
"""Of a race, at most."""
ROUNDED = (8, 16)
"""Multiples to which Torch-Pruning rounds widths, in columns of their own."""
ALIKE = 0.02
"""As many MACs as another, at most this share more or less."""
WHOLE = 0.98
"""Of the MACs: who keeps as many has removed nothing that is worth a comparison."""


def met(name: str, seed: int, threads: int = 1, share: float = 0.5) -> dict[str, Any]:
    """A build at half the latency."""
    coupling = coupled(name, seed)
    own = timing(coupling, SECONDS, threads)
    start = time.perf_counter()
    dense = own.cost.dense
    profiled = time.perf_counter() - start
    planning: list[float] = []

    def choose(part: float) -> passes.Plan:
        began, cpu = time.perf_counter(), time.process_time()
        budget = passes.Budget(latency=part)
        plan = passes.choose(coupling, budget, passes.Options(seed=seed), time=own.cost)
        planning.extend((time.perf_counter() - began, time.process_time() - cpu))
        return plan

    found = own.met(Ratio(share), choose)
    macs = passes.Costs(coupling, "macs")
    kept = macs.amount(found.plan.channels) / macs.dense
    best = found.rounds[found.best]
    return {
        "rounds": len(found.rounds),
        "ratio": best.measured,
        **{key: getattr(best, key) for key in ("low", "high", "noise")},
        "over_budget": best.measured / share,
        "macs": kept,
        "table_ms": dense * 1e3,
        "profile_seconds": profiled,
        "plan_seconds": planning[0],
        "plan_cpu_seconds": planning[1],
    }


def equal_macs(name: str) -> dict[str, Any]:
    """Ours at the MACs of Torch-Pruning's default, beside its others at as many.

    Where rounded widths have no such model, ours is made at the MACs of theirs too.
    """
    models, kept = dict[str, bytes](), dict[str, float]()
    models["default"], kept["default"] = peer(name, None)
    for unit in ROUNDED:
        models[f"round {unit}"], kept[f"round {unit}"] = peer(name, unit, kept["default"])
    coupling = coupled(name)
    own = timing(coupling, 2 * SECONDS)
    costs = passes.Costs(coupling, "macs")
    peers, partners = list(models), dict[str, str]()
    for one in peers:
        if kept[one] > WHOLE:
            continue
        alike = abs(kept[one] / kept["default"] - 1) <= ALIKE
        partners[one] = "ours" if alike else f"ours as {one}"
        if partners[one] not in models:
            plan = _at_macs(coupling, own.cost, kept[one])
            small = passes.apply(passes.Shrink(plan), coupling.program).program
            small.module.eval()
            models[partners[one]] = exported(small)
            kept[partners[one]] = costs.amount(plan.channels) / costs.dense
    race = own.race({"original": own.original, **models})
    return {
        "macs": kept,
        "models": {row.name: ratio(row) for row in race.rows[1:]},
        "against": {one: _told(race.between(one, own)) for one, own in partners.items()},
        "noise": ratio(race.control),
    }


def _at_macs(coupling: passes.Coupling, cost: Any, wanted: float) -> passes.Plan:
    """The plan by time that keeps this share of the MACs, or hardly more or less."""
    macs = passes.Costs(coupling, "macs")
    low, high, best = 0.05, 0.98, None
    for _ in range(10):
        share = (low + high) / 2
        plan = passes.choose(coupling, passes.Budget(latency=share), passes.Options(), time=cost)
        kept = macs.amount(plan.channels) / macs.dense
        if best is None or abs(kept - wanted) < abs(best[0] - wanted):
            best = (kept, plan)
        if abs(kept - wanted) < 0.003 * wanted:
            break
        low, high = (low, share) if kept > wanted else (share, high)
    assert best is not None
    return best[1]


def _told(found: bench.TimeRatio) -> dict[str, float]:
    return {"ratio": found.median, "low": found.low, "high": found.high}


def aligned(name: str) -> dict[str, Any]:
    """Torch-Pruning's default model, padded."""
    data, kept = peer(name, None)
    found = align.align(data, max_seconds=2 * SECONDS)
    assert found.race is not None
    return {
        "macs": kept,
        "unit": found.unit,
        "max_rel": found.max_rel,
        "models": {row.name: ratio(row) for row in found.race.rows[1:]},
        "noise": ratio(found.race.control),
    }


def prediction(name: str, seed: int) -> dict[str, Any]:
    """A random plan on the stairs: the table's ratio, and the race's."""
    coupling = coupled(name)
    own = timing(coupling, SECONDS / 2)
    generator = torch.Generator().manual_seed(seed)
    gone = [torch.zeros(0, dtype=torch.long)]
    for group in coupling.groups:
        stops = own.cost.stops(group.cells)
        stop = stops[int(torch.randint(len(stops), (1,), generator=generator))]
        gone += [cell[:stop] for cell in group.cells]
    channels = torch.cat(gone).sort().values
    plan = passes.Plan(coupling, passes.Budget(latency=0.5), channels)
    race = own.against_original(plan)
    predicted = own.cost.amount(channels) / own.cost.dense
    measured = ratio(race.rows[1])
    return {
        "predicted": predicted,
        **measured,
        "noise": ratio(race.control),
    }


def like_written(name: str) -> dict[str, Any]:
    """The shrunk model beside a dense one that was written with the same widths."""
    coupling = coupled(name)
    own = timing(coupling, 2 * SECONDS)
    plan = passes.choose(coupling, passes.Budget(macs=0.5), passes.Options())
    small = passes.apply(passes.Shrink(plan), coupling.program).program
    small.module.eval()
    model, x = made(name)
    dense = passes.capture(written(model, small.tensors()), (x,), {})
    race = own.race({"written": exported(dense), "small": exported(small)})
    return {"macs": plan.reached / plan.dense, **ratio(race.rows[1]), "noise": ratio(race.control)}


def cell(name: str, share: float) -> dict[str, Any]:
    """A build at a share of the MACs, as it is deployed: or is it refused, for it is slower?"""
    model, x = made(name)
    built = compress(model, (x,), budget=passes.Budget(macs=share), bench_seconds=SECONDS)
    found = raced(built)
    try:
        refuse_slower(found, asked=False)
        refused = ""
    except GateError as error:
        refused = str(error)
    return {
        "macs": built.plan.reached / built.plan.dense,
        **{key: found[key] for key in ("ratio", "low", "high", "noise")},
        "form": found.get("form"),
        "refused": refused,
    }
