"""How much of a cost may stay, as a value.

    Ratio(0.5)          half of what the user's network costs
    Amount(100_000)     so much, in the unit of the cost
    Milliseconds(8.0)   so long, on the device that measures

What is asked for stays what was asked for: a share is taken of a cost when there is one.
"""

import re
from dataclasses import dataclass

from ..base.errors import UsageError

_TIMES = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Ratio:
    """A share of what the user's network costs: more than 0, at most 1."""

    share: float

    @property
    def value(self) -> float:
        return self.share

    def of(self, dense: float) -> float:
        """The most that may stay of a cost of `dense`, in its unit."""
        return self.share * dense

    def __str__(self) -> str:
        return f"{self.share:.4g} of the"


@dataclass(frozen=True)
class Amount:
    """A number of what is counted: parameters, bytes, multiply-accumulates of one sample."""

    most: int

    @property
    def value(self) -> int:
        return self.most

    def of(self, dense: float) -> float:
        """The most that may stay, whatever the network costs."""
        return float(self.most)

    def __str__(self) -> str:
        return f"{self.most:,}"


@dataclass(frozen=True)
class Milliseconds:
    """A time. Costs of latency are in seconds."""

    ms: float

    @property
    def value(self) -> float:
        return self.ms

    def of(self, dense: float) -> float:
        """The most seconds that may stay, whatever the network takes."""
        return self.ms / 1e3

    def __str__(self) -> str:
        return f"{self.ms:g} ms of"


Target = Ratio | Amount | Milliseconds


def target(kind: str, given: "float | str | Target") -> Target:
    """A number as it is written: a ratio below 1, a whole number, ``"50%"``; a time for latency.

    Raises UsageError for what is neither.
    """
    if isinstance(given, Ratio | Amount | Milliseconds):
        found: Target | None = given
    else:
        found = _read(given)
    times = kind == "latency"
    if found is None or (isinstance(found, Amount) and times):
        raise _meaningless(kind, given)
    if isinstance(found, Milliseconds) and not times:
        raise _meaningless(kind, given)
    return found


def _read(given: float | str) -> Target | None:
    """None for what means nothing."""
    said = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:e\d+)?|\.\d+)\s*(%|us|ms|s|)\s*", str(given))
    if said is None:
        return None
    number, unit = float(said[1]), said[2]
    if unit in _TIMES:
        return Milliseconds(number * _TIMES[unit]) if number > 0 else None
    share = number / 100 if unit == "%" else number
    if 0 < share < 1:
        return Ratio(share)
    return Amount(int(number)) if not unit and number > 1 and number.is_integer() else None


def _meaningless(kind: str, given: object) -> UsageError:
    if kind == "latency":
        return UsageError(
            f"a latency of {str(given)!r} means nothing",
            hint="give a share of the original's, such as 0.5 or 50%, or a time, such as 8ms",
        )
    said = f"{given:g}" if isinstance(given, float | int) else repr(given)
    return UsageError(
        f"a budget of {said} {kind} means nothing",
        hint="give a ratio between 0 and 1 (0.5 is half), or a whole number",
    )


def share(found: Target, dense: float) -> float:
    """As a share of a cost of `dense`; over 1 where all of it may stay."""
    return found.of(dense) / dense


def plain(found: Target) -> float | str:
    """As it is written: what `target` reads."""
    if isinstance(found, Milliseconds):
        return f"{found.ms!r}ms"
    return found.value
