"""Every row of the experiment."""

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.latency import alarms, plans
from benchmarks.latency.contest import contest
from benchmarks.latency.graphs import graphs
from benchmarks.latency.subjects import CHAINS, NAMES
from benchmarks.recording import Row

SEEDS = 10
"""Builds a model, each of other weights."""
PLANS = 17
"""Random plans a model."""
SHARES = (0.8, 0.65, 0.5, 0.35)
"""Of the MACs."""


def rows() -> list[Row]:
    """All of them, the most telling first."""
    found = []
    for name in ("resnet18", "mobilenet_v2", "resnet50"):
        found += [_met(name, 0), _row(plans.equal_macs, "macs", name)]
        if name != "resnet18":
            found.append(_row(plans.aligned, "align", name))
        found.append(_row(plans.like_written, "written", name))
    found += [_met(name, 0) for name in (*NAMES[3:], "vgg19", "resnet56")]
    found += [_row(plans.equal_macs, "macs", "resnet56")]
    found += [_row(plans.like_written, "written", name) for name in CHAINS[3:]]
    found += [_row(contest, "contest", name) for name in ("resnet20", "resnet56")]
    found += [_row(graphs, "graphs", name) for name in NAMES]
    found.append(_row(alarms.truth, "truth"))
    for batch in range(10):
        found += [_row(alarms.same, "same", 3 * batch + n) for n in range(3)]
        found.append(_row(alarms.wider, "wider", batch))
    found += [
        _row(plans.prediction, "prediction", name, seed)
        for seed in range(PLANS)
        for name in ("resnet18", "mobilenet_v2", "vit_b_16")
    ]
    found += [_row(plans.cell, "cell", name, share) for name in NAMES for share in SHARES]
    found += [_met(name, 0, threads=2) for name in NAMES]
    return found + [_met(name, seed) for seed in range(1, SEEDS) for name in NAMES]


def _met(name: str, seed: int, threads: int = 1) -> Row:
    kind = "met" if threads == 1 else f"met-{threads}-threads"
    return Row(f"{kind}/{name}/{seed}", partial(plans.met, name, seed, threads))


def _row(run: Callable[..., dict[str, Any]], kind: str, *given: Any) -> Row:
    """A row that is named by its kind and what it is given."""
    return Row("/".join(map(str, (kind, *given))), partial(run, *given))
