"""Rows that must stay equally long, and what that means for the choice of channels.

    [heads, head_dim]     each head keeps as many entries as every other
    [3, heads, head_dim]  a fused projection: queries, keys and values alike

A *cell* is a set of channels with the same rows; a step takes one channel of each cell. Groups
that can only shrink together (queries and values of a fused projection) become one.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.fx import Node

from ..ir.labels import Column, varying
from .shared_entries import Columns, Places, once, tally

Array = np.ndarray[Any, Any]
Stuck = tuple[Node | None, Array]
"""A place, and the classes that cannot go because of it."""


class Grids:
    """All label arrays on several axes, as classes: ``[..., rows, entries]``."""

    def __init__(
        self,
        arrays: Sequence[tuple[Tensor, Node | None]],
        classes: Tensor,
        columns: Sequence[Column] = (),
    ) -> None:
        self.tables: list[Tensor] = []
        self.nodes: list[Node | None] = []
        seen: set[tuple[tuple[int, ...], bytes]] = set()
        for array, node in arrays:
            axes = varying(array)
            if len(axes) < 2:
                continue
            table = classes[array.reshape([array.shape[axis] for axis in axes])]
            key = (tuple(table.shape), table.numpy().tobytes())
            if key not in seen:
                seen.add(key)
                self.tables.append(table)
                self.nodes.append(node)
        self._count = int(classes.max()) + 1
        flat = [table.numpy().reshape(-1) for table in self.tables]
        self._ones = [once(one) for one in flat]
        self._ends = np.cumsum([len(one) for one in flat])
        self._places = Places(np.concatenate([np.zeros(0, dtype=np.int64), *flat]))
        self._columns = Columns(columns, classes)

    def _breaks(self, classes: Array) -> list[int]:
        """The grids that would not be rectangles without these classes (ascending, each once)."""
        gone = np.sort(self._places.of(classes))
        owners, counts = tally(np.searchsorted(self._ends, gone, side="right"))
        found = []
        for index, end, count in zip(owners.tolist(), counts.cumsum(), counts, strict=True):
            table = self.tables[index]
            own = gone[end - count : end] - self._ends[index] + table.numel()
            if not _rectangle_without(tuple(table.shape), own):
                found.append(index)
        return found

    def can_lose(self, classes: Array) -> bool:
        """Whether every grid stays a rectangle without these classes, and no column runs empty.

        The classes are ascending, and each is there once.
        """
        return not self._breaks(classes) and self._columns.can_lose(classes)

    def cells(self, groups: Sequence[Array]) -> tuple[list[list[Array]], list[Stuck]]:
        """Split groups into cells and join those that shrink together.

        Returns the joined groups as lists of cells, and what cannot shrink at all.
        """
        group_of = np.full(self._count, -1)
        for index, group in enumerate(groups):
            group_of[group] = index
        pattern = np.zeros(self._count, dtype=np.uint64)
        join = list(range(len(groups)))
        stuck: list[Stuck] = []
        for index in range(len(self.tables)):
            stuck += self._constrain(index, group_of, pattern, join)
        bad = {int(group_of[one]) for _, ones in stuck for one in ones}
        merged: dict[int, list[int]] = {}
        for index in range(len(groups)):
            merged.setdefault(_root(join, index), []).append(index)
        result = []
        for together in merged.values():
            own = np.concatenate([groups[index] for index in together])
            if bad & set(together):
                stuck.append((stuck[0][0], own))
                continue
            cells = [
                cell for index in together for cell in _split(groups[index], pattern[groups[index]])
            ]
            uneven = self._breaks(once(np.array([cell[0] for cell in cells])))
            if uneven and min(map(len, cells)) > 1:
                stuck.append((self.nodes[uneven[0]], own))
            else:
                result.append(cells)
        return result, stuck

    def _constrain(
        self, index: int, group_of: Array, pattern: Array, join: list[int]
    ) -> list[Stuck]:
        """Note each class's rows in one grid; join the groups that are even only together."""
        ones = self._ones[index]
        ones = ones[group_of[ones] >= 0]
        if not len(ones):
            return []
        count = self._rows(index, ones)
        bound = ~(count.min(1) == count.max(1)) & ~self._fills_rows(index, count)
        ones, count = ones[bound], count[bound]
        if not len(ones):
            return []
        salt = np.random.default_rng(index).integers(1, 2**62, count.shape[1], dtype=np.uint64)
        kind = (count.astype(np.uint64) * salt).sum(1, dtype=np.uint64)
        pattern[ones] = pattern[ones] * np.uint64(0x9E3779B97F4A7C15) + kind
        group = group_of[ones]
        _, first = np.unique(np.stack([group.astype(np.uint64), kind]), axis=1, return_index=True)
        sums = {int(g): count[first[group[first] == g]].sum(0) for g in np.unique(group)}
        uneven = [g for g, rows in sums.items() if rows.min() != rows.max()]
        if not uneven:
            return []
        total = sum((sums[g] for g in uneven), np.zeros(1, dtype=np.int64))
        if total.min() != total.max():
            return [(self.nodes[index], ones[np.isin(group, uneven)])]
        for g in uneven[1:]:
            join[_root(join, g)] = _root(join, uneven[0])
        return []

    def _rows(self, index: int, ones: Array) -> Array:
        """How often each of these classes (ascending) lies in every row: [classes, rows]."""
        table = self.tables[index].reshape(-1, self.tables[index].shape[-1]).numpy()
        place = np.searchsorted(ones, table).clip(max=len(ones) - 1)
        row, column = np.nonzero(ones[place] == table)
        count = np.bincount(place[row, column] * len(table) + row, minlength=len(ones) * len(table))
        return count.reshape(len(ones), len(table))

    def _fills_rows(self, index: int, count: Array) -> Array:
        """Which classes take whole rows with them and leave a rectangle (pixels of a channel)."""
        table = self.tables[index]
        whole = ((count == 0) | (count == table.shape[-1])).all(1)
        rows = (count > 0).reshape(len(count), *table.shape[:-1])
        box = np.ones(len(count), dtype=np.int64)
        full = np.zeros(len(count), dtype=np.int64)
        for axis in range(1, rows.ndim):
            others = tuple(other for other in range(1, rows.ndim) if other != axis)
            extent = rows.any(axis=others).sum(1) if others else rows.sum(1)
            box *= extent
            full += extent == rows.shape[axis]
        # A box of whole rows leaves a rectangle if it is cut straight through all axes but one.
        straight = full >= rows.ndim - 2
        found: Array = whole & (rows.reshape(len(count), -1).sum(1) == box) & straight
        return found


def _rectangle_without(shape: tuple[int, ...], gone: Array) -> bool:
    """Whether a table of this shape stays a rectangle without these positions.

    They are flat, ascending, and each is there once.
    """
    lead = shape[:-1]
    rows, lost = tally(gone // shape[-1])
    whole, partly = rows[lost == shape[-1]], lost[lost < shape[-1]]
    left = math.prod(lead) - len(whole)
    if left == 0 or (len(partly) and (len(partly) < left or (partly != partly[0]).any())):
        return False
    if not len(whole):
        return True
    extents = [
        size - (np.bincount(index, minlength=size) == math.prod(lead) // size).sum()
        for index, size in zip(np.unravel_index(whole, lead), lead, strict=True)
    ]
    return bool(math.prod(extents) == left)


def _split(group: Array, pattern: Array) -> list[Array]:
    _, kind = np.unique(pattern, return_inverse=True)
    return [group[kind == one] for one in range(kind.max() + 1)]


def _root(join: list[int], index: int) -> int:
    while join[index] != index:
        index = join[index]
    return index
