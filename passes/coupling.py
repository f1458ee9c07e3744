"""From ties to channels, and from channels to groups.

    ties      a ~ b, b ~ c                  one *channel*: {a, b, c}
    links     row h goes with its entries   one *row* (a head, a group): all of them
    group     channels that occur in the same places are interchangeable
    cells     where every row must stay equally long, one channel of each row goes at a time

The result is a value: channels and rows are sets of classes of labels, groups are made of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.fx import Node

from .errors import ContractError
from .gathers import Gather, find_gathers
from .grids import Grids
from .interpret import Trace, interpret, results_of
from .labels import Ledger, Value, varying
from .program import Program, where
from .sizes import Sizes, is_rectangle


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

    `cells` holds channel numbers, one row of them a cell; a step removes one of each cell. Plain
    channels have one cell; the entries of attention heads have one cell a head.
    """

    axes: tuple[Axis, ...]
    cells: tuple[tuple[int, ...], ...]
    rows: bool
    """Whether its channels are whole rows (heads, convolution groups) of other channels."""
    size: int
    """Steps until nothing is left; at least one always stays."""

    @property
    def name(self) -> str:
        return str(self.axes[0]) if self.axes else "(constant)"


@dataclass(frozen=True, eq=False)
class Coupling:
    """Which channels of a program stand or fall together, and which must stay."""

    trace: Trace
    classes: Tensor
    """Class of every label: int64 [labels]. Class 0 is "no channel"."""
    members: tuple[tuple[int, ...], ...]
    """The classes of every channel: one, or all those of a whole row."""
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

    def without(self, channels: Sequence[int]) -> Sizes:
        """Sizes when these channels are removed."""
        gone = torch.zeros(int(self.classes.max()) + 1, dtype=torch.bool)
        chosen = [one for channel in channels for one in self.members[channel]]
        gone[chosen] = True
        return Sizes(gone[self.classes])


def couple(program: Program, ignore: Sequence[str] = ()) -> Coupling:
    """Find the groups of channels of a program. `ignore`: name patterns never to touch."""
    trace = interpret(program, ignore)
    ledger = trace.ledger
    classes = _close(ledger)
    why = _reasons(ledger, classes)
    gathers = find_gathers(trace)
    waived = {node for gather in gathers for node in gather.inside}
    grids = Grids([(array, node) for array, node in ledger.grids if node not in waived], classes)
    signature = _signatures(trace, classes)
    rows, row_classes = _rows(ledger, classes, why, signature, grids)
    entries = _entries(classes, why, row_classes, signature, trace)
    cells, broken = grids.cells(entries)
    for one, node in broken.items():
        place = f" at {where(node)}" if node is not None else ""
        why[one] = f"its rows cannot stay equally long{place}"
    axes = _places(trace, classes)
    members: list[tuple[int, ...]] = []
    groups: list[Group] = []
    for group in cells:
        numbers = tuple(tuple(_add(members, (one,)) for one in cell) for cell in group)
        groups.append(Group(_axes(axes, [group[0][0]]), numbers, False, min(map(len, group))))
    for bundle in rows:
        number = tuple(_add(members, tuple(sorted(one))) for one in bundle)
        groups.append(Group(_axes(axes, sorted(bundle[0])), (number,), True, len(number)))
    order = {name: index for index, name in enumerate(trace.state)}
    groups.sort(key=lambda g: (min((order[a.tensor], a.dim) for a in g.axes), g.rows, g.cells[0]))
    frozen = _frozen(trace, classes, why)
    return Coupling(trace, classes, tuple(members), tuple(groups), frozen, gathers)


def _add(members: list[tuple[int, ...]], classes: tuple[int, ...]) -> int:
    members.append(classes)
    return len(members) - 1


def _close(ledger: Ledger) -> Tensor:
    """Union-find over all ties: the class of every label. Label 0 is alone in class 0."""
    pairs = [torch.stack(pair) for pair in ledger.ties]
    a, b = torch.cat([torch.zeros(2, 1).long(), *pairs], 1).numpy()
    none = (a == 0) ^ (b == 0)
    if none.any():
        lost = torch.from_numpy(np.maximum(a, b)[none].copy())
        ledger.node = None
        ledger.freeze(lost, "meets positions that cannot go")
    real = (a != 0) & (b != 0)
    size = ledger.count + 1
    graph = coo_matrix((np.ones(real.sum()), (a[real], b[real])), shape=(size, size))
    _, found = connected_components(graph, directed=False)
    # Label 0 has no edges, so its component is its own; number components from it.
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return torch.from_numpy(rank[inverse].astype(np.int64))


