"""The calls of a network as regressions, as the rows of their operators say it."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.fx import Node

from .rules import RULES
from .rules.regressions import Contraction, View


def view(node: Node, tensors: Mapping[str, Tensor], rank: int) -> View | str:
    """A call as a regression, or why it is none; "" where it has no weight at all.

    `tensors` are those of the program, by name; `rank` is that of the result.
    """
    found = _asked(node, tensors, rank)
    return "" if isinstance(found, list) else found


def recurrent(node: Node, tensors: Mapping[str, Tensor]) -> list[Contraction]:
    """The weights with which a recurrent call reads its input, one for each direction."""
    found = _asked(node, tensors, 0)
    return found if isinstance(found, list) else []


def _asked(node: Node, tensors: Mapping[str, Tensor], rank: int) -> View | list[Contraction] | str:
    row = RULES.get(node.target) if isinstance(node.target, torch._ops.OpOverload) else None
    regression = None if row is None else row.regression
    return "" if regression is None else regression(node, tensors, rank)
