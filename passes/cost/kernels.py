"""What a program makes a runtime do: kernels, with widths that a plan changes.

    conv2d(x [B, 64, 56, 56], weight [128, 64, 3, 3])
        kind "conv", fixed: kernel 3x3, stride, padding, 56x56 pixels ... widths (64, 128)

Kernels that are alike but for their widths are measured together (`compressor/latency`); how long
one takes is no matter here. What a runtime fuses into the convolution before it (a batch norm, an
activation, an addition) and what only renames its input (a view) is no kernel of its own.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from ..coupling.groups import Coupling
from ..coupling.propagate import results_of
from ..ir.call import Call
from ..ir.labels import Value
from ..operators import row_of
from ..operators.kernels import Fusion, Product, elementwise


@dataclass(frozen=True, order=True)
class Kernel:
    """One call of a runtime at certain sizes."""

    kind: str
    fixed: tuple[tuple[str, Any], ...]
    """Settings that no plan changes, by name."""
    widths: tuple[int, ...]
    """What they are is said where the kernel is made, in `operators/kernels.py`."""


@dataclass(frozen=True, eq=False)
class KernelCall:
    """A kernel before its widths are known: each is a product of sizes, times a number."""

    kind: str
    fixed: tuple[tuple[str, Any], ...]
    widths: tuple[Product, ...]
    scales: tuple[float, ...]
    node: Node

    def at(self, extent: Callable[[Value, int], float]) -> Kernel:
        """The kernel at these sizes."""
        sizes = (math.prod(extent(*factor) for factor in product) for product in self.widths)
        pairs = zip(sizes, self.scales, strict=True)
        return Kernel(
            self.kind, self.fixed, tuple(max(round(size * scale), 1) for size, scale in pairs)
        )


def works(coupling: Coupling, batch: int = 1) -> list[KernelCall]:
    """The kernels of a program, in the order of its calls, for a batch of this size."""
    trace = coupling.trace
    found: list[KernelCall] = []
    fused = _Fused(trace.calls)
    for node, call in trace.calls.items():
        if node in fused.parts:
            continue
        own = 1.0
        if coupling.program.batch is not None and _batched(node):
            own = batch / coupling.program.batch
        row = row_of(node).kernel or elementwise
        found += [
            KernelCall(kind, tuple(sorted((*fixed, *fused.settings(node)))), widths,
                 tuple(own if i == lead else 1.0 for i in range(len(widths))), node)
            for kind, fixed, widths, lead in row(call, results_of(trace.results[node]), _name(call))
        ]  # fmt: skip
    return found


def is_view(node: Node) -> bool:
    """Whether a call makes no numbers of its own."""
    return node.target is operator.getitem or row_of(node).view


def _name(call: Call) -> str:
    return call.op._schema.name.removeprefix("aten::").removesuffix("_")


def _batched(node: Node) -> bool:
    vals = node.meta["val"]
    first = vals[0] if isinstance(vals, list | tuple) else vals
    return any(isinstance(size, torch.SymInt) for size in first.shape)


class _Fused:
    """What becomes part of a convolution: its norms, one addition, one activation."""

    def __init__(self, calls: Mapping[Node, Call]) -> None:
        self.parts: set[Node] = set()
        self._activations: dict[Node, str] = {}  # of every convolution
        self._open: dict[Node, tuple[Node, int]] = {}
        """Results of a convolution: which, and how far: 0 convolution or norm, 1 added, 2 done."""
        for node in calls:
            fusion = row_of(node).fusion
            if fusion is not None:
                self._read(node, fusion)

    def settings(self, node: Node) -> tuple[tuple[str, Any], ...]:
        """What a convolution's kernel has besides its own settings."""
        found = self._activations.get(node)
        return () if found is None else (("activation", found),)

    def _read(self, node: Node, fusion: Fusion) -> None:
        role = fusion.role
        if role == "convolution":
            self._open[node], self._activations[node] = (node, 0), ""
            return
        before = [one for one in node.all_input_nodes if one in self._open]
        alone = [one for one in before if len(one.users) == 1]
        if not alone:
            return
        convolution, stage = self._open[alone[0]]
        if role == "norm" and stage == 0:
            self._open[node] = convolution, 0
        elif role == "addition" and stage == 0 and len(node.all_input_nodes) == 2:
            self._open[node] = convolution, 1
        elif role == "activation" and stage < 2:
            self._open[node] = convolution, 2
            self._activations[convolution] = fusion.activation
        else:
            return
        self.parts.add(node)
