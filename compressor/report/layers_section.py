"""The part of the page that says what became of every layer, and where the time went.

The map: each weight with its shape before and after, and for each of its axes the group that it
shrinks with, or why it keeps its size.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_AXIS = re.compile(r"(.+)\[(\d+)\]")
MOST = 400
"""Layers that are written out."""


class LayerRow(NamedTuple):
    """A weight, and what is to be known of its axes."""

    name: str
    was: str
    now: str
    notes: list[str]
    smaller: bool


def layers(found: Mapping[str, Any]) -> list[LayerRow]:
    """Every weight of the report, in the order of the network."""
    places = _places(found)
    return [_layer(one, places) for one in found.get("layers", ())][:MOST]


def _places(found: Mapping[str, Any]) -> dict[tuple[str, int], str]:
    """What an axis belongs to, in words."""
    told: dict[tuple[str, int], str] = {}
    for frozen in found.get("frozen", ()):
        if axis := _AXIS.fullmatch(frozen["axis"]):
            told[axis[1], int(axis[2])] = f"stays: {frozen['why']}"
    for number, group in enumerate(found.get("groups", ()), 1):
        for name in group["axes"]:
            if axis := _AXIS.fullmatch(name):
                told[axis[1], int(axis[2])] = f"group {number}"
    return told


def _layer(one: Mapping[str, Any], places: Mapping[tuple[str, int], str]) -> LayerRow:
    name, was, now = one["name"], one["original"], one["small"]
    notes = [
        f"axis {axis}: {places[name, axis]}" for axis in range(len(was)) if (name, axis) in places
    ]
    return LayerRow(name, _sizes(was), _sizes(now), notes, was != now)


def _sizes(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))  # noqa: RUF001 (the times sign is meant)


class Kind(NamedTuple):
    """All operators of a kind: how many there are, and what they take together."""

    name: str
    was: str
    now: str
    was_share: float
    now_share: float


def operators(found: Mapping[str, Any] | None) -> list[Kind]:
    """Kinds of operators by their time in the original; bars in percent of the longest."""
    if not found:
        return []
    sides = {side: {one["kind"]: one for one in found[side]} for side in ("original", "small")}
    kinds = dict.fromkeys([*sides["original"], *sides["small"]])
    top = max((one["ms"] for side in sides.values() for one in side.values()), default=0) or 1
    rows = []
    for kind in kinds:
        was, now = (sides[side].get(kind, {"ms": 0.0, "count": 0}) for side in sides)
        shares = (round(100 * one["ms"] / top, 2) for one in (was, now))
        rows.append((was["ms"] + now["ms"], Kind(kind, _told(was), _told(now), *shares)))
    return [row for _, row in sorted(rows, key=lambda pair: -pair[0])]


def _told(one: Mapping[str, Any]) -> str:
    return f"{one['ms']:.3f} ms in {one['count']}" if one["count"] else "none"
