"""What it means that two results are alike: one answer for proof, parity and `verify`. No torch.

    numbers         how far apart they are, over the largest number of the same slice, along axes
    NaN, +∞, -∞     equal where both are the same; anything else there is infinitely far
    whole numbers   equal, or infinitely far; so are flags

An output says something only where it holds finite numbers that change with the inputs. What never
does (saturated, thresholded, multiplied by zero) is equal whatever was done to the network: nothing
was compared there, and `Output.why` says so.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..base.errors import SilentError

LEAST = 1e-3
"""Share of the largest number of an output below which no slice counts as smaller: what is small
there may be a difference of large ones."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Output:
    """What came of one output of the network."""

    name: str
    max_abs: float = 0.0
    max_rel: float = 0.0
    """Largest difference over the largest number of its slice, or of the output (`LEAST`)."""
    why: str = ""
    """Why nothing was compared there; empty where something was."""
    note: str = ""
    """What else is to be known."""


class Gap(NamedTuple):
    """How far two arrays are apart."""

    absolute: float
    whole: float
    """The same over the largest number."""
    slices: float
    """The same over the largest number of each slice: the worst of them."""


SAME, APART = Gap(0.0, 0.0, 0.0), Gap(float("inf"), float("inf"), float("inf"))


def is_exact(array: Array) -> bool:
    """Whether it holds whole numbers or flags."""
    return array.dtype.kind not in "fc"


def gap(
    wanted: Array, found: Array, axes: Sequence[int] | None = None, least: float = LEAST
) -> Gap:
    """How far `found` is from `wanted`, slice by slice along `axes` (by default all of them)."""
    pair = comparable(wanted, found)
    if pair is None:
        return APART
    far, size = pair
    if not far.size:
        return SAME
    largest, absolute = float(size.max()), float(far.max())
    if not largest:
        return Gap(absolute, absolute, absolute)
    worst = absolute / largest
    for axis in range(far.ndim) if axes is None else axes:
        high = along(size, axis) + least * largest
        worst = max(worst, float((along(far, axis) / high).max()))
    return Gap(absolute, absolute / largest, worst)


def worst(wanted: Sequence[Array], found: Sequence[Array]) -> float:
    """The largest difference of any pair over its largest number; infinite for more or fewer."""
    if len(wanted) != len(found):
        return float("inf")
    return max((gap(a, b).whole for a, b in zip(wanted, found, strict=True)), default=0.0)


def comparable(wanted: Array, found: Array) -> tuple[Array, Array] | None:
    """Differences and magnitudes of the finite numbers (0 elsewhere); None where they are apart."""
    if wanted.shape != found.shape or is_exact(wanted) != is_exact(found):
        return None
    if is_exact(wanted):
        equal = np.array_equal(wanted, found)
        return (np.zeros(wanted.shape), np.zeros(wanted.shape)) if equal else None
    a, b = (_numbers(one) for one in (wanted, found))
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return None
    if not finite.all():
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return None
        a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
    return np.abs(a - b), np.abs(a)


def _numbers(array: Array) -> Array:
    """In double precision; complex numbers as pairs along a last axis."""
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag], -1)
    found: Array = array.astype(np.float64)
    return found


def along(array: Array, axis: int) -> Array:
    """The largest number of each slice along an axis."""
    flat: Array = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
    found: Array = flat.max(1, initial=0.0)
    return found


# ---------------------------------------------------------------------------- what says something

NONE, CONSTANT = "it holds no finite number", "it does not change with the inputs"


@dataclass
class Seen:
    """What one output was, over all inputs of the same weights."""

    finite: bool = False
    varies: bool = False
    _marks: dict[Any, bytes] = field(default_factory=dict)

    def add(self, array: Array) -> None:
        """One more result."""
        finite = np.ones(array.shape, bool) if is_exact(array) else np.isfinite(array)
        if not finite.any():
            return
        self.finite = True
        plain = np.ascontiguousarray(np.where(finite, array, np.zeros((), array.dtype)) + 0)
        mark = hashlib.sha256(plain.tobytes()).digest()  # + 0: minus zero is zero
        first = self._marks.setdefault(array.shape, mark)
        self.varies |= first != mark

    @property
    def why(self) -> str:
        """Why nothing can be compared there, or the empty string."""
        if not self.finite:
            return NONE
        return "" if self.varies else CONSTANT


def merged(parts: Iterable[Sequence[Output]]) -> tuple[Output, ...]:
    """The same outputs, looked at several times: compared where they ever were."""
    found: dict[int, Output] = {}
    for outputs in parts:
        for place, one in enumerate(outputs):
            known = found.get(place, one)
            found[place] = replace(
                one,
                max_abs=max(known.max_abs, one.max_abs),
                max_rel=max(known.max_rel, one.max_rel),
                why="" if "" in (known.why, one.why) else max(known.why, one.why),
                note=known.note or one.note,
            )
    return tuple(found.values())


def refuse_nothing(outputs: Sequence[Output], by: str) -> None:
    """Raise SilentError unless some output was compared."""
    if any(not one.why for one in outputs):
        return
    where = "; ".join(f"{one.name}: {one.why}" for one in outputs) or "the model has no output"
    raise SilentError(
        f"nothing could be compared by {by}: no output of the model says anything",
        where=where,
        why="an output that is the same whatever goes in is equal whatever is done to the network",
        hint="look at what the model gives on your inputs; load trained weights, give inputs that "
        "move the outputs, or return the numbers from before the last operators",
    )
