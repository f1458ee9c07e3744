r"""A trained network and its data: the ResNet of `residual.py` on scikit-learn's 8 x 8 digits.

    1797 grey images, 8 x 8 - two thirds to train on
                            \ one third held out: `accuracy` sees these only

    digits_resnet()     the network, with the weights in models/weights/digits.safetensors
    example_inputs()    two training images
    calibration()       512 training images without their labels, in batches
    training()          all training images with their labels, as a data set
    accuracy(predict)   the share of held-out images that `predict` gets right

`python -m models.digits` trains it again, in about a minute, and overwrites the weights.
"""

import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from models.residual import Residual

WEIGHTS = Path(__file__).resolve().parent / "weights" / "digits.safetensors"
BATCH = 64


class Digits(NamedTuple):
    """Images float32 [n, 1, 8, 8] between 0 and 1; labels int64 [n]."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


@cache
def data() -> Digits:
    """The images in their fixed split: 1198 to train on, 599 held out, the digits in proportion."""
    from sklearn.datasets import load_digits  # slow to import, and only needed here
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(images).float().view(-1, 1, 8, 8) / 16
    train, test = train_test_split(
        range(len(labels)), test_size=1 / 3, random_state=0, stratify=labels
    )
    labels = torch.from_numpy(labels)
    return Digits(images[train], labels[train], images[test], labels[test])


def digits_resnet() -> nn.Module:
    """The trained network, in eval mode. [batch, 1, 8, 8] -> [batch, 10]"""
    if not WEIGHTS.is_file():
        raise FileNotFoundError(
            f"the trained weights {WEIGHTS} are missing; run `python -m models.digits` in the "
            "root of the checkout to train them (about a minute)"
        )
    with torch.random.fork_rng(devices=[]):
        model = Residual(colours=1)
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


def example_inputs() -> Tensor:
    """A six and a one. [2, 1, 8, 8]"""
    return data().train_images[1:3]


def calibration() -> Iterator[Tensor]:
    """512 training images without labels, eight batches of 64."""
    return iter(data().train_images[: 8 * BATCH].split(BATCH))


def training() -> TensorDataset:
    """All 1198 training images with their labels."""
    return TensorDataset(data().train_images, data().train_labels)


def accuracy(predict: Callable[[Tensor], Any]) -> dict[str, float]:
    """How many held-out images `predict` gets right, as a share.

    `predict` maps float32 [n, 1, 8, 8] to logits [n, 10], a tensor or an array.
    """
    held_out = data()
    right = 0
    with torch.no_grad():
        for images, labels in zip(
            held_out.test_images.split(BATCH), held_out.test_labels.split(BATCH), strict=True
        ):
            guesses = torch.as_tensor(predict(images)).argmax(1).cpu()
            right += int((guesses == labels).sum())
    return {"accuracy": right / len(held_out.test_labels)}


def train(epochs: int = 60, seed: int = 0) -> nn.Module:
    """Train from scratch: SGD, one cycle of the rate, images moved by up to one pixel."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Residual(colours=1)
        images, labels = data().train_images, data().train_labels
        steps = -(-len(images) // BATCH)
        optimiser = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=1e-3, nesterov=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=0.1, total_steps=epochs * steps
        )
        for _ in range(epochs):
            for batch in torch.randperm(len(images)).split(BATCH):
                logits = model(moved(images[batch]))
                optimiser.zero_grad()
                F.cross_entropy(logits, labels[batch], label_smoothing=0.1).backward()
                optimiser.step()
                schedule.step()
    return model.eval()


def moved(images: Tensor) -> Tensor:
    """Each image shifted by -1, 0 or 1 pixel each way, zeros moving in. [n, 1, 8, 8] -> the same"""
    n = torch.arange(len(images))[:, None, None]
    down, right = torch.randint(3, (2, len(images), 1, 1))
    rows = down + torch.arange(8)[:, None]
    columns = right + torch.arange(8)
    return F.pad(images, (1, 1, 1, 1))[n, 0, rows, columns][:, None]


def main() -> None:
    torch.set_num_threads(1)  # too small a network for two: they would wait for each other
    start = time.perf_counter()
    model = train()
    WEIGHTS.parent.mkdir(exist_ok=True)
    save_file(model.state_dict(), WEIGHTS)
    share = accuracy(model)["accuracy"]
    print(f"{share:.2%} of the held-out digits, {time.perf_counter() - start:.0f} s -> {WEIGHTS}")


if __name__ == "__main__":
    main()
