"""Columns: entries of a table that rows share go in all rows at once; a row goes alone.

    frequencies      [entries]         narrow: gone exactly when the column is gone from every row
    queries, keys    [heads, entries]  wide

So a head can go whole, and an entry goes in every head. A *stack* is the classes of one column.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from .labels import Column

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

    def __init__(self, columns: Sequence[Column], classes: Tensor, why: Reasons) -> None:
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
            self.why = why.gathered(self.of)
            self.why.add(self.of[lost].numpy(), "meets positions that cannot go")
        self._order = torch.argsort(self.of, stable=True)
        self._counts = torch.bincount(self.of)
        self._ends = self._counts.cumsum(0)

    def classes(self, stacks: Array) -> tuple[Tensor, Tensor]:
        """The classes of these stacks one after another, and how many each has."""
        which = torch.from_numpy(stacks)
        counts = self._counts[which]
        shift = self._ends[which] - counts.cumsum(0)
        place = torch.arange(int(counts.sum())) + shift.repeat_interleave(counts)
        return self._order[place], counts


def owners(parts: Sequence[Array], count: int) -> csr_matrix:
    """Which parts each of `count` classes lies in: bool [count, parts]."""
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    lies = np.concatenate([np.zeros(0, dtype=np.int64), *parts])
    shape = (count, len(parts))
    return csr_matrix((np.ones(len(lies), dtype=bool), (lies, owner)), shape=shape)


class Columns:
    """All columns as classes, with the columns of every class."""

    def __init__(self, columns: Sequence[Column], classes: Tensor) -> None:
        self._parts = [Column(classes[narrow], classes[wide]) for narrow, wide in columns]
        self._count = int(classes.max()) + 1
        ones = [torch.cat([c.narrow, c.wide.reshape(-1)]).unique().numpy() for c in self._parts]
        self._of = owners(ones, self._count)

    def can_lose(self, classes: Array) -> bool:
        """Whether no column runs empty without these classes, or loses only its narrow side."""
        if not self._parts:
            return True
        gone = np.zeros(self._count, dtype=bool)
        gone[classes] = True
        touched = [self._parts[index] for index in np.unique(self._of[classes].indices)]
        return even(touched, lambda ones: gone[ones.numpy()])


def even(columns: Sequence[Column], gone: Callable[[Tensor], Array]) -> bool:
    """Whether each column has lost its narrow side exactly where its whole wide side is gone."""
    return all(np.array_equal(gone(narrow), gone(wide).all(1)) for narrow, wide in columns)
