"""A front: one build for each time that is asked for, and what each keeps.

    folder/0.65/         the release of one build, as `compressor build` writes it
    folder/front.json    what is known of all of them
    folder/front.html    the same as a page, with a picture

A build that is there already is not made again, so a sweep that was stopped goes on. A time that no
build meets is part of the front too, with the reason.

Builds are made one after another here, or on several machines (`compressor.latency.remote`). Never
two at once on one machine: a build measures from its plan to its last race, and another one beside
it, in whatever stage, would be in those numbers.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from compressor.files import read_file, write_file
from compressor.page import template
from compressor.passes.errors import CompressError, UsageError
from compressor.recipe import Recipe
from compressor.swap import alone

Build = Callable[[Recipe], object]
"""Writes the release of a recipe."""

Run = Callable[[Sequence[Recipe]], Iterator[tuple[Recipe, str]]]
"""Builds recipes in any order; says of each, when it is done, why it is not there, or nothing."""


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
        return asdict(self)


def sweep(recipe: Recipe, run: Run) -> Front:
    """Build every time of `recipe.latency`, a list with commas, below the folder of the recipe.

    Raises UsageError where there is nothing to sweep over, or no folder.
    """
    recipes = candidates(recipe)
    assert recipe.output is not None
    with alone(recipe.output):
        recipe.output.mkdir(exist_ok=True)
        reports: dict[str, dict[str, Any] | str] = {
            asked: _report(one) for asked, one in recipes.items() if _report_of(one).exists()
        }
        front = _written(recipe, reports, recipes)
        missing = [one for asked, one in recipes.items() if asked not in reports]
        try:
            for one, why in run(missing):
                reports[str(one.latency)] = why or _report(one)
                front = _written(recipe, reports, recipes)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(
                "what is built is kept, and the same command goes on"
            ) from error
    return front


def one_by_one(build: Build) -> Run:
    """Builds here, one after another."""

    def run(recipes: Sequence[Recipe]) -> Iterator[tuple[Recipe, str]]:
        for recipe in recipes:
            why = ""
            try:
                build(recipe)
            except CompressError as error:
                why = unmet(error)
            yield recipe, why

    return run


def unmet(error: CompressError) -> str:
    """Why no build meets a time. Raises the error where it is about the command instead."""
    if isinstance(error, UsageError) and "cannot be reached" not in error.what:
        raise error
    return error.what


def candidates(recipe: Recipe) -> dict[str, Recipe]:
    """A recipe for each time, with its folder. What is wrong with the command is found here."""
    asked = [one.strip() for one in (recipe.latency or "").split(",") if one.strip()]
    if len(asked) < 2 or recipe.output is None:
        raise UsageError(
            "a sweep needs several times and a folder",
            hint="for example --latency 0.8,0.65,0.5,0.35 -o sweep",
        )
    if recipe.encrypt_key is not None:
        raise UsageError(
            "a sweep cannot read reports that are encrypted",
            hint="leave out --encrypt-key, and build the one that you choose with it",
        )
    found = {}
    for one in asked:
        update = {"latency": one, "output": recipe.output / one}
        found[one] = recipe.model_copy(update=update)
        found[one].target()  # refused before anything is built
    return found


def _report_of(recipe: Recipe) -> Path:
    assert recipe.output is not None
    return recipe.output / "report.json"


def _report(recipe: Recipe) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read_file(_report_of(recipe)))
    return found


def _written(
    recipe: Recipe, reports: Mapping[str, dict[str, Any] | str], order: Iterable[str]
) -> Front:
    """The front as far as it is known, as files."""
    assert recipe.output is not None
    front = _front(recipe, {asked: reports[asked] for asked in order if asked in reports})
    write_file(recipe.output / "front.json", _text(front.to_json()).encode())
    write_file(recipe.output / "front.html", page(front).encode())
    return front


def _front(recipe: Recipe, reports: Mapping[str, dict[str, Any] | str]) -> Front:
    points = [_point(asked, report) for asked, report in reports.items()]
    known = [report for report in reports.values() if not isinstance(report, str)]
    accuracy = known[0].get("accuracy", {}) if known else {}
    original = {name: float(pair["original"]) for name, pair in accuracy.items()}
    metric = recipe.metric or next(iter(original), None)
    marked = tuple(_marked(point, points, metric) for point in points)
    return Front(recipe.model or str(recipe.code), original, marked)


def _point(asked: str, report: dict[str, Any] | str) -> Point:
    if isinstance(report, str):
        return Point(asked, why=report)
    latency, cost = report["latency"], report["cost"]
    return Point(
        asked,
        latency["ratio"],
        latency["low"],
        latency["high"],
        report["file_bytes"]["small"],
        cost["macs"]["small"] / max(cost["macs"]["original"], 1),
        cost["params"]["small"] / max(cost["params"]["original"], 1),
        {name: float(pair["small"]) for name, pair in report.get("accuracy", {}).items()},
        processor=report.get("environment", {}).get("processor"),
    )


def _marked(point: Point, points: Sequence[Point], metric: str | None) -> Point:
    """Whether no other point is at least as fast and as good, and better in one of both."""
    if point.ratio is None:
        return point
    value = _worth(point, metric)
    better = any(
        other.ratio is not None
        and (other.ratio, -_worth(other, metric)) != (point.ratio, -value)
        and other.ratio <= point.ratio
        and _worth(other, metric) >= value
        for other in points
    )
    return Point(**{**asdict(point), "best": not better})


def _worth(point: Point, metric: str | None) -> float:
    """The metric; without one, what stays of the parameters."""
    if metric is None or not point.metrics:
        return point.params or 0.0
    return point.metrics[metric]


def _text(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"


# --- shown ---------------------------------------------------------------------------------------


def table(front: Front) -> Table:
    """For a terminal."""
    shown = Table(title=f"{front.model}: time against what stays", caption=front.note or None)
    for name in ("asked", "of the time", "interval", "bytes", "MACs", "parameters"):
        shown.add_column(name, justify="right")
    for name, value in front.original.items():
        shown.add_column(f"{name} ({value:.4g} before)", justify="right")
    shown.add_column("", overflow="fold")
    for one in front.points:
        if one.ratio is None:
            shown.add_row(one.asked, *[""] * (5 + len(front.original)), one.why)
            continue
        metrics = [f"{value:.4g}" for value in (one.metrics or {}).values()]
        shown.add_row(
            one.asked, f"{one.ratio:.3f}", f"{one.low:.3f}-{one.high:.3f}",
            f"{one.file_bytes:,}", f"{one.macs:.3f}", f"{one.params:.3f}", *metrics,
            "on the front" if one.best else "",
        )  # fmt: skip
    return shown


def page(front: Front) -> str:
    """One page with a picture for each metric, or for the size where there is none."""
    built = [one for one in front.points if one.ratio is not None]
    names = list(front.original) or ["bytes"]
    pictures = {name: _picture(name, front, built) for name in names}
    return template("sweep.html.j2").render(front=front, built=built, pictures=pictures)


def _picture(name: str, front: Front, built: Sequence[Point]) -> dict[str, Any]:
    """Places in a square of 100: time to the right, the metric up; and the metric's ends."""
    values = [
        float(one.file_bytes or 0) if name == "bytes" else (one.metrics or {})[name]
        for one in built
    ]
    every = [*values, *([front.original[name]] if name in front.original else [])]
    low, high = min(every, default=0.0), max(every, default=1.0)
    span = (high - low) or 1.0
    dots = [
        {"x": 100 * (one.ratio or 0), "y": 100 - 100 * (value - low) / span, "best": one.best,
         "asked": one.asked}
        for one, value in zip(built, values, strict=True)
    ]  # fmt: skip
    line = sorted((dot["x"], dot["y"]) for dot in dots if dot["best"])
    original = front.original.get(name)
    start = None if original is None else 100 - 100 * (original - low) / span
    return {"dots": dots, "line": line, "low": low, "high": high, "original": start}
