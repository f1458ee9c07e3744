"""What a pass is, and the one way to run it.

A pass is a frozen dataclass: its fields are its options, and three methods are its contract.
"""

from dataclasses import dataclass
from typing import Protocol

from .program import Program
from .shapes import check


@dataclass(frozen=True, eq=False)
class PassResult:
    """The new program, and one line for each change; no lines mean "left alone"."""

    program: Program
    changes: tuple[str, ...]


class Pass(Protocol):
    """A step from a program to a program."""

    @property
    def name(self) -> str:
        """What the log calls it."""

    def requires(self, before: Program) -> None:
        """Raise CompressError (the caller's mistake) unless the pass can run on `before`."""

    def run(self, before: Program) -> PassResult:
        """Do it, without changing `before`."""

    def ensures(self, before: Program, after: Program) -> None:
        """Raise ContractError (our mistake) unless `after` is what was promised."""


def apply(step: Pass, program: Program) -> PassResult:
    """Run a pass with its checks before and after; what it gives is closed (`shapes.check`)."""
    step.requires(program)
    result = step.run(program)
    if result.program is not program:
        check(result.program)
    step.ensures(program, result.program)
    return result