def _reasons(ledger: Ledger, classes: Tensor) -> dict[int, str]:
    """The first reason for which a class is frozen."""
    why: dict[int, str] = {0: "no channel"}
    for labels, text, node in ledger.freezes:
        place = f" at {where(node)}" if node is not None and node.op == "call_function" else ""
        for one in classes[labels].unique().tolist():
            why.setdefault(one, text + place)
    return why


def _signatures(trace: Trace, classes: Tensor) -> np.ndarray[Any, Any]:
    """A number for each class: equal where two classes occur equally often in the same places.

    Places are the label arrays of parameters and of intermediate results, so the two halves of a
    split never share a group, and neither piece can lose all its channels.
    """
    total = np.zeros(int(classes.max()) + 1, dtype=np.uint64)
    state = np.random.default_rng(0)
    seen: set[tuple[int, ...]] = set()
    keep: list[Tensor] = []
    for value in [*trace.state.values(), *(v for r in trace.results.values() for v in results_of(r))]:
        for array in value.arrays:
            key = (id(array),)
            if key in seen:
                continue
            seen.add(key)
            keep.append(array)
            salt = state.integers(1, 2**63, dtype=np.uint64)
            np.add.at(total, classes[array.reshape(-1)].numpy(), salt)
    return total


Bundle = list[frozenset[int]]


def _rows(
    ledger: Ledger,
    classes: Tensor,
    why: Mapping[int, str],
    signature: np.ndarray[Any, Any],
    grids: Grids,
) -> tuple[list[Bundle], frozenset[int]]:
    """Whole rows that can go, those alike together; and all classes that only name a row."""
    edges: list[Tensor] = []
    named: set[int] = set()
    for rows, members in ledger.links:
        left, right = classes[rows], classes[members]
        named.update(left.tolist())
        edges.append(torch.stack([left.repeat_interleave(right.shape[1]), right.reshape(-1)]))
    named.discard(0)
    if not edges:
        return [], frozenset()
    a, b = torch.cat(edges, 1).unique(dim=1).numpy()
    size = int(classes.max()) + 1
    _, found = connected_components(coo_matrix((np.ones(len(a)), (a, b)), shape=(size, size)))
    bundles: dict[int, set[int]] = {}
    for one in np.unique(np.concatenate([a, b])).tolist():
        bundles.setdefault(int(found[one]), set()).add(one)
    alike: dict[int, Bundle] = {}
    for bundle in bundles.values():
        if any(one in why for one in bundle) or not grids.can_lose(bundle):
            continue
        with np.errstate(over="ignore"):
            key = int(np.sum(signature[sorted(bundle)], dtype=np.uint64))
        alike.setdefault(key, []).append(frozenset(bundle))
    several = [sorted(group, key=min) for group in alike.values() if len(group) > 1]
    return several, frozenset(named)


def _entries(
    classes: Tensor,
    why: Mapping[int, str],
    rows: frozenset[int],
    signature: np.ndarray[Any, Any],
    trace: Trace,
) -> list[list[int]]:
    """Single channels that can go, those alike together."""
    held = {
        one
        for value in trace.state.values()
        for array in value.arrays
        for one in classes[array].unique().tolist()
    }
    alike: dict[int, list[int]] = {}
    for one in sorted(held):
        if one not in why and one not in rows:
            alike.setdefault(int(signature[one]), []).append(one)
    return list(alike.values())


def _places(trace: Trace, classes: Tensor) -> dict[int, list[Axis]]:
    """The parameter axes that each class lies on."""
    places: dict[int, list[Axis]] = {}
    for name, value in trace.state.items():
        for array in value.arrays:
            axis = Axis(name, varying(array)[-1])
            for one in classes[array].unique().tolist():
                places.setdefault(one, []).append(axis)
    return places


def _axes(places: Mapping[int, list[Axis]], classes: Sequence[int]) -> tuple[Axis, ...]:
    return tuple(dict.fromkeys(axis for one in classes for axis in places.get(one, [])))


def _frozen(trace: Trace, classes: Tensor, why: Mapping[int, str]) -> tuple[Frozen, ...]:
    """Parameter axes of which nothing can go, with the reason of their first position."""
    found = []
    for name, value in trace.state.items():
        for array in value.arrays:
            own = classes[array].unique().tolist()
            if all(one in why for one in own):
                axis = varying(array)[-1]
                found.append(Frozen(Axis(name, axis), value.shape[axis], why[own[0]]))
    return tuple(found)


def check_rectangles(coupling: Coupling, sizes: Sizes) -> None:
    """Raise ContractError unless what stays of every value is a rectangle."""
    inside = {node for gather in coupling.gathers for node in gather.inside}
    for node, result in coupling.trace.results.items():
        if node in inside:
            continue
        for value in results_of(result):
            for array in value.arrays:
                axes = varying(array)
                if len(axes) > 1 and is_rectangle(sizes.mask((array,), axes)) is None:
                    raise ContractError(f"the plan leaves rows of different lengths at {node}")
