"""Is a network that another tool has pruned equal to the original with the same channels silent?

Nothing is asked of the tool: which slices it kept is read off the tensors. No number is twice in a
weight of the original, so each element that is left tells where it was.

silence   zeros in the user's own module where something was removed: exact, except for norms that
          take statistics over removed channels
twin      our own surgery of exactly these channels, whose norms count the same channels
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from compressor.passes.base.errors import ContractError
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor import passes
from compressor.loading.calls import as_call

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}
"""Of the largest magnitude of an output; a hundred layers in float32 are 2e-4 off by rounding."""
Kept = dict[str, Tensor]
"""For every tensor of the original, which elements are left: bool, of its shape."""


class Unequal(Exception):
    """The pruned network is not the original without some channels."""


def check(original: nn.Module, pruned: nn.Module, inputs: Any) -> float:
    """The largest relative difference. Raises Unequal where there is no equal network."""
    kept = kept_elements(tensors(original), tensors(pruned))
    found = run(pruned, inputs)
    gap = difference(run(silent(original, kept), inputs), found)
    if gap > TOLERANCES[precision(original)]:
        gap = min(gap, difference(run(twin(original, inputs, kept), inputs), found))
    if not gap <= TOLERANCES[precision(original)]:
        raise Unequal(f"differs by {gap:.1e} from the original without the removed channels")
    return gap


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and floating-point buffers by name; tied ones by all their names."""
    named = dict(model.named_parameters(remove_duplicate=False))
    named |= dict(model.named_buffers(remove_duplicate=False))
    return {name: one.detach() for name, one in named.items() if one.is_floating_point()}


def kept_elements(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Kept:
    """Which elements are left, wherever they are now: each is told by its value.

    Order does not matter here: what the network computes is compared afterwards. Of a constant that
    repeats its numbers nothing can be told, so all of it counts as left. Raises Unequal for values
    that are made up, or come from nowhere.
    """
    found = {}
    for name, small in after.items():
        large = before.get(name)
        if large is None:
            raise Unequal(f"{name} has no counterpart")
        if large.shape == small.shape and torch.equal(large, small):
            found[name] = torch.ones(large.shape, dtype=torch.bool)
            continue
        values, order = large.flatten().sort()
        if bool((values[1:] == values[:-1]).any()):
            found[name] = torch.ones(large.shape, dtype=torch.bool)
            continue
        place = torch.searchsorted(values, small.flatten()).clamp(max=large.numel() - 1)
        if not torch.equal(values[place], small.flatten()):
            raise Unequal(f"{name} has values that the original has not")
        left = torch.zeros(large.numel(), dtype=torch.bool)
        left[order[place]] = True
        if int(left.sum()) < small.numel():
            raise Unequal(f"{name} has elements of the original twice")
        found[name] = left.reshape(large.shape)
    return found


def precision(model: nn.Module) -> torch.dtype:
    """That of its first parameter with a point."""
    return next((one.dtype for one in tensors(model).values()), torch.float32)


def like(model: nn.Module, inputs: Any) -> Any:
    """The inputs in the precision of the model."""
    dtype = precision(model)
    return pytree.tree_map_only(
        Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, inputs
    )


def told_apart(array: np.ndarray) -> np.ndarray:
    """The same with no value twice: equal ones are moved up to the next free number.

    Floats are counted through as whole numbers in their order, so that y[i] = max(x[i], y[i-1] + 1)
    is a running maximum of x[i] - i.
    """
    order = np.argsort(array, axis=None)
    whole = np.dtype(f"i{array.dtype.itemsize}")
    bits, top = array.reshape(-1)[order].view(whole), np.iinfo(whole).max
    place = np.arange(array.size)
    counted = np.where(bits < 0, bits ^ top, bits).astype(np.int64)
    moved = (np.maximum.accumulate(counted - place) + place).astype(whole)
    found = np.empty(array.size, array.dtype)
    found[order] = np.where(moved < 0, moved ^ top, moved).view(array.dtype)
    return found.reshape(array.shape)


def run(model: nn.Module | torch.nn.Module, inputs: Any) -> list[Tensor]:
    """Every tensor that the model gives for the inputs, in its own precision."""
    args, kwargs = as_call(like(model, inputs))
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


def silent(original: nn.Module, kept: Kept) -> nn.Module:
    """The user's own module with zeros where something was removed."""
    model = copy.deepcopy(original)
    with torch.no_grad():
        for name, tensor in tensors(model).items():
            if name in kept:
                tensor.mul_(kept[name])
    return model


def twin(original: nn.Module, inputs: Any, kept: Kept) -> nn.Module:
    """Our own network without exactly these channels. Raises Unequal if no plan removes them."""
    coupling = passes.couple(passes.capture(original, *as_call(like(original, inputs))))
    lost = np.zeros(coupling.class_count, dtype=bool)
    left = np.zeros(coupling.class_count, dtype=bool)
    for name, value in coupling.state.items():
        if name in kept:
            stays = kept[name]
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
    try:
        return passes.apply(passes.Shrink(plan), coupling.program).program.module
    except ContractError as error:
        raise Unequal(f"no surgery removes these channels: {error}") from error
