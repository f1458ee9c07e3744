"""Batch norms in eval mode: a scale and a shift for each channel, which least squares can choose.

    y = weight · (x - mean) / sqrt(var + eps) + bias

Other `mean` and `var` make any positive scale and any shift of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from ..ir.program import by_name


class Sums:
    """First and second moments of x and its target t, for each channel (axis 1): float64."""

    def __init__(self) -> None:
        self.count = 0
        self.x = self.t = self.xx = self.xt = self.tt = torch.zeros((), dtype=torch.float64)

    def add(self, x: Tensor, t: Tensor) -> None:
        """Values of some inputs more."""
        x, t = (one.transpose(0, 1).flatten(1) for one in (x, t))
        count = x.shape[1]
        mean_x, mean_t = x.mean(1, keepdim=True), t.mean(1, keepdim=True)
        far_x, far_t = x - mean_x, t - mean_t
        a, b = mean_x[:, 0].double(), mean_t[:, 0].double()
        self.count += count
        self.x = self.x + count * a
        self.t = self.t + count * b
        self.xx = self.xx + count * ((far_x * far_x).mean(1).double() + a * a)
        self.xt = self.xt + count * ((far_x * far_t).mean(1).double() + a * b)
        self.tt = self.tt + count * ((far_t * far_t).mean(1).double() + b * b)

    def moments(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Means of x and t; variance of x, covariance, variance of t."""
        x, t = self.x / self.count, self.t / self.count
        xx, xt, tt = (one / self.count for one in (self.xx, self.xt, self.tt))
        return x, t, (xx - x * x).clamp(min=0), xt - x * t, (tt - t * t).clamp(min=0)

    def error(self, slope: Tensor, shift: Tensor) -> Tensor:
        """Mean squared error of ``slope x + shift`` for each channel."""
        x, t, var_x, cov, var_t = self.moments()
        return (var_t - 2 * slope * cov + slope**2 * var_x) + (slope * x + shift - t) ** 2


@dataclass(frozen=True, eq=False)
class Norm:
    """A call of batch norm with statistics of its own."""

    node: Node
    x: Node
    weight: str
    bias: str
    mean: str
    var: str
    eps: float

    @property
    def statistics(self) -> tuple[str, str]:
        return self.mean, self.var

    def scale(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """What a channel is multiplied by."""
        root = (tensors[self.var] + self.eps).sqrt()
        return (tensors[self.weight].detach() if self.weight else 1.0) / root

    def shift(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """What is added to a channel after that."""
        moved = -tensors[self.mean] * self.scale(tensors)
        return moved + tensors[self.bias].detach() if self.bias else moved

    def measure(self, tensors: Mapping[str, Tensor], sums: Sums) -> None:
        """Take mean and variance of what was seen."""
        x, _, var, _, _ = sums.moments()
        tensors[self.mean].data.copy_(x)
        tensors[self.var].data.copy_(var)

    def follow(self, tensors: Mapping[str, Tensor], sums: Sums, held: Sums) -> tuple[float, float]:
        """Choose the statistics with which x gives what the original's input t gave.

        Returns the relative held-out errors before and after.
        """
        mean, var = tensors[self.mean].double(), tensors[self.var].double() + self.eps
        x, t, var_x, cov, _ = sums.moments()
        one = torch.ones_like(mean)
        slope = torch.where(var_x > 0, cov / var_x.clamp(min=1e-300), one)
        slope = torch.where((slope > 0.05) & (slope < 20), slope, one)
        tried = [(one, torch.zeros_like(one)), (one, t - x), (slope, t - slope * x)]
        importance = self.scale(tensors).double().square()
        errors = torch.stack([held.error(*pair) * importance for pair in tried]).sum(1)
        best = int(errors.argmin())
        if best:
            slope, shift = tried[best]
            new = var / slope**2 - self.eps
            tensors[self.var].data.copy_(new.clamp(min=0))
            slope = (var / (new.clamp(min=0) + self.eps)).sqrt()
            tensors[self.mean].data.copy_((mean - shift) / slope)
        spread = float((held.moments()[4] * importance).sum()) or 1.0
        return float(errors[0]) / spread, float(errors[best]) / spread


def batch_norm(node: Node, tensors: Mapping[str, Tensor], rank: int) -> Norm | str:
    """The call as a norm, if it is one in eval mode whose statistics are stored; else ""."""
    given = by_name(node)
    names = [given.get(name) for name in ("weight", "bias", "running_mean", "running_var")]
    stored = [isinstance(one, Node) and one.op == "get_attr" for one in names]
    own = all(known or one is None for known, one in zip(stored[:2], names[:2], strict=True))
    if given.get("training") or not all(stored[2:]) or not own:
        return ""
    weight, bias, mean, var = ("" if one is None else str(one.target) for one in names)
    return Norm(node, given["input"], weight, bias, mean, var, float(given.get("eps", 1e-5)))
