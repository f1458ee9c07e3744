"""Rows that must stay equally long, and what that means for the choice of channels.

    [heads, head_dim]     each head keeps as many entries as every other
    [3, heads, head_dim]  a fused projection: queries, keys and values alike

A *cell* is a set of channels with the same rows; a step takes one channel of each cell. Groups
that can only shrink together (queries and values of a fused projection) become one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from .labels import varying
from .sizes import is_rectangle

Array = np.ndarray[Any, Any]


class Grids:
    """All label arrays on several axes, as classes: ``[..., rows, entries]``."""

    def __init__(self, arrays: Sequence[tuple[Tensor, Node | None]], classes: Tensor) -> None:
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
        self._of: dict[int, list[int]] = {}
        for index, table in enumerate(self.tables):
            for one in table.unique().tolist():
                self._of.setdefault(one, []).append(index)

    def can_lose(self, classes: set[int]) -> bool:
        """Whether every grid stays a rectangle without these classes."""
        touched = {index for one in classes for index in self._of.get(one, [])}
        lost = torch.tensor(sorted(classes))
        return all(
            is_rectangle(~torch.isin(self.tables[index], lost)) is not None for index in touched
        )

    def cells(
        self, groups: Sequence[list[int]]
    ) -> tuple[list[list[list[int]]], dict[int, Node | None]]:
        """Split groups into cells and join those that shrink together.

        Returns the joined groups as lists of cells, and the classes that cannot shrink at all with
        the place that stops them.
        """
        group_of = {one: index for index, group in enumerate(groups) for one in group}
        join = list(range(len(groups)))
        pattern: dict[int, list[tuple[int, Any]]] = {one: [] for one in group_of}
        broken: dict[int, Node | None] = {}
        counts = [self._counts(index) for index in range(len(self.tables))]
        for index, (ones, count) in enumerate(counts):
            self._join(index, ones, count, group_of, join, pattern, broken)
        merged: dict[int, list[int]] = {}
        for one, group in group_of.items():
            merged.setdefault(_root(join, group), []).append(one)
        result = []
        for members in merged.values():
            cells: dict[Any, list[int]] = {}
            for one in members:
                cells.setdefault((group_of[one], tuple(pattern[one])), []).append(one)
            stopped = next((broken[one] for one in members if one in broken), ...)
            if stopped is ...:
                stopped = self._uneven(list(cells.values()))
            if stopped is not ...:
                broken |= dict.fromkeys(members, stopped)
                continue
            result.append(list(cells.values()))
        return result, broken

    def _counts(self, index: int) -> tuple[Array, Array]:
        """The classes of a grid, and how often each lies in every row: [classes, rows]."""
        table = self.tables[index].reshape(-1, self.tables[index].shape[-1]).numpy()
        ones, inverse = np.unique(table, return_inverse=True)
        count = np.zeros((len(ones), len(table)), dtype=np.int64)
        rows = np.repeat(np.arange(len(table)), table.shape[1])
        np.add.at(count, (inverse.reshape(-1), rows), 1)
        return ones, count

    def _join(
        self,
        index: int,
        ones: Array,
        count: Array,
        group_of: dict[int, int],
        join: list[int],
        pattern: dict[int, list[tuple[int, Any]]],
        broken: dict[int, Node | None],
    ) -> None:
        """Note each class's rows in this grid; join the groups that only together are even."""
        sums: dict[int, Array] = {}
        seen: set[tuple[int, bytes]] = set()
        for one, rows in zip(ones.tolist(), count, strict=True):
            if one not in group_of:
                continue
            if rows.min() == rows.max() or self._fills_rows(index, one, rows):
                continue  # in every row alike, or in whole rows: free to go alone
            pattern[one].append((index, rows.tobytes()))
            group = group_of[one]
            if (group, rows.tobytes()) not in seen:
                seen.add((group, rows.tobytes()))
                sums[group] = sums.get(group, 0) + rows
        uneven = [group for group, rows in sums.items() if rows.min() != rows.max()]
        if not uneven:
            return
        total = sum((sums[group] for group in uneven), np.zeros(1, dtype=np.int64))
        if total.min() != total.max():
            for one in ones.tolist():
                if group_of.get(one) in uneven:
                    broken[one] = self.nodes[index]
            return
        for group in uneven[1:]:
            join[_root(join, group)] = _root(join, uneven[0])

    def _uneven(self, cells: list[list[int]]) -> Any:
        """The first grid that one step (a channel of each cell) would leave uneven, or `...`."""
        step = {cell[0] for cell in cells}
        touched = {index for one in step for index in self._of.get(one, [])}
        lost = torch.tensor(sorted(step))
        for index in touched:
            if is_rectangle(~torch.isin(self.tables[index], lost)) is None:
                return self.nodes[index]
        return ...

    def _fills_rows(self, index: int, one: int, rows: Array) -> bool:
        """Whether a class takes whole rows with it and leaves a rectangle (pixels of a channel)."""
        table = self.tables[index]
        if set(np.unique(rows).tolist()) != {0, table.shape[-1]}:
            return False
        return is_rectangle(table != one) is not None


def _root(join: list[int], index: int) -> int:
    while join[index] != index:
        index = join[index]
    return index
