"""The smallest thing that still fails: delta debugging.

A. Zeller, "Yesterday, my program worked. Today, it does not. Why?", ESEC/FSE 1999.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def smallest(
    whole: T,
    smaller: Callable[[T], Iterable[T]],
    fails: Callable[[T], bool],
    most: float = float("inf"),
) -> tuple[T, int]:
    """The last that was found to fail, and how many were tried: `most` of them at the most.

    `whole` fails. Of what is `smaller` than it, the first that fails takes its place.
    """
    tried, left = 0, iter(smaller(whole))
    while tried < most and (one := next(left, None)) is not None:
        tried += 1
        if fails(one):
            whole, left = one, iter(smaller(one))
    return whole, tried


def runs(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """All of them, then neighbours: half as many each, a quarter, ..., single ones."""
    size = len(items)
    while size:
        yield from (items[start : start + size] for start in range(0, len(items), size))
        size //= 2
