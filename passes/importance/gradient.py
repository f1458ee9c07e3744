"""Criteria that look at data: gradients of the weights, and what goes through the layers.

Gradients are those of the original against its own outputs, in random directions (`own_loss`): no
labels are needed; or those of a loss that comes with the inputs. A score is a share of the sum
along its axis, as for the weights alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter

from ..calibration.activation_statistics import Reading, own_loss
from ..calibration.lockstep import Chunk
from ..coupling.groups import Coupling
from ..ir.leaves import fresh
from .magnitude import shares, totals

Evidence = tuple[Sequence[Chunk], Sequence[Reading]]
"""Inputs, in chunks whose gradients are summed; and what every layer reads."""

DataCriterion = Callable[[Coupling, Evidence, int], Tensor]
"""From the coupling, the evidence and a seed to a score for each class: float64 [classes]."""


def taylor(coupling: Coupling, evidence: Evidence, seed: int) -> Tensor:
    """Weight times gradient (Molchanov et al., "Pruning CNNs for Resource Efficient Inference")."""
    return _by_gradient(coupling, evidence, seed, lambda w, g: (w * g).abs())


def gradient(coupling: Coupling, evidence: Evidence, seed: int) -> Tensor:
    """Absolute gradient: sensitivity without the size of the weight (after Lee et al., "SNIP")."""
    return _by_gradient(coupling, evidence, seed, lambda w, g: g.abs())


def hessian(coupling: Coupling, evidence: Evidence, seed: int) -> Tensor:
    """w² times the diagonal of the curvature (LeCun et al., "Optimal Brain Damage", 1990)."""
    return _by_gradient(coupling, evidence, seed, lambda w, g: (w * g).square())


def fisher(coupling: Coupling, evidence: Evidence, seed: int) -> Tensor:
    """Square of the summed weight times gradient (Liu et al., "Group Fisher Pruning", 2021).

    That is the empirical Fisher information of a mask on the slice.
    """
    total: dict[str, list[Tensor]] = {}
    for weights, grads in gradients(coupling, evidence[0], seed):
        for name, grad in grads.items():
            own = totals(weights[name] * grad, coupling.state[name].arrays, lambda one: one)
            before = total.get(name, [torch.zeros(())] * len(own))
            total[name] = [a + b.square() for a, b in zip(before, own, strict=True)]
    return shares(coupling, total)


def activation(coupling: Coupling, evidence: Evidence, seed: int) -> Tensor:
    """Mean magnitude of what is read (Polyak and Wolf, "Channel-level acceleration", 2015)."""
    return _by_reading(coupling, evidence, lambda one: one.magnitude)


def zero_rate(coupling: Coupling, evidence: Evidence, seed: int) -> Tensor:
    """How often a channel is not zero (Hu et al., "Network Trimming", 2016)."""
    return _by_reading(coupling, evidence, lambda one: one.alive)


def wanda(coupling: Coupling, evidence: Evidence, seed: int) -> Tensor:
    """Absolute weight times the norm of what it reads (Sun et al., "Wanda", 2024)."""
    return _by_reading(coupling, evidence, lambda one: one.absolute * one.norm)


DATA_CRITERIA: Mapping[str, DataCriterion] = {
    "activation": activation,
    "fisher": fisher,
    "gradient": gradient,
    "hessian": hessian,
    "taylor": taylor,
    "wanda": wanda,
    "zero-rate": zero_rate,
}

BY_DATA = ("auto", "obs", *DATA_CRITERIA)
"""Criteria that are not read off the weights (see also `obs_curves.py`)."""


def by_data(criterion: str) -> bool:
    """Whether a criterion needs calibration inputs."""
    return criterion in BY_DATA or ":" in criterion


def _by_reading(
    coupling: Coupling, evidence: Evidence, value: Callable[[Reading], Tensor]
) -> Tensor:
    score = torch.zeros(coupling.class_count, dtype=torch.float64)
    for reading in evidence[1]:
        own = value(reading)
        if float(own.sum()) > 0:
            score.index_add_(0, reading.classes, own / own.sum())
    score[0] = 0
    return score


def _by_gradient(
    coupling: Coupling,
    evidence: Evidence,
    seed: int,
    element: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    summed: dict[str, Tensor] = {}
    for weights, grads in gradients(coupling, evidence[0], seed):
        for name, grad in grads.items():
            summed[name] = summed.get(name, torch.zeros(())) + element(weights[name], grad)
    found = {
        name: totals(one, coupling.state[name].arrays, lambda block: block)
        for name, one in summed.items()
    }
    return shares(coupling, found)


def gradients(
    coupling: Coupling, chunks: Sequence[Chunk], seed: int
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Weights and their gradients, for each chunk in turn."""
    random = torch.Generator().manual_seed(seed)
    program = coupling.program
    weights: dict[str, Tensor] = {}
    seen: dict[int, Tensor] = {}
    for name, tensor in program.tensors().items():
        if isinstance(tensor, nn.Parameter) and tensor.is_floating_point():
            leaf = seen.setdefault(id(tensor), tensor.detach().clone().requires_grad_())
            weights[name] = leaf
    plain = {name: leaf.detach() for name, leaf in weights.items()}
    for chunk in chunks:
        runner = _Leaves(program.module, weights)
        with torch.enable_grad():
            outputs = runner.run(*fresh(chunk.leaves), enable_io_processing=False)
            loss = own_loss(outputs, random) if chunk.loss is None else chunk.loss(outputs)
        if loss is None:
            continue
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        pairs = zip(weights, found, strict=True)
        yield plain, {name: grad for name, grad in pairs if grad is not None}


class _Leaves(Interpreter):
    """Reads these weights in place of the module's own."""

    def __init__(self, module: GraphModule, weights: Mapping[str, Tensor]) -> None:
        super().__init__(module)
        self._weights = weights

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        own = self._weights.get(str(target))
        return super().get_attr(target, args, kwargs) if own is None else own
