"""Every row of the experiment, and the tables that are made of them."""

import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from compressor.passes.importance.gradient import DATA_CRITERIA
from compressor.passes.importance.magnitude import CRITERIA
from rich.table import Table

from benchmarks import recording
from benchmarks.accuracy import claims, ours, peer, text_and_sound
from benchmarks.accuracy.networks import network, version
from benchmarks.recording import Known, Row
from models.catalog import CATALOG

BUDGETS = peer.BUDGETS
WANTED = {0.7: 0.925, 0.5: 0.90, 0.33: 0.82}
"""Of ResNet-56."""

PICTURES = "mobilenet_v1"
"""Of ImageNet: as many channels as there are pictures, or more."""
GIVEN = {0.7: (16, 64, 128, 256, 500), 0.5: (500,)}
"""How many of the pictures, at each budget."""
RIVALS = ("l1", "l2", "fpgm", "lamp", "taylor", "random")
"""Criteria of the peer that need no batch norms."""

FEW = {"first": 5000}
"""Of the tables of criteria: test inputs."""

NAMES = ("auto", "obs", *CRITERIA, *DATA_CRITERIA)
STEPS = {"auto": None}
"""In how many steps: as by default, for the default; every other criterion is asked once."""


def rows() -> list[Row]:
    """All of them, the most telling first."""
    found = [Row(f"dense/{name}", partial(_dense, name)) for name in ("resnet56", "resnet20")]
    for name in ("resnet56", "resnet20"):
        found += [Row(f"ours/{name}/{b}", partial(ours.row, name, b)) for b in BUDGETS]
        found += [Row(f"whole/{name}/{b}", partial(ours.whole, name, b)) for b in BUDGETS]
    found += [Row(f"dense/{PICTURES}", partial(_dense, PICTURES))]
    found += [
        Row(f"pictures/{PICTURES}/{b}/{n}", partial(ours.row, PICTURES, b, inputs=n))
        for b, given in GIVEN.items()
        for n in given
    ]
    found += [
        Row(f"peer/{PICTURES}/{b}/{one}", partial(peer.row, PICTURES, b, one))
        for one in RIVALS
        for b in GIVEN
    ]
    found += [
        Row(f"never worse/{name}/{b}", partial(claims.never_worse, name, b))
        for name in CATALOG
        for b in (0.7, 0.5)
    ]
    found += [
        Row(f"text and sound/{name}/{b}", partial(text_and_sound.measured, name, b))
        for name in text_and_sound.NAMES
        for b in text_and_sound.SHARES
    ]
    found += [
        Row(f"steps/{name}/{b}/{n}", partial(ours.row, name, b, criterion="obs", steps=n))
        for name in ("resnet20", "resnet56")
        for b in BUDGETS
        for n in (1, 4, 8)
    ]
    found += [Row(f"memory/{n}", partial(claims.memory, n)) for n in (512, 2048, 8192)]
    for name in ("resnet20", "resnet56"):
        found += [
            Row(
                f"criteria/{name}/{b}/{one}",
                partial(ours.row, name, b, criterion=one, steps=STEPS.get(one, 1), **FEW),
            )
            for b in (0.5, 0.7)
            for one in NAMES
        ]
        found += [
            Row(f"peer/{name}/{b}/{one}", partial(peer.row, name, b, one))
            for one in peer.CRITERIA
            for b in BUDGETS
        ]
        found += [
            Row(f"no curves/{name}/{b}", partial(ours.row, name, b, criterion="l2", by_curve=False))
            for b in BUDGETS
        ]
    return found


def _dense(name: str) -> dict[str, Any]:
    found = network(name)
    return {"accuracy": {"original": found.accuracy(found.model)}}


def tables(known: Known) -> list[Table]:
    """What is known so far."""
    heard = text_and_sound.table(text_and_sound.known_rows(known.values()))
    return [
        _budgets(known),
        _pictures(known),
        heard,
        _criteria(known),
        _worse(known),
        _memory(known),
        _whole(known),
    ]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def best_peer(known: Known, name: str, budget: float) -> tuple[str, float] | None:
    """The criterion of the peer with which it does best, and its accuracy."""
    start = f"peer/{name}/{budget}/"
    found = {
        key.removeprefix(start): row["accuracy"]["statistics"]
        for key, row in known.items()
        if key.startswith(start) and "accuracy" in row
    }
    best = max(found, key=lambda one: found[one], default=None)
    return None if best is None else (best, found[best])


def _budgets(known: Known) -> Table:
    table = _table("Test accuracy without training (%)", "network", "MACs", "sliced",
                   "+ batch norm", "repaired", "wanted", "peer + batch norm", "its criterion",
                   "seconds")  # fmt: skip
    for name in ("resnet56", "resnet20"):
        for budget in BUDGETS:
            row = known.get(f"ours/{name}/{budget}")
            if row is None or "accuracy" not in row:
                continue
            one, other = row["accuracy"], best_peer(known, name, budget)
            wanted = WANTED[budget] if name == "resnet56" else None
            table.add_row(name, f"{row['macs']:.3f}", _percent(one["sliced"]),
                          _percent(one["statistics"]), _percent(one["refit"]), _percent(wanted),
                          _percent(other[1]) if other else "", other[0] if other else "",
                          f"{sum(row['seconds'].values()):.0f}")  # fmt: skip
    return table


