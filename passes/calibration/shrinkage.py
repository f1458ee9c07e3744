"""A covariance of few rows, with as much trust in it as two halves of its rows agree.

    A, B    correlations of the one half of the samples, and of the other
    noise   |A - B|² / |A + B|²       the share of it in what ties columns together
    share   what is taken off what ties columns together: of `TRIED` times the noise the least with
            which errors of columns of B, foretold from the others by A, are as A says, or nearly

With fewer rows than columns everything seems to follow from everything, and any channel could go
for nothing. The noise is how far Ledoit and Wolf would shrink ("A well-conditioned estimator for
large-dimensional covariance matrices", 2004), here towards the diagonal; but what is near in every
entry may be far in its inverse, which is what is asked for: so the other half judges. Formulas by
the number of rows take rows for independent, and positions of one picture are not; halves of the
samples need no such number.
"""

import torch
from torch import Tensor

TRIED = (0.0, 1 / 64, 1 / 16, 1 / 4, 1.0, 4.0)

FEW = 1e-3
"""Less noise is not looked at."""

NEARLY = 0.5
"""Logarithm of the errors in the other half over those that are believed, at most: half of the rows
know less than all of them."""

FLOOR = 1e-3
"""Of a variance: what others foretell of a column, to this share at best, is foretold wholly."""


def shrunk(cov: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """A covariance of two halves [blocks, columns, columns] with less off its diagonal."""
    found = cov * (1 - share(one, other))[:, None, None]
    found.diagonal(dim1=1, dim2=2).copy_(cov.diagonal(dim1=1, dim2=2))
    return found


def share(one: Tensor, other: Tensor) -> Tensor:
    """How much less, of the covariances of two halves: [blocks]."""
    root = ((one + other) / 2).diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    scale = torch.where(root > 0, 1 / root.clamp(min=1e-300), 0.0)
    a, b = (half * scale[:, :, None] * scale[:, None] for half in (one, other))
    much = noise(a, b)
    seen = torch.stack([half.abs().sum((1, 2)) for half in (one, other)]).all(0)
    found = torch.where(seen, 0.0, much)
    blocks = torch.nonzero(seen & (much > FEW))[:, 0]
    if len(blocks):
        shares = torch.stack([(much[blocks] * factor).clamp(max=1) for factor in TRIED])
        more = torch.stack([optimism(a[blocks], b[blocks], tried) for tried in shares])
        good = more <= more.min(0).values.clamp(min=NEARLY)
        found[blocks] = shares.gather(0, good.int().argmax(0)[None])[0]
    return found


def noise(a: Tensor, b: Tensor) -> Tensor:
    """The share of noise in the mean of two correlations, off the diagonal: [blocks]."""
    apart, known = (part.square().sum((1, 2)) for part in (_off(a - b), _off(a + b)))
    return (apart / known.clamp(min=1e-300)).clamp(max=1)


def optimism(a: Tensor, b: Tensor, less: Tensor) -> Tensor:
    """Of columns of `b`, foretold from the others by `a`: the mean logarithm of their errors over
    those that `a` leads to believe in, [blocks].

    `less` [blocks] of what ties columns is taken off `a`.
    """
    size = a.shape[-1]
    eye = torch.eye(size, dtype=a.dtype)
    near = a * (1 - less)[:, None, None] + (less + FLOOR)[:, None, None] * eye
    factor, info = torch.linalg.cholesky_ex(near)
    inverse = torch.cholesky_inverse(factor)
    believed = 1 / inverse.diagonal(dim1=1, dim2=2)
    error = ((inverse @ b) * inverse).sum(2) * believed.square()
    more = ((error + FLOOR) / (believed + FLOOR)).log().mean(1)
    return torch.where(info == 0, more, torch.inf)


def _off(matrix: Tensor) -> Tensor:
    return matrix - torch.diag_embed(matrix.diagonal(dim1=1, dim2=2))
