"""Sizes that costs are made of: each axis of a value that can shrink is a factor, known once.

    conv1.weight [64, 3, 7, 7]     factors  axis 0
    x of conv2   [1, 64, 56, 56]   factors  axis 1: the same labels, so the same factor

Without some channels only those factors are looked up again that they lie in.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..coupling.groups import Coupling
from ..coupling.sizes import Sizes, overlapping
from ..ir.labels import Axes, Value

NONE = torch.zeros(0, dtype=torch.long)


class Factors:
    """All factors that were asked for, by number; the one after the last is always 1."""

    def __init__(self, coupling: Coupling) -> None:
        self.coupling = coupling
        self._keys: dict[tuple[tuple[int, ...], int], int] = {}
        self._factors: list[tuple[Axes, tuple[Tensor, ...], int]] = []

    def index(self, value: Value, axis: int) -> int | None:
        """The number of this axis, or None where nothing of it can go. Ask before the rest."""
        for axes, arrays in overlapping(value):
            if axis in axes:
                key = (tuple(id(array) for array in arrays), axes.index(axis))
                if key not in self._keys:
                    self._keys[key] = len(self._factors)
                    self._factors.append((axes, arrays, axes.index(axis)))
                return self._keys[key]
        return None

    def __len__(self) -> int:
        return len(self._factors)

    @cached_property
    def whole(self) -> np.ndarray:
        """All sizes of the original."""
        every = range(len(self._factors))
        return np.array([*self.extents(self.coupling.without(NONE), every), 1.0])

    @cached_property
    def _kinds(self) -> tuple[np.ndarray, list[list[int]]]:
        """A kind for each class, and the factors of each kind: classes of a kind lie in the same.

        There are millions of classes in a large network, but only as many kinds as groups.
        """
        classes = self.coupling.classes.numpy()
        random = np.random.default_rng(0)
        total = np.zeros(self.coupling.class_count, dtype=np.uint64)
        for _, arrays, _ in self._factors:
            for array in arrays:
                total[classes[array.numpy()]] += random.integers(1, 2**63, dtype=np.uint64)
        _, first, kind = np.unique(total, return_index=True, return_inverse=True)
        sample = np.zeros(len(total), dtype=bool)
        sample[first] = True
        touched: list[list[int]] = [[] for _ in first]
        for index, (_, arrays, _) in enumerate(self._factors):
            here = [classes[array.numpy()].reshape(-1) for array in arrays]
            for one in np.unique(np.concatenate([own[sample[own]] for own in here])):
                touched[kind[one]].append(index)
        return kind, touched

    def touched(self, channels: Tensor) -> list[int]:
        """The factors that get smaller without these channels."""
        kind, touched = self._kinds
        classes = self.coupling.classes_of(channels).numpy()
        return sorted({f for one in np.unique(kind[classes]) for f in touched[one]})

    def sizes(self, channels: Tensor) -> np.ndarray:
        """All factors without these channels, and the one that is always 1."""
        if not len(channels):
            return self.whole
        found = self.whole.copy()
        touched = self.touched(channels)
        found[touched] = self.extents(self.coupling.without(channels), touched)
        return found

    def extents(self, sizes: Sizes, which: Sequence[int]) -> np.ndarray:
        """These factors."""
        return np.array([self._extent(sizes, index) for index in which])

    def _extent(self, sizes: Sizes, index: int) -> float:
        """Size of a factor; while rows are uneven (inside a step) their mean length counts."""
        axes, arrays, place = self._factors[index]
        stays = sizes.mask(arrays, axes)
        if stays.dim() == 1:
            return float(stays.sum())
        if place < stays.dim() - 1:
            return float(stays.movedim(place, 0).flatten(1).any(1).sum())
        return float(stays.sum()) / max(int(stays.any(-1).sum()), 1)
