"""What a row of the rule table is: one operator, and its answer to each question we ask.

label      which channels do the results carry, and what must stand or fall together?
resize     which literal arguments change when channels go?
move       data movement only: where does each position come from?
macs       multiply-accumulates, as a sum of products of sizes
kernel     what does a runtime compute, and what is fused into what?
regression how are its weights fitted by least squares?
flat       outside of which numbers does nothing of an activation come through?
reference  what does the original give where removed channels are silent?
alias      is the result a view of the memory of its input, always or at times?

Whether a call follows train mode is said by the names of its arguments (`ir/modes.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Node

from ..ir.call import Call, Factor, Result, Shape
from ..ir.labels import Ledger, Value
from .kernels import Fusion, KernelRow
from .references import Reference
from .regressions import Regression


class Resizing:
    """The shrunk sizes, as seen from one call."""

    def __init__(
        self,
        call: Call,
        results: list[Value],
        extent: Callable[[Value, int], int],
        kept: Callable[[Value, int], Tensor],
    ) -> None:
        self.call, self.results, self.extent, self._kept = call, results, extent, kept

    def shape(self, value: Value) -> Shape:
        """The shrunk sizes of a value."""
        return tuple(self.extent(value, axis) for axis in range(value.rank))

    @property
    def out(self) -> Shape:
        """The shrunk sizes of the (only) result."""
        return self.shape(self.results[0])

    def kept(self, value: Value, axis: int) -> Tensor:
        """Which indices along `axis` stay: bool [size]."""
        return self._kept(value, axis)


Label = Callable[[Ledger, Call], Result]
Resize = Callable[[Resizing], dict[str, Any]]
Move = Callable[[Call, Tensor], Tensor | Sequence[Tensor] | None]
"""None where only the data says where each position comes from."""
Macs = Callable[[Call, list[Value]], list[list[Factor]]]
"""A sum of products of sizes, from the call and its results."""


Flat = Callable[[Node], tuple[float, float] | None]
"""Between which two numbers an activation is not flat; None where the call does not say them."""


@dataclass(frozen=True)
class Rule:
    """How one operator treats channels, and what else is asked about it.

    1. `label`, `resize`, `move`, `reorders`: what stands or falls together, and what follows
    2. `macs`, `kernel`, `fusion`, `onnx`, `view`: what it costs
    3. `regression`, `flat`: how weights are fitted to what they should give
    4. `reference`: what it gives where channels are silent
    5. `alias`, `finite`, `steps`: what its results are
    """

    label: Label
    resize: Resize | None = None
    move: Move | None = None
    macs: Macs | None = None
    kernel: KernelRow | None = None
    """What a runtime computes; None for one pass over the largest of its values."""
    fusion: Fusion | None = None
    onnx: str = ""
    """The ONNX operator that one pass over its values is timed as; "" for any other."""
    regression: Regression | None = None
    flat: Flat | None = None
    view: bool = False
    """Whether it makes no numbers of its own."""
    reference: Reference | None = None
    """What the silenced original gives; None where silence stays silent."""
    reorders: Literal["", "order", "positions"] = ""
    """Whether it picks positions of an axis in a way that literals cannot follow. Where it counts
    positions it reorders what stays, even where it leaves the whole as it is."""
    alias: Literal["", "at times", "turned"] = ""
    """What its schema does not say of a view: that it is one where the memory allows it alone, or
    that its numbers lie in another order, which does not."""
    finite: bool = False
    """Whether no finite network makes infinities here on purpose, as masks do elsewhere."""
    steps: bool = False
    """Whether its numbers are steps, as flags and classes are."""
    without: str = ""
    """Why a column is missing that others with weights have."""


RuleTable = dict[OpOverload, Rule]


def overloads(*packets: torch._ops.OpOverloadPacket) -> list[OpOverload]:
    """Every overload of the given operators that takes a tensor and fills none, in a graph.

    No graph holds a generator, nor what TorchScript alone calls.
    """
    found = [
        getattr(packet, name)
        for packet in packets
        for name in packet.overloads()
        if not name.startswith("prim_")
    ]
    return [op for op in found if _takes_tensors(op)]


def _takes_tensors(op: OpOverload) -> bool:
    arguments = op._schema.arguments
    tensors = any(isinstance(one.type, torch.TensorType) for one in arguments)
    outside = any(one.is_out or one.name == "generator" for one in arguments)
    return tensors and not outside


def position_ids(value: Value, axis: int) -> Tensor:
    """A compact array that numbers the positions along one axis from 1."""
    ids = torch.arange(1, value.shape[axis] + 1)
    return ids.reshape([-1 if a == axis else 1 for a in range(value.rank)])
