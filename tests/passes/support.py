"""What the tests of the compiler share: captures that are made once, and plans made by hand."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from compressor.passes.proof.silenced_reference import silenced
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor import passes
from tests.passes.cases import CASES
from tests.passes.networks import NETWORKS, network

NONE = torch.zeros(0, dtype=torch.long)


@cache
def captured(name: str) -> tuple[nn.Module, passes.Program]:
    """The network of a case, and what was captured of it."""
    model = CASES[name].build()
    return model, passes.capture(model, CASES[name].args, {})


@cache
def coupled(name: str) -> passes.Coupling:
    """The coupling of a case, or of one of the networks in a user's own words."""
    if name in NETWORKS:
        return passes.couple(passes.capture(network(name), (NETWORKS[name][1],), {}))
    return passes.couple(captured(name)[1])


def by_hand(coupling: passes.Coupling, channels: Tensor) -> passes.Plan:
    """A plan that nobody chose: exactly these channels go."""
    return passes.Plan(coupling, passes.Budget(channels=0.5), channels.sort().values)


def random_plan(coupling: passes.Coupling, seed: int) -> passes.Plan:
    """A random number of steps of each group, at least one in all; rows lose other entries."""
    generator = torch.Generator().manual_seed(seed)
    gone = [NONE]
    for group in coupling.groups:
        least = int(len(gone) == 1 and group.size > 1)
        steps = int(torch.randint(least, group.size, (1,), generator=generator))
        if steps:
            gone += [cell[torch.randperm(len(cell), generator=generator)[:steps]]
                     for cell in group.cells]  # fmt: skip
    return by_hand(coupling, torch.cat(gone))


def uniform_plan(coupling: passes.Coupling) -> passes.Plan:
    """The chosen plan that keeps half of the channels, or the least more that widths allow."""
    options = passes.Options(uniform=True, round_to=1)
    dense = int(passes.Costs(coupling, "channels").dense)
    for amount in (0.5, *range(dense // 2 + 1, dense)):
        try:
            return passes.choose(coupling, passes.Budget(channels=amount), options)
        except passes.UsageError as error:
            refusal = error
    raise refusal


def shrunk(plan: passes.Plan) -> passes.Program:
    return passes.apply(passes.Shrink(plan), plan.coupling.program).program


def of_batch(size: int, given: Any) -> Any:
    """The inputs with another batch size: the examples, then the same mirrored."""

    def resized(leaf: Any) -> Any:
        mirrored = leaf.flip(-1) if leaf.is_floating_point() else leaf.flip(0)
        return torch.cat([leaf, mirrored, leaf])[:size]

    return pytree.tree_map_only(Tensor, resized, given)


def doubled(given: Any) -> Any:
    return pytree.tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, given)


def silent_original(model: nn.Module, plan: passes.Plan) -> nn.Module:
    """The user's own module, not the captured graph, with removed channels zero, in float64."""
    twin = copy.deepcopy(model).double()
    parameters = twin.named_parameters(remove_duplicate=False)
    own = {**dict(parameters), **dict(twin.named_buffers(remove_duplicate=False))}
    with torch.no_grad():
        for name, tensor in silenced(plan.coupling, plan.sizes).items():
            if name in own:
                own[name].copy_(tensor)
    return twin.eval()


def outputs(network: Callable[..., Any], args: Any) -> list[Tensor]:
    """Every tensor that comes out, without gradients, computed in float64 throughout."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            return [leaf for leaf in pytree.tree_leaves(network(*args)) if leaf is not None]
    finally:
        torch.set_default_dtype(before)
