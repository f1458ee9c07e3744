"""Images at the smallest size that a model accepts."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models._random import normal

SIDES = (64, 96, 128, 160, 192, 224, 256, 288, 299, 331, 384, 448, 512)


def smallest(
    model: nn.Module,
    shaped: Callable[[int], tuple[int, ...]],
    sides: Iterable[int] = SIDES,
    call: Callable[[Tensor], Any] = lambda image: image,
) -> Any:
    """Inputs of the first side at which the model runs and says something.

    `shaped` gives the shape of an image batch, `call` the inputs made of it.
    Raises the model's own error where no side works.
    """
    errors: list[Exception] = []
    for side in sides:
        inputs = call(normal(*shaped(side)))
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model(*(inputs if isinstance(inputs, Sequence) else (inputs,)))
        except Exception as error:  # a size that does not fit fails in the model's own way
            errors.append(error)
            continue
        return inputs
    raise errors[-1]
