"""What is asked of a plan: how much may stay, and how it is chosen."""

import math
from dataclasses import dataclass

from ..base.errors import UsageError
from ..cost.costs import KINDS
from ..importance.gradient import BY_DATA
from ..importance.magnitude import CRITERIA
from .targets import Target, plain, target

UNITS = (16, 8, 4, 2, 1)
"""Block sizes of runtimes, largest first: AVX-512 and tensor cores, AVX2, and so on."""

ALL_KINDS = ("latency", *KINDS, "memory")
"""What a budget can be about, the one that leads first."""


Given = float | str | Target | None
"""A target, or a number as `targets.target` reads it; None for no limit."""


@dataclass(frozen=True, init=False)
class Budget:
    """How much may stay, of one cost or of several at once: an upper limit for each.

    `memory` counts the bytes of activations that are alive at once, for one sample.
    """

    targets: tuple[tuple[str, Target], ...]
    """By kind; the first one leads."""

    def __init__(
        self,
        *,
        channels: Given = None,
        macs: Given = None,
        params: Given = None,
        bytes: Given = None,
        memory: Given = None,
        latency: Given = None,
    ) -> None:
        given = {
            "latency": latency,
            "channels": channels,
            "macs": macs,
            "params": params,
            "bytes": bytes,
            "memory": memory,
        }
        found = tuple((kind, target(kind, one)) for kind, one in given.items() if one is not None)
        if not found:
            raise UsageError(
                f"a budget names at least one of {', '.join(ALL_KINDS)}; got none",
                hint="for example Budget(macs=0.5), or --macs 0.5",
            )
        object.__setattr__(self, "targets", found)  # as a frozen dataclass does it itself

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it is about; the first one leads."""
        return tuple(kind for kind, _ in self.targets)

    @property
    def kind(self) -> str:
        """What the amounts of a plan are counted in."""
        return self.kinds[0]

    def target(self, kind: str = "") -> Target:
        """What may stay of one cost, by default the one that leads."""
        return dict(self.targets)[kind or self.kind]

    def with_target(self, kind: str, found: Target) -> "Budget":
        """The same budget but for one cost."""
        return Budget(**(dict(self.targets) | {kind: found}))

    def to_json(self) -> dict[str, float | str]:
        """As plain values: what `Budget(**values)` takes."""
        return {kind: plain(one) for kind, one in self.targets}

    def __str__(self) -> str:
        return " and ".join(f"{one} {kind}" for kind, one in self.targets)


@dataclass(frozen=True)
class Options:
    """How a plan is chosen."""

    criterion: str = "auto"
    """A name of `CRITERIA`; "obs", which needs curves; "auto": "obs" with curves, else "l2". With a
    colon, the name of one from elsewhere, whose scores are handed to `Measured.of`."""
    seed: int = 0
    uniform: bool = False
    round_to: int | None = None
    """Kept widths are multiples of this, or the original width. None: the largest of `UNITS` that
    meets the budget, because runtimes compute whole blocks of channels; a group narrower than two
    blocks takes a smaller one."""
    least: int = 1
    """Channels that always stay in a group."""
    ignore: tuple[str, ...] = ()
    """Name patterns of parameters never to touch."""
    group_weights: tuple[tuple[str, float], ...] = ()
    """What the channels of a group are worth, times this, by its name; 1 where it is not named."""

    def __post_init__(self) -> None:
        known = {*CRITERIA, *BY_DATA}
        if self.criterion not in known and ":" not in self.criterion:
            raise UsageError(
                f"unknown criterion '{self.criterion}'; one of: {', '.join(sorted(known))}"
            )
        for name in ("round_to", "least"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        for group, weight in self.group_weights:
            if not 0 <= weight < math.inf:
                raise UsageError(
                    f"a weight of {weight:g} means nothing",
                    where=group,
                    why="what its channels are worth is multiplied by it",
                    hint="give 0 or more; 1 changes nothing",
                )
