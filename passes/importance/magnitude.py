"""How much a channel matters: everything that leaves with it, added up.

    class score   sum over the tensors it lies in of  score(slice) / sum of the scores of that axis
    channel       sum over its classes (one, or all those of a whole row)

So a score is in layers: what share of each layer goes with the channel, added up. One of 24
channels is as dear as 40 of 960, and a residual stream through thirty layers is fifteen times as
dear as a group between two of them, and saves accordingly more. A layer is what mixes: biases,
norms and other vectors follow it, and count only for channels that lie in nothing else.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..coupling.groups import Coupling
from ..ir.fake_weights import require_values
from ..ir.labels import varying
from ..ir.program import tensor_name
from ..operators import norm

BLOCK = 1 << 24
"""Numbers of a weight that are looked at together."""

Weights = Mapping[str, Tensor]
"""Weights by `state_dict` name. May be a mapping that reads each from a file when asked for it."""

Criterion = Callable[[Coupling, Weights, int], Tensor]
"""From the coupling, its weights and a seed to a score for each class: float64 [classes]."""


def l1(coupling: Coupling, weights: Weights, seed: int) -> Tensor:
    """Sum of absolute weights (Li et al., "Pruning Filters for Efficient ConvNets", 2017)."""
    return _magnitude(coupling, weights, lambda weight: weight.abs(), lambda total: total)


def l2(coupling: Coupling, weights: Weights, seed: int) -> Tensor:
    """Euclidean norm of the weights, over the whole group."""
    return _magnitude(coupling, weights, lambda weight: weight.square(), lambda total: total.sqrt())


def bn_scale(coupling: Coupling, weights: Weights, seed: int) -> Tensor:
    """Absolute scale of the norm that follows (Liu et al., "Network Slimming", 2017).

    Channels without a norm are scored by `l2`; both are shares of a layer, so they compete fairly.
    """
    scales = {
        name
        for node in coupling.program.calls()
        if node.target in norm.RULES and (name := tensor_name(node, "weight"))
    }
    scored = _magnitude(coupling, weights, lambda w: w.abs(), lambda total: total, only=scales)
    plain = l2(coupling, weights, seed)
    return torch.where(scored > 0, scored, plain)


def seeded(coupling: Coupling, weights: Weights, seed: int) -> Tensor:
    """Random scores: the baseline that any criterion has to beat. Needs no values of weights."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(coupling.class_count, generator=generator, dtype=torch.float64)
    places = {
        name: [drawn[coupling.classes[array]] for array in coupling.state[name].arrays]
        for name in _layers(coupling)
    }
    return shares(coupling, places)


def fpgm(coupling: Coupling, weights: Weights, seed: int) -> Tensor:
    """Distance from all others of its axis (He et al., "Filter Pruning via Geometric Median")."""

    def places() -> Iterator[tuple[str, list[Tensor]]]:
        for name, weight in _parameters(coupling, weights):
            found = []
            for array in coupling.state[name].arrays:
                axes = varying(array)
                rest = [axis for axis in range(weight.dim()) if axis not in axes]
                slices = weight.double().permute(*axes, *rest)
                flat = slices.reshape(array.numel(), -1)
                found.append(torch.cdist(flat, flat).sum(1).reshape(slices.shape[: len(axes)]))
            yield name, found

    return shares(coupling, places())


def lamp(coupling: Coupling, weights: Weights, seed: int) -> Tensor:
    """Square over the squares of all that are no smaller (Lee et al., "LAMP", 2021)."""

    def finish(total: Tensor) -> Tensor:
        flat, order = total.reshape(-1).sort(descending=True)
        found = torch.empty_like(flat)
        found[order] = flat / flat.cumsum(0).clamp(min=1e-300)
        return found.reshape(total.shape)

    return _magnitude(coupling, weights, lambda weight: weight.square(), finish)


CRITERIA: Mapping[str, Criterion] = {
    "bn-scale": bn_scale,
    "fpgm": fpgm,
    "l1": l1,
    "l2": l2,
    "lamp": lamp,
    "random": seeded,
}


