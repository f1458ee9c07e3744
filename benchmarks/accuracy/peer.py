"""Torch-Pruning at the same multiply-accumulates, used as its examples use it.

Global pruning in small steps until the budget is met, the classifier left alone; afterwards batch
norms are re-estimated from the same inputs. Criteria with gradients get those of the network's own
most likely classes: there are no labels here.
"""

import copy
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.accuracy.networks import network

STEPS = 200
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


def row(
    name: str, budget: float, criterion: str, inputs: int = 1024, first: int | None = None
) -> dict[str, Any]:
    """Prune to the budget; accuracies as sliced, and with batch norms re-estimated."""
    import torch_pruning as tp

    found = network(name)
    images = found.calibration[:inputs]
    start = time.perf_counter()
    torch.manual_seed(0)
    model = copy.deepcopy(found.model)
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
    macs = dense
    for _ in range(STEPS):
        pruner.step()
        macs, _ = tp.utils.count_ops_and_params(model, images[:1])
        if macs <= budget * dense:
            break
    model.zero_grad()
    sliced = found.accuracy(model.eval(), first)
    reestimate(model, images)
    return {
        "macs": macs / dense,
        "accuracy": {"sliced": sliced, "statistics": found.accuracy(model.eval(), first)},
        "seconds": {"all": time.perf_counter() - start},
    }


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
