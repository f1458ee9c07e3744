"""The smallest member of every family of timm.

A family is a source file of timm and what is left of a model's name without its sizes:
vit_tiny_patch16_224 and vit_huge_patch14_224 are both `vision_transformer: vit`. Sizes are counted
on the meta device once, and kept in build/coverage/ for the installed version.
"""

import json
import re
import warnings
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.base.optional import torchvision
from models._random import seeded
from models.zoo.cases import Case
from models.zoo.sizes import SIDES, smallest

torchvision()  # timm imports it

import timm  # noqa: E402
from timm.models import _registry  # noqa: E402

CACHE = Path("build/coverage")
LARGE = 384
"""Side of an image, in pixels."""
_SIZES = re.compile(
    "tiny|small|base|large|huge|giant|gigantic|nano|pico|femto|atto|zepto|micro|little|medium|"
    "big|mini|enormous|xlarge|xxlarge|xsmall|wee|pwee|dwee|dpwee|betwixt|mediumd|dlittle|giantopt|"
    r"x*tiny|x*[stlx]|[mnbdpgeh]|[a-z]{0,2}\d+\w*|patch\d+|window\d+\w*"
)


def cases() -> tuple[Case, ...]:
    """One case a family, by name."""
    return tuple(Case(name, partial(make, name), family) for name, family in _chosen().items())


def make(name: str) -> tuple[nn.Module, Any]:
    """A model with random weights and statistics, and two images of the smallest side.

    One where it takes large images alone: the proof runs in float64.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = seeded(lambda: timm.create_model(name), 0)
    channels, *own = model.default_cfg.get("input_size", (3, 224, 224))
    fixed = model.default_cfg.get("fixed_input_size", False)
    sides = [own[0]] if fixed else sorted({*SIDES, own[0]})
    return model, smallest(model, lambda side: (1 + (side < LARGE), channels, side, side), sides)


def _chosen() -> dict[str, str]:
    """Smallest model -> family, for every family, sorted by name."""
    path = CACHE / f"timm-{timm.__version__}.json"
    if not path.exists():
        families = defaultdict(list)
        for name in timm.list_models(exclude_filters="test_*"):  # timm's own test dummies
            families[_family(name)].append(name)
        found = {min(names, key=_parameters): family for family, names in families.items()}
        CACHE.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dict(sorted(found.items())), indent=1))
    chosen: dict[str, str] = json.loads(path.read_text())
    return chosen


def _family(name: str) -> str:
    assert timm.is_model(name)
    words = [
        re.sub(r"(?<!v)\d+[a-z]*$", "", word)
        for word in name.split("_")
        if not _SIZES.fullmatch(word)
    ]
    return f"{_registry._model_to_module[name]}: {'_'.join(filter(None, words))}"


def _parameters(name: str) -> int:
    """How many parameters a model has; those that cannot be built on the meta device come last."""
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = timm.create_model(name)
    except (NotImplementedError, RuntimeError):  # reads a value while it builds
        return 1 << 62
    return sum(one.numel() for one in model.parameters())
