"""What a row of the step table is, and the streams that flow between steps.

image [B, C, H, W]   volume [B, C, D, H, W]   sound [B, C, L]   tokens [B, T, C]   vector [B, C]
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

Options = dict[str, Any]

WIDTHS = (4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 12, 13, 16, 16, 24)
LARGEST = 48
"""Channels at most."""

PICTURES = ("sound", "image", "volume")
"""Kinds with channels first and places after."""
ANY = (*PICTURES, "tokens", "vector")
DIMS = {"sound": 1, "image": 2, "volume": 3}


@dataclass(frozen=True, eq=False)
class Stream:
    """A value between two steps, as the example inputs make it."""

    name: str
    kind: str
    value: Tensor
    module: nn.Module
    """The step that made it, for those who call it again."""
    sources: tuple["Stream", ...] = ()
    op: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    @property
    def axis(self) -> int:
        """Where the channels are."""
        return self.value.dim() - 1 if self.kind == "tokens" else 1

    @property
    def channels(self) -> int:
        return self.shape[self.axis]

    @property
    def places(self) -> tuple[int, ...]:
        """Every size but those of batch and channels."""
        return tuple(n for a, n in enumerate(self.shape) if a not in (0, self.axis))

    def divisors(self, least: int = 2) -> list[int]:
        """Numbers of rows, `least` entries long or longer, that the channels can be split into."""
        return [n for n in range(2, self.channels + 1) if not self.channels % n
                and self.channels // n >= least]  # fmt: skip

    def lying(self) -> tuple[int, ...]:
        """The shape of a parameter along the channels that broadcasts against the stream."""
        return tuple(n if a == self.axis else 1 for a, n in enumerate(self.shape) if a)


class Do(nn.Module):
    """A function of streams, with layers, parameters and buffers of its own."""

    def __init__(self, function: Callable[..., Any], **members: Any) -> None:
        super().__init__()
        self.function = function
        for name, member in members.items():
            if isinstance(member, Tensor) and not isinstance(member, nn.Parameter):
                self.register_buffer(name, member)
            else:
                setattr(self, name, member)

    def forward(self, *streams: Tensor) -> Any:
        return self.function(self, *streams)


def pure(function: Callable[..., Any]) -> nn.Module:
    """A step without anything to learn."""
    return Do(lambda _, *streams: function(*streams))


def param(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


Finder = Callable[[Random, Stream, Sequence[Stream]], Sequence[Stream] | None]
"""Further sources of a step, given its first; None where there are none that fit."""


def alone(rng: Random, x: Stream, streams: Sequence[Stream]) -> Sequence[Stream]:
    return ()


def twin(rng: Random, x: Stream, streams: Sequence[Stream]) -> Sequence[Stream]:
    """Another stream of the same shape, or the same once more."""
    fitting = [s for s in streams if s.kind == x.kind and s.shape == x.shape]
    others = [s for s in fitting if s is not x]
    return [rng.choice(others if others and rng.random() < 0.9 else fitting)]


def beside(rng: Random, x: Stream, streams: Sequence[Stream]) -> Sequence[Stream]:
    """One to three streams with the same places, of any width."""
    fitting = [s for s in streams if s.kind == x.kind and s.places == x.places]
    chosen = rng.choices(fitting, k=rng.choice([1, 1, 1, 2, 3]))
    while chosen and sum(s.channels for s in chosen) + x.channels > LARGEST:
        chosen.pop()
    return chosen or [min(fitting, key=lambda s: s.channels)]


def of_kind(kind: str) -> Finder:
    """Any stream of a kind."""

    def find(rng: Random, x: Stream, streams: Sequence[Stream]) -> Sequence[Stream] | None:
        fitting = [s for s in streams if s.kind == kind and s is not x]
        return [rng.choice(fitting)] if fitting else None

    return find


def no_options(rng: Random, x: Stream) -> Options | None:
    return {}


def one_of(names: Sequence[str] | dict[str, Any]) -> Callable[[Random, Stream], Options]:
    """The option `fn`, a word of a table."""
    return lambda rng, x: {"fn": rng.choice(list(names))}


def some_of(
    names: Sequence[str] | dict[str, Any], most: int
) -> Callable[[Random, Stream], Options]:
    """The option `fns`: words of a table, one after another."""
    return lambda rng, x: {"fns": rng.sample(list(names), rng.randint(1, most))}


def chained(functions: dict[str, Callable[..., Tensor]], fns: Sequence[str]) -> nn.Module:
    """Functions of a table, one after another."""

    def run(x: Tensor) -> Tensor:
        for name in fns:
            x = functions[name](x)
        return x

    return pure(run)


def wide(rng: Random, x: Stream) -> Options:
    return {"width": rng.choice(WIDTHS)}


@dataclass(frozen=True)
class StepKind:
    """How a step is drawn, and what it does.

    make(x, ..., **options)   the module, for these streams
    draw(rng, x)              options that fit the first source; None where none do
    """

    make: Callable[..., nn.Module]
    draw: Callable[[Random, Stream], Options | None] = no_options
    takes: tuple[str, ...] = ANY
    gives: str = ""
    """The kind of the result; by default that of the first source."""
    find: Finder = alone
    weight: float = 1.0
    refers: bool = False
    """The last source is meant for its module, not its value."""


StepTable = dict[str, StepKind]
