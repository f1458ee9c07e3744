"""What is asked of a plan: how much may stay, and how it is chosen."""

from dataclasses import dataclass

from .cost import KINDS
from .errors import UsageError
from .evidence import DATA_CRITERIA
from .importance import CRITERIA

UNITS = (16, 8, 4, 2, 1)
"""Block sizes of runtimes, largest first: AVX-512 and tensor cores, AVX2, and so on."""

BY_DATA = ("auto", "obs", *DATA_CRITERIA)
"""Criteria that are not read off the weights (see `evidence.py` and `curves.py`)."""


@dataclass(frozen=True)
class Budget:
    """How much of one cost may stay: a ratio between 0 and 1, or an absolute whole number."""

    channels: float | None = None
    macs: float | None = None
    params: float | None = None
    bytes: float | None = None

    def __post_init__(self) -> None:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise UsageError(
                f"a budget names exactly one of {', '.join(KINDS)}; got {given or 'none'}",
                hint="for example Budget(macs=0.5), or --macs 0.5",
            )
        amount = self.amount
        usable = amount > 0 and amount != 1 and (amount < 1 or float(amount).is_integer())
        if not usable:
            raise UsageError(
                f"a budget of {amount:g} {self.kind} means nothing",
                hint="give a ratio between 0 and 1 (0.5 is half), or a whole number",
            )

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def amount(self) -> float:
        return float(getattr(self, self.kind))

    def target(self, dense: float) -> float:
        """The largest amount that meets the budget, for a network that costs `dense`."""
        return self.amount * dense if self.amount < 1 else self.amount

    def __str__(self) -> str:
        share = f"{self.amount:.4g} of the" if self.amount < 1 else f"{int(self.amount):,}"
        return f"{share} {self.kind}"


@dataclass(frozen=True)
class Options:
    """How a plan is chosen."""

    criterion: str = "auto"
    """A name of `CRITERIA`; "obs", which needs curves; "auto": "obs" with curves, else "l2"."""
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

    def __post_init__(self) -> None:
        known = {*CRITERIA, *BY_DATA}
        if self.criterion not in known:
            raise UsageError(
                f"unknown criterion '{self.criterion}'; one of: {', '.join(sorted(known))}"
            )
        for name in ("round_to", "least"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
