"""What stands around a pattern, so that channels can go before it and after it.

    picture(block)    conv - norm - relu   -> block -> conv - relu -> mean -> linear
    sentence(block)   embedding            -> block -> linear - gelu - linear
    vector(block)     linear - relu        -> block -> linear - relu - linear
    sound, volume     the same as picture, on one and on three axes

Blocks are made anew for each case (`make`), or are plain functions of a tensor. The layer behind
the block is fitted to whatever comes out of it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from models._random import normal, seeded, tokens
from models.zoo.cases import Case

WIDTH = 32
VOCABULARY = 40

Make = Callable[[], nn.Module]
Op = Callable[..., Any]


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        self.op = op

    def forward(self, *args: Any) -> Any:
        return self.op(*args)


class Picture(nn.Module):
    """[batch, 3, ...] -> [batch, 10]; also for sounds and volumes."""

    def __init__(self, block: nn.Module, size: tuple[int, ...], width: int) -> None:
        super().__init__()
        axes = len(size)
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1]
        self.stem = nn.Sequential(conv(3, width, 3, padding=1, bias=False), norm(width), nn.ReLU())
        self.block = block
        with torch.no_grad():
            channels = block.eval()(torch.rand(2, width, *size)).shape[1]
        self.body = nn.Sequential(conv(channels, width, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.block(self.stem(x))).flatten(2).mean(2))


class Sentence(nn.Module):
    """Token numbers [batch, length] -> [batch, length, 10]."""

    def __init__(self, block: nn.Module, length: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.block = block
        with torch.no_grad():
            channels = block.eval()(torch.rand(2, length, width)).shape[-1]
        self.body = nn.Linear(channels, width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.gelu(self.body(self.block(self.embed(x)))))


class Vector(nn.Module):
    """[batch, 12] -> [batch, 10]"""

    def __init__(self, block: nn.Module, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(12, width), nn.ReLU())
        self.block = block
        with torch.no_grad():
            channels = block.eval()(torch.rand(2, width)).shape[-1]
        self.body = nn.Sequential(nn.Linear(channels, width), nn.ReLU())
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.block(self.stem(x))))


def network(name: str, make: Make, inputs: Any, frozen: str = "") -> Case:
    """A whole network, with weights that are random and the same each time."""

    def build() -> nn.Module:
        torch.manual_seed(0)  # for buffers that are drawn; seeded() puts the state back
        return make()

    return Case(name, lambda: (seeded(build, 0), inputs), frozen=frozen)


def _block(make: Make | Op) -> nn.Module:
    """A new module of a class or factory; a function of a tensor becomes one."""
    made = make() if isinstance(make, type) or _takes_nothing(make) else Call(make)
    assert isinstance(made, nn.Module)
    return made


def _takes_nothing(make: Op) -> bool:
    code = getattr(make, "__code__", None)
    return code is not None and code.co_argcount == 0


def picture(
    name: str, make: Make | Op, *, size: int = 8, width: int = WIDTH, frozen: str = ""
) -> Case:
    """A block [batch, width, size, size] -> [batch, any, any, any]."""
    inputs = normal(2, 3, size, size)
    return network(name, lambda: Picture(_block(make), (size, size), width), inputs, frozen)


def sound(name: str, make: Make | Op, *, size: int = 16, frozen: str = "") -> Case:
    """A block [batch, width, size] -> [batch, any, any]."""
    inputs = normal(2, 3, size)
    return network(name, lambda: Picture(_block(make), (size,), WIDTH), inputs, frozen)


def volume(name: str, make: Make | Op, *, size: int = 6, frozen: str = "") -> Case:
    """A block [batch, width, size, size, size] -> [batch, any, any, any, any]."""
    inputs = normal(2, 3, size, size, size)
    return network(name, lambda: Picture(_block(make), (size,) * 3, WIDTH), inputs, frozen)


def sentence(
    name: str, make: Make | Op, *, length: int = 12, width: int = WIDTH, frozen: str = ""
) -> Case:
    """A block [batch, length, width] -> [batch, length, any]."""
    inputs = tokens(VOCABULARY, 2, length)
    return network(name, lambda: Sentence(_block(make), length, width), inputs, frozen)


def vector(name: str, make: Make | Op, *, width: int = WIDTH, frozen: str = "") -> Case:
    """A block [batch, width] -> [batch, any]."""
    return network(name, lambda: Vector(_block(make), width), normal(2, 12), frozen)


def of_family(family: str, *cases: Case) -> tuple[Case, ...]:
    """The cases of one file."""
    return tuple(Case(c.name, c.make, family, c.frozen) for c in cases)
