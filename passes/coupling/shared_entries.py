"""Columns: entries of a table that rows share go in all rows at once; a row goes alone.

    frequencies      [entries]         narrow: gone exactly when the column is gone from every row
    queries, keys    [heads, entries]  wide

So a head can go whole, and an entry goes in every head. A *stack* is the classes of one column.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..ir.labels import Column, Link

Array = np.ndarray[Any, Any]


class Reasons:
    """Why a class must stay: the first reason given counts."""

    def __init__(self, count: int) -> None:
        self.index = np.zeros(count, dtype=np.int64)
        self._texts = ["", "no channel"]
        self.index[0] = 1

    def add(self, classes: Any, text: str) -> None:
        own = np.asarray(classes, dtype=np.int64)
        new = own[self.index[own] == 0]
        if len(new):
            self._texts.append(text)
            self.index[new] = len(self._texts) - 1

    def gathered(self, stacks: Tensor) -> "Reasons":
        """Reasons of sets of classes: the first that any member has. `stacks`: int64 [classes]."""
        found = Reasons(int(stacks.max()) + 1)
        found._texts = list(self._texts)
        stuck = np.flatnonzero(self.index)[::-1]  # the first one is written last
        found.index[stacks.numpy()[stuck]] = self.index[stuck]
        return found

    def __contains__(self, one: int) -> bool:
        return bool(self.index[one])

    def __getitem__(self, one: int) -> str:
        return self._texts[int(self.index[one])]


def close(ties: Sequence[tuple[Tensor, Tensor]], size: int) -> tuple[Tensor, Tensor]:
    """Union-find: the class of every label below `size`, and the labels that are tied to label 0.

    Label 0 is alone in class 0; classes are numbered in the order of their first labels.
    """
    a, b = (_narrow([pair[side] for pair in ties], size) for side in (0, 1))
    none = (a == 0) ^ (b == 0)
    lost = np.maximum(a, b)[none].astype(np.int64)
    least = components(a[~none], b[~none], size)
    number = np.cumsum(least == np.arange(size)) - 1
    return torch.from_numpy(number[least]), torch.from_numpy(lost)


def _narrow(parts: Sequence[Tensor], size: int) -> Array:
    """All labels one after another, in four bytes each where they fit: there are many millions."""
    kind = np.int32 if size < 2**31 else np.int64
    return np.concatenate([np.zeros(0, kind), *(part.numpy().astype(kind) for part in parts)])


def components(a: Array, b: Array, size: int) -> Array:
    """The least member of the component that each of `size` things is in, joined by a[i] ~ b[i]."""
    root = np.arange(size, dtype=a.dtype)
    while len(a):
        a, b = root[a], root[b]
        apart = a != b
        a, b = a[apart], b[apart]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while (root[root] != root).any():
            root = root[root]
    return root


class Stacks:
    """Classes that go together as single channels: a column of a table that rows share.

    All heads share the frequencies of a rotary embedding, so an entry goes in all of them; a whole
    head goes alone. Without columns each class is a stack of its own.
    """

    def __init__(
        self, columns: Sequence[Column], links: Sequence[Link], classes: Tensor, why: Reasons
    ) -> None:
        count = int(classes.max()) + 1
        self.single = not columns
        self.why = why
        """Why a stack must stay."""
        self.of = torch.arange(count)
        """The stack of every class: int64 [classes]."""
        if columns:
            ties = [(classes[c.narrow].repeat_interleave(c.wide.shape[1]),
                     classes[c.wide].reshape(-1)) for c in columns]  # fmt: skip
            self.of, lost = close(ties, count)
            while emptied := self._emptied(links, classes):
                ties += emptied
                self.of, lost = close(ties, count)
            self.why = why.gathered(self.of)
            self.why.add(self.of[lost].numpy(), "meets positions that cannot go")
        self._order = torch.argsort(self.of, stable=True)
        self._counts = torch.bincount(self.of)
        self._ends = self._counts.cumsum(0)

    def _emptied(self, links: Sequence[Link], classes: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Rows all of whose members are one stack, which must take the row with it."""
        found = []
        for rows, members in links:
            row, stacks = classes[rows], self.of[classes[members]]
            whole = (stacks == stacks[:, :1]).all(1) & (stacks[:, 0] != 0)
            whole &= self.of[row] != stacks[:, 0]
            if bool(whole.any()):
                found.append((row[whole], classes[members][whole, 0]))
        return found

    def classes(self, stacks: Array) -> tuple[Tensor, Tensor]:
        """The classes of these stacks one after another, and how many each has."""
        which = torch.from_numpy(stacks)
        counts = self._counts[which]
        shift = self._ends[which] - counts.cumsum(0)
        place = torch.arange(int(counts.sum())) + shift.repeat_interleave(counts)
        return self._order[place], counts


def once(numbers: Array) -> Array:
    """Each number once, ascending. (`np.unique` hashes, which is slower for millions.)"""
    ordered: Array = np.sort(numbers, axis=None)
    found: Array = ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]
    return found


def tally(ordered: Array) -> tuple[Array, Array]:
    """Each of some ascending numbers once, and how often it is there."""
    if not len(ordered):
        return ordered, ordered
    edges = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    first = np.concatenate([[0], edges])
    return ordered[first], np.concatenate([edges, [len(ordered)]]) - first


class Places:
    """Where each number stands in a flat array: an index the other way round."""

    def __init__(self, flat: Array) -> None:
        self._order = np.argsort(flat, kind="stable")
        self._numbers, counts = tally(flat[self._order])
        self._ends = np.append(0, counts.cumsum())

    def of(self, numbers: Array) -> Array:
        """All places of these numbers (each once), those that do not occur left out."""
        if not len(self._numbers):
            return np.zeros(0, dtype=np.int64)
        at = np.searchsorted(self._numbers, numbers).clip(max=len(self._numbers) - 1)
        at = at[self._numbers[at] == numbers]
        counts = self._ends[at + 1] - self._ends[at]
        shift = np.repeat(self._ends[at + 1] - counts.cumsum(), counts)
        found: Array = self._order[np.arange(counts.sum()) + shift]
        return found


class Columns:
    """All columns as classes. A *slot* is a position of a narrow side with its wide side."""

    def __init__(self, columns: Sequence[Column], classes: Tensor) -> None:
        none = np.zeros(0, dtype=np.int64)
        narrow = [classes[column.narrow].numpy() for column in columns]
        wide = [classes[column.wide].numpy().reshape(-1) for column in columns]
        rows = [np.full(len(column.narrow), column.wide.shape[1]) for column in columns]
        self._rows = np.concatenate([none, *rows])
        """How many rows each slot has."""
        self._slots = len(self._rows)
        self._slot = np.concatenate(
            [np.arange(self._slots), np.repeat(np.arange(self._slots), self._rows)]
        )
        self._places = Places(np.concatenate([none, *narrow, *wide]))

    def can_lose(self, classes: Array) -> bool:
        """Whether no column runs empty without these classes, or loses only its narrow side.

        The classes are ascending, and each is there once.
        """
        places = self._places.of(classes)
        if not len(places):
            return True
        narrow = once(self._slot[places[places < self._slots]])
        slots, lost = tally(np.sort(self._slot[places[places >= self._slots]]))
        return np.array_equal(narrow, slots[lost == self._rows[slots]])


def even(columns: Sequence[Column], gone: Callable[[Tensor], Array]) -> bool:
    """Whether each column has lost its narrow side exactly where its whole wide side is gone."""
    return all(np.array_equal(gone(narrow), gone(wide).all(1)) for narrow, wide in columns)
