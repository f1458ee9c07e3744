"""One fault on one network: found, harmless, or survived?

    found      the proof, a contract or a crash came before anything could be published
    harmless   what would be published is right: it equals what the healthy passes make of the same
               kept indices, or the user's own module with zeros in its parameters
    survived   what would be published is wrong, and nothing said so

Published are the small network and its kept indices; only these are looked at. A fault that ties
too much, or frees too little, removes other channels and is harmless.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

import torch
from compressor.passes.base.errors import ContractError
from compressor.passes.ir.dtypes import float64_by_default, in_float64, widened
from compressor.passes.ir.leaves import fresh, tensors
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor import passes
from compressor.loading.calls import randomised
from tests.tools.faults.networks import Network, refused
from tests.tools.faults.planted import Fault

LIMIT = 1e-8
Chooser = Callable[[ModuleType, Any], Any]


@dataclass(frozen=True)
class Verdict:
    """What became of a fault on one network, under one plan."""

    network: str
    plan: str
    kind: str
    """untouched, harmless, found or survived"""
    by: str = ""
    """proof, contract, crash, or refusal (the user is told that it cannot be done)"""
    note: str = ""


# --- plans ---------------------------------------------------------------------------------------


def half(own: ModuleType, coupling: Any) -> Any:
    """Half of the channels of every group, or the least more that widths allow."""
    options = own.Options(uniform=True, round_to=1)
    dense = int(own.Costs(coupling, "channels").dense)
    for amount in (0.5, *range(dense // 2 + 1, dense)):
        try:
            return own.choose(coupling, own.Budget(channels=amount), options)
        except own.UsageError as error:
            refusal = error
    raise refusal


def anything(own: ModuleType, coupling: Any) -> Any:
    """Random steps of every group, rows too; each cell loses other entries."""
    generator = torch.Generator().manual_seed(1)
    gone = [torch.zeros(0, dtype=torch.long)]
    for group in coupling.groups:
        least = int(len(gone) == 1 and group.size > 1)
        steps = int(torch.randint(least, max(group.size, 1), (1,), generator=generator))
        gone += [cell[torch.randperm(len(cell), generator=generator)[:steps]]
                 for cell in group.cells]  # fmt: skip
    if not any(map(len, gone)):
        raise own.UsageError("no channel of this model can go")
    return own.Plan(coupling, own.Budget(channels=0.5), torch.cat(gone).sort().values)


PLANS: dict[str, Chooser] = {"half": half, "any": anything}


# --- the pipeline --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Release:
    """What would be published."""

    small: Any
    kept: dict[str, list[Any]]
    aliases: dict[str, str]

    def equals(self, other: "Release | None") -> bool:
        if other is None or self.kept != other.kept or self.aliases != other.aliases:
            return False
        mine, theirs = self.small.tensors(), other.small.tensors()
        return (
            str(self.small.module.graph) == str(other.small.module.graph)
            and mine.keys() == theirs.keys()
            and all(_same(tensor, theirs[name]) for name, tensor in mine.items())
        )


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and type(a) is type(b) and torch.equal(a, b)


def _shrunk(own: ModuleType, coupling: Any, chooser: Chooser) -> tuple[Any, Release]:
    plan = chooser(own, coupling)
    small = own.apply(own.Shrink(plan), coupling.program).program
    return plan, Release(small, plan.kept, dict(small.aliases))


def _program(own: ModuleType, network: Network, again: bool) -> Any:
    if again:
        args, kwargs = network.call
        return own.capture(network.model, args, kwargs)
    known = network.program
    given = {field.name: getattr(known, field.name) for field in fields(known)}
    return own.Program(**given)


def _proven(own: ModuleType, network: Network, plan: Any, small: Any) -> None:
    """As `compress` does it."""
    program = plan.coupling.program
    given = (program.args, dict(program.kwargs))
    own.prove(plan, small, [given, randomised(given, 0)])


def judge(own: ModuleType, fault: Fault | None, network: Network) -> list[Verdict]:
    """The verdict under every plan, of the passes `own` that have the fault in them."""
    try:
        program = _program(own, network, fault is not None and fault.captures)
        coupling = own.couple(program)
    except Exception as error:  # whatever the fault breaks
        return [_stopped(network, plan, error) for plan in PLANS]
    proves = fault is None  # the healthy ones must get through it
    return [_judge(own, network, coupling, name, proves) for name in PLANS]


def _judge(own: ModuleType, network: Network, coupling: Any, name: str, proves: bool) -> Verdict:
    healthy = _healthy(network, name)
    try:
        plan, release = _shrunk(own, coupling, PLANS[name])
        if release.equals(healthy) and not proves:
            return Verdict(network.name, name, "untouched")
        _proven(own, network, plan, release.small)
    except Exception as error:  # whatever the fault breaks
        if healthy is None and refused(error):
            return Verdict(network.name, name, "untouched")
        return _stopped(network, name, error)
    if release.equals(healthy):
        return Verdict(network.name, name, "untouched")
    wrong = _wrong(network, release)
    if not wrong:
        return Verdict(network.name, name, "harmless")
    return Verdict(network.name, name, "survived", note=wrong)


def _stopped(network: Network, plan: str, error: Exception) -> Verdict:
    kind = type(error).__name__
    note = f"{kind}: {error}".splitlines()[0][:150]
    if refused(error):
        return Verdict(network.name, plan, "harmless", "refusal", note)
    names = {"WrongError": "proof", "SilentError": "proof", "ContractError": "contract"}
    by = names.get(kind, "crash")
    return Verdict(network.name, plan, "found", by, note)


def _healthy(network: Network, name: str) -> Release | None:
    """What the healthy passes publish under the plan of the same name; None if they refuse."""
    if name not in network.published:
        try:
            network.published[name] = _shrunk(passes, network.coupling, PLANS[name])[1]
        except passes.UsageError:
            network.published[name] = None
    return network.published[name]


# --- the truth -----------------------------------------------------------------------------------


def _wrong(network: Network, release: Release) -> str:
    """What is wrong with a release that passed the proof; empty if nothing is."""
    program = network.program
    if release.aliases != dict(program.aliases):
        return "tied tensors under other names"
    removed = {}
    small = release.small.tensors()
    for name, tensor in program.tensors().items():
        if name not in small:
            if tensor.is_floating_point():
                return f"{name} is gone"
            continue
        mask = _kept_mask(tensor, release.kept.get(name), small[name])
        if mask is None:
            return f"the kept indices of {name} do not give its values"
        removed[name] = ~mask
    if missing := release.kept.keys() - removed.keys() - release.aliases.keys():
        return f"kept indices of {sorted(missing)[0]}, which the network does not have"
    plan = _same_plan(network.coupling, removed)
    if plan is not None:
        reference = passes.apply(passes.Shrink(plan), program).program
        gap = _gap(in_float64(reference), release.small, network)
        return "" if gap <= LIMIT else f"differs from the healthy passes' by {gap:.2g}"
    gap = _gap(_silent(network, removed), release.small, network)
    return "" if gap <= LIMIT else f"differs from the user's own module with zeros by {gap:.2g}"


def _kept_mask(tensor: Tensor, kept: list[Any] | None, small: Tensor) -> Tensor | None:
    """Which elements stay, if those are the small tensor; None if they are not."""
    mask = torch.ones(tensor.shape, dtype=torch.bool)
    ragged = None
    for dim, indices in enumerate(kept or []):
        if indices is None:
            continue
        if indices and isinstance(indices[0], list):
            ragged = dim
            continue
        along = torch.zeros(tensor.shape[dim], dtype=torch.bool)
        along[torch.tensor(indices, dtype=torch.long)] = True
        if along.nonzero().flatten().tolist() != indices:
            return None  # not ascending
        mask &= along.reshape([-1 if d == dim else 1 for d in range(tensor.dim())])
    if ragged is not None:
        _cut_rows(mask, ragged, kept[ragged] if kept else [])
    fits = tensor.numel() == 0 or torch.equal(tensor[mask], small.flatten())
    return mask if fits and int(mask.sum()) == small.numel() else None


def _cut_rows(mask: Tensor, dim: int, rows: list[list[int]]) -> None:
    """Rows keep other entries: `rows` lists those of every row that stays, in order."""
    front = mask.movedim(dim, -1)
    lead = 0
    while lead < front.dim() - 1 and int(front.flatten(lead + 1).any(-1).sum()) < len(rows):
        lead += 1
    stay = front.flatten(lead + 1).any(-1).nonzero()
    for place, own in zip(stay.tolist(), rows, strict=False):
        keep = torch.zeros(mask.shape[dim], dtype=torch.bool)
        keep[torch.tensor(own, dtype=torch.long)] = True
        front[tuple(place)] &= keep


def _same_plan(coupling: passes.Coupling, removed: dict[str, Tensor]) -> passes.Plan | None:
    """The healthy plan that removes exactly these elements, if there is one."""
    whole = torch.from_numpy(coupling.held.copy())
    for name, value in coupling.state.items():
        for array in value.arrays:
            rest = [d for d in range(array.dim()) if array.shape[d] == 1]
            gone = removed[name].amin(rest) if rest else removed[name]
            classes = coupling.classes[array].flatten()
            whole[classes[~gone.flatten()]] = False
    classes, owner = coupling.members
    if not len(owner):
        return None
    neutral = ~torch.from_numpy(coupling.held)
    goes = torch.ones(int(owner[-1]) + 1, dtype=torch.bool)
    goes[owner[~(whole | neutral)[classes]]] = False
    some = torch.zeros_like(goes)
    some[owner[whole[classes]]] = True
    channels = (goes & some).nonzero().flatten()
    plan = passes.Plan(coupling, passes.Budget(channels=0.5), channels)
    sizes = plan.sizes
    for name, value in coupling.state.items():
        if not torch.equal(sizes.stays(value).expand(value.shape), ~removed[name]):
            return None
    try:
        passes.apply(passes.Shrink(plan), coupling.program)
    except ContractError:
        return None
    return plan


def _silent(network: Network, removed: dict[str, Tensor]) -> Callable[..., Any]:
    """The user's own module in float64, with zeros for the removed elements."""
    twin = copy.deepcopy(network.model).double()
    tensors = dict(twin.named_parameters(remove_duplicate=False))
    tensors |= dict(twin.named_buffers(remove_duplicate=False))
    with torch.no_grad():
        for name, mask in removed.items():
            if name in tensors and not name.endswith("running_var"):
                tensors[name].masked_fill_(mask, 0.0)
    return twin.eval()


def _gap(reference: Any, small: Any, network: Network) -> float:
    """The largest relative difference over all variants of the inputs; infinite if it breaks."""
    worst = 0.0
    candidate = in_float64(small)
    with torch.no_grad(), float64_by_default():
        for call in network.variants:
            wide = pytree.tree_map(widened, call)
            args, kwargs = fresh(wide)
            wanted = tensors(reference(*args, **kwargs))
            args, kwargs = fresh(wide)
            try:
                found = tensors(candidate(*args, **kwargs))
            except Exception:  # it does not run at this batch size: as wrong as can be
                return float("inf")
            if len(wanted) != len(found):
                return float("inf")
            worst = max([worst, *(_far(a, b) for a, b in zip(wanted, found, strict=True))])
    return worst


def _far(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    a, b = a.double(), b.double()
    if not torch.equal(torch.isfinite(a), torch.isfinite(b)):
        return float("inf")
    a, b = (torch.nan_to_num(t, nan=0.0, posinf=0.0, neginf=0.0) for t in (a, b))
    scale = float(a.abs().max()) if a.numel() else 0.0
    return float((a - b).abs().max()) / (scale or 1.0) if a.numel() else 0.0