def _pictures(known: Known) -> Table:
    table = _table("ImageNet, one picture a class: test accuracy without training (%)", "network",
                   "pictures", "MACs", "sliced", "repaired", "error", "peer",
                   "its criterion")  # fmt: skip
    for key, row in known.items():
        if key.startswith("pictures/") and "accuracy" in row:
            _, name, budget, given = key.split("/")
            other = best_peer(known, name, float(budget))
            table.add_row(name, given, f"{row['macs']:.3f}", _percent(row["accuracy"]["sliced"]),
                          _percent(row["accuracy"]["refit"]),
                          f"{row['divergences'][row['chosen']]:.3f}",
                          _percent(other[1]) if other else "",
                          other[0] if other else "")  # fmt: skip
    return table


def _criteria(known: Known) -> Table:
    columns = [(name, b) for name in ("resnet20", "resnet56") for b in (0.7, 0.5)]
    heads = [f"{name} {b} {what}" for name, b in columns for what in ("+ norm", "repaired")]
    table = _table("Criteria, with batch norms re-estimated and with repair (%)", "", *heads)
    for one in NAMES:
        cells = []
        for name, b in columns:
            accuracy = known.get(f"criteria/{name}/{b}/{one}", {}).get("accuracy", {})
            cells += [_percent(accuracy.get("statistics")), _percent(accuracy.get("refit"))]
        if any(cells):
            table.add_row(one, *cells)
    return table


def _worse(known: Known) -> Table:
    table = _table("Agreement with the original (%)", "model", "MACs", "sliced", "+ batch norm",
                   "repaired", "kept", "")  # fmt: skip
    for key, row in known.items():
        if key.startswith("never worse/") and "agreement" in row:
            one = row["agreement"]
            worse = one["repaired"] < one["statistics"]
            table.add_row(key.split("/")[1], f"{row['macs']:.3f}", _percent(one["sliced"]),
                          _percent(one["statistics"]), _percent(one["repaired"]), row["chosen"],
                          "WORSE" if worse else "")  # fmt: skip
    return table


def _whole(known: Known) -> Table:
    table = _table("A whole build", "network", "MACs", "seconds", "threads", "accuracy",
                   "of the original's time")  # fmt: skip
    for key, row in known.items():
        if key.startswith("whole/") and "all" in row.get("seconds", {}):
            table.add_row(key.split("/")[1], key.split("/")[2], f"{row['seconds']['all']:.0f}",
                          str(row["threads"]), _percent(row["accuracy"]["built"]),
                          f"{row['ratio']:.3f} ({row['low']:.3f}-{row['high']:.3f})")  # fmt: skip
    return table


def _memory(known: Known) -> Table:
    table = _table("Memory of a repair", "inputs", "used", "peak (MiB)", "before (MiB)")
    for key, row in known.items():
        if key.startswith("memory/") and "peak_kib" in row:
            table.add_row(key.split("/")[1], str(row["used"]), f"{row['peak_kib'] / 1024:.0f}",
                          f"{row['before_kib'] / 1024:.0f}")  # fmt: skip
    return table


def summary(known: Known) -> dict[str, Any]:
    """The claims, as plain values."""
    worse = [
        key.removeprefix("never worse/")
        for key, row in known.items()
        if key.startswith("never worse/")
        and row.get("agreement", {}).get("repaired", 0)
        < row.get("agreement", {}).get("statistics", 0)
    ]
    return {
        "errors": sorted(key for key, row in known.items() if "error" in row),
        "repaired is worse than re-estimated": worse,
        "budgets": {
            f"{name} {b}": {
                "repaired": known[f"ours/{name}/{b}"]["accuracy"]["refit"],
                "wanted": WANTED[b] if name == "resnet56" else None,
                "peer": best_peer(known, name, b),
            }
            for name in ("resnet56", "resnet20")
            for b in BUDGETS
            if "accuracy" in known.get(f"ours/{name}/{b}", {})
        },
    }


def run(path: Path, matches: Callable[[str], bool], say: Callable[[str], None]) -> Known:
    """All rows, after those that match and are not in the record yet were measured."""
    wanted = [replace(row, run=partial(_told, row)) for row in rows()]
    return recording.resumed(path, wanted, matches, say)


def _told(row: Row) -> dict[str, Any]:
    try:
        found = row.run()
    except Exception:  # whatever a network or the peer raises: it is a row as well
        found = {"error": traceback.format_exc().strip().splitlines()[-1]}
    return {**found, "version": version()}
