"""Columns: entries of a table that rows share go in all rows at once; a row goes alone.

    frequencies      [entries]         narrow: gone exactly when the column is gone from every row
    queries, keys    [heads, entries]  wide

So a head can go whole, and an entry goes in every head. A *stack* is the classes of one column.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components
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
    pairs = [torch.stack(pair) for pair in ties]
    a, b = torch.cat([torch.zeros(2, 1).long(), *pairs], 1).numpy()
    none = (a == 0) ^ (b == 0)
    real = (a != 0) & (b != 0)
    graph = coo_matrix((np.ones(real.sum()), (a[real], b[real])), shape=(size, size))
    _, found = connected_components(graph, directed=False)
    # Label 0 has no edges, so its component is its own; number components from it.
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    lost = torch.from_numpy(np.maximum(a, b)[none].copy())
    return torch.from_numpy(rank[inverse].astype(np.int64)), lost


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
        self._ends = torch.bincount(self.of).cumsum(0)

    def classes(self, stack: int) -> list[int]:
        """The classes of one stack, ascending."""
        start = int(self._ends[stack - 1]) if stack else 0
        found: list[int] = self._order[start : int(self._ends[stack])].tolist()
        return found


class Columns:
    """All columns as classes, with the columns of every class."""

    def __init__(self, columns: Sequence[Column], classes: Tensor) -> None:
        self._parts = [Column(classes[narrow], classes[wide]) for narrow, wide in columns]
        self._count = int(classes.max()) + 1
        ones = [torch.cat([c.narrow, c.wide.reshape(-1)]).unique() for c in self._parts]
        owner = np.repeat(np.arange(len(ones)), [len(one) for one in ones])
        lies = torch.cat([torch.zeros(0, dtype=torch.long), *ones]).numpy()
        shape = (self._count, len(ones))
        self._of = csr_matrix((np.ones(len(lies), dtype=bool), (lies, owner)), shape=shape)

    def can_lose(self, classes: Array) -> bool:
        """Whether no column runs empty without these classes, or loses only its narrow side."""
        if not self._parts:
            return True
        gone = np.zeros(self._count, dtype=bool)
        gone[classes] = True
        return even([self._parts[index] for index in np.unique(self._of[classes].indices)], gone)


def even(columns: Sequence[Column], gone: Array) -> bool:
    """Whether each column has lost its narrow side exactly where its whole wide side is gone."""
    return all(
        np.array_equal(gone[narrow.numpy()], gone[wide.numpy()].all(1)) for narrow, wide in columns
    )
