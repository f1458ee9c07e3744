"""Is a network that another tool has pruned equal to the original with the same channels silent?

Nothing is asked of the tool: which slices it kept is read off the tensors. Every weight of the
original is another random number in float64, so each element that is left tells where it was.

silence   zeros in the user's own module where something was removed: exact, except for norms that
          take statistics over removed channels
twin      our own surgery of exactly these channels, whose norms count the same channels
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor import passes
from compressor.inputs import as_call

TOLERANCE = 1e-9
Kept = dict[str, tuple[Tensor, ...]]
"""For every tensor, the indices kept along each axis."""


class Unequal(Exception):
    """The pruned network is not the original without some channels."""


def check(original: nn.Module, pruned: nn.Module, inputs: Any) -> float:
    """The largest relative difference (float64). Raises Unequal where there is no equal network."""
    kept = kept_indices(tensors(original), tensors(pruned))
    found = run(pruned, inputs)
    gap = difference(run(silent(original, kept), inputs), found)
    if gap > TOLERANCE:
        gap = min(gap, difference(run(twin(original, inputs, kept), inputs), found))
    if not gap <= TOLERANCE:
        raise Unequal(f"differs by {gap:.1e} from the original without the removed channels")
    return gap


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and floating-point buffers by name."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: one.detach() for name, one in named.items() if one.is_floating_point()}


def kept_indices(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Kept:
    """Where every element came from. Raises Unequal for elements that are moved or made up."""
    found = {}
    for name, small in after.items():
        large = before.get(name)
        if large is None or large.dim() != small.dim():
            raise Unequal(f"{name} has no counterpart")
        if large.shape == small.shape and torch.equal(large, small):
            found[name] = tuple(torch.arange(size) for size in large.shape)
            continue
        order = torch.argsort(large.flatten())
        place = torch.searchsorted(large.flatten()[order], small.flatten()).clamp(
            max=large.numel() - 1
        )
        if not torch.equal(large.flatten()[order][place], small.flatten()):
            raise Unequal(f"{name} has values that the original has not")
        where = [
            torch.from_numpy(axis) for axis in np.unravel_index(order[place].numpy(), large.shape)
        ]
        axes = []
        for axis, index in enumerate(where):
            grid = index.reshape(small.shape).movedim(axis, 0).reshape(small.shape[axis], -1)
            line = grid[:, 0]
            if not bool((grid == line[:, None]).all()):
                raise Unequal(f"{name} is mixed along axis {axis}")
            if not bool((line[1:] > line[:-1]).all()):
                raise Unequal(f"{name} is permuted along axis {axis}")
            axes.append(line)
        found[name] = tuple(axes)
    return found


def run(model: nn.Module | torch.nn.Module, inputs: Any) -> list[Tensor]:
    """Every tensor that the model gives for the inputs, in float64."""
    args, kwargs = as_call(
        pytree.tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, inputs)
    )
    with torch.no_grad():
        return [one for one in pytree.tree_leaves(model(*args, **kwargs)) if one is not None]


def difference(wanted: list[Tensor], found: list[Tensor]) -> float:
    """Largest difference over the largest magnitude, of outputs that must have equal shapes."""
    if [one.shape for one in wanted] != [one.shape for one in found]:
        return float("inf")
    gaps = [
        float((a - b).abs().max() / a.abs().max().clamp(min=1e-30))
        for a, b in zip(wanted, found, strict=True)
    ]
    return max(gaps, default=0.0)


def mask(shape: torch.Size, kept: tuple[Tensor, ...]) -> Tensor:
    """Which elements of a tensor are left: bool, of its shape."""
    left = torch.ones(shape, dtype=torch.bool)
    for axis, index in enumerate(kept):
        stays = torch.zeros(shape[axis], dtype=torch.bool)
        stays[index] = True
        left &= stays.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return left


def silent(original: nn.Module, kept: Kept) -> nn.Module:
    """The user's own module with zeros where something was removed."""
    model = copy.deepcopy(original)
    with torch.no_grad():
        for name, tensor in tensors(model).items():
            if name in kept:
                tensor.mul_(mask(tensor.shape, kept[name]))
    return model


def twin(original: nn.Module, inputs: Any, kept: Kept) -> nn.Module:
    """Our own network without exactly these channels. Raises Unequal if no plan removes them."""
    doubles = pytree.tree_map_only(
        Tensor, lambda t: t.double() if t.is_floating_point() else t, inputs
    )
    coupling = passes.couple(passes.capture(original, *as_call(doubles)))
    lost = np.zeros(coupling.class_count, dtype=bool)
    left = np.zeros(coupling.class_count, dtype=bool)
    for name, value in coupling.state.items():
        if name in kept:
            stays = mask(torch.Size(value.shape), kept[name])
            for array in value.arrays:
                rest = [axis for axis, size in enumerate(array.shape) if size == 1]
                seen = stays.any(rest[0], keepdim=True) if len(rest) == 1 else stays
                for axis in rest:
                    seen = seen.any(axis, keepdim=True)
                classes = coupling.classes[array].numpy()
                lost[classes[~seen.numpy()]] = True
                left[classes[seen.numpy()]] = True
    if (lost & left).any() or lost[0]:
        raise Unequal("what must stand or fall together came apart")
    classes, owner = (part.numpy() for part in coupling.members)
    stays_whole = np.zeros(int(owner[-1]) + 1, dtype=bool)
    np.logical_or.at(stays_whole, owner, ~lost[classes])
    channels = torch.from_numpy(np.flatnonzero(~stays_whole))
    gone = np.zeros(coupling.class_count, dtype=bool)
    gone[coupling.classes_of(channels).numpy()] = True
    if (lost & ~gone & coupling.held).any():
        raise Unequal("channels went that cannot go")
    plan = passes.Plan(coupling, passes.Budget(channels=0.5), channels)
    return passes.apply(passes.Shrink(plan), coupling.program).program.module
