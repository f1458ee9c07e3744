"""Every row of the experiment, and the tables that are made of them."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from benchmarks.latency.subjects import (
    NAMES,
    PEERS,
    coupled,
    exported,
    peer,
    ratio,
    timing,
)
from compressor import align, bench, passes
from compressor.environment import environment
from compressor.latency.target import Target

SECONDS = 20.0
"""Of a race, at most."""
HALF = 0.3
"""Torch-Pruning's ratio that leaves about half of the MACs."""
Known = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Row:
    """A name such as ``met/resnet50/0``, and how it is measured."""

    name: str
    run: Callable[[], dict[str, Any]]


def rows() -> list[Row]:
    """All of them, the most telling first."""
    found = []
    for name in ("resnet18", "mobilenet_v2", "resnet50"):
        found.append(Row(f"met/{name}/0", partial(met, name, 0)))
        found.append(Row(f"macs/{name}", partial(equal_macs, name)))
        if name != "resnet18":
            found.append(Row(f"align/{name}", partial(aligned, name)))
    found += [Row(f"met/{name}/0", partial(met, name, 0)) for name in NAMES[3:]]
    for seed in range(17):
        found += [
            Row(f"prediction/{name}/{seed}", partial(prediction, name, seed))
            for name in ("resnet18", "mobilenet_v2", "vit_b_16")
        ]
    found += [Row(f"met/{n}/{seed}", partial(met, n, seed)) for seed in range(1, 10) for n in NAMES]
    return found


def met(name: str, seed: int, share: float = 0.5) -> dict[str, Any]:
    """A build at half the latency."""
    coupling = coupled(name, seed)
    own = timing(coupling, SECONDS)
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

    found = own.met(Target(ratio=share), choose)
    macs = passes.Costs(coupling, "macs")
    kept = macs.amount(found.plan.channels) / macs.dense
    best = found.rounds[found.best]
    return {
        **found.to_json(),
        "over_budget": best.measured / share,
        "macs": kept,
        "turned": kept / best.measured,
        "table_ms": dense * 1e3,
        "profile_seconds": profiled,
        "plan_seconds": planning[0],
        "plan_cpu_seconds": planning[1],
    }


def equal_macs(name: str) -> dict[str, Any]:
    """Ours at the MACs of Torch-Pruning's default, beside its others."""
    models: dict[str, bytes] = {}
    kept = {}
    for label, unit in PEERS.items():
        models[label], kept[label] = peer(name, HALF, unit)
    coupling = coupled(name)
    own = timing(coupling, 2 * SECONDS)
    plan = _at_macs(coupling, own.cost, kept["default"])
    costs = passes.Costs(coupling, "macs")
    kept["ours"] = costs.amount(plan.channels) / costs.dense
    small = passes.apply(passes.Shrink(plan), coupling.program).program
    small.module.eval()
    race = own.race({"original": own.original, "ours": exported(small), **models})
    return {
        "macs": kept,
        "models": {row.name: ratio(row) for row in race.rows[1:]},
        "against": _against(race),
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
        if abs(kept - wanted) < 0.01 * wanted:
            break
        low, high = (low, share) if kept > wanted else (share, high)
    assert best is not None
    return best[1]


def _against(race: bench.Race) -> dict[str, dict[str, float]]:
    """How much longer every other takes than ours, in the same rounds."""
    from compressor.bench.statistics import paired_ratio

    def times(row: bench.Row) -> np.ndarray:
        samples = row.samples.wall_ns if race.primary == "wall" else row.samples.cpu_ns
        return np.array(samples) / row.samples.runs

    rows_ = {row.name: row for row in race.rows}
    found = {}
    for name, row in rows_.items():
        if name not in ("ours", "original"):
            one = paired_ratio(times(row), times(rows_["ours"]), heat=race.heat)
            found[name] = {"ratio": one.median, "low": one.low, "high": one.high}
    return found


def aligned(name: str) -> dict[str, Any]:
    """Torch-Pruning's default model, padded."""
    data, kept = peer(name, HALF, None)
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
        "error": abs(predicted / measured["ratio"] - 1),
        "noise": ratio(race.control),
    }


