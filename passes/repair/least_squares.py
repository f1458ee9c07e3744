"""Least squares from streamed second moments: ``y ~ W u + b``, for many blocks at once.

moments   sums of [u 1]ᵀ[u 1], of [u 1]ᵀy and of y², in float64; nothing grows with the rows
fit       W = W₀ + (E[yuᵀ] - W₀ E[uuᵀ]) (E[uuᵀ] + λ)⁻¹     a correction of the weights there are
choice    the ridge λ with the least error on *other* rows; "leave it" is one of the choices
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = (1e-9, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Tried in this order, in units of the mean second moment of a column."""


class Moments:
    """Second moments of rows u [blocks, n, columns] and their targets y [blocks, n, outputs]."""

    def __init__(self, blocks: int, columns: int, outputs: int) -> None:
        self.count = 0
        self.uu = torch.zeros(blocks, columns + 1, columns + 1, dtype=torch.float64)
        self.uy = torch.zeros(blocks, columns + 1, outputs, dtype=torch.float64)
        self.yy = torch.zeros(blocks, outputs, dtype=torch.float64)

    def add(self, u: Tensor, y: Tensor) -> None:
        """Rows more. A constant column stands behind those of `u`, without being made."""
        u = u.double()
        total = u.sum(1)
        self.uu[:, :-1, :-1].baddbmm_(u.mT, u)
        self.uu[:, -1, :-1] += total
        self.uu[:, :-1, -1] += total
        self.uu[:, -1, -1] += u.shape[1]
        self.add_targets(u, y)

    def add_targets(self, u: Tensor, y: Tensor) -> None:
        """What the targets add, of rows whose own moments are there already."""
        u, y = u.double(), y.double()
        self.count += u.shape[1]
        self.uy[:, :-1].baddbmm_(u.mT, y)
        self.uy[:, -1] += y.sum(1)
        self.yy += y.square().sum(1)

    def emptied(self) -> "Moments":
        """For other targets of the same rows: the moments of the rows are shared."""
        found = copy.copy(self)
        found.count = 0
        found.uy, found.yy = torch.zeros_like(self.uy), torch.zeros_like(self.yy)
        return found

    @property
    def bytes(self) -> int:
        return 8 * (self.uu.numel() + self.uy.numel() + self.yy.numel())

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """Mean squared error of ``weight u + bias``, summed over outputs."""
        whole = torch.cat([weight, bias[..., None]], -1)
        cross = (whole.mT * self.uy).sum()
        square = ((whole @ self.uu) * whole).sum()
        return float((self.yy.sum() - 2 * cross + square).clamp(min=0)) / max(self.count, 1)

    def spread(self) -> float:
        """Mean squared distance of the targets from their mean, summed over outputs."""
        mean = self.uy[:, -1] / max(self.count, 1)
        return float((self.yy / max(self.count, 1) - mean.square()).clamp(min=0).sum())


@dataclass(frozen=True)
class Fit:
    """Weights [blocks, outputs, columns] and biases [blocks, outputs], and how good they are."""

    weight: Tensor
    bias: Tensor
    ridge: float
    """Infinite where the weights were left as they are."""
    before: float
    """Error on the held-out rows of the weights as they were."""
    after: float


def fit(
    rows: Moments, held: Moments, weight: Tensor, bias: Tensor, *, free: bool, present: bool = True
) -> Fit:
    """The weights that `held` likes best: those there are, or a refit to `rows`.

    `free` says that the bias may be chosen, `present` that the bias there is counts as it is (the
    batch norm behind a convolution sets any mean, so none is given there).
    """
    weight, bias = weight.double(), bias.double()
    count = max(rows.count, 1)
    mean_u, mean_y = rows.uu[:, -1, :-1] / count, rows.uy[:, -1] / count

    def own_bias(weight: Tensor) -> Tensor:
        return mean_y - (weight @ mean_u[..., None])[..., 0] if free else bias

    start = bias if present else own_bias(weight)
    before = held.error(weight, start)
    best = Fit(weight, start, float("inf"), before, before)
    moved = own_bias(weight)
    if (error := held.error(weight, moved)) < best.after:
        best = Fit(weight, moved, float("inf"), before, error)
    gram, cross = rows.uu[:, :-1, :-1] / count, rows.uy[:, :-1].mT / count
    if free:
        gram = gram - mean_u[..., None] * mean_u[:, None]
        cross = cross - mean_y[..., None] * mean_u[:, None]
    else:
        cross = cross - bias[..., None] * mean_u[:, None]
    wrong = cross - weight @ gram
    scale = gram.diagonal(dim1=1, dim2=2).mean(1)
    eye = torch.eye(gram.shape[-1], dtype=torch.float64)
    for ridge in RIDGES:
        shift = (ridge * scale).clamp(min=torch.finfo(torch.float64).tiny)
        factor, info = torch.linalg.cholesky_ex(gram + shift[:, None, None] * eye)
        if bool(info.any()):
            continue  # not positive in this precision: a larger ridge will be
        candidate = weight + torch.cholesky_solve(wrong.mT, factor).mT
        error = held.error(candidate, own_bias(candidate))
        if error < best.after:
            best = Fit(candidate, own_bias(candidate), ridge, before, error)
    return best