def _magnitude(
    coupling: Coupling,
    weights: Weights,
    element: Callable[[Tensor], Tensor],
    finish: Callable[[Tensor], Tensor],
    only: set[str] | None = None,
) -> Tensor:
    def places() -> Iterator[tuple[str, list[Tensor]]]:
        for name, weight in _parameters(coupling, weights, only):
            arrays = coupling.state[name].arrays
            yield name, [finish(total) for total in totals(weight, arrays, element)]

    return shares(coupling, places())


def _parameters(
    coupling: Coupling, weights: Weights, only: set[str] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """The parameters that carry channels, one after another."""
    names = _layers(coupling) if only is None else [n for n in _carrying(coupling) if n in only]
    for name in names:
        weight = weights[name].detach()
        require_values([weight], "this criterion")
        yield name, weight


def _carrying(coupling: Coupling) -> list[str]:
    """The parameters that carry channels."""
    tensors = coupling.program.tensors().items()
    return [name for name, tensor in tensors
            if isinstance(tensor, nn.Parameter) and coupling.state[name].arrays]  # fmt: skip


def _layers(coupling: Coupling) -> list[str]:
    """Those that mix channels; and vectors whose channels lie in none of those."""
    tensors = coupling.program.tensors()
    names = _carrying(coupling)
    matrices = [name for name in names if tensors[name].dim() >= 2]
    vectors = [name for name in names if tensors[name].dim() < 2]
    covered = torch.zeros(coupling.class_count, dtype=torch.bool)
    for name in matrices:
        for array in coupling.state[name].arrays:
            covered[coupling.classes[array]] = True

    def alone(name: str) -> bool:
        return not all(bool(covered[coupling.classes[one]].all())
                       for one in coupling.state[name].arrays)  # fmt: skip

    return matrices + [name for name in vectors if alone(name)]


def shares(
    coupling: Coupling,
    places: Mapping[str, list[Tensor]] | Iterable[tuple[str, list[Tensor]]],
) -> Tensor:
    """Scores of all classes, from a score for each slice along each label array of parameters.

    Each counts by its share of the sum along its axis.
    """
    score = torch.zeros(coupling.class_count, dtype=torch.float64)
    for name, scores in places.items() if isinstance(places, Mapping) else places:
        for array, place in zip(coupling.state[name].arrays, scores, strict=True):
            total = place.sum()
            if total > 0:
                classes = coupling.classes[array].reshape(-1)
                score.index_add_(0, classes, (place / total).reshape(-1))
    return score


def totals(
    weight: Tensor, arrays: Sequence[Tensor], element: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """For each label array: the sum of `element` over all axes along which it does not vary.

    In float64, a block of the first axis at a time: the whole would take four times the memory.
    """
    if not arrays:
        return []
    totals = [torch.zeros([weight.shape[a] for a in varying(one)], dtype=torch.float64)
              for one in arrays]  # fmt: skip
    rows = max(BLOCK // max(weight[:1].numel(), 1), 1) if weight.dim() else 1
    for start in range(0, len(weight), rows):
        block = element(weight[start : start + rows].double())
        for array, total in zip(arrays, totals, strict=True):
            rest = [axis for axis in range(weight.dim()) if axis not in varying(array)]
            here = total[start : start + rows] if 0 not in rest else total
            here += block.sum(rest) if rest else block
    return totals


def channel_scores(
    coupling: Coupling, criterion: str, seed: int = 0, weights: Weights | None = None
) -> Tensor:
    """Scores of all channels: float64 [channels]. `criterion` is a name in `CRITERIA`.

    `weights` are the program's own if they are not given.
    """
    weights = coupling.program.tensors() if weights is None else weights
    return of_channels(coupling, CRITERIA[criterion](coupling, weights, seed))


def of_channels(coupling: Coupling, score: Tensor) -> Tensor:
    """From scores of classes to scores of channels: sums over what goes together."""
    classes, owner = coupling.members
    total = torch.zeros(coupling.channel_count, dtype=torch.float64)
    return total.index_add(0, owner, score[classes])
