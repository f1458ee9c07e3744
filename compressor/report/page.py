"""The report as one self-contained HTML page.

    headline    the verdict in sentences, warnings, original beside small
    pictures    widths before and after, the rounds of the race, operators, seconds per stage
    tables      groups, frozen axes, every layer, evidence, environment, options

What was not measured says so in the headline, and has no section.

The pictures are SVG that the template writes, not plotly's: a plotly figure needs its JavaScript,
4.8 MB inlined in every report, and a static one needs a browser at build time. Without any script
the page is tens of kilobytes, opens wherever HTML does, and the same report gives the same bytes.
Positions are shares of the width, never pixels, so that text keeps its size on a phone.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from compressor.passes.base.safe_text import showable_lines
from compressor.report.layers_section import layers, operators
from compressor.report.repair_section import mended
from compressor.report.summary import (
    NOTHING,
    asked,
    circumstances,
    costs,
    fixed,
    percent,
    thin,
    verdicts,
)

TEMPLATES = Path(__file__).resolve().parent / "templates"


def template(name: str) -> Template:
    """A page of ours: escaped, with our ways of writing numbers; what is missing is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=lambda value: showable_lines(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"thin": thin, "fixed": fixed, "percent": percent}
    return environment.get_template(name)


def render(found: Mapping[str, Any]) -> str:
    """The page of a report, which `report_contents` makes: any section of it may be missing."""
    return template("report.html.j2").render(
        model=found["model"],
        asked=asked(found),
        verdicts=list(verdicts(found)),
        warnings=found.get("warnings", ()),
        costs=list(costs(found)),
        widths=widths(found.get("groups", ())),
        race=race(found.get("latency")),
        groups=[Shrinking.of(group) for group in found.get("groups", ())],
        layers=layers(found),
        operators=operators(found.get("operators")),
        frozen=by_reason(found.get("frozen", ())),
        repair=mended(found.get("repair"), found.get("measured")),
        proof=found.get("proof"),
        parity=found.get("parity") or (),
        stages=stages(found.get("stages", {})),
        total=sum(found.get("stages", {}).values()),
        environment=plain(found.get("environment", {})),
        options=plain(found.get("options", {})),
        export=plain({name: found[name] for name in ("engine", "simplified") if name in found}),
    )


# ------------------------------------------------------------------------------------ pictures


