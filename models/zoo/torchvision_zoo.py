"""torchvision: every classifier, segmentation, detection, video and optical-flow model.

Detection models filter and sort boxes, which no graph of fixed shapes holds. What is taken of them
is everything between the images and the raw predictions: the backbone with its pyramid, and the
heads. Pooling to a fixed size stands in for cutting out regions: it leaves channels as they are.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from compressor.base.optional import torchvision
from models._random import normal, seeded
from models.zoo.cases import Case
from models.zoo.sizes import SIDES, smallest

_FAMILIES = ("segmentation", "detection", "video", "optical_flow", "quantization")
_GIANTS = ("regnet_y_128gf", "vit_h_14")
"""Last, because they alone need more than 8 GB."""


class Detector(nn.Module):
    """Backbone and heads of a detection model, without what selects boxes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.head = model.rpn.head if hasattr(model, "rpn") else model.head
        self.regions = getattr(model, "roi_heads", None)

    def forward(self, images: Tensor) -> list[Any]:
        maps = list(self.backbone(images).values())
        found = [self.head(maps)]
        if self.regions is not None:
            boxes = self.regions.box_head(functional.adaptive_avg_pool2d(maps[0], 7))
            found.append(self.regions.box_predictor(boxes))
            for kind in ("mask", "keypoint"):
                if getattr(self.regions, f"{kind}_head", None) is not None:
                    cut = functional.adaptive_avg_pool2d(maps[0], 14)
                    head = getattr(self.regions, f"{kind}_head")(cut)
                    found.append(getattr(self.regions, f"{kind}_predictor")(head))
        return found


def cases() -> tuple[Case, ...]:
    """All models but the quantised ones, which are these networks again."""
    models = torchvision().models
    names = sorted(models.list_models(), key=lambda name: (name in _GIANTS, name))
    families = {name: _family(models.get_model_builder(name).__module__) for name in names}
    return tuple(
        Case(name, partial(make, name, family), family)
        for name, family in families.items()
        if family != "quantization"
    )


def _family(module: str) -> str:
    return next((one for one in _FAMILIES if f".{one}." in module), "classification")


def make(name: str, family: str) -> tuple[nn.Module, Any]:
    """A model with random weights and statistics, and a batch of two at its smallest size."""
    build = torchvision().models.get_model_builder(name)
    extra = (
        {} if family in ("classification", "video", "optical_flow") else {"weights_backbone": None}
    )
    model = seeded(lambda: build(weights=None, **extra), 0)
    if family == "optical_flow":
        return model, (normal(2, 3, 128, 128), normal(2, 3, 128, 128, seed=1))
    if family == "detection":
        model = Detector(model).eval()
    if family == "video":
        return model, smallest(model, lambda side: (2, 3, 16, side, side), (64, 112, 224))
    fixed = getattr(model, "image_size", None)  # vision transformers know theirs
    return model, smallest(model, lambda side: (2, 3, side, side), [fixed] if fixed else SIDES)
