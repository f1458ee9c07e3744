"""Other weights and another batch size, so that nothing can hide in the ones that the user has.

A branch that is multiplied by zero, units that never fire, a softmax that is saturated, a scale of
1e-6: whatever the surgery did there, the outputs are the same. The surgery does not depend on
weights, so it is compared once more with others.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..ir.program import Program, shares_batch, variances

Called = tuple[Any, Mapping[str, Any]]


def stirred(program: Program, seed: int = 0) -> Mapping[str, Tensor]:
    """Other values for every tensor of the program, by name.

    Parameters are drawn afresh, as for an untrained network, whatever they were. Buffers get noise
    as large as their entries, so that zeros no longer are. Infinite masks, and indices, stay. Each
    is made when it is asked for, the same every time: together they are as large as the model.
    """
    return _Stirred(program, seed)


class _Stirred(Mapping[str, Tensor]):
    def __init__(self, program: Program, seed: int) -> None:
        self._tensors, self._positive = program.tensors(), variances(program)
        self._seeds: dict[str, int] = {}
        first: dict[tuple[Any, ...], int] = {}
        for index, (name, own) in enumerate(self._tensors.items()):
            storage = (own.data_ptr(), tuple(own.shape), own.stride()) if own.numel() else (name,)
            self._seeds[name] = (seed << 32) + first.setdefault(storage, index)  # tied: one seed

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        generator = torch.Generator().manual_seed(self._seeds[name])
        fresh, positive = isinstance(tensor, nn.Parameter), name in self._positive
        return _other(tensor.detach(), generator, fresh=fresh, positive=positive)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _other(tensor: Tensor, generator: torch.Generator, *, fresh: bool, positive: bool) -> Tensor:
    if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
        return tensor
    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
    if positive:
        values = 0.5 + noise.sigmoid()
    elif not fresh:
        size = float(tensor.double().square().mean().sqrt()) if tensor.numel() else 0.0
        values = tensor.cpu() + 0.5 * (size or 0.1) * noise
    elif tensor.dim() > 1:
        values = noise * max(tensor[0].numel(), 1) ** -0.5
    else:
        values = 0.5 + 0.5 * noise
    return values.to(tensor)


def other_batch(program: Program, given: Called) -> Called:
    """The inputs with three samples, where the batch is dynamic: the first ones."""
    batch = program.batch
    if batch is None:
        return given

    def resized(leaf: Any) -> Any:
        return torch.cat([leaf] * 3)[:3] if shares_batch(leaf, batch) else leaf

    args, kwargs = pytree.tree_map(resized, (given[0], dict(given[1])))
    return args, kwargs


def moved(given: Called, scale: float, seed: int = 0) -> Called:
    """Inputs of the same sizes that are others: shuffled, and numbers times `scale`.

    Whole numbers stay among those that there are, and 0 and 1 where all are alike: they may be
    looked up. Flags stay.
    """
    random = torch.Generator().manual_seed(seed)

    def other(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.dtype == torch.bool or leaf.numel() == 0:
            return leaf
        flat = leaf.detach().reshape(-1)
        order = torch.randperm(len(flat), generator=random).to(leaf.device)
        if leaf.is_floating_point() or leaf.is_complex():
            return (flat[order] * scale).reshape(leaf.shape)
        if bool((flat == flat[0]).all()):
            flip = torch.rand(len(flat), generator=random).to(leaf.device) < 0.5
            return torch.where(flip, flat, (flat == 0).to(flat)).reshape(leaf.shape)
        return flat[order].reshape(leaf.shape)

    args, kwargs = pytree.tree_map(other, (given[0], dict(given[1])))
    return args, kwargs
