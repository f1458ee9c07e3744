"""Labels: which channel each position of a tensor belongs to.

    conv.weight [8, 3, 3, 3]     arrays  [8, 1, 1, 1] = 1..8     (axis 0)
    relu(conv(x)) [2, 8, 6, 6]   arrays  [1, 8, 1, 1] = 1..8     (axis 1)
    q.view(2, 5, 4, 16)          arrays  [1, 1, 4, 16] = 1..64   (heads x entries)

A label array has the rank of its tensor and size 1 along every axis on which it does not vary, so
it stays small whatever the batch and the picture size. The arrays of one value vary on disjoint
axes. Label 0 means "no channel here": such a position can never go.

Rules write what they learn into a `Ledger`; `close.py` reads it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import Node

Axes = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Value:
    """What the analysis knows of one tensor: its sizes in the example, and its label arrays."""

    shape: tuple[int, ...]
    arrays: tuple[Tensor, ...] = ()

    @property
    def rank(self) -> int:
        return len(self.shape)

    def on(self, axis: int) -> Tensor | None:
        """The array that varies along `axis`, if any."""
        return next((array for array in self.arrays if array.shape[axis] > 1), None)

    def without(self, *arrays: Tensor) -> "Value":
        return replace(
            self, arrays=tuple(a for a in self.arrays if all(a is not b for b in arrays))
        )


def varying(array: Tensor) -> Axes:
    """The axes along which the array varies."""
    return tuple(axis for axis, size in enumerate(array.shape) if size > 1)


def leads(rows: Tensor, array: Tensor) -> bool:
    """Whether `rows` varies on the first axes of `array` alone: it names whole rows of it."""
    own = varying(rows)
    return varying(array)[: len(own)] == own


class Freeze(NamedTuple):
    labels: Tensor
    why: str
    node: Node | None


class Column(NamedTuple):
    """`narrow[i]` is gone exactly when all of `wide[i]` are: a frequency that all heads share."""

    narrow: Tensor
    """[n]"""
    wide: Tensor
    """[n, R]"""


class Link(NamedTuple):
    """Row `rows[i]` is gone exactly when all of `members[i]` are: a head and its entries."""

    rows: Tensor
    """[R]"""
    members: Tensor
    """[R, n]"""


@dataclass
class Ledger:
    """What the rules found out, in the order they found it. The only thing that they change."""

    count: int = 0
    """Labels handed out so far; label 0 is "no channel"."""
    ties: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Pairs of flat tensors: position by position, these stand or fall together."""
    freezes: list[Freeze] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    grids: list[tuple[Tensor, Node | None]] = field(default_factory=list)
    """Arrays on several axes: what stays of each must be a rectangle."""
    inexact: list[Node] = field(default_factory=list)
    """Calls whose result for the kept channels depends on how many are kept (norm statistics)."""
    node: Node | None = None
    """The call being interpreted: reasons point at it."""

    def fresh(self, shape: Sequence[int]) -> Tensor:
        """New labels, one for each position."""
        size = int(torch.Size(shape).numel())
        labels = torch.arange(self.count + 1, self.count + 1 + size).reshape(tuple(shape))
        self.count += size
        return labels

    def tie(self, a: Tensor, b: Tensor) -> None:
        """Positions of `a` and `b`, broadcast together, stand or fall together."""
        if a is not b:
            a, b = torch.broadcast_tensors(a, b)
            self.ties.append((a.reshape(-1), b.reshape(-1)))

    def meet(self, a: Tensor, b: Tensor) -> None:
        """Like `tie`; but where one operand has no rows of its own (heads that share a table of
        entries), the rows of the other may go whole."""
        for narrow, wide in ((a, b), (b, a)):
            across = set(varying(wide)) - set(varying(narrow))
            if across and set(varying(narrow)) <= set(varying(wide)) and not leads(narrow, wide):
                first, *_ = torch.broadcast_tensors(narrow, wide)
                order = [*(x for x in range(wide.dim()) if x not in across), *sorted(across)]
                rows = torch.Size([wide.shape[axis] for axis in across]).numel()
                flat = [one.permute(order).reshape(-1, rows) for one in (first, wide)]
                self.columns.append(Column(flat[0][:, 0], flat[1]))
                return
        self.tie(a, b)

    def freeze(self, labels: Tensor, why: str) -> None:
        """These channels must stay; `why` is a sentence for the user."""
        self.freezes.append(Freeze(labels.reshape(-1), why, self.node))

    def link(self, rows: Tensor, members: Tensor) -> None:
        """`rows` varies on some of the axes of `members`: a row goes when all its members do."""
        lead = varying(rows)
        rest = [axis for axis in range(members.dim()) if axis not in lead]
        full = members.expand([max(a, b) for a, b in zip(rows.shape, members.shape, strict=True)])
        flat = full.permute(*lead, *rest).reshape(rows.numel(), -1)
        self.links.append(Link(rows.reshape(-1), flat))

    def rows(self, value: Value, array: Tensor, axes: Iterable[int]) -> Value:
        """Take out an array that is reduced along `axes`; the rest gets labels of its own."""
        value, gone = value.without(array), set(axes)
        left = [axis for axis in varying(array) if axis not in gone]
        return replace(value, arrays=(*value.arrays, self.across(array, left))) if left else value

    def pin(self, value: Value, axes: Iterable[int], why: str) -> Value:
        """These axes must keep their size.

        An array that also varies elsewhere is tied along them (a channel then takes all its
        positions with it); one that varies only there is frozen.
        """
        for axis in axes:
            while (array := value.on(axis)) is not None:
                value = value.without(array)
                first = array.narrow(axis, 0, 1)
                if varying(first):
                    self.tie(first, array)
                    value = replace(value, arrays=(*value.arrays, first))
                else:
                    self.freeze(array, why)
        return value

    def across(self, array: Tensor, axes: Iterable[int]) -> Tensor:
        """One new label for every place of `array` along `axes`, gone when all of the place is."""
        own = set(axes)
        narrow = self.fresh([n if axis in own else 1 for axis, n in enumerate(array.shape)])
        if leads(narrow, array):
            self.link(narrow, array)
        else:
            self.meet(narrow, array)
        return narrow

    def woven(self, a: Tensor, b: Tensor) -> Tensor:
        """One array for two on different axes: a position goes with its row or with its entry."""
        rows, entries = sorted((a, b), key=lambda array: varying(array)[-1])
        shape = [max(sizes) for sizes in zip(a.shape, b.shape, strict=True)]
        grid = self.fresh(shape)
        self.link(rows, grid)
        self.meet(entries, grid)
        self.grids.append((grid, self.node))
        return grid

    def together(
        self, arrays: Sequence[Tensor], move: Callable[[Tensor], Sequence[Tensor]]
    ) -> list[list[Tensor]]:
        """Move each array; those that a move folds into one axis are woven first.

        Returns the moved arrays of every result of the move.
        """
        moved = [move(array) for array in arrays]
        for i, one in enumerate(moved):
            for j, other in enumerate(moved[:i]):
                if any(
                    set(varying(compact(a))) & set(varying(compact(b)))
                    for a, b in zip(one, other, strict=True)
                ):
                    rest = [array for k, array in enumerate(arrays) if k not in (i, j)]
                    return self.together([*rest, self.woven(arrays[i], arrays[j])], move)
        return [list(parts) for parts in zip(*moved, strict=True)]

    def settled(self, shape: Sequence[int], arrays: Iterable[Tensor]) -> Value:
        """A Value of compact arrays; what no longer varies anywhere is kept, as a whole."""
        kept = []
        for array in arrays:
            array = compact(array)
            if varying(array):
                kept.append(array)
            else:
                self.freeze(array, "a single channel is taken out by its index")
        return Value(tuple(shape), tuple(kept))

    def merge(self, values: Sequence[Value], shape: Sequence[int], what: str) -> Value:
        """Combine operands that meet element by element, broadcast to `shape`.

        Same axes: tied one to one. An array on fewer axes is a row of the other (a score per head
        beside entries per head), or tied across it where rows cannot differ. A labelled axis that
        meets an unlabelled one of the same size keeps its size.
        """
        rank = len(shape)
        aligned = [_aligned(value, rank) for value in values]
        for axis in range(rank):
            present = [value for value in aligned if value.shape[axis] > 1]
            if any(value.on(axis) is None for value in present):
                aligned = [
                    self.pin(value, [axis], f"meets an unlabelled axis {what}") for value in aligned
                ]
        merged: list[Tensor] = []
        for array in (array for value in aligned for array in value.arrays):
            self._absorb(merged, array, what)
        return Value(tuple(shape), tuple(merged))

    def _absorb(self, merged: list[Tensor], array: Tensor, what: str) -> None:
        for index, other in enumerate(merged):
            mine, theirs = set(varying(array)), set(varying(other))
            if not mine & theirs:
                continue
            if mine == theirs:
                self.tie(array, other)
                return
            if not (mine < theirs or theirs < mine):  # rows that meet, with entries of their own
                del merged[index]
                rows = [self.across(one, mine & theirs) for one in (array, other)]
                self.tie(*rows)
                for part in (
                    rows[0],
                    self.across(array, mine - theirs),
                    self.across(other, theirs - mine),
                ):
                    self._absorb(merged, part, what)
                return
            small, large = (array, other) if mine < theirs else (other, array)
            if leads(small, large):
                self.link(small, large)
            else:
                self.meet(small, large)
            merged[index] = large
            if large is array:  # it may swallow further rows
                del merged[index]
                self._absorb(merged, array, what)
            return
        merged.append(array)


