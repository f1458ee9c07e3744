"""The networks of the experiment, with weights by seed, and what is done with them."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.accuracy.networks import network as trained
from compressor import passes
from compressor.base.optional import torchvision
from compressor.config import Recipe
from compressor.onnx.export import export, simplify
from compressor.onnx.runtime import batches_of
from compressor.process.progress import Watch
from compressor.timing.timing import Timing
from models._random import normal, randomise, seeded

NAMES = (
    "resnet18", "mobilenet_v2", "resnet50", "efficientnet_b0", "convnext_tiny", "vit_b_16", "bert",
)  # fmt: skip
CHAINS = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0")
"""Those whose code follows the sizes of its layers: the same can be written by hand."""
HALF = 0.3
"""Torch-Pruning's ratio that leaves about half of the MACs."""
SEARCHES = 8
"""Of its ratio that leaves as many MACs with rounded widths."""


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
    if name == "resnet56":
        return trained(name).model, normal(2, 3, 32, 32)
    build = getattr(torchvision().models, name)
    return seeded(lambda: build(weights=None), seed).eval(), normal(2, 3, 224, 224)


def coupled(name: str, seed: int = 0) -> passes.Coupling:
    """Captured, with its groups."""
    model, x = made(name, seed)
    return passes.couple(passes.capture(model, (x,), {}))


def timing(coupling: passes.Coupling, seconds: float, threads: int = 1) -> Timing:
    """Its table and races."""
    program = coupling.program
    batch = batches_of(program, (program.args, dict(program.kwargs)))[0]
    return Timing(coupling, Recipe.of(bench_seconds=seconds, threads=threads), Watch(), batch)


def written(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network, built of new layers that have the sizes of these weights; all are random."""
    model = copy.deepcopy(model)
    for name, part in list(model.named_modules()):
        if not any(True for _ in part.parameters(recurse=False)):
            continue
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, _layer(part, tensors[f"{name}.weight"].shape))
    return randomise(model, 1).eval()


def _layer(part: nn.Module, shape: torch.Size) -> nn.Module:
    """A new layer like this one, with a weight of this shape."""
    if isinstance(part, nn.BatchNorm2d):
        return nn.BatchNorm2d(shape[0], eps=part.eps)
    if isinstance(part, nn.Linear):
        return nn.Linear(shape[1], shape[0], part.bias is not None)
    if isinstance(part, nn.Conv2d):
        groups = 1 if part.groups == 1 else shape[0] // shape[1]
        return nn.Conv2d(
            shape[1] * groups, shape[0], part.kernel_size, part.stride, part.padding,
            part.dilation, groups, part.bias is not None,
        )  # fmt: skip
    raise TypeError(f"{type(part).__name__} is not written here")


def exported(program: passes.Program) -> bytes:
    """As builds do it."""
    data = export(program)
    return simplify(data).data or data


def peer(name: str, unit: int | None, wanted: float | None = None) -> tuple[bytes, float]:
    """Torch-Pruning's pruned network, exported like ours, and its share of the MACs.

    Its ratio is `HALF`; or where MACs are `wanted`, the one that comes nearest to them.
    """
    if wanted is None:
        model, kept = _pruned(name, HALF, unit)
    else:
        low, high, found = 0.0, 0.8, list[tuple[nn.Module, float]]()
        for _ in range(SEARCHES):
            share = (low + high) / 2
            found.append(_pruned(name, share, unit))
            low, high = (share, high) if found[-1][1] > wanted else (low, share)
        model, kept = min(found, key=lambda one: abs(one[1] - wanted))
    return exported(passes.capture(model.eval(), (made(name)[1],), {})), kept


def _pruned(name: str, share: float, unit: int | None) -> tuple[nn.Module, float]:
    """Without this share of the channels of each layer, and with this share of the MACs."""
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
        pruning_ratio=share,
        ignored_layers=heads[-1:],
        round_to=unit,
    ).step()
    macs, _ = tp.utils.count_ops_and_params(model, one)
    return model, macs / dense


def ratio(row: Any) -> dict[str, float]:
    """A row of a race."""
    found = row.ratio
    return {"ratio": found.median, "low": found.low, "high": found.high}
