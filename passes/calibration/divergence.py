"""How far the outputs of one network are from those of another."""

import math
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
    return average(distances(wanted, found))


def average(rows: Sequence[Tensor]) -> float:
    """The divergence that `distances` come to; infinite where one is not a number."""
    total = sum(float(one.mean()) for one in rows) / max(len(rows), 1)
    return total if total == total else float("inf")


def distances(wanted: Outputs, found: Outputs) -> list[Tensor]:
    """The same for every row of each output: float64 [rows]."""
    result = []
    for place in range(len(wanted[0])):
        a, b = (_rows([batch[place] for batch in outputs]) for outputs in (wanted, found))
        a, b, apart = _finite(a, b)
        scores = all(is_scores(batch[place]) for batch in wanted)
        result.append((_between_scores(a, b) if scores else _squared(a, b)) + apart)
    return result


def _rows(parts: Sequence[Tensor]) -> Tensor:
    """Of each sample a row; of each position, or number, where samples differ in size."""
    widths = {part.shape[1:].numel() for part in parts}
    lasts = {part.shape[-1] for part in parts if part.dim() > 1}
    if min(part.dim() for part in parts) < 2:
        width = 1
    elif len(widths) == 1:
        width = widths.pop()
    else:
        width = lasts.pop() if len(lasts) == 1 else 1
    return torch.cat([part.double().reshape(-1, max(width, 1)) for part in parts])


def _finite(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both without what is not finite in `a`: no distance where it is equal, else infinite."""
    finite = torch.isfinite(a)
    same = finite | (a == b) | (torch.isnan(a) & torch.isnan(b))
    apart = torch.where(same.all(1) & torch.isfinite(b).eq(finite).all(1), 0.0, torch.inf)
    return torch.where(finite, a, 0.0), torch.where(finite, b, 0.0), apart.double()


def lead(first: Sequence[Tensor], other: Sequence[Tensor]) -> tuple[float, float]:
    """By how much `other` is closer than `first`, and the standard error of that.

    Both from `distances`, of the same inputs: what is hard for both does not count as noise. Errors
    of several outputs are taken to go together, which is the most that they can do.
    """
    far, near = average(first), average(other)
    if math.inf in (far, near):
        return (0.0 if far == near else far - near), 0.0
    gains = [a - b for a, b in zip(first, other, strict=True)]
    noise = [float(gain.std()) / len(gain) ** 0.5 if len(gain) > 1 else 0.0 for gain in gains]
    return far - near, sum(noise) / max(len(noise), 1)


def agreement(wanted: Outputs, found: Outputs) -> float | None:
    """The share of rows of class scores with the same largest one; None where none are scores."""
    shares = []
    for place in range(len(wanted[0])):
        if all(is_scores(batch[place]) for batch in wanted):
            one, other = (torch.cat([batch[place] for batch in out]) for out in (wanted, found))
            shares.append(float((one.argmax(1) == other.argmax(1)).double().mean()))
    return sum(shares) / len(shares) if shares else None


def is_scores(output: Tensor) -> bool:
    """Whether an output is rows of class scores: [batch, classes]."""
    return output.is_floating_point() and output.dim() == 2 and output.shape[1] > 1


def _between_scores(a: Tensor, b: Tensor) -> Tensor:
    a, b = _logarithms(a), _logarithms(b)
    return _squared(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True))


def _logarithms(scores: Tensor) -> Tensor:
    """Logarithms of probabilities, from logits or from probabilities themselves."""
    sums = scores.sum(1)
    if bool((scores >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()):
        scores = scores.clamp(min=1e-12).log()
    return scores.log_softmax(1)


def _squared(a: Tensor, b: Tensor) -> Tensor:
    spread = float(a.var(0, correction=0).sum()) or float(a.square().mean()) or 1.0
    return (a - b).square().sum(1) / spread
