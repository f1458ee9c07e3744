"""What the rows of a scoreboard add up to: a table a zoo, and every miss with its reason."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from statistics import median
from typing import Any

from rich.markup import escape as plain
from rich.table import Table

from benchmarks.coverage.outcome import OURS, OUTCOMES, Outcome


def summary(rows: Iterable[Outcome]) -> dict[str, dict[str, Any]]:
    """Per engine: counts of outcomes, shares, and the cost of analysis beside torch.export's."""
    engines = defaultdict(list)
    for row in rows:
        engines[row.engine].append(row)
    return {engine: _summary(found) for engine, found in engines.items()}


def _summary(rows: list[Outcome]) -> dict[str, Any]:
    counts = Counter(row.outcome for row in rows)
    overheads = [row.overhead for row in rows if row.overhead is not None]
    gone = [row.params_gone for row in rows if row.outcome == "equal"]
    return {
        "models": len(rows),
        **{name: counts[name] for name in OUTCOMES},
        "exported": sum(row.exported for row in rows),
        "equal_share": counts["equal"] / len(rows),
        "median_params_gone": median(gone) if gone else 0.0,
        "median_seconds": median(sum(row.seconds.values()) for row in rows),
        "overhead_median": median(overheads) if overheads else None,
        "overhead_worst": max(overheads) if overheads else None,
        "worst_proof": max((row.proof for row in rows if row.proof is not None), default=None),
        "worst_parity": max((row.parity for row in rows if row.parity is not None), default=None),
    }


def table(zoo: str, rows: Iterable[Outcome]) -> Table:
    """The summary, an engine a column."""
    found = summary(rows)
    shown = Table(title=f"{zoo}: half of the channels")
    shown.add_column("")
    for engine in found:
        shown.add_column(engine, justify="right")
    for key in next(iter(found.values())):
        shown.add_row(key.replace("_", " "), *(_text(key, one[key]) for one in found.values()))
    return shown


def _text(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    if key.endswith(("share", "gone")):
        return f"{value:.1%}"
    if isinstance(value, int):
        return str(value)
    return f"{value:.1e}" if key.startswith("worst") else f"{value:.2f}"


def misses(rows: Iterable[Outcome]) -> Table:
    """Every row of ours that is not equal, with the reason."""
    shown = Table(title="not equal")
    for column in ("model", "outcome", "gone", "why"):
        shown.add_column(column, overflow="fold")
    for row in rows:
        if row.engine == OURS and row.outcome != "equal":
            shown.add_row(row.name, row.outcome, f"{row.params_gone:.0%}", plain(row.why[:240]))
    return shown
