"""ResNet-56 on CIFAR-10, half of its MACs: repaired from some images, then distilled for a while.

`python -m benchmarks.accuracy.distillation images=30000 epochs=5` runs and records it.

The images to learn from are unlabelled, flipped and shifted at random; a tenth of them is held out
and says which state is the best. All 10,000 test images count, in ONNX Runtime.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks import recording
from benchmarks.accuracy.networks import loaders, version
from compressor import Budget, Training, compress
from compressor.loading.calibration_data import Data
from compressor.metrics.evaluate import compared, evaluations
from compressor.onnx.runtime import OnnxModel
from compressor.process.progress import Lines


class Moved(Dataset[Tensor]):
    """Images, each time flipped or not and shifted by up to four pixels. [3, 32, 32]"""

    def __init__(self, images: Tensor) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        image = self._images[index]
        image = image.flip(-1) if torch.rand(()) < 0.5 else image
        down, right = torch.randint(9, (2,)).tolist()
        return torch.nn.functional.pad(image, (4, 4, 4, 4))[:, down : down + 32, right : right + 32]


@dataclass(frozen=True)
class Result:
    """One run, with what it took."""

    depth: int
    images: int
    epochs: int
    learning_rate: float
    batch_size: int
    precision: str
    calibration: int
    """Images that the repair is given."""
    feature_weight: float
    """Weight of the features beside the outputs."""
    macs: float
    original: float
    repaired: float
    distilled: float
    scores: list[float]
    """On the held-out images, before and after each epoch: negative losses."""
    stages: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def run(
    depth: int = 56,
    images: int = 30_000,
    epochs: int = 5,
    learning_rate: float = 2e-3,
    batch_size: int = 64,
    precision: str = "no",
    calibration: int = 1024,
    feature_weight: float = Training.feature_weight,
) -> Result:
    """Repair and distil; the same build without distillation stands beside it."""
    load = loaders()
    given, _ = load.cifar10("train", images)
    tests, classes = load.cifar10("test")
    training = Training(
        distill=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        precision=precision,
        feature_weight=feature_weight,
    )
    watch = Lines()
    built = compress(
        load.cifar_resnet(depth),
        given[:2],
        budget=Budget(macs=0.5),
        data=list(given[:calibration].split(64)),
        training=training,
        train_data=Moved(given),
        watch=watch,
    )
    assert built.repaired is not None
    pairs = list(zip(tests.split(100), classes.split(100), strict=True))
    judged = evaluations("accuracy", Data(pairs, built.original))
    start = time.perf_counter()
    found = compared(
        judged,
        OnnxModel(built.original_onnx.data, built.original),
        OnnxModel(built.onnx.data, built.small),
    )["accuracy"]
    watch.seconds["evaluate"] = time.perf_counter() - start
    repaired = built.repaired.program.module
    with torch.no_grad():
        guesses = torch.cat([repaired(batch).argmax(1) for batch, _ in pairs])
    return Result(
        depth,
        images,
        epochs,
        learning_rate,
        batch_size,
        precision,
        calibration,
        feature_weight,
        built.plan.reached / built.plan.dense,
        found["original"],
        float((guesses == classes).double().mean()),
        found["small"],
        built.measured["training"]["phases"][0]["scores"],
        {name: round(took, 1) for name, took in watch.seconds.items()},
    )


def main() -> None:
    """Run it, and record it. ``name=value`` are arguments of `run`."""
    torch.set_num_threads(1)
    pairs = [one.split("=") for one in sys.argv[1:]]
    found = run(**{name: TYPES[name](value) for name, value in pairs})
    print(json.dumps(found.to_json(), indent=1))
    name = f"accuracy-distillation-resnet{found.depth}"
    recording.record(name, {"version": version(), **found.to_json()})


TYPES: dict[str, Any] = {
    "depth": int,
    "images": int,
    "epochs": int,
    "learning_rate": float,
    "batch_size": int,
    "precision": str,
    "calibration": int,
    "feature_weight": float,
}

if __name__ == "__main__":
    main()