class Scale(NamedTuple):
    """Numbers to positions in percent."""

    low: float
    high: float

    def at(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def ticks(self) -> list[tuple[float, str]]:
        """Two to eight round numbers and where they are."""
        rough = (self.high - self.low) / 7
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [(self.at(n * step), f"{n * step:.10g}") for n in range(first, last + 1)]


class Bar(NamedTuple):
    """`now` is drawn strong, before `was` in light, both in percent."""

    name: str
    was: float
    now: float
    text: str


def widths(groups: Sequence[Mapping[str, Any]]) -> dict[str, list[Bar]]:
    """Before and after, by title: whole rows are another unit and have a scale of their own."""
    titles = {"channels": "channels", "rows": "whole rows (attention heads, convolution groups)"}
    found: dict[str, list[Bar]] = {}
    for kind, title in titles.items():
        of_kind = [Shrinking.of(group) for group in groups if group["kind"] == kind]
        scale = Scale(0, max((one.original for one in of_kind), default=1))
        for one in of_kind:
            was, now = scale.at(one.original), scale.at(one.small)
            found.setdefault(title, []).append(Bar(one.name, was, now, f"{one.was} → {one.now}"))
    return found


def stages(seconds: Mapping[str, float]) -> list[Bar]:
    """The longest stage is as wide as there is room."""
    scale = Scale(0, max(seconds.values(), default=0) or 1)
    return [Bar(name, 0, scale.at(took), f"{took:,.2f}") for name, took in seconds.items()]


class PlottedCurve(NamedTuple):
    """How the rounds of one model spread: quartiles, and a histogram."""

    name: str
    low: float
    median: float
    high: float
    columns: list[tuple[float, int]]
    """Where each begins, and its height in pixels."""


class PlottedRace(NamedTuple):
    """Ratios with their intervals, and the rounds behind them."""

    note: str
    ratios: dict[str, Mapping[str, Any]]
    ratio_scale: Scale
    curves: list[PlottedCurve]
    curve_scale: Scale
    beyond: list[float]
    """Rounds too slow to be in the picture, in milliseconds."""


COLUMNS, TALLEST = 100, 44  # columns of a histogram, pixels of the highest


def race(latency: Mapping[str, Any] | None) -> PlottedRace | None:
    """What the race looked like."""
    if not latency:
        return None
    ratios = {"small over original": latency, "noise, original over itself": latency["noise"]}
    ends = [one[key] for one in ratios.values() for key in ("low", "high")]
    scale = _padded(min(1, *ends), max(1, *ends))
    times = {side: _per_run(latency, side) for side in ("original", "small")}
    axis = _padded(min(ms.min() for ms in times.values()), max(map(_edge, times.values())))
    curves = [_curve(name, ms, axis) for name, ms in times.items()]
    beyond = [float(one) for ms in times.values() for one in ms[ms > axis.high]]
    note = f"{circumstances(latency)}; {latency['why']}."
    return PlottedRace(note, ratios, scale, curves, axis, beyond)


def _padded(low: float, high: float) -> Scale:
    room = 0.04 * (high - low) or 0.05 * high or 1.0
    return Scale(max(float(low) - room, 0), float(high) + room)


def _per_run(latency: Mapping[str, Any], side: str) -> np.ndarray:
    """Milliseconds of one run in each round: a sample is the time of several runs."""
    samples = latency["samples"][side]
    sums = np.asarray(samples[f"{latency['clock']}_ns"], dtype=np.float64)
    return np.asarray(sums / samples["runs"] / 1e6)


def _edge(times: np.ndarray) -> float:
    """Where the picture ends, so that a few stalls do not squeeze the rest into a corner."""
    low, high = np.percentile(times, [25, 75])
    return float(min(times.max(), high + 8 * (high - low)))


def _curve(name: str, times: np.ndarray, scale: Scale) -> PlottedCurve:
    counts, edges = np.histogram(times, bins=COLUMNS, range=scale)
    heights = np.ceil(TALLEST * counts / counts.max()).astype(int).tolist()
    columns = [(x, y) for x, y in zip(edges[:-1].tolist(), heights, strict=True) if y]
    low, middle, high = (float(one) for one in np.percentile(times, [25, 50, 75]))
    return PlottedCurve(name, low, middle, high, columns)


# -------------------------------------------------------------------------------------- tables


class Shrinking(NamedTuple):
    """A group: what it counts, and its widths as numbers and in words."""

    name: str
    axes: Sequence[str]
    unit: str
    original: int
    small: int
    was: str
    now: str

    @classmethod
    def of(cls, group: Mapping[str, Any]) -> "Shrinking":
        cells, size, kept = group["cells"], group["size"], group["kept"]
        times = f"{cells} × " if cells > 1 else ""  # noqa: RUF001 (the times sign is meant)
        return cls(
            name=group["name"],
            axes=group["axes"] or [group["name"]],
            unit=f"channels, {cells} at a time" if cells > 1 else group["kind"],
            original=cells * size,
            small=cells * kept,
            was=f"{times}{thin(size)}",
            now=f"{times}{thin(kept)}",
        )


def by_reason(frozen: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Axes with their sizes."""
    found: dict[str, list[str]] = {}
    for one in frozen:
        found.setdefault(one["why"], []).append(f"{one['axis']} ({thin(one['size'])})")
    return found


def plain(values: Mapping[str, Any]) -> dict[str, str]:
    """Nested values in words, one line each."""
    return {name.replace("_", " "): _words(name, value) for name, value in values.items()}


def _words(name: str, value: Any) -> str:
    if name == "memory_bytes" and value:
        return f"{thin(value)} ({value / 2**30:.1f} GiB)"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(key, one)}" for key, one in value.items()) or NOTHING
    if isinstance(value, list | tuple):
        return ", ".join(_words("", one) for one in value) or NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return thin(value)
