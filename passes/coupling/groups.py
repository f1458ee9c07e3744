"""From ties to channels, and from channels to groups.

    ties      a ~ b, b ~ c                  one *channel*: {a, b, c}
    links     row h goes with its entries   one *row* (a head, a group): all of them
    group     channels that occur in the same places are interchangeable
    cells     where every row must stay equally long, one channel of each row goes at a time

The result is a value: channels and rows are sets of classes of labels, groups are made of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from ..base.errors import ContractError
from ..base.threads import one_thread
from ..ir.labels import Ledger, Value, varying
from ..ir.program import Program, where
from .permutations import Gather, find_gathers
from .propagate import Trace, interpret, results_of
from .rectangles import Grids
from .shared_entries import Reasons, Stacks, close, components, even, once
from .sizes import Sizes, is_rectangle

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, order=True)
class Axis:
    """One dimension of one parameter or buffer, printed as ``stem.weight[0]``."""

    tensor: str
    dim: int

    def __str__(self) -> str:
        return f"{self.tensor}[{self.dim}]"


@dataclass(frozen=True)
class Frozen:
    """`axis` keeps its size; `why` is a sentence for the user."""

    axis: Axis
    size: int
    why: str


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that may stand in for one another: they occupy the same places.

    `cells` holds channel numbers; a step removes one of each cell. Plain channels have one cell;
    the entries of attention heads have one cell a head.
    """

    name: str
    """Its first axis; a number tells apart the groups that share one (pieces of a split)."""
    axes: tuple[Axis, ...]
    cells: tuple[Tensor, ...]
    rows: bool
    """Whether its channels are whole rows (heads, convolution groups) of other channels."""

    @cached_property
    def size(self) -> int:
        """Steps until nothing is left; at least one always stays."""
        return min(len(cell) for cell in self.cells)


