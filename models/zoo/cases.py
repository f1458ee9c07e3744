"""A case of a corpus: how a network is made, and why nothing may go of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Case:
    """A network to shrink: `make` gives the model and its example inputs, as `compress` takes them.

    `frozen` is part of the reason that the report must give where nothing, or too little, can go.
    """

    name: str
    make: Callable[[], tuple[nn.Module, Any]]
    family: str = ""
    frozen: str = ""
