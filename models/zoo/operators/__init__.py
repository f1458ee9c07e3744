"""One tiny network for each awkward operator or pattern: half of its channels really can go."""

from models.zoo.cases import Case

from . import (
    attention,
    calls,
    convolutions,
    gates,
    movement,
    norms,
    routing,
    sequences,
    unusual,
    weights,
)

FAMILIES = (
    movement, convolutions, weights, attention, gates, norms, sequences, routing, calls, unusual,
)  # fmt: skip

CASES: tuple[Case, ...] = tuple(case for family in FAMILIES for case in family.CASES)
"""Every case of the zoo, family by family."""


def cases() -> tuple[Case, ...]:
    """What the scoreboard runs."""
    return CASES
