"""Repair without training: every layer refitted, in closed form, to what the original computed.

    for each layer of the small network, in the order in which they run:
        weights      least squares from its inputs there to its outputs in the original
        batch norm   one scale and one shift a channel, to the same end

The inputs are those of the small network as repaired so far. The target carries what the layers
before could not mend: before ``+ shortcut`` it is the original's sum less the small network's own
shortcut. Everything is judged on inputs that nothing was fitted to, layer by layer and as a whole.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import Node

from ..base.errors import ContractError
from ..calibration.divergence import agreement, divergence
from ..calibration.lockstep import Chunk, Room, fitting, held_out, outputs, sampled
from ..calibration.regression_views import norm_of, recurrent, view
from ..ir.fake_weights import require_values
from ..ir.log import Entry
from ..ir.pass_base import PassResult, Site, apply
from ..ir.program import Program, where
from ..ir.rebuild import clone
from ..operators.regressions import View
from ..planning.choice import Plan
from .activation_aware import KEPT
from .layerwise import Duet, Layer

MEMORY = 1 << 30
"""Bytes of activations that are held at once, unless something else is asked for."""


@dataclass(frozen=True, eq=False)
class Repaired(PassResult):
    """A repaired program, and how it came about."""

    layers: tuple[Layer, ...] = ()
    chosen: str = ""
    """"refit", "statistics" (batch norms alone), or "sliced": whichever agrees best."""
    divergences: Mapping[str, float] = field(default_factory=dict)
    """How far each of them is from the original on the held-out inputs: 1 is how far a constant is
    (see `divergence`)."""
    agreement: float | None = None
    """The share of held-out rows of class scores whose largest is the original's; None where no
    output is scores."""
    samples: Mapping[str, int] = field(default_factory=dict)
    """Inputs that were given, used and held out."""
    bytes: int = 0
    """The most that activations and moments took together."""


@dataclass(frozen=True, eq=False)
class Repair:
    """Refit the small program of `plan` on calibration inputs: pairs (args, kwargs).

    `memory` bounds the bytes of inputs and activations. An input joins at the first layer from
    which on there is room for it; inputs beyond half of the memory are not used. Rows of one layer,
    which are kept for a while, may take half as much beside them.
    """

    plan: Plan
    calls: Iterable[tuple[Any, Any]]
    memory: int = MEMORY
    name: ClassVar[str] = "repair"
    version: ClassVar[int] = 1

    def sites(self, program: Program) -> Sequence[Site]:
        """Every layer that has a weight, or statistics, of its own: one step each."""
        tensors = program.tensors()
        nodes = [node for node in program.calls() if _is_layer(node, tensors)]
        return [Site(where(node), 1) for node in nodes]

    def requires(self, before: Program) -> None:
        coupling, sizes = self.plan.coupling, self.plan.sizes
        own = before.tensors()
        require_values(own.values(), "repairing a network")
        for name, value in coupling.state.items():
            if name in own and tuple(own[name].shape) != sizes.shape(value):
                raise ContractError(f"{name} is not as this plan cuts it")

    @classmethod
    def again(cls, entry: Entry, program: Program) -> Program:
        """As it is: only values of tensors changed."""
        return program

    def run(self, before: Program) -> Repaired:
        chunks, given = self._sampled(before)
        held, kept = held_out(chunks), min(KEPT, self.memory // 2)
        refit = Duet(self.plan, clone(before), chunks, held, memory=self.memory, kept=kept)
        refit.run()
        tried = {"refit": refit}
        if any(norm_of(node) for node in before.calls()):
            tried["statistics"] = Duet(
                self.plan, clone(before), chunks, held, statistics=True, memory=self.memory
            )
            tried["statistics"].run()
        used = chunks[: refit.pupil.count]
        ours = [chunk for chunk, out in zip(used, refit.held, strict=True) if out]
        wanted = outputs(self.plan.coupling.program.module, ours)
        modules = {"sliced": before.module} | {k: one.small.module for k, one in tried.items()}
        given_by = {name: outputs(module, ours) for name, module in modules.items()}
        found = {name: divergence(wanted, given) for name, given in given_by.items()}
        best = min(found, key=lambda name: found[name])
        program = tried[best].small if best in tried else before
        return Repaired(
            program,
            tuple(_line(layer) for layer in refit.layers if not layer.why)
            if best == "refit"
            else (),
            tuple(refit.layers),
            best,
            found,
            agreement(wanted, given_by[best]),
            {
                "given": given,
                "used": sum(chunk.samples for chunk in used),
                "held_out": sum(chunk.samples for chunk in ours),
            },
            max(one.bytes for one in tried.values()),
        )

    def metadata(self, result: PassResult) -> Mapping[str, Any]:
        """Which version was taken; its values are those of the release's tensors."""
        assert isinstance(result, Repaired)
        return {"chosen": result.chosen, "samples": dict(result.samples)}

    def _sampled(self, small: Program) -> tuple[list[Chunk], int]:
        """Inputs that memory has room for, and how many were given."""
        original = self.plan.coupling.program
        modules, found = (original.module, small.module), list[Room]()

        def limit(chunk: Chunk) -> int:
            found.append(Room.of(modules, original, chunk, self.memory))
            return found[0].total

        chunks, given = sampled(self.calls, original, limit=limit)
        return fitting(chunks, original, found[0]), given

    def judged(self, programs: Sequence[Program]) -> list[float]:
        """How far programs are from the original, on the inputs that nothing is fitted to.

        The first is the one that was to be repaired.
        """
        chunks, _ = self._sampled(programs[0])
        ours = [chunk for chunk, out in zip(chunks, held_out(chunks), strict=True) if out]
        wanted = outputs(self.plan.coupling.program.module, ours)
        return [divergence(wanted, outputs(program.module, ours)) for program in programs]

    def ensures(self, before: Program, after: Program) -> None:
        old, new = before.tensors(), after.tensors()
        if old.keys() != new.keys():
            raise ContractError("the repair made or lost tensors")
        for name, tensor in new.items():
            if tensor.shape != old[name].shape or tensor.dtype != old[name].dtype:
                raise ContractError(f"{name} changed its form in the repair")
            floating = tensor.is_floating_point()
            if floating and bool((~torch.isfinite(tensor) & torch.isfinite(old[name])).any()):
                raise ContractError(f"{name} is not finite after the repair")


def _is_layer(node: Node, tensors: Mapping[str, Tensor]) -> bool:
    val = node.meta.get("val")
    known = isinstance(val, Tensor) and isinstance(view(node, tensors, val.dim()), View)
    return known or norm_of(node) is not None or bool(recurrent(node, tensors))


def mend(step: Repair, small: Program) -> Repaired:
    """Run the pass with its checks, as `apply` does."""
    result = apply(step, small)
    assert isinstance(result, Repaired)
    return result


def _line(layer: Layer) -> str:
    return f"{layer.name}: error {layer.before:.3g} -> {layer.after:.3g}"