# --- records -------------------------------------------------------------------------------------


def read(path: Path) -> dict[str, dict[str, Any]]:
    """What was run already, by name."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def run(path: Path, wanted: Callable[[str], bool], say: Callable[[str], None]) -> Known:
    """Run what is missing, one after another; every row is written when it is done."""
    known = read(path)
    for row in rows():
        if row.name in known or not wanted(row.name):
            continue
        start = time.perf_counter()
        found = {"name": row.name, **row.run()}
        found["seconds"] = round(time.perf_counter() - start, 1)
        found["environment"] = environment()
        known[row.name] = found
        with path.open("a") as file:
            file.write(json.dumps(found) + "\n")
        say(f"{row.name}: {found['seconds']} s")
    return known


def _said(found: Mapping[str, float]) -> str:
    return f"{found['ratio']:.3f} ({found['low']:.3f}-{found['high']:.3f})"


def tables(known: Known) -> list[Table]:
    """What is known so far."""
    return [_met(known), _macs(known), _align(known), _prediction(known)]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column == "model" else "right")
    return table


def _met(known: Known) -> Table:
    table = _table("half the latency", "model", "seed", "measured", "itself", "over budget",
                   "rounds", "MACs", "turned", "plan s (CPU)", "profile s")  # fmt: skip
    for name, row in known.items():
        if not name.startswith("met/"):
            continue
        best = row["rounds"][row["best"]]
        said = _said({"ratio": best["measured"], "low": best["low"], "high": best["high"]})
        _, model, seed = name.split("/")
        table.add_row(
            model, seed, said, f"{best['noise']:.3f}", f"{row['over_budget']:.3f}",
            str(len(row["rounds"])), f"{row['macs']:.3f}", f"{row['turned']:.2f}",
            f"{row['plan_seconds']:.1f} ({row['plan_cpu_seconds']:.1f})",
            f"{row['profile_seconds']:.0f}",
        )  # fmt: skip
    return table


def _macs(known: Known) -> Table:
    table = _table("at the MACs of Torch-Pruning's default", "model", "which", "MACs",
                   "of the original's time", "of ours", "itself")  # fmt: skip
    for name, row in known.items():
        if not name.startswith("macs/"):
            continue
        for which, found in row["models"].items():
            against = row["against"].get(which)
            table.add_row(
                name.split("/")[1], which, f"{row['macs'][which]:.3f}", _said(found),
                "" if against is None else _said(against), _said(row["noise"]),
            )  # fmt: skip
    return table


def _align(known: Known) -> Table:
    table = _table("Torch-Pruning's default, padded", "model", "to", "of its time", "speed-up",
                   "differs by", "itself")  # fmt: skip
    for name, row in known.items():
        if name.startswith("align/"):
            for which, found in row["models"].items():
                table.add_row(
                    name.split("/")[1], which, _said(found), f"{1 / found['ratio']:.2f}",
                    f"{row['max_rel']:.1g}", _said(row["noise"]),
                )  # fmt: skip
    return table


def _prediction(known: Known) -> Table:
    from scipy.stats import spearmanr

    table = _table("random plans", "model", "plans", "median error", "largest", "rank correlation")
    names = sorted({name.split("/")[1] for name in known if name.startswith("prediction/")})
    for model in names:
        own = [row for name, row in known.items() if name.startswith(f"prediction/{model}/")]
        errors = [row["error"] for row in own]
        pairs = [(row["predicted"], row["ratio"]) for row in own]
        rank = spearmanr(*zip(*pairs, strict=True)).statistic if len(own) > 2 else float("nan")
        table.add_row(model, str(len(own)), f"{statistics.median(errors):.1%}",
                      f"{max(errors):.1%}", f"{rank:.3f}")  # fmt: skip
    return table
