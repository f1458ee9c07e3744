"""The networks of the experiment, with weights by seed, and what is done with them."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from compressor import passes
from compressor.export import export, simplify
from compressor.latency.timing import Timing
from compressor.optional import torchvision
from compressor.recipe import Recipe
from compressor.stages import Watch
from models._random import normal, seeded

NAMES = (
    "resnet18", "mobilenet_v2", "resnet50", "efficientnet_b0", "convnext_tiny", "vit_b_16", "bert",
)  # fmt: skip
PEERS = {"default": None, "round 8": 8, "round 16": 16}


class Encoder(nn.Module):
    """A BERT-base-shaped encoder, on 128 tokens that are embedded already."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(768, 12, 3072, 0.0, "gelu", batch_first=True)
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(12))
        self.head = nn.Linear(768, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, 0])


def made(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A network in eval mode, and example inputs."""
    if name == "bert":
        return seeded(Encoder, seed).eval(), normal(2, 128, 768)
    build = getattr(torchvision().models, name)
    return seeded(lambda: build(weights=None), seed).eval(), normal(2, 3, 224, 224)


def coupled(name: str, seed: int = 0) -> passes.Coupling:
    """Captured, with its groups."""
    model, x = made(name, seed)
    return passes.couple(passes.capture(model, (x,), {}))


def timing(coupling: passes.Coupling, seconds: float, threads: int = 1) -> Timing:
    """Its table and races."""
    return Timing(coupling, Recipe.of(bench_seconds=seconds, threads=threads), Watch())


def exported(program: passes.Program) -> bytes:
    """As builds do it."""
    data = export(program)
    return simplify(data).data or data


def peer(name: str, ratio: float, round_to: int | None) -> tuple[bytes, float]:
    """Torch-Pruning's pruned network, exported like ours, and its share of the MACs."""
    import torch_pruning as tp

    model, x = made(name)
    one = x[:1]
    dense, _ = tp.utils.count_ops_and_params(model, one)
    torch.manual_seed(0)
    heads = [part for part in model.modules() if isinstance(part, nn.Linear)]
    tp.pruner.BasePruner(
        model,
        one,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=heads[-1:],
        round_to=round_to,
    ).step()
    macs, _ = tp.utils.count_ops_and_params(model, one)
    program = passes.capture(model.eval(), (x,), {})
    return exported(program), macs / dense


def ratio(row: Any) -> dict[str, float]:
    """A row of a race."""
    found = row.ratio
    return {"ratio": found.median, "low": found.low, "high": found.high}
