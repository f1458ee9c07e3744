"""The part of the page that says how the weights were repaired, and why they were chosen so."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

WAYS = {
    "sliced": "as sliced",
    "statistics": "batch norms re-estimated",
    "refit": "every layer refitted by least squares",
}


class Tried(NamedTuple):
    """Something that was tried: how far it is from the original, and whether it was taken."""

    name: str
    distance: float | None
    taken: bool


class Mended(NamedTuple):
    """What the page says of a repair."""

    note: str
    criteria: list[Tried]
    ways: list[Tried]
    layers: Sequence[Mapping[str, Any]]


def mended(repair: Mapping[str, Any] | None, measured: Mapping[str, Any] | None) -> Mended | None:
    """From `repair` and `measured` of a report; None where nothing was repaired."""
    if not repair:
        return None
    samples = repair["samples"]
    left = sum(1 for layer in repair["layers"] if layer["why"])
    note = (
        f"{samples['used']} of {samples['given']} inputs were used, {samples['held_out']} of them "
        f"only to judge; activations and moments took {repair['peak_bytes'] / 2**20:.0f} MiB. "
        f"{len(repair['layers']) - left} of {len(repair['layers'])} layers were refitted."
    )
    tried = (measured or {}).get("tried", ())
    criteria = [Tried(_named(one), one["divergence"], not at) for at, one in enumerate(tried)]
    ways = [
        Tried(WAYS.get(name, name), distance, name == repair["chosen"])
        for name, distance in repair["divergences"].items()
    ]
    return Mended(note, criteria if len(criteria) > 1 else [], ways, repair["layers"])


def _named(tried: Mapping[str, Any]) -> str:
    steps = tried["steps"]
    return f"{tried['criterion']}, in {steps} steps" if steps > 1 else f"{tried['criterion']}"
