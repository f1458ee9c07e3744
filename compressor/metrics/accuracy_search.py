"""The smallest model that keeps a metric: bisection over the budget, every size built and measured.

    1 ─────────── passes ──┬── fails ───────── floor        the share of the cost that stays
                      half of what is left

Sizes that pass need not be all those above the smallest that does: the best one measured is kept,
whatever came after it, and everything that was tried is in the report.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from compressor import passes
from compressor.metrics.metric import Pairs, decided
from compressor.passes.base.errors import GateError, UsageError

RESOLUTION = 0.02
"""Sizes closer than this, as shares of the original, are not told apart."""

FLOOR = 0.05
"""The smallest share that is tried, where the budget names none."""


@dataclass(frozen=True)
class Try:
    """One size, and what came of it."""

    asked: float
    """Share of the cost that may stay."""
    reached: float | None
    """Share that stays; None where no plan reaches what was asked."""
    drop: float | None
    """How much worse the metric became."""
    passed: bool
    why: str = ""


def smallest(
    shares: tuple[float, float],
    plan: Callable[[float], passes.Plan],
    build: Callable[[passes.Plan], tuple[Any, Pairs]],
    limit: float,
    metric: str | None,
) -> tuple[Any, list[Try]]:
    """The smallest build whose metric drops by no more than `limit`, and all that were tried.

    `shares` are a size that is tried first, and one that nothing needs to be tried for; raises
    GateError where none passes, and UsageError as `metric.decided` does.
    """
    low, high = shares
    tries: list[Try] = []
    best, size = None, float("inf")
    ask = low
    while True:
        one, built = _attempt(ask, plan, build, limit, metric)
        tries.append(one)
        if one.passed and one.reached is not None and one.reached < size:
            best, size = built, one.reached
        if one.passed:
            high = ask
        else:
            low = ask
        if one.passed and len(tries) == 1:
            break  # the smallest that was allowed
        if high - low <= RESOLUTION:
            break
        ask = (low + high) / 2
    if best is None:
        raise GateError(
            f"no size that was tried keeps the metric within {limit:g}",
            where="; ".join(map(told, tries)),
            hint="allow a larger drop, repair with --data, or train with --distill",
        )
    return best, tries


def _attempt(
    ask: float,
    plan: Callable[[float], passes.Plan],
    build: Callable[[passes.Plan], tuple[Any, Pairs]],
    limit: float,
    metric: str | None,
) -> tuple[Try, Any]:
    try:
        chosen = plan(ask)
    except UsageError as error:  # what was asked cannot be reached, or met closely
        return Try(ask, None, None, False, error.what), None
    reached = chosen.reached / chosen.dense
    built, found = build(chosen)
    drop = decided(found, metric)
    return Try(ask, reached, drop.worse, drop.kept(limit)), built


def told(one: Try) -> str:
    """One try in a few words."""
    if one.reached is None:
        return f"{one.asked:.3f}: {one.why}"
    return f"{one.reached:.3f}: worse by {one.drop:.4g}, {'kept' if one.passed else 'too much'}"


def to_json(tries: list[Try], limit: float, kind: str) -> dict[str, Any]:
    """As plain values, for the report."""
    return {"kind": kind, "limit": limit, "tries": [asdict(one) for one in tries]}
