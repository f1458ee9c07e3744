"""One tiny network for every operator: producer -> operator -> consumer, with channels that can go.

    picture(op)   Conv2d(3, 8) -> op -> Conv2d          sound: Conv1d, volume: Conv3d
    tokens(op)    Linear(5, 8) -> op -> Linear          vector: the same on [batch, 5]

The consumer is fitted to whatever comes out of the operator. `free` names axes that a group must
lie on, so that a rule which freezes everything fails; `frozen` is what must be said where nothing
can go. Operators that torch.export does not emit for any user's code are called by name (`aten`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models._random import normal, seeded, tokens as words

aten = torch.ops.aten

Op = Callable[..., Any]
THROUGH = ("before.weight[0]", "after.weight[1]")


@dataclass(frozen=True, eq=False)
class Case:
    """How to build a network, what to call it with, and what the analysis must find."""

    make: Callable[[], nn.Module]
    args: tuple[Any, ...]
    free: tuple[str, ...] = THROUGH
    frozen: str = ""
    random: bool = False
    """Its output is random: only the analysis is looked at."""

    def build(self) -> nn.Module:
        return seeded(self.make, 7)


class Around(nn.Module):
    """before -> op -> after."""

    def __init__(self, before: nn.Module, op: Op, x: Tensor) -> None:
        super().__init__()
        self.before, self.op = before, op
        with torch.no_grad():
            y = op(before(x))
        self.after = consumer(y) if y.dim() > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.op(self.before(x)))


def consumer(y: Tensor) -> nn.Module:
    """What reads `y`: channels are on axis 1 of a picture, on the last axis of tokens."""
    convolution = {4: nn.Conv2d, 5: nn.Conv3d}.get(y.dim())
    return convolution(y.shape[1], 3, 1) if convolution else nn.Linear(y.shape[-1], 3)


class Along1d(Around):
    """The same, where a result of rank 3 is a sound rather than tokens."""

    def __init__(self, before: nn.Module, op: Op, x: Tensor) -> None:
        super().__init__(before, op, x)
        with torch.no_grad():
            y = op(before(x))
        self.after = nn.Conv1d(y.shape[1], 3, 1) if y.dim() == 3 else consumer(y)


class With(nn.Module):
    """A function of the input and of parameters of the given shapes, named p0, p1, ..."""

    def __init__(self, op: Op, *shapes: Sequence[int]) -> None:
        super().__init__()
        self.op = op
        for index, shape in enumerate(shapes):
            self.register_parameter(f"p{index}", nn.Parameter(torch.zeros(*shape)))

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x, *self.parameters())


def fresh(op: Op) -> Op:
    """Modules are built anew for each network (`nn.Softmax2d` stays a plain function)."""
    return op() if isinstance(op, type) else op


def picture(op: Op, *, channels: int = 8, size: int = 6, **expected: Any) -> Case:
    x = normal(2, 3, size, size)
    before = lambda: nn.Conv2d(3, channels, 3, padding=1)  # noqa: E731
    return Case(lambda: Around(before(), fresh(op), x), (x,), **expected)


def sound(op: Op, *, channels: int = 8, size: int = 8, **expected: Any) -> Case:
    x = normal(2, 3, size)
    before = lambda: nn.Conv1d(3, channels, 3, padding=1)  # noqa: E731
    return Case(lambda: Along1d(before(), fresh(op), x), (x,), **expected)


def volume(op: Op, *, channels: int = 8, size: int = 4, **expected: Any) -> Case:
    x = normal(2, 3, size, size, size)
    before = lambda: nn.Conv3d(3, channels, 1)  # noqa: E731
    return Case(lambda: Around(before(), fresh(op), x), (x,), **expected)


def stream(op: Op, *, channels: int = 8, length: int = 6, **expected: Any) -> Case:
    x = normal(2, length, 5)
    return Case(lambda: Around(nn.Linear(5, channels), fresh(op), x), (x,), **expected)


def vector(op: Op, *, channels: int = 8, batch: int = 2, **expected: Any) -> Case:
    x = normal(batch, 5)
    return Case(lambda: Around(nn.Linear(5, channels), fresh(op), x), (x,), **expected)
