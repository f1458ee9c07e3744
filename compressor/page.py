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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from compressor.layers_section import layers, operators
from compressor.repair_section import mended

TEMPLATES = Path(__file__).resolve().parent / "templates"
COSTS = {
    "params": "parameters",
    "macs": "MACs",
    "channels": "prunable channels",
    "bytes": "bytes of weights",
}
NOTHING = "–"  # noqa: RUF001 (a dash in an empty cell)


def template(name: str) -> Template:
    """A page of ours: escaped, with our ways of writing numbers; what is missing is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"thin": thin, "fixed": fixed, "percent": percent}
    return environment.get_template(name)


def render(found: Mapping[str, Any]) -> str:
    """The page of a report (see `compressor.report`): any section of it may be missing."""
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


def summary(found: Mapping[str, Any]) -> str:
    """The headline in Markdown: for a job summary, a pull request, a release note."""
    lines = [f"### {_cell(found['model'])}", "", f"{asked(found)}.", ""]
    for one in verdicts(found):
        lines.append(f"- **{_cell(one.short)}** {_cell(one.full)}".rstrip())
    lines += ["", "|  | original | small | ratio |", "|---|---|---|---|"]
    for row in costs(found):
        cells = (row.name, row.original, row.small, f"{row.ratio} {row.ratio_note}".strip())
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    lines += [""] + [f"> {_cell(line)}\n" for line in found.get("warnings", ())]
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    """Plain words: nothing of a name becomes markup."""
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


# ------------------------------------------------------------------------------------- numbers


def thin(value: Any, digits: int = 3) -> str:
    """``1,234,567``, ``0.512``, ``1.2e-15``; words stay words, and nothing is a dash."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, str | bool):
        return str(value)
    size = abs(value)
    if not math.isfinite(size):
        return str(value)
    if isinstance(value, int) or size >= 999.5:
        return f"{value:,.0f}"
    if 0 < size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.{digits}g}"


