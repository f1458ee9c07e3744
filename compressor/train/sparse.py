"""Sparse training: make whole channels small before they are removed.

penalty = SparseGroups(model, example_inputs)
for images, labels in loader:
    loss = criterion(model(images), labels) + 1e-4 * penalty()

group-lasso   sum over channels of sqrt(number of weights) * norm of all weights that go with it
              (Yuan and Lin, 2006; Wen et al., "Learning Structured Sparsity", 2016)
bn-scale      sum over channels of the absolute scales of the norms that follow
              (Liu et al., "Network Slimming", 2017)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor import passes
from compressor.config.training import PENALTIES
from compressor.loading.calls import Inputs, as_call, in_eval_mode
from compressor.passes.base.errors import UsageError
from compressor.passes.ir.labels import varying
from compressor.passes.ir.program import tensor_name
from compressor.passes.operators import norm


class GroupPenalty:
    """How large the channels of a coupling are, as one number that can be differentiated."""

    def __init__(self, coupling: passes.Coupling, kind: str = "group-lasso") -> None:
        """Raises UsageError for an unknown kind, and where nothing can be penalised."""
        if kind not in PENALTIES:
            raise UsageError(f"unknown penalty {kind!r}", hint=f"one of: {', '.join(PENALTIES)}")
        self._kind = kind
        self._count = 0
        self._places: list[tuple[str, tuple[int, ...], Tensor, Tensor]] = []
        tensors = coupling.program.tensors()
        names = {name for name, one in tensors.items() if isinstance(one, nn.Parameter)}
        if kind == "bn-scale":
            names &= _scales(coupling.program)
        self._find(coupling, names, tensors)
        if not self._places:
            raise UsageError(
                f"{kind} finds nothing to penalise",
                why="no norm with a scale follows any channel that can go"
                if kind == "bn-scale"
                else "no channel of this model can go",
            )

    def _find(
        self, coupling: passes.Coupling, names: set[str], tensors: Mapping[str, Tensor]
    ) -> None:
        """Where each channel lies: (tensor, axes, positions along them, channel)."""
        channels = torch.cat([torch.cat(g.cells) for g in coupling.groups if not g.rows] or
                             [torch.zeros(0, dtype=torch.long)])  # fmt: skip
        classes, owner = coupling.members
        number = torch.full((coupling.class_count,), -1)
        free = torch.zeros(int(owner[-1]) + 1 if len(owner) else 0, dtype=torch.bool)
        free[channels] = True
        number[classes[free[owner]]] = owner[free[owner]]
        self._count = len(free)
        weights = torch.zeros(self._count)
        for name in tensors:
            if name not in names:
                continue
            for array in coupling.state[name].arrays:
                of = number[coupling.classes[array]].reshape(-1)
                place = (of >= 0).nonzero().flatten()
                if len(place):
                    self._places.append((name, varying(array), place, of[place]))
                    per = tensors[name].numel() / array.numel()
                    weights.index_add_(0, of[place], torch.full((len(place),), per))
        self._size = weights.sqrt()

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the parameters that are penalised."""
        return tuple(dict.fromkeys(name for name, *_ in self._places))

    def norms(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The size of every channel: its norm, or its scales' absolute sum. [channels]"""
        total: Tensor | None = None
        for name, axes, place, of in self._places:
            weight = tensors[name]
            element = weight.square() if self._kind == "group-lasso" else weight.abs()
            rest = [axis for axis in range(weight.dim()) if axis not in axes]
            flat = (element.sum(rest) if rest else element).reshape(-1)
            if total is None:
                total = torch.zeros(self._count, dtype=flat.dtype, device=flat.device)
            place, of = place.to(flat.device), of.to(flat.device)
            total = total.index_add(0, of, flat.index_select(0, place))
        assert total is not None
        return (total + 1e-12).sqrt() if self._kind == "group-lasso" else total

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The penalty of these weights."""
        norms = self.norms(tensors)
        return (norms * self._size.to(norms)).sum() if self._kind == "group-lasso" else norms.sum()


class SparseGroups:
    """The penalty of a live model, for a training loop of the user's own."""

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Inputs,
        kind: str = "group-lasso",
        ignore: Sequence[str] = (),
    ) -> None:
        """`kind` is one of `PENALTIES`, `ignore` name patterns of parameters to leave alone."""
        args, kwargs = as_call(example_inputs)
        with in_eval_mode(model):
            program = passes.capture(model, args, kwargs)
        self._penalty = GroupPenalty(passes.couple(program, tuple(ignore)), kind)
        self._model = model
        own: dict[str, Any] = dict(model.named_parameters(remove_duplicate=False))
        missing = [name for name in self._penalty.tensors if name not in own]
        if missing:
            raise UsageError(f"{missing[0]} is no parameter of the model")

    def __call__(self) -> Tensor:
        """The penalty of the model's present weights: add it, times a small number, to the loss."""
        return self._penalty(dict(self._model.named_parameters(remove_duplicate=False)))

    def norms(self) -> Tensor:
        """The size of every channel at present. [channels]"""
        with torch.no_grad():
            return self._penalty.norms(dict(self._model.named_parameters(remove_duplicate=False)))


def _scales(program: passes.Program) -> set[str]:
    return {
        name
        for node in program.calls()
        if node.target in norm.RULES and (name := tensor_name(node, "weight"))
    }
