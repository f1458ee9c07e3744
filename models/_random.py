"""Weights and inputs that are random, the same every time, and safe to compare with.

    seeded(Net, 7)         build Net and fill it; the global random state does not move
    randomise(module, 7)   fill an existing module in place
    normal(2, 3, 8, 8)     an input image
    tokens(100, 2, 16)     an input sentence

A freshly built network hides mistakes: its norms do nothing (scale 1, shift 0, mean 0, variance 1)
and many of its biases are zero. Here all of these are drawn at random, so two networks that give
the same output do so because they compute the same thing.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The module `make` returns, in eval mode, with weights that depend on `seed` only."""
    with torch.random.fork_rng(devices=[]):
        return randomise(make(), seed).eval()


@torch.no_grad()
def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Fill every parameter and every running statistic of `module` in place, and return it."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            _fill(part, name, parameter, generator)
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.track_running_stats:
            part.running_mean.normal_(0.0, 0.2, generator=generator)
            part.running_var.uniform_(0.6, 1.4, generator=generator)
    return module


def _fill(owner: nn.Module, name: str, parameter: Tensor, generator: torch.Generator) -> None:
    if parameter.ndim == 1 and name == "weight":  # the scale of a norm: never near zero
        parameter.uniform_(0.6, 1.4, generator=generator)
    elif parameter.ndim == 1:
        parameter.normal_(0.0, 0.1, generator=generator)
    else:
        parameter.normal_(0.0, _spread(owner, parameter), generator=generator)


def _spread(owner: nn.Module, weight: Tensor) -> float:
    """A standard deviation that keeps activations near their size: gain / sqrt(fan in)."""
    if isinstance(owner, nn.ConvTranspose2d):
        taps = owner.kernel_size[0] * owner.kernel_size[1] / (owner.stride[0] * owner.stride[1])
        return float((1.5 / (weight.shape[0] * taps)) ** 0.5)
    if isinstance(owner, nn.Conv2d):
        return float((1.5 / weight[0].numel()) ** 0.5)
    if isinstance(owner, nn.Linear | nn.RNNBase | nn.MultiheadAttention):
        return float(weight.shape[1] ** -0.5)
    return 0.5  # embeddings, class tokens, position tables


def normal(*shape: int, seed: int = 0) -> Tensor:
    """A float input: noise, around a mean that differs between images and colours."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn((*shape[:2], *[1] * (len(shape) - 2)), generator=generator)
    return torch.randn(shape, generator=generator) + means


def tokens(vocabulary: int, *shape: int, seed: int = 0) -> Tensor:
    """An int64 input: numbers below `vocabulary`, the same for the same shape and seed."""
    return torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(seed))
