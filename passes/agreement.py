"""How far the outputs of one network are from those of another."""

from collections.abc import Sequence

import torch
from torch import Tensor

Outputs = Sequence[Sequence[Tensor]]
"""The output tensors of every batch."""


def divergence(wanted: Outputs, found: Outputs) -> float:
    """Distance of two sets of outputs: 0 where they are equal.

    Squared error over the variance; of rows of class scores, what all classes share does not count.
    Logits are compared, not probabilities: on inputs that a network was trained with those are
    saturated, and hardly tell a good repair from a bad one. Several outputs count alike.
    """
    totals = []
    for place in range(len(wanted[0])):
        a = torch.cat([batch[place].double().flatten(1) if batch[place].dim() > 1
                       else batch[place].double().reshape(1, -1) for batch in wanted])  # fmt: skip
        b = torch.cat([batch[place].double().flatten(1) if batch[place].dim() > 1
                       else batch[place].double().reshape(1, -1) for batch in found])  # fmt: skip
        scores = all(is_scores(batch[place]) for batch in wanted)
        totals.append(_between_scores(a, b) if scores else _squared(a, b))
    total = sum(totals) / max(len(totals), 1)
    return total if total == total else float("inf")


def is_scores(output: Tensor) -> bool:
    """Whether an output is rows of class scores: [batch, classes]."""
    return output.is_floating_point() and output.dim() == 2 and output.shape[1] > 1


def _between_scores(a: Tensor, b: Tensor) -> float:
    a, b = _logarithms(a), _logarithms(b)
    return _squared(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True))


def _logarithms(scores: Tensor) -> Tensor:
    """Logarithms of probabilities, from logits or from probabilities themselves."""
    sums = scores.sum(1)
    if bool((scores >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()):
        scores = scores.clamp(min=1e-12).log()
    return scores.log_softmax(1)


def _squared(a: Tensor, b: Tensor) -> float:
    spread = float(a.var(0, correction=0).sum()) or float(a.square().mean()) or 1.0
    return float((a - b).square().sum(1).mean()) / spread
