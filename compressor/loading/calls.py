"""What a model is called with: one tensor, a tuple, or a dict of keyword arguments."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.base.messages import reason
from compressor.passes.base.errors import UsageError
from compressor.passes.ir.leaves import fresh, tensors
from compressor.passes.ir.program import Program, shares_batch

Inputs = Any
Called = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments."""


def as_call(inputs: Inputs) -> Called:
    """Arguments for the model. Raises UsageError where no tensor with numbers is among them."""
    if isinstance(inputs, Tensor):
        call: Called = ((inputs,), {})
    elif isinstance(inputs, Mapping):
        call = ((), dict(inputs))
    elif isinstance(inputs, tuple | list):
        call = (tuple(inputs), {})
    else:
        raise UsageError(
            f"example inputs are {type(inputs).__name__}",
            hint="give a tensor, a tuple of them, or a dict of keyword arguments",
        )
    sizes = [leaf.numel() for leaf in tensors(call)]
    if not any(sizes):
        raise UsageError(f"the example inputs hold no {'numbers' if sizes else 'tensor'}")
    return call


def at_batch(call: Called, batch: int | None, size: int) -> Called:
    """The same inputs with `size` samples: those there are, repeated or cut."""
    if batch is None or batch == size:
        return call
    times = -(-size // batch)

    def resized(leaf: Any) -> Any:
        return torch.cat([leaf] * times)[:size] if shares_batch(leaf, batch) else leaf

    args, kwargs = pytree.tree_map(resized, call)
    return args, kwargs


def at_sizes(call: Called, program: Program, sizes: Mapping[str, int]) -> Called:
    """The same inputs with other sizes of free axes: what there is, repeated or cut."""
    leaves, spec = pytree.tree_flatten(call)
    for position, axes in program.axes.items():
        for axis, symbol in axes.items():
            if symbol in sizes:
                times = -(-sizes[symbol] // leaves[position].shape[axis])
                whole = torch.cat([leaves[position]] * times, axis)
                leaves[position] = whole.narrow(axis, 0, sizes[symbol]).contiguous()
    args, kwargs = pytree.tree_unflatten(leaves, spec)
    return args, kwargs


def randomised(call: Called, seed: int) -> Called:
    """The same shapes with standard normal numbers; integers and flags stay as they are."""
    generator = torch.Generator().manual_seed(seed)

    def noise(leaf: Any) -> Any:
        if not (isinstance(leaf, Tensor) and leaf.is_floating_point()):
            return leaf
        return torch.randn(leaf.shape, generator=generator, dtype=torch.float32).to(leaf.dtype)

    args, kwargs = pytree.tree_map(noise, call)
    return args, kwargs


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Afterwards every part of the model is in the mode that it was in: some may be frozen."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def run(module: nn.Module, call: Called) -> Any:
    """What a module gives, without gradients; its buffers and the inputs stay as they were."""
    args, kwargs = fresh(call)
    buffers = {name: one.clone() for name, one in module.named_buffers()}
    with torch.no_grad():
        return torch.func.functional_call(module, buffers, args, kwargs)


def check_runs(model: nn.Module, call: Called) -> None:
    """One forward pass, so that wrong shapes are reported as what they are.

    Inputs and buffers stay as they were. Raises UsageError with what the model raises.
    """
    if any(one.is_floating_point() and bool(torch.isnan(one).any()) for one in tensors(call)):
        raise UsageError("the example inputs hold NaN", hint="give inputs like those of --data")
    try:
        run(model, call)
    except Exception as error:  # whatever the user's forward raises
        raise UsageError(
            "the model does not run on the example inputs",
            where=", ".join(_shapes(call)),
            why=reason(error)[:300],
            hint="give inputs of the right shape with --input-shape or --inputs",
        ) from error


def _shapes(call: Called) -> list[str]:
    return [
        f"{tuple(leaf.shape)} {str(leaf.dtype).removeprefix('torch.')}" for leaf in tensors(call)
    ]
