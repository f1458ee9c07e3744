"""Peak memory of activations: the most bytes that are alive at once, for one sample.

A result lives from the call that makes it to the last one that reads it. Views are other names for
the same bytes, and an elementwise call may write over its input where nobody reads that later.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from ..coupling.groups import Coupling
from ..coupling.propagate import results_of
from ..ir.labels import Value
from .costs import Block, Further
from .dimensions import NONE, Factors
from .kernels import is_view


class Memory:
    """A `Cost`: bytes at the call where most are alive."""

    def __init__(self, coupling: Coupling) -> None:
        self.coupling = coupling
        self._factors = Factors(coupling)
        self._constants: list[float] = []
        self._rows: list[list[int]] = []
        alive: list[tuple[int, int]] = []
        trace = coupling.trace
        order = {node: place for place, node in enumerate(trace.results)}
        for node, last in _lives(list(trace.results), order):
            for value, size in zip(results_of(trace.results[node]), _sizes(node), strict=False):
                self._add(value, size / (coupling.program.batch or 1))
                alive.append((order[node], last))
        steps = np.arange(len(order))
        first, last_ = (np.array(ends)[:, None] for ends in zip(*alive, strict=True))
        self._alive = (first <= steps) & (steps <= last_)
        self.dense = self.amount(NONE)

    def _add(self, value: Value, size: float) -> None:
        row = []
        for axis in range(value.rank):
            index = self._factors.index(value, axis)
            if index is None:
                size *= value.shape[axis]
            else:
                row.append(index)
        self._constants.append(size)
        self._rows.append(row)

    def amount(self, channels: Tensor) -> float:
        """The most bytes that are alive at once."""
        sizes = self._factors.sizes(channels)
        bytes_ = np.array([
            constant * sizes[row].prod()
            for constant, row in zip(self._constants, self._rows, strict=True)
        ])  # fmt: skip
        return float((bytes_ @ self._alive).max())

    def gains(self, channels: Tensor, further: Further, block: Block) -> dict[int, list[float]]:
        """Exact."""
        now = self.amount(channels)
        return {
            group: [now - self.amount(torch.cat([channels, block(group, n)])) for n in counts]
            for group, counts in further.items()
        }

    def stops(self, order: Sequence[Tensor]) -> list[int] | None:
        """Every width is as good as the next."""
        return None


def _lives(nodes: Sequence[Node], order: dict[Node, int]) -> list[tuple[Node, int]]:
    """Calls and inputs that hold bytes of their own, and the place of their last reader."""
    found = []
    for node in nodes:
        if node.op == "get_attr" or node.op == "output" or is_view(node):
            continue
        found.append((node, _last(node, order)))
    return found


def _last(node: Node, order: dict[Node, int]) -> int:
    last = order[node]
    for user in node.users:
        if user.op == "output":
            return len(order) - 1
        last = max(last, _last(user, order) if is_view(user) else order.get(user, last))
    return last


def _sizes(node: Node) -> list[int]:
    """Bytes of an element of each result."""
    val = node.meta.get("val")
    members = val if isinstance(val, list | tuple) else [val]
    return [one.element_size() for one in members if isinstance(one, Tensor)]
