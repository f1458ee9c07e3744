"""What is compressed: the reference models, and torchvision's with random weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from compressor.base.optional import torchvision
from compressor.loading import load_inputs, load_model
from models._random import normal, seeded
from models.catalog import CATALOG


@dataclass(frozen=True)
class Case:
    """A network to shrink: `make` gives the model and its example inputs, as `compress` takes them.

    `frozen` is part of the reason that the report must give where nothing, or too little, can go.
    """

    name: str
    make: Callable[[], tuple[nn.Module, Any]]
    family: str = ""
    frozen: str = ""


VISION = (
    "resnet50",
    "mobilenet_v3_small",
    "densenet121",
    "shufflenet_v2_x1_0",
    "regnet_y_400mf",
    "convnext_tiny",
    "swin_t",
    "vit_b_16",
    "efficientnet_b0",
)


def reference(name: str) -> Case:
    """A model of the catalogue, loaded as a user would."""

    def make() -> tuple[nn.Module, Any]:
        model, namespace = load_model(CATALOG[name])
        return model, load_inputs(namespace, None, None)

    return Case(name, make)


def vision(name: str) -> Case:
    """A torchvision classifier with random weights and statistics, at 224 pixels."""

    def make() -> tuple[nn.Module, Any]:
        build = getattr(torchvision().models, name)
        return seeded(lambda: build(weights=None), 0), normal(2, 3, 224, 224)

    return Case(name, make)


SUITES: dict[str, tuple[Case, ...]] = {
    "reference": tuple(map(reference, CATALOG)),
    "torchvision": tuple(map(vision, VISION)),
}
