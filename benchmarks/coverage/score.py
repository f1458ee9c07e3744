"""What the rows of a scoreboard add up to: a table a zoo, and a picture with a bar a family.

The picture is SVG, because a bar chart is rectangles and text.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from html import escape
from statistics import median
from typing import Any

from rich.markup import escape as plain
from rich.table import Table

from benchmarks.coverage.outcome import OURS, OUTCOMES, Outcome

COLOURS = {"equal": "#2e8b57", "frozen": "#d9a441", "wrong": "#c0392b", "crash": "#6b2d5c"}
ROW = 18
LEFT, BAR = 260, 420


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


def picture(zoo: str, rows: Iterable[Outcome]) -> str:
    """Stacked bars, one a family and engine, as SVG."""
    bars: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        short = row.family.split(":")[0] or "all"
        bars[short if row.engine == OURS else f"{short} ({row.engine})"][row.outcome] += 1
    most = max(counts.total() for counts in bars.values())
    height = ROW * (len(bars) + 3)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + BAR + 60} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="100%" height="100%" fill="white"/><text x="8" y="{ROW}">{escape(zoo)}: '
        "models a family, at half of the channels</text>",
        *_legend(),
    ]
    for index, (family, counts) in enumerate(sorted(bars.items()), 3):
        parts.extend(_bar(family, counts, index * ROW, BAR / most))
    return "\n".join([*parts, "</svg>"])


def _legend() -> list[str]:
    return [
        f'<rect x="{LEFT + 100 * place}" y="{ROW + 6}" width="10" height="10" fill="{colour}"/>'
        f'<text x="{LEFT + 100 * place + 15}" y="{ROW + 15}">{name}</text>'
        for place, (name, colour) in enumerate(COLOURS.items())
    ]


def _bar(family: str, counts: Mapping[str, int], y: int, scale: float) -> list[str]:
    parts = [f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(family)}</text>']
    x = float(LEFT)
    for name, colour in COLOURS.items():
        if counts[name]:
            width = counts[name] * scale
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 4}" '
                f'fill="{colour}"><title>{counts[name]} {name}</title></rect>'
            )
            x += width
    return [*parts, f'<text x="{x + 5:.1f}" y="{y + 11}">{sum(counts.values())}</text>']