def _aligned(value: Value, rank: int) -> Value:
    """The value with leading axes of size 1, as broadcasting adds them."""
    if value.rank == rank:
        return value
    lead = (1,) * (rank - value.rank)
    return Value(lead + value.shape, tuple(a.reshape(lead + a.shape) for a in value.arrays))


def compact(array: Tensor) -> Tensor:
    """The array with size 1 along every axis on which it is constant."""
    for axis, size in enumerate(array.shape):
        if size > 1:
            first = array.narrow(axis, 0, 1)
            if bool((array == first).all()):
                array = first
    return array


def reshaped(array: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """`array`, a compact label array of a tensor of sizes `before`, viewed as sizes `after`.

    Sizes are matched block by block (``[B, C, H, W] -> [B, C, H*W]`` is ``B|C|HW``); only the
    blocks that the array varies on are expanded, the view itself is torch's own.
    """
    expand: list[int] = []
    view: list[int] = []
    for left, right in blocks(before, after):
        used = any(array.shape[axis] > 1 for axis in left)
        expand += [before[axis] if used else 1 for axis in left]
        view += [after[axis] if used else 1 for axis in right]
    return array.expand(expand).reshape(view)


def blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[range, range]]:
    """The finest contiguous runs of axes with equal numbers of elements on both sides."""
    if 0 in before:
        return [(range(len(before)), range(len(after)))]
    runs: list[tuple[range, range]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        i0, j0 = i, j
        left = right = 1
        if i < len(before):
            left, i = before[i], i + 1
        if j < len(after):
            right, j = after[j], j + 1
        while left != right:
            if left < right and i < len(before):
                left, i = left * before[i], i + 1
            elif j < len(after):
                right, j = right * after[j], j + 1
            else:
                left, i = left * before[i], i + 1
        runs.append((range(i0, i), range(j0, j)))
    return runs
