"""Who is more accurate at half the latency, without training? On CIFAR-10, with trained networks.

Torch-Pruning's ratio is searched by races until its model takes that long; its batch norms are
re-estimated from the same unlabelled images.
"""

import copy
from typing import Any

from torch import nn

from benchmarks.accuracy.networks import Network, network
from benchmarks.accuracy.peer import importance, reestimate
from benchmarks.latency.subjects import exported, ratio, timing
from compressor import compress, passes
from compressor.pipeline.variant_race import raced

HALF = 0.5
SECONDS = 20.0
SEARCH_SECONDS = 4.0
SEARCHES = 6
PEERS = tuple((unit, criterion) for unit in (8, 16) for criterion in ("l2", "bn-scale"))


def contest(name: str) -> dict[str, Any]:
    """Accuracies and measured ratios of ours and of Torch-Pruning's best."""
    found = network(name)
    example = found.calibration[:2]
    batches = [(part,) for part in found.calibration.split(32)]
    built = compress(
        found.model, (example,), data=batches, budget=passes.Budget(latency=HALF),
        bench_seconds=SECONDS,
    )  # fmt: skip
    own = raced(built)
    peers = [_peer(found, built.plan.coupling, *one) for one in PEERS]
    return {
        "dense": found.accuracy(found.model),
        "ours": {
            "accuracy": found.accuracy(built.module),
            **{key: own[key] for key in ("ratio", "low", "high", "noise")},
        },
        "peers": peers,
    }


def _peer(found: Network, coupling: passes.Coupling, unit: int, criterion: str) -> dict[str, Any]:
    """The largest model of Torch-Pruning that takes half the time, or hardly more."""
    quick, slow = (timing(coupling, seconds) for seconds in (SEARCH_SECONDS, SECONDS))
    low, high = 0.05, 0.9
    best: tuple[float, nn.Module] | None = None
    for _ in range(SEARCHES):
        share = (low + high) / 2
        model = pruned(found, share, unit, criterion)
        took = ratio(quick.race(_pair(quick.original, model, found)).rows[1])["ratio"]
        if best is None or abs(took - HALF) < abs(best[0] - HALF):
            best = (took, model)
        low, high = (share, high) if took > HALF else (low, share)
    assert best is not None
    model = best[1]
    reestimate(model, found.calibration)
    race = slow.race(_pair(slow.original, model, found))
    return {
        "unit": unit, "criterion": criterion, "accuracy": found.accuracy(model.eval()),
        **ratio(race.rows[1]), "noise": ratio(race.control),
    }  # fmt: skip


def _pair(original: bytes, model: nn.Module, found: Network) -> dict[str, bytes]:
    program = passes.capture(model, (found.calibration[:2],), {})
    return {"original": original, "pruned": exported(program)}


def pruned(found: Network, share: float, unit: int, criterion: str) -> nn.Module:
    """Torch-Pruning's network without this share of the channels, by global scores."""
    import torch_pruning as tp

    model = copy.deepcopy(found.model)
    tp.pruner.BasePruner(
        model,
        found.calibration[:1],
        importance=importance(criterion),
        global_pruning=True,
        pruning_ratio=share,
        max_pruning_ratio=0.95,
        round_to=unit,
        ignored_layers=[part for part in model.modules() if isinstance(part, nn.Linear)],
    ).step()
    return model.eval()
