"""The time of a plan: the sum over its kernels, each at its own widths, in and out.

    time(kernel) -> seconds       a table that was measured on the device; nothing here looks at a
                                  clock (`compressor/latency` has such tables)
    reading(bytes) -> seconds     on top, once all the weights no longer fit into its caches; less
                                  what kernels paid already that fit into none by themselves

A width is worth stopping at where it is the top of a stair: less would cost the same, more would
cost more. So what is kept for nothing stays.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..coupling.groups import Coupling
from .costs import Block, Further
from .dimensions import NONE, Factors
from .kernels import Kernel, works

FINEST = 128
"""Widths that are looked at of each group, at most."""
STAIR = 2e-3
"""A narrower width that saves less than this share of its kernels' time is on the same stair."""

Time = Callable[[Kernel], float]


@dataclass(frozen=True)
class WeightReading:
    """What it takes to read the weights of a network that no cache holds until the next run."""

    weights: Callable[[Kernel], float]
    """Bytes."""
    alone: Callable[[float], float]
    """Of the bytes of one kernel: what is in its own time already."""
    together: Callable[[float], float]
    """Of the bytes of all kernels: at least the sum of what each takes alone."""


def _free(weights: float) -> float:
    return 0.0


NO_READING = WeightReading(lambda kernel: 0.0, _free, _free)


@dataclass(frozen=True)
class _Sum:
    """Of kernels: their times, the bytes of their weights, and what reading these took alone."""

    time: float
    weights: float
    alone: float


class Timed:
    """A `Cost`: what the kernels take, in the unit of `time`, and what `reading` adds."""

    def __init__(
        self, coupling: Coupling, time: Time, *, batch: int = 1, reading: WeightReading = NO_READING
    ) -> None:
        self.coupling, self.time, self.reading = coupling, time, reading
        self._works = works(coupling, batch)
        self._factors = Factors(coupling)
        self._rows = [self._row(work.widths) for work in self._works]
        self._alike: dict[Kernel, _Sum] = {}
        self._known: dict[tuple[int, tuple[float, ...]], _Sum] = {}
        self._users: dict[int, list[int]] = {}
        for number, (_, row) in enumerate(self._rows):
            for factor in {index for product in row for index in product}:
                self._users.setdefault(factor, []).append(number)
        self.dense = self.amount(NONE)

    def _row(self, widths: Sequence[Sequence[tuple[object, int]]]) -> tuple[
        list[float], list[list[int]]
    ]:  # fmt: skip
        constants, rows = [], []
        for product in widths:
            constant, row = 1.0, []
            for value, axis in product:
                index = self._factors.index(value, axis)  # type: ignore[arg-type]
                if index is None:
                    constant *= value.shape[axis]  # type: ignore[attr-defined]
                else:
                    row.append(index)
            constants.append(constant)
            rows.append(row)
        return constants, rows

    def kernels(self, channels: Tensor = NONE) -> list[Kernel]:
        """What runs without these channels."""
        sizes = self._factors.sizes(channels)
        return [self._kernel(number, sizes) for number in range(len(self._works))]

    def _kernel(self, number: int, sizes: np.ndarray) -> Kernel:
        work, (constants, rows) = self._works[number], self._rows[number]
        widths = []
        for constant, row, scale in zip(constants, rows, work.scales, strict=True):
            for index in row:
                constant *= sizes[index]
            widths.append(max(round(constant * scale), 1))
        return Kernel(work.kind, work.fixed, tuple(widths))

    def _sum(self, numbers: Iterable[int], sizes: np.ndarray) -> _Sum:
        """Of these kernels."""
        time = weights = alone = 0.0
        for number in numbers:
            one = self._one(number, sizes)
            time, weights, alone = time + one.time, weights + one.weights, alone + one.alone
        return _Sum(time, weights, alone)

    def _one(self, number: int, sizes: np.ndarray) -> _Sum:
        _, rows = self._rows[number]
        key = (number, tuple(sizes[index] for row in rows for index in row))
        if key not in self._known:
            kernel = self._kernel(number, sizes)
            if kernel not in self._alike:
                held = self.reading.weights(kernel)
                self._alike[kernel] = _Sum(self.time(kernel), held, self.reading.alone(held))
            self._known[key] = self._alike[kernel]
        return self._known[key]

    def amount(self, channels: Tensor) -> float:
        """What all kernels take without these channels."""
        whole = self._sum(range(len(self._works)), self._factors.sizes(channels))
        return whole.time + self.reading.together(whole.weights) - whole.alone

    def _touching(self, channels: Tensor) -> list[int]:
        """The kernels that get smaller without these channels."""
        touched = self._factors.touched(channels)
        return sorted({number for factor in touched for number in self._users.get(factor, ())})

    def gains(self, channels: Tensor, further: Further, block: Block) -> dict[int, list[float]]:
        """Exact: every kernel is looked up at the widths that it would have."""
        now = self._factors.sizes(channels)
        whole = self._sum(range(len(self._works)), now).weights
        reading = self.reading.together(whole)
        found = {}
        for group, counts in further.items():
            numbers = self._touching(block(group, 1))
            before = self._sum(numbers, now)
            saved = []
            for count in counts:
                sizes = self._sizes_without(now, channels, block(group, count))
                after = self._sum(numbers, sizes)
                left = self.reading.together(whole - before.weights + after.weights)
                own = before.time - before.alone - after.time + after.alone
                saved.append(own + reading - left)
            found[group] = saved
        return found

    def _sizes_without(self, now: np.ndarray, gone: Tensor, more: Tensor) -> np.ndarray:
        touched = self._factors.touched(more)
        sizes = now.copy()
        sizes[touched] = self._factors.extents(
            self.coupling.without(torch.cat([gone, more])), touched
        )
        return sizes

    def stops(self, order: Sequence[Tensor]) -> list[int]:
        """The tops of the stairs of a group, all others whole."""
        size = min(len(cell) for cell in order)
        step = 1
        while size > FINEST * step:
            step *= 2
        whole = self._factors.whole
        numbers = self._touching(torch.cat([cell[:1] for cell in order]))
        found, last = [0], self._sum(numbers, whole).time
        for width in range((size - 1) // step * step, 0, -step):
            gone = torch.cat([cell[: size - width] for cell in order])
            sizes = self._sizes_without(whole, NONE, gone)
            time = self._sum(numbers, sizes).time
            if time < last * (1 - STAIR):
                found.append(size - width)
                last = time
        return found