def fixed(value: float) -> str:
    """Three digits that count, zeros among them: ``1.30``."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 2
    return f"{value:,.{max(digits, 0)}f}"


def percent(share: float | None) -> str:
    """Rounded down: 100 % is all of them."""
    return NOTHING if share is None else f"{math.floor(share * 1000) / 10:g} %"


def ratio(pair: Mapping[str, Any]) -> str:
    """Small over original, with three decimals."""
    original, small = float(pair["original"]), float(pair["small"])
    found = small / original if original else math.nan
    return f"{found:.3f}" if math.isfinite(found) else NOTHING


# ------------------------------------------------------------------------------------ headline


class Verdict(NamedTuple):
    """A finding in a few words and in full; `mark` is `good`, `bad` or neither (`open`)."""

    mark: str
    short: str
    full: str = ""


def asked(found: Mapping[str, Any]) -> str:
    """The budget, and what came of it."""
    kind, amount = found["budget"]["kind"], found["budget"]["amount"]
    name = COSTS.get(kind, kind)
    wish = f"{amount * 100:.4g} % of the {name}" if amount < 1 else f"{thin(amount)} {name}"
    cost = found.get("cost", {}).get(kind)
    if not cost or not cost["original"]:
        return f"at most {wish}"
    share = cost["small"] / cost["original"]
    return f"at most {wish}; {thin(cost['small'])} are left, {share * 100:.1f} %"


def verdicts(found: Mapping[str, Any]) -> Iterator[Verdict]:
    """What was shown and what was measured."""
    yield _proof(found.get("proof"))
    yield _parity(found.get("parity"))
    yield _latency(found.get("latency"))
    if not found.get("accuracy"):
        yield Verdict("open", "Accuracy was not measured.")
    for name, pair in found.get("accuracy", {}).items():
        yield _changed(name, pair)


def _proof(proof: Mapping[str, Any] | None) -> Verdict:
    if not proof:
        return Verdict("open", "The surgery was not proven.")
    gap, limit = thin(proof["max_rel"]), thin(proof["tolerance"])
    if not float(proof["max_rel"]) <= proof["tolerance"]:
        full = f"Removing and silencing differ by {gap} of the largest output"
        return Verdict("bad", "The proof fails.", f"{full} (tolerance {limit}, {proof['dtype']}).")
    how = "exactly" if gap == "0" else f"to {gap} of the largest output"
    full = (
        "The small network equals the original with the removed channels silenced, "
        f"{how} (tolerance {limit}, {proof['dtype']})."
    )
    return Verdict("good", "The proof holds.", full)


def _parity(parity: Sequence[Mapping[str, Any]] | None) -> Verdict:
    if not parity:
        return Verdict("open", "The exported model was not compared with PyTorch.")
    worst = max((float(one["max_rel"]) for one in parity), key=lambda gap: (gap != gap, gap))
    count = f"{len(parity)} comparisons" if len(parity) > 1 else "one comparison"
    full = f"ONNX Runtime and PyTorch differ by at most {thin(worst)} of the largest output"
    if not math.isfinite(worst):
        return Verdict("bad", "Parity fails.", f"{full}.")
    return Verdict("good", "Parity holds.", f"{full}, in {count}.")


def _latency(latency: Mapping[str, Any] | None) -> Verdict:
    if not latency:
        return Verdict("open", "Latency was not measured.")
    noise = latency["noise"]
    full = (
        f"One run takes {_interval(latency)} of the original's time (95 % interval). "
        f"Noise control, the original against itself: {_interval(noise)}."
    )
    if latency["high"] < min(1, noise["low"]):
        return Verdict("good", f"{1 / latency['ratio']:.2f} times as fast.", full)
    if latency["low"] > max(1, noise["high"]):
        return Verdict("bad", f"{latency['ratio']:.2f} times as slow.", full)
    return Verdict("open", "No change of latency can be told from noise.", full)


def _interval(one: Mapping[str, float]) -> str:
    return f"{one['ratio']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


def _changed(name: str, pair: Mapping[str, Any]) -> Verdict:
    original, small = float(pair["original"]), float(pair["small"])
    before, after = thin(original, 4), thin(small, 4)
    if original == small:
        return Verdict("open", f"{name} is unchanged at {before}.")
    if not math.isfinite(small - original):
        return Verdict("open", f"{name} is {before} before and {after} after.")
    change = f"{'+' if small > original else ''}{thin(small - original, 4)}"
    return Verdict("open", f"{name} changes by {change}.", f"From {before} to {after}.")


class Row(NamedTuple):
    """One line of the table of costs; notes are small print."""

    name: str
    original: str
    small: str
    ratio: str
    name_note: str = ""
    ratio_note: str = ""


def costs(found: Mapping[str, Any]) -> Iterator[Row]:
    """Everything that has an original and a small amount."""
    pairs = {name: found.get("cost", {}).get(kind) for kind, name in COSTS.items()}
    pairs["bytes of the ONNX file"] = found.get("file_bytes")
    for name, pair in pairs.items():
        if pair:
            yield Row(name, thin(pair["original"]), thin(pair["small"]), ratio(pair))
    for name, pair in found.get("accuracy", {}).items():
        yield Row(name, thin(pair["original"], 4), thin(pair["small"], 4), ratio(pair))
    if latency := found.get("latency"):
        before, after = (f"{fixed(latency[side]['ms'])} ms" for side in ("original", "small"))
        middle, interval = _interval(latency).split(" ", 1)
        yield Row("median latency", before, after, middle, circumstances(latency), interval)


def circumstances(latency: Mapping[str, Any]) -> str:
    """What a time cannot be read without."""
    clock = {"cpu": "CPU time", "wall": "wall time"}[latency["clock"]]
    threads = f"{latency['threads']} thread{'' if latency['threads'] == 1 else 's'}"
    return f"{clock}, {threads}, {latency['provider']}, {latency['rounds']} rounds"


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


class Curve(NamedTuple):
    """How the rounds of one model spread: quartiles, and a histogram."""

    name: str
    low: float
    median: float
    high: float
    columns: list[tuple[float, int]]
    """Where each begins, and its height in pixels."""


class Race(NamedTuple):
    """Ratios with their intervals, and the rounds behind them."""

    note: str
    ratios: dict[str, Mapping[str, Any]]
    ratio_scale: Scale
    curves: list[Curve]
    curve_scale: Scale
    beyond: list[float]
    """Rounds too slow to be in the picture, in milliseconds."""


COLUMNS, TALLEST = 100, 44  # columns of a histogram, pixels of the highest


def race(latency: Mapping[str, Any] | None) -> Race | None:
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
    return Race(note, ratios, scale, curves, axis, beyond)


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


def _curve(name: str, times: np.ndarray, scale: Scale) -> Curve:
    counts, edges = np.histogram(times, bins=COLUMNS, range=scale)
    heights = np.ceil(TALLEST * counts / counts.max()).astype(int).tolist()
    columns = [(x, y) for x, y in zip(edges[:-1].tolist(), heights, strict=True) if y]
    low, middle, high = (float(one) for one in np.percentile(times, [25, 50, 75]))
    return Curve(name, low, middle, high, columns)


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
