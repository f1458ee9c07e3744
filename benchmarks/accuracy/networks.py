"""Trained networks with data, from the folder `shared/data` beside the checkout."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "load.py"
BATCH = 32


@dataclass(frozen=True, eq=False)
class Network:
    """A classifier, unlabelled calibration inputs, and labelled test inputs."""

    model: nn.Module
    calibration: Tensor
    test: tuple[Tensor, Tensor]

    def accuracy(self, predict: Callable[[Tensor], Tensor], first: int | None = None) -> float:
        """The share of (the first) test inputs that it gets right."""
        inputs, labels = (part[:first] for part in self.test)
        with torch.no_grad():
            found = torch.cat([predict(part).argmax(1) for part in inputs.split(BATCH)])
        return float((found == labels).double().mean())


@cache
def loaders() -> ModuleType:
    """`load.py` beside the data. Raises FileNotFoundError where there is none."""
    if not available():
        raise FileNotFoundError(f"there is no {DATA}: the networks and their data")
    spec = importlib.util.spec_from_file_location("shared_data", DATA)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.append(str(DATA.parent))  # it imports its neighbours when they are asked for
    spec.loader.exec_module(module)
    return module


def available() -> bool:
    """Whether the data are there."""
    return DATA.is_file()


@cache
def network(name: str, inputs: int = 1024) -> Network:
    """A trained network, with so many training images without labels, or as many as there are.

    `resnet20` and `resnet56` are of CIFAR-10, `mobilenet_v1` of ImageNet.
    """
    load = loaders()
    if name == "mobilenet_v1":
        pictures = [load.imagenet(split) for split in ("calibration", "test")]
        return Network(load.mobilenet_v1(), pictures[0][0], pictures[1])
    images, _ = load.cifar10("train", inputs)
    return Network(
        load.cifar_resnet(int(name.removeprefix("resnet"))), images, load.cifar10("test")
    )


def version() -> str | None:
    """The commit that is checked out, which rows are of; None outside a repository."""
    done = subprocess.run(
        ["git", "rev-parse", "--short=7", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None
