"""What is asked of a plan: how much may stay, and how it is chosen."""

import math
from dataclasses import dataclass

from .cost import KINDS
from .errors import UsageError
from .evidence import DATA_CRITERIA
from .importance import CRITERIA

UNITS = (16, 8, 4, 2, 1)
"""Block sizes of runtimes, largest first: AVX-512 and tensor cores, AVX2, and so on."""

BY_DATA = ("auto", "obs", *DATA_CRITERIA)
"""Criteria that are not read off the weights (see `evidence.py` and `curves.py`)."""


def by_data(criterion: str) -> bool:
    """Whether a criterion needs calibration inputs."""
    return criterion in BY_DATA or ":" in criterion


ALL_KINDS = ("latency", *KINDS, "memory")
"""What a budget can be about, the one that leads first."""


@dataclass(frozen=True)
class Budget:
    """How much may stay, of one cost or of several at once: each a ratio between 0 and 1, or an
    absolute whole number."""

    channels: float | None = None
    macs: float | None = None
    params: float | None = None
    bytes: float | None = None
    memory: float | None = None
    """Bytes of activations that are alive at once, for one sample."""
    latency: float | None = None
    """A ratio: the time of the original is measured, so milliseconds become a share of it."""

    def __post_init__(self) -> None:
        if not self.kinds:
            raise UsageError(
                f"a budget names at least one of {', '.join(ALL_KINDS)}; got none",
                hint="for example Budget(macs=0.5), or --macs 0.5",
            )
        for kind in self.kinds:
            amount = float(getattr(self, kind))
            whole = amount != 1 and amount.is_integer() and kind != "latency"
            if not (amount > 0 and (amount < 1 or whole)):
                raise UsageError(
                    f"a budget of {amount:g} {kind} means nothing",
                    hint="give a ratio between 0 and 1 (0.5 is half), or a whole number",
                )

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it is about; the first one leads."""
        return tuple(kind for kind in ALL_KINDS if getattr(self, kind) is not None)

    @property
    def kind(self) -> str:
        """What the amounts of a plan are counted in."""
        return self.kinds[0]

    @property
    def amount(self) -> float:
        return float(getattr(self, self.kind))

    def target(self, dense: float, kind: str = "") -> float:
        """The largest amount that meets the budget, for a network that costs `dense`."""
        amount = float(getattr(self, kind or self.kind))
        return amount * dense if amount < 1 else amount

    def __str__(self) -> str:
        return " and ".join(map(self._said, self.kinds))

    def _said(self, kind: str) -> str:
        amount = float(getattr(self, kind))
        share = f"{amount:.4g} of the" if amount < 1 else f"{int(amount):,}"
        return f"{share} {kind}"


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
