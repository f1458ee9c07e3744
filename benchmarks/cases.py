"""What is compressed: the reference models, and torchvision's with random weights."""

from typing import Any

from torch import nn

from compressor.base.optional import torchvision
from compressor.loading import load_inputs, load_model
from models._random import normal, seeded
from models.catalog import CATALOG
from models.zoo.cases import Case

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