class Members:
    """The classes of every channel: one or a stack for a single channel, many for a whole row."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []
        self._lengths: list[Tensor] = []
        self.count = 0

    def sets(self, classes: Tensor, lengths: Tensor) -> Tensor:
        """One new channel for each set of classes, which follow one another: their numbers."""
        self._parts.append(classes)
        self._lengths.append(lengths)
        self.count += len(lengths)
        return torch.arange(self.count - len(lengths), self.count)

    def sealed(self) -> tuple[Tensor, Tensor]:
        """All classes one after another, and the channel that each belongs to."""
        none = torch.zeros(0, dtype=torch.long)
        lengths = torch.cat([none, *self._lengths])
        return torch.cat([none, *self._parts]), torch.arange(self.count).repeat_interleave(lengths)


@dataclass(frozen=True, eq=False)
class Coupling:
    """Which channels of a program stand or fall together, and which must stay."""

    trace: Trace
    classes: Tensor
    """Class of every label: int64 [labels]. Class 0 is "no channel"."""
    members: tuple[Tensor, Tensor]
    """Pairs (class, channel number), sorted by channel."""
    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    gathers: tuple[Gather, ...]

    @property
    def program(self) -> Program:
        return self.trace.program

    @property
    def state(self) -> Mapping[str, Value]:
        return self.trace.state

    @property
    def inexact(self) -> frozenset[Node]:
        """Calls whose statistics run over labelled channels."""
        return frozenset(self.trace.ledger.inexact)

    @cached_property
    def class_count(self) -> int:
        """Classes are numbered below this."""
        return int(self.classes.max()) + 1

    @property
    def channel_count(self) -> int:
        """Channels (and whole rows) are numbered below this."""
        owner = self.members[1]
        return int(owner[-1]) + 1 if len(owner) else 0

    @cached_property
    def held(self) -> Array:
        """Which classes lie on a parameter: bool [classes]. Others only name rows of results."""
        found = np.zeros(self.class_count, dtype=bool)
        for value in self.state.values():
            for array in value.arrays:
                found[self.classes[array].reshape(-1).numpy()] = True
        return found

    def classes_of(self, channels: Tensor) -> Tensor:
        """The classes that go with these channels (numbers, int64)."""
        classes, owner = (part.numpy() for part in self.members)
        chosen = np.zeros(int(owner[-1]) + 1 if len(owner) else 0, dtype=bool)
        chosen[channels.numpy()] = True
        return torch.from_numpy(classes[chosen[owner]])

    def without(self, channels: Tensor) -> Sizes:
        """Sizes when these channels (numbers, int64) are removed."""
        gone = np.zeros(self.class_count, dtype=bool)  # numpy: no threads for so little
        gone[self.classes_of(channels).numpy()] = True
        return Sizes(gone, self.classes.numpy())


@one_thread()
def couple(program: Program, ignore: Sequence[str] = ()) -> Coupling:
    """Find the groups of channels of a program. `ignore`: name patterns never to touch."""
    trace = interpret(program, ignore)
    ledger = trace.ledger
    classes, lost = close(ledger.ties, ledger.count + 1)
    why = _reasons(ledger, classes)
    why.add(classes[lost].numpy(), "meets positions that cannot go")
    gathers = find_gathers(trace)
    waived = {node for gather in gathers for node in gather.inside}
    arrays = [(array, node) for array, node in ledger.grids if node not in waived]
    grids = Grids(arrays, classes, ledger.columns)
    signature = _signatures(trace, classes)
    rows, row_classes = _rows(ledger, classes, why, signature, grids)
    stacks = Stacks(ledger.columns, ledger.links, classes, why)
    entries = _entries(trace, classes, stacks, row_classes, signature)
    cells, broken = (grids if stacks.single else Grids(arrays, stacks.of[classes])).cells(entries)
    for node, stuck in broken:
        place = f" at {where(node)}" if node is not None else ""
        stacks.why.add(stuck, f"its rows cannot stay equally long{place}")
    groups, members = _groups(trace, classes, stacks, cells, rows)
    pairs = members.sealed()
    frozen = _frozen(trace, classes, stacks, why, pairs[0])
    return Coupling(trace, classes, pairs, groups, frozen, gathers)


def _reasons(ledger: Ledger, classes: Tensor) -> Reasons:
    why = Reasons(int(classes.max()) + 1)
    for labels, text, node in ledger.freezes:
        place = f" at {where(node)}" if node is not None and node.op == "call_function" else ""
        why.add(classes[labels].unique().numpy(), text + place)
    return why


def _signatures(trace: Trace, classes: Tensor) -> Array:
    """A number for each class: equal where two classes occur equally often in the same places.

    Places are the label arrays of parameters and of intermediate results, so the two halves of a
    split never share a group, and neither piece can lose all its channels.
    """
    total = np.zeros(int(classes.max()) + 1, dtype=np.uint64)
    random = np.random.default_rng(0)
    seen: set[int] = set()
    for value in [
        *trace.state.values(),
        *(v for r in trace.results.values() for v in results_of(r)),
    ]:
        for array in value.arrays:
            if id(array) not in seen:
                seen.add(id(array))
                salt = random.integers(1, 2**63, dtype=np.uint64)
                np.add.at(total, classes[array.reshape(-1)].numpy(), salt)
    return total


Bundle = list[list[int]]
"""Whole rows that are alike, each as the classes that go with it."""


def _rows(
    ledger: Ledger, classes: Tensor, why: Reasons, signature: Array, grids: Grids
) -> tuple[list[Bundle], Array]:
    """Whole rows that can go, those alike together; and all classes that only name a row."""
    edges: list[Tensor] = [torch.zeros(2, 0, dtype=torch.long)]
    named: list[Tensor] = [torch.zeros(0, dtype=torch.long)]
    for rows, members in ledger.links:
        left, right = classes[rows], classes[members]
        named += [left, right[(right == right[:, :1]).all(1), 0]]  # alone it would empty a row
        edges.append(torch.stack([left.repeat_interleave(right.shape[1]), right.reshape(-1)]))
    a, b = torch.cat(edges, 1).numpy()
    size = int(classes.max()) + 1
    found = components(a, b, size)
    linked = once(np.concatenate([a, b]))
    order = np.argsort(found[linked], kind="stable")
    linked = linked[order]
    starts = np.flatnonzero(np.diff(found[linked])) + 1
    alike: dict[int, Bundle] = {}
    names = torch.cat(named).numpy()
    name = np.zeros(size, dtype=bool)
    name[names] = True
    for bundle in np.split(linked, starts):
        stuck = bundle[why.index[bundle] > 0]
        if len(stuck):
            why.add(bundle[name[bundle]], f"its rows cannot go: {why[int(stuck[0])]}")
        elif len(bundle) and not grids.can_lose(bundle):
            why.add(bundle[name[bundle]], "without its rows others would be uneven")
        if not len(bundle) or why.index[bundle].any():
            continue
        key = int(np.sum(signature[bundle], dtype=np.uint64))
        alike.setdefault(key, []).append(bundle.tolist())
    for group in alike.values():
        if len(group) == 1:
            own = np.array(group[0])
            why.add(own[name[own]], "is the only row of its kind")
    return [sorted(group) for group in alike.values() if len(group) > 1], names


def _entries(
    trace: Trace, classes: Tensor, stacks: Stacks, rows: Array, signature: Array
) -> list[Array]:
    """Single channels (as stacks) that can go, those alike together."""
    of = stacks.of.numpy()
    free = np.zeros(len(stacks.why.index), dtype=bool)
    for value in trace.state.values():
        for array in value.arrays:
            free[of[classes[array.reshape(-1)].numpy()]] = True
    free[of[rows]] = False
    if not stacks.single:
        stacks.why.add(np.unique(of[rows]), "lies in rows that go as a whole")
    free[stacks.why.index > 0] = False
    ones = np.flatnonzero(free)
    total = np.zeros(len(free), dtype=np.uint64)
    np.add.at(total, of, signature)
    _, kind = np.unique(total[ones], return_inverse=True)
    order = np.argsort(kind, kind="stable")
    return [
        part
        for part in np.split(ones[order], np.flatnonzero(np.diff(kind[order])) + 1)
        if len(part)
    ]


def _groups(
    trace: Trace,
    classes: Tensor,
    stacks: Stacks,
    entries: Sequence[list[Array]],
    rows: Sequence[Bundle],
) -> tuple[tuple[Group, ...], Members]:
    members = Members()
    found: list[tuple[list[int], tuple[Tensor, ...], bool]] = []
    for cells in entries:
        numbers = tuple(members.sets(*stacks.classes(cell)) for cell in cells)
        sample = torch.cat([stacks.classes(cell[:1])[0] for cell in cells]).unique()
        found.append((sample.tolist(), numbers, False))
    for bundle in rows:
        ones = torch.tensor([one for row in bundle for one in row])
        numbers = (members.sets(ones, torch.tensor([len(row) for row in bundle])),)
        found.append((bundle[0], numbers, True))
    axes = _axes(trace, classes, [sample for sample, _, _ in found])
    rank = {name: index for index, name in enumerate(trace.state)}
    order = sorted(
        range(len(found)),
        key=lambda i: (
            min((rank[axis.tensor], axis.dim) for axis in axes[i]),
            found[i][2],
            int(found[i][1][0][0]),
        ),
    )
    used: dict[str, int] = {}
    groups = []
    for index in order:
        _, numbers, whole = found[index]
        name = f"{axes[index][0]} rows" if whole else str(axes[index][0])
        used[name] = used.get(name, 0) + 1
        name = f"{name} #{used[name]}" if used[name] > 1 else name
        groups.append(Group(name, axes[index], numbers, whole))
    return tuple(groups), members


def _axes(trace: Trace, classes: Tensor, samples: Sequence[list[int]]) -> list[tuple[Axis, ...]]:
    """For each list of classes, the parameter axes that any of them lies on."""
    owner = np.repeat(np.arange(len(samples)), [len(sample) for sample in samples])
    ones = np.concatenate([np.zeros(0, dtype=np.int64), *map(np.asarray, samples)])
    axes: list[dict[Axis, None]] = [{} for _ in samples]
    here = np.zeros(int(classes.max()) + 1, dtype=bool)
    for name, value in trace.state.items():
        for array in value.arrays:
            own = classes[array.reshape(-1)].numpy()
            here[own] = True
            for index in np.unique(owner[here[ones.astype(np.int64)]]):
                axes[index][Axis(name, varying(array)[-1])] = None
            here[own] = False
    return [tuple(found) for found in axes]


def _frozen(
    trace: Trace, classes: Tensor, stacks: Stacks, why: Reasons, prunable: Tensor
) -> tuple[Frozen, ...]:
    """Parameter axes of which nothing can go, with the reason of their first position."""
    goes = np.zeros(int(classes.max()) + 1, dtype=bool)
    goes[prunable.numpy()] = True
    found = []
    for name, value in trace.state.items():
        for array in value.arrays:
            own = classes[array.reshape(-1)].numpy()
            stack = stacks.of.numpy()[own]
            if stacks.why.index[stack].all() and not goes[own].any():
                axis = varying(array)[-1]
                text = why[int(own[0])] or stacks.why[int(stack[0])]
                found.append(Frozen(Axis(name, axis), value.shape[axis], text))
    return tuple(found)


def check_rectangles(coupling: Coupling, sizes: Sizes) -> None:
    """Raise ContractError unless what stays of every array on several axes is a rectangle."""
    inside = {node for gather in coupling.gathers for node in gather.inside}
    for array, node in coupling.trace.ledger.grids:
        axes = varying(array)
        if node in inside or len(axes) < 2:
            continue
        if is_rectangle(sizes.mask((array,), axes)) is None:
            raise ContractError(f"the plan leaves rows of different lengths at {node}")
    if not even(coupling.trace.ledger.columns, sizes.gone):
        raise ContractError("the plan empties a column of rows, and keeps what they share")
