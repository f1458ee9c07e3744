"""The calls of a network as regressions, as the rows of their operators say it."""

from collections.abc import Mapping

from torch import Tensor
from torch.fx import Node

from ..operators import row_of
from ..operators.batch_norm import Norm
from ..operators.regressions import Contraction, Fitted, View


def view(node: Node, tensors: Mapping[str, Tensor], rank: int) -> View | str:
    """A call as a regression, or why it is none; "" where it has no weight at all.

    `tensors` are those of the program, by name; `rank` is that of the result.
    """
    found = _asked(node, tensors, rank)
    return found if isinstance(found, View | str) else ""


def recurrent(node: Node, tensors: Mapping[str, Tensor]) -> list[Contraction]:
    """The weights with which a recurrent call reads its input, one for each direction."""
    found = _asked(node, tensors, 0)
    return found if isinstance(found, list) else []


def norm_of(node: Node) -> Norm | None:
    """A call of batch norm in eval mode whose statistics are stored."""
    found = _asked(node, {}, 0)
    return found if isinstance(found, Norm) else None


def _asked(node: Node, tensors: Mapping[str, Tensor], rank: int) -> Fitted:
    regression = row_of(node).regression
    return "" if regression is None else regression(node, tensors, rank)
