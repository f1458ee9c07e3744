"""Which way a metric is better, and whether a model keeps it.

    deciding(["rmse", "f1"], None)     Metric("rmse", "min"): the first, known by its name
    deciding(["gap"], "gap:min")       Metric("gap", "min"): as it is said
    decided(pairs, wanted)             a Drop: how much worse it became
    drop.broken(0.01)                  the one comparison of builds, checks and searches, in words

A direction is never guessed: what neither the name nor the user tells is an error where something
depends on it. What is not finite keeps no limit, and is better than nothing.
"""

import math
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from compressor.base.messages import listed, near
from compressor.metrics.directions import Direction, direction
from compressor.passes.base.errors import UsageError

Pairs = dict[str, dict[str, float]]
"""Name of a metric -> its value for the "original" and for the "small" model."""

WAYS: Mapping[str, Direction] = {"min": "min", "max": "max"}
"""What may stand behind the name of a metric."""

_ROUNDINGS = 4
"""0.93 - 0.92 is a little more than 0.01: so many steps of the last digit are no drop."""


@dataclass(frozen=True)
class Drop:
    """What became of the metric that decides."""

    name: str
    better: Direction
    original: float
    """A finite number."""
    small: float

    @property
    def worse(self) -> float:
        """By how much, in units of the metric; below 0 it became better."""
        worse = self.original - self.small
        return -worse if self.better == "min" else worse

    def kept(self, limit: float) -> bool:
        """Whether it is worse by no more than `limit`. What is not finite is not kept."""
        if not math.isfinite(self.small):
            return False
        largest = max(abs(self.original), abs(self.small), limit)
        return self.worse <= limit + _ROUNDINGS * sys.float_info.epsilon * largest

    def broken(self, limit: float) -> str:
        """What is said where it is not kept; nothing where it is."""
        if self.kept(limit):
            return ""
        if not math.isfinite(self.small):
            return f"{self.name} is {self.small}, which keeps no limit ({limit:g})"
        return f"{self.name} is worse by {self.worse:.4g} (limit {limit:g})"


@dataclass(frozen=True)
class Metric:
    """The metric that decides, and which way is better."""

    name: str
    better: Direction

    def gain(self, value: float) -> float:
        """The value, turned so that higher is better; the least of all where it is not finite."""
        if not math.isfinite(value):
            return -math.inf
        return -value if self.better == "min" else value


def deciding(measured: Collection[str], wanted: str | None) -> Metric:
    """The metric that `wanted` names, ``NAME`` or ``NAME:min`` or ``NAME:max``; else the first.

    Raises UsageError where it is not among what is `measured`, or its direction is not known.
    """
    name, better = named(measured, wanted)
    better = better or direction(name)
    if better is None:
        raise UsageError(
            f"it is not known whether {name!r} is better where it is higher or lower",
            why="its name does not tell, and a limit or a choice depends on it",
            hint=f"say --metric {name}:max where higher is better, or --metric {name}:min",
        )
    return Metric(name, better)


def named(measured: Collection[str], wanted: str | None) -> tuple[str, Direction | None]:
    """The name of the metric that decides, and its direction where that is said.

    Raises UsageError where it is not among what is measured.
    """
    if wanted is None:
        if not measured:
            raise UsageError("nothing is evaluated", hint="give --evaluate")
        return next(iter(measured)), None
    if wanted in measured:  # a name may have a colon of its own
        return wanted, None
    name, colon, way = wanted.rpartition(":")
    if colon and name in measured:
        if way in WAYS:
            return name, WAYS[way]
        raise UsageError(
            f"{way!r} does not say which way {name!r} is better",
            hint=f"--metric {name}:min or --metric {name}:max",
        )
    asked = name if way in WAYS else wanted
    raise UsageError(
        f"no metric is called {asked!r}",
        why=f"measured were {listed(measured) or 'none'}",
        hint=near(asked, measured),
    )


def refuse_unmeasured(max_drop: float | None, wanted: str | None) -> None:
    """Raise UsageError for what is said about a metric where nothing is evaluated."""
    if max_drop is not None:
        raise UsageError("a drop is limited, and nothing is evaluated", hint="give --evaluate")
    if wanted is not None:
        raise UsageError(f"{wanted} is to decide, and nothing is evaluated", hint="give --evaluate")


def decided(found: Mapping[str, Mapping[str, float]], wanted: str | None) -> Drop:
    """The metric that decides, of both models.

    Raises UsageError as `deciding` does, and where it is not finite for the original.
    """
    metric = deciding(found, wanted)
    pair = found[metric.name]
    if not math.isfinite(pair["original"]):
        raise UsageError(
            f"{metric.name} of the original is {pair['original']}",
            why="nothing can be compared with what is not a finite number",
            hint="look at the evaluation, its data, and what the original gives for them",
        )
    return Drop(metric.name, metric.better, pair["original"], pair["small"])
