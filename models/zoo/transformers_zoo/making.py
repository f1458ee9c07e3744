"""From a row of a table to a model with random weights, and inputs of every kind."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compressor.base.optional import torchvision
from models._random import normal, seeded, tokens
from models.zoo.cases import Case

Settings = Mapping[str, Any]
Inputs = Callable[[], dict[str, Any]]

VOCABULARY = 96
UNTRACEABLE = "cannot be captured"
"""Its forward takes another way for other numbers, which torch.export refuses."""


def row(
    model: str, settings: Settings, inputs: Inputs, *, family: str, name: str = "", frozen: str = ""
) -> Case:
    """A case for a class of transformers; `settings` are those of its configuration class."""

    def make() -> tuple[nn.Module, Any]:
        torchvision()  # transformers imports it, and that has to work
        kind = getattr(importlib.import_module("transformers"), model)
        return seeded(lambda: kind(kind.config_class(**settings)), 0), inputs()

    return Case(name or model, make, family, frozen)


def padding(length: int) -> Tensor:
    """An attention mask for two sentences, of which the second is shorter."""
    mask = torch.ones(2, length, dtype=torch.long)
    mask[1, length - length // 4 :] = 0
    return mask


def words(length: int = 16, masked: bool = True, **more: Any) -> Inputs:
    """Token numbers and an attention mask."""

    def inputs() -> dict[str, Any]:
        given: dict[str, Any] = {"input_ids": tokens(VOCABULARY - 4, 2, length) + 4}
        return given | ({"attention_mask": padding(length)} if masked else {}) | more

    return inputs


def both(length: int = 16, target: int = 7) -> Inputs:
    """For an encoder and a decoder of words."""
    return lambda: {
        **words(length)(),
        "decoder_input_ids": tokens(VOCABULARY - 4, 2, target, seed=1) + 4,
    }


def picture(size: int = 32, **more: Any) -> Inputs:
    """Square pictures of three colours."""
    return lambda: {"pixel_values": normal(2, 3, size, size), **more}


def described(length: int = 8, size: int = 32, **more: Any) -> Inputs:
    """Pictures, each with a sentence."""
    return lambda: {**words(length)(), **picture(size)(), **more}


def wave(samples: int = 1600) -> Inputs:
    """Sound as samples."""
    return lambda: {"input_values": normal(2, samples)}


def spectrum(*shape: int, name: str = "input_features", target: int = 0) -> Inputs:
    """Sound as a spectrogram, perhaps with words to write."""

    def inputs() -> dict[str, Any]:
        given = {name: normal(2, *shape)}
        text = {"decoder_input_ids": tokens(VOCABULARY - 4, 2, target) + 4} if target else {}
        return {**given, **text}

    return inputs
