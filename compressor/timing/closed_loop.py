"""A time is met on the device itself: plan by the table, build, race, correct, plan again.

round 1   planned 0.488   measured 0.53    aim lower by 0.488 / 0.53
round 2   planned 0.448   measured 0.486   between 0.95 and 1.00 of 0.5: met
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from compressor import passes
from compressor.bench import Race
from compressor.passes.base.errors import GateError, UsageError
from compressor.passes.planning.choice import TOLERANCE
from compressor.passes.planning.targets import Target, share

ROUNDS = 4
CLOSE = 0.95
"""At least this share of what was asked for is used up."""
AIM = 0.975
"""The middle between `CLOSE` and the budget."""


@dataclass(frozen=True)
class Round:
    """One plan and how it raced."""

    planned: float
    """Share of the original's time, by the table."""
    measured: float
    """The same in the race, with the ends of its interval."""
    low: float
    high: float
    noise: float
    """The original against itself in the same race."""
    wanted: float


@dataclass(frozen=True)
class Met:
    """The plan that was kept, and all that were tried."""

    plan: passes.Plan
    rounds: tuple[Round, ...]
    best: int

    def to_json(self) -> dict[str, Any]:
        """As plain values, for the report."""
        return {"best": self.best, "rounds": [asdict(one) for one in self.rounds]}


def meet(
    target: Target,
    plan: Callable[[float], passes.Plan],
    race: Callable[[passes.Plan], Race],
    dense: float,
    rounds: int = ROUNDS,
) -> Met:
    """The plan whose race is nearest below the target.

    `plan` makes one for a share of the original's time by the table, `race` builds a plan and races
    it against the original, which takes `dense` seconds by the table. Raises GateError where
    nothing that was tried is fast enough, with the least that was reached.
    """
    found: list[Round] = []
    plans: list[passes.Plan] = []
    ask = AIM * share(target, dense)
    for _ in range(rounds):
        chosen = _planned(plan, min(ask, 1 - TOLERANCE), found)
        if chosen is None:
            break
        raced = race(chosen)
        original = _seconds(raced)
        wanted = share(target, original)
        if wanted >= 1:
            raise UsageError(
                f"the budget of {target} latency is met already",
                why=f"the original takes {original * 1e3:.3g} ms here",
            )
        ratio = raced.rows[1].ratio
        predicted = chosen.reached / chosen.dense
        found.append(
            Round(predicted, ratio.median, ratio.low, ratio.high, raced.noise.median, wanted)
        )
        plans.append(chosen)
        if CLOSE * wanted <= ratio.median <= wanted:
            break
        ask = predicted * AIM * wanted / ratio.median
    fits = [i for i, one in enumerate(found) if one.measured <= one.wanted]
    if not fits:
        raise _too_slow(target, found)
    best = max(fits, key=lambda i: found[i].measured)
    return Met(plans[best], tuple(found), best)


def _seconds(race: Race) -> float:
    """What the original took, by the clock of the headline."""
    row = race.rows[0]
    return (row.wall_ms if race.primary == "wall" else row.cpu_ms) / 1e3


def _planned(
    plan: Callable[[float], passes.Plan], ask: float, found: list[Round]
) -> passes.Plan | None:
    """The plan for a share; None where it cannot be reached, and others were tried before."""
    try:
        return plan(ask)
    except UsageError:
        if not found:
            raise
        return None


def _too_slow(target: Target, found: list[Round]) -> GateError:
    least = min(found, key=lambda one: one.measured)
    tried = ", ".join(f"{one.measured:.3f}" for one in found)
    return GateError(
        f"the budget of {target} latency is not met; the least that was measured is "
        f"{least.measured:.3f} of the original's time ({least.low:.3f} to {least.high:.3f})",
        why=f"tried: {tried}; wanted: {least.wanted:.3f}",
        hint="ask for a larger amount, lower --min-channels, or give the race more --bench-seconds",
    )


def refuse_slower(latency: Mapping[str, Any], asked: bool) -> None:
    """Raise GateError for a model that measures slower than the original.

    Where time was `asked` for, it must be faster for sure; else it must not be slower for sure.
    """
    if latency["high" if asked else "low"] <= 1:
        return
    raise GateError(
        f"the small model takes {latency['ratio']:.3f} of the original's time "
        f"({latency['low']:.3f} to {latency['high']:.3f})",
        why="it is slower" if latency["low"] > 1 else "it is not faster for sure",
        hint="ask for less by --latency, give the race more --bench-seconds, or add --allow-slower"
        " (allow_slower=True)",
    )
