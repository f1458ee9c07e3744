"""Least squares before an activation: what it cuts off is no error, on either side.

    wanted -2, given -1, before a ReLU      as good as exact: the target is moved to -1
    wanted -2, given  1                     an error of 1: the target is moved to 0
    wanted  2, given -1                     the target stays: it says where to go

The moved targets make a square that lies above the error behind the activation, and touches it
where the weights are; so solving for them again lessens that error on the rows that are fitted,
step by step (majorization). Other rows judge every step. After Zhang et al., "Accelerating Very
Deep Convolutional Networks for Classification and Detection" (2015), who fit before ReLUs with
auxiliary variables.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .least_squares import Fit, Moments, fit

STEPS = 4
"""Times that targets are moved, at most."""

KEPT = 512 << 20
"""Bytes of rows of one layer that are kept; others are drawn again whenever they are asked for."""

TINY = 1e-6
"""A scale that passes nothing on."""


class Rows(NamedTuple):
    """Rows of one chunk: inputs [blocks, n, columns] and targets [blocks, n, outputs]."""

    u: Tensor
    y: Tensor
    low: Tensor | None = None
    """Below this nothing of a result comes through: it broadcasts to the targets. None: no end."""
    high: Tensor | None = None
    """The same above."""

    @property
    def bytes(self) -> int:
        """What they take."""
        return sum(one.nbytes for one in self if one is not None)


class Drawn:
    """The rows of every chunk: `draw` has to give the same ones of a chunk each time."""

    def __init__(self, draw: Callable[[int], Rows], room: int = KEPT) -> None:
        self._draw, self._room = draw, room
        self._kept: dict[int, Rows] = {}
        self.bytes = 0
        """What is kept takes."""

    def __call__(self, chunk: int) -> Rows:
        if chunk in self._kept:
            return self._kept[chunk]
        rows = self._draw(chunk)
        if self.bytes + rows.bytes <= self._room:
            self._kept[chunk] = rows
            self.bytes += rows.bytes
        return rows


def ends(
    flat: tuple[float, float],
    moved: Tensor | float,
    scale: Tensor | None,
    shift: Tensor | None,
    like: Tensor,
) -> tuple[Tensor | None, Tensor | None]:
    """Where an activation cuts off a layer's result y [blocks, n, outputs], below and above.

    The activation sees ``scale y + shift + moved`` and is flat outside of `flat`. `scale` and
    `shift` are those of a batch norm, [blocks, 1, outputs], or None; where the scale is next to 0
    nothing is cut off. None for an end that is nowhere.
    """
    given = [torch.as_tensor(end, dtype=like.dtype) - moved for end in flat]
    if scale is not None and shift is not None:
        tiny = scale.abs() <= TINY
        safe = torch.where(tiny, 1.0, scale)
        low, high = ((end - shift) / safe for end in given)
        low, high = torch.where(scale > 0, low, high), torch.where(scale > 0, high, low)
        given = [torch.where(tiny, -torch.inf, low), torch.where(tiny, torch.inf, high)]
    found = [None if bool(torch.isinf(end).all()) else end for end in given]
    return found[0], found[1]


def through(
    drawn: Callable[[int], Rows],
    held: Sequence[bool],
    moments: tuple[Moments, Moments],
    start: tuple[Tensor, Tensor],
    linear: Fit,
    *,
    free: bool,
    present: bool,
) -> Fit:
    """The best fit for what comes through the activation, from the `linear` one on.

    `drawn` gives the rows of a chunk, `held` says which chunks judge; `moments` are those of the
    chunks that are fitted to, and of those that judge; `start` are weights [blocks, outputs,
    columns] and biases [blocks, outputs] as they were; `free` and `present` are those of
    `least_squares.fit`. `before` and `after` are held-out errors of what comes through.
    """
    weight, bias = start[0].double(), start[1].double()
    if free and not present:
        bias = _mean_bias(weight, moments[0])
    best = Fit(weight, bias, float("inf"), 0.0, float("inf"))
    tried = [best, linear]
    for step in range(STEPS + 2):
        at = tried[step]
        moved = moments[0].emptied(), moments[1].emptied()
        error, count = 0.0, 0
        for chunk, out in enumerate(held):
            rows = drawn(chunk)
            given = torch.baddbmm(at.bias.to(rows.u)[:, None], rows.u, at.weight.to(rows.u).mT)
            if out:
                error += _square(_bounded(given, rows) - _bounded(rows.y, rows))
                count += rows.u.shape[1]
            if 0 < step <= STEPS:
                moved[out].add_targets(rows.u, _moved(rows, given))
        error /= max(count, 1)
        before = error if step == 0 else best.before
        if error < best.after:
            best = Fit(at.weight, at.bias, at.ridge, before, error)
        elif step > 1:
            break
        if 0 < step <= STEPS:
            tried.append(fit(*moved, *start, free=free, present=present))
    return best


def spread(drawn: Callable[[int], Rows], held: Sequence[bool]) -> float:
    """Mean squared distance of what comes through from its mean, summed over outputs: held out."""
    count, total, square = 0, torch.zeros(()), 0.0
    for chunk, out in enumerate(held):
        if out:
            rows = drawn(chunk)
            one = _bounded(rows.y, rows).double()
            count += one.shape[1]
            total = total + one.sum(1)
            square += _square(one)
    count = max(count, 1)
    return max(square / count - _square(total / count), 0.0)


def _mean_bias(weight: Tensor, rows: Moments) -> Tensor:
    """The bias that gives the targets' mean: a batch norm behind the layer sets any."""
    count = max(rows.count, 1)
    means = rows.uu[:, -1, :-1] / count
    return rows.uy[:, -1] / count - (weight @ means[..., None])[..., 0]


def _square(gap: Tensor) -> float:
    return float(gap.double().square().sum())


def _bounded(y: Tensor, rows: Rows) -> Tensor:
    y = y if rows.low is None else torch.maximum(y, rows.low)
    return y if rows.high is None else torch.minimum(y, rows.high)


def _moved(rows: Rows, given: Tensor) -> Tensor:
    """The targets; those that are cut off are as near to what is given as makes no difference."""
    y = rows.y
    if rows.low is not None:
        y = torch.where(rows.y <= rows.low, torch.minimum(given, rows.low), y)
    if rows.high is not None:
        y = torch.where(rows.y >= rows.high, torch.maximum(given, rows.high), y)
    return y
