"""Torch-Pruning at the same multiply-accumulates, used as its examples use it.

Global pruning in small steps until a budget is met, the classifier left alone; afterwards batch
norms are re-estimated from the same inputs. Criteria with gradients get those of the network's own
most likely classes: there are no labels here.
"""

import copy
import time
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.accuracy.networks import network

STEPS = 200
BUDGETS = (0.7, 0.5, 0.33)
CRITERIA = ("l1", "l2", "bn-scale", "fpgm", "lamp", "taylor", "random")


def importance(criterion: str) -> Any:
    """Torch-Pruning's object of this name in `CRITERIA`."""
    import torch_pruning as tp

    made = {
        "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
        "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "bn-scale": tp.importance.BNScaleImportance,
        "fpgm": tp.importance.FPGMImportance,
        "lamp": tp.importance.LAMPImportance,
        "taylor": tp.importance.GroupTaylorImportance,
        "random": tp.importance.RandomImportance,
    }
    return made[criterion]()


def row(name: str, budget: float, criterion: str) -> dict[str, Any]:
    """Prune to the budget; accuracies as sliced, and with batch norms re-estimated."""
    found = network(name)
    macs, model, seconds = pruned(name, criterion)[budget]
    model = copy.deepcopy(model)
    sliced = found.accuracy(model)
    reestimate(model, found.calibration)
    return {
        "macs": macs,
        "accuracy": {"sliced": sliced, "statistics": found.accuracy(model)},
        "seconds": {"prune": seconds},
    }


@lru_cache(maxsize=1)
def pruned(name: str, criterion: str) -> dict[float, tuple[float, nn.Module, float]]:
    """For each budget the share of the MACs, the network and the seconds, on one pruner's way."""
    import torch_pruning as tp

    start = time.perf_counter()
    images = network(name).calibration
    torch.manual_seed(0)
    model = copy.deepcopy(network(name).model)
    if criterion == "taylor":
        _backward(model, images)
    dense, _ = tp.utils.count_ops_and_params(model, images[:1])
    pruner = tp.pruner.BasePruner(
        model,
        images[:1],
        importance=importance(criterion),
        global_pruning=True,
        pruning_ratio=0.95,
        max_pruning_ratio=0.95,
        iterative_steps=STEPS,
        ignored_layers=[part for part in model.modules() if isinstance(part, nn.Linear)],
    )
    found: dict[float, tuple[float, nn.Module, float]] = {}
    for _ in range(STEPS):
        pruner.step()
        macs, _ = tp.utils.count_ops_and_params(model, images[:1])
        for budget in BUDGETS:
            if macs <= budget * dense and budget not in found:
                took = time.perf_counter() - start
                found[budget] = macs / dense, copy.deepcopy(model).eval(), took
                found[budget][1].zero_grad()
        if len(found) == len(BUDGETS):
            break
    return found


def _backward(model: nn.Module, images: Tensor) -> None:
    for part in images[:256].split(32):
        logits = model(part)
        F.cross_entropy(logits, logits.argmax(1)).backward()


@torch.no_grad()
def reestimate(model: nn.Module, images: Tensor) -> None:
    """Averages over all inputs, as `torch.optim.swa_utils.update_bn` takes them."""
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    for part in images.split(128):
        model(part)
    model.eval()
