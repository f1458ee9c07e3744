"""A front as one self-contained page, drawn as the report draws (`compressor.report.page`)."""

import math
from itertools import pairwise
from typing import NamedTuple

from compressor.report.page import Scale, template

from .pareto import Front, Point

HEIGHT = 280
"""Of a picture, in pixels."""


def page(front: Front) -> str:
    """One page with a picture for each metric, or for the size where there is none."""
    names = list(front.original) or ["bytes"]
    pictures = {name: Picture.of(name, front) for name in names}
    return template("sweep.html.j2").render(front=front, pictures=pictures, height=HEIGHT)


class Dot(NamedTuple):
    """One build: its place and interval in percent, its height in pixels."""

    low: float
    x: float
    high: float
    y: float
    asked: str
    best: bool


class Picture(NamedTuple):
    """Time to the right, a metric up."""

    across: Scale
    up: list[tuple[float, str]]
    """Round numbers of the metric, and their heights in pixels."""
    dots: list[Dot]
    line: list[tuple[Dot, Dot]]
    """Neighbours on the front."""
    original: tuple[float, float] | None

    @classmethod
    def of(cls, name: str, front: Front) -> "Picture":
        """Of what is built, as far as its values are finite: others have no place."""
        known = [one for one in front.points if one.ratio is not None]
        points = [(_value(one, name), one) for one in known]
        built = [one for value, one in points if math.isfinite(value)]
        values = [value for value, _ in points if math.isfinite(value)]
        original = front.original.get(name)
        original = None if original is None or not math.isfinite(original) else original
        every = [*values, *([] if original is None else [original])]
        up = _around(every or [0.0, 1.0])
        across = Scale(0, 1.06 * max([1.0, *(one.high or 0 for one in built)]))
        dots = [
            Dot(across.at(one.low or 0), across.at(one.ratio or 0), across.at(one.high or 0),
                _height(up.at(value)), one.asked, one.best)
            for one, value in zip(built, values, strict=True)
        ]  # fmt: skip
        best = sorted(dot for dot in dots if dot.best)
        start = None if original is None else (across.at(1), _height(up.at(original)))
        ticks = [(_height(at), text) for at, text in up.ticks()]
        return cls(across, ticks, dots, list(pairwise(best)), start)


def _value(point: Point, name: str) -> float:
    """NaN where it was not measured."""
    if name == "bytes":
        return float(point.file_bytes or 0)
    return (point.metrics or {}).get(name, math.nan)


def _around(values: list[float]) -> Scale:
    """With room at both ends, for values of any sign."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return Scale(low - room, high + room)


def _height(percent: float) -> float:
    """In pixels from the top."""
    return round(HEIGHT * (1 - percent / 100), 1)
