"""What a sweep found: a point for each time, those that no other beats, and a table of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from compressor.base.terminal_text import words
from compressor.metrics.metric import Metric, deciding
from compressor.report.summary import finite


@dataclass(frozen=True)
class Point:
    """What became of one time that was asked for."""

    asked: str
    ratio: float | None = None
    """Of the original's time, as raced; None where no build met it."""
    low: float | None = None
    high: float | None = None
    file_bytes: int | None = None
    macs: float | None = None
    params: float | None = None
    metrics: Mapping[str, float] | None = None
    why: str = ""
    best: bool = False
    """No other is as fast and better."""
    processor: str | None = None
    """Of the machine that built and raced it."""


@dataclass(frozen=True)
class Front:
    """All points, in the order that was asked for."""

    model: str
    original: Mapping[str, float]
    """Metrics of the original."""
    points: tuple[Point, ...]

    @classmethod
    def of(
        cls, model: str, metric: str | None, reports: Mapping[str, dict[str, Any] | str]
    ) -> "Front":
        """Of the reports of builds, or why there is none, by what was asked for.

        `metric` says which point is better; None: the first of the reports. Raises UsageError
        where it was not measured, or it is not known whether less of it is better.
        """
        points = [point_of(asked, report) for asked, report in reports.items()]
        known = [report for report in reports.values() if not isinstance(report, str)]
        original = _metrics(known[0], "original") if known else {}
        decides = deciding(original, metric) if original else None
        return cls(model, original, tuple(_marked(point, points, decides) for point in points))

    @property
    def note(self) -> str:
        """What a reader has to know about all of them."""
        machines = {one.processor for one in self.points if one.processor is not None}
        if len(machines) < 2:
            return ""
        return (
            "Raced on different processors, each against the original on the same one: "
            f"{', '.join(sorted(machines))}."
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        plain: dict[str, Any] = finite(asdict(self))
        return plain


def point_of(asked: str, report: dict[str, Any] | str) -> Point:
    """What a report, or why there is none, says. Raises ValueError and its like for no report."""
    if isinstance(report, str):
        return Point(asked, why=report)
    latency, cost = report["latency"], report["cost"]
    ratio, low, high = (float(latency[name]) for name in ("ratio", "low", "high"))
    metrics = _metrics(report, "small")
    finite_times = all(map(math.isfinite, (ratio, low, high)))
    if not finite_times or _metrics(report, "original").keys() != metrics.keys():
        raise ValueError("its times or metrics are not of two models")
    return Point(
        asked,
        ratio,
        low,
        high,
        int(report["file_bytes"]["small"]),
        cost["macs"]["small"] / max(cost["macs"]["original"], 1),
        cost["params"]["small"] / max(cost["params"]["original"], 1),
        metrics,
        processor=report.get("environment", {}).get("processor"),
    )


def _metrics(report: Mapping[str, Any], side: str) -> dict[str, float]:
    return {name: float(pair[side]) for name, pair in report.get("accuracy", {}).items()}


def _marked(point: Point, points: Sequence[Point], metric: Metric | None) -> Point:
    """Whether no other point is at least as fast and as good, and better in one of both."""
    value = _worth(point, metric)
    if point.ratio is None or not math.isfinite(value):  # it is not known to be good
        return point
    better = any(
        other.ratio is not None
        and (other.ratio, -_worth(other, metric)) != (point.ratio, -value)
        and other.ratio <= point.ratio
        and _worth(other, metric) >= value
        for other in points
    )
    return Point(**{**asdict(point), "best": not better})


def _worth(point: Point, metric: Metric | None) -> float:
    """Higher is better; without a metric it is what stays of parameters."""
    if metric is None:
        return point.params or 0.0
    return metric.gain((point.metrics or {}).get(metric.name, math.nan))


def table(front: Front) -> Table:
    """For a terminal."""
    shown = Table(
        title=words(f"{front.model}: time against what stays"), caption=words(front.note or "")
    )
    for name in ("asked", "of the time", "interval", "bytes", "MACs", "parameters"):
        shown.add_column(name, justify="right")
    for name, value in front.original.items():
        shown.add_column(words(f"{name} ({value:.4g} before)"), justify="right")
    shown.add_column("", overflow="fold")
    for one in front.points:
        if one.ratio is None:
            shown.add_row(one.asked, *[""] * (5 + len(front.original)), words(one.why))
            continue
        metrics = [f"{value:.4g}" for value in (one.metrics or {}).values()]
        shown.add_row(
            one.asked, f"{one.ratio:.3f}", f"{one.low:.3f}-{one.high:.3f}",
            f"{one.file_bytes:,}", f"{one.macs:.3f}", f"{one.params:.3f}", *metrics,
            "on the front" if one.best else "",
        )  # fmt: skip
    return shown
