"""The errors users meet, and the one that is our fault.

    Exception
    ├── CompressError          something the user can act on: printed without a traceback
    │   ├── UsageError         wrong command, model, inputs, weights or budget         exit code 2
    │   │   └── NothingError   nothing of the model can shrink                         exit code 4
    │   └── GateError          a limit of the user's is not kept                       exit code 1
    │       └── WrongError     proof or parity failed: the result is not right         exit code 5
    │           └── SilentError    they could compare nothing                          exit code 5
    └── ContractError          a pass broke its own promise: traceback, please report

Each says *what* went wrong, *where*, *why*, and what to do next (*hint*); control characters in
names are shown as their escapes.
"""

from typing import ClassVar

from .safe_text import showable_lines


class CompressError(Exception):
    """Something the user can act on. `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "") -> None:
        self.what, self.where, self.why, self.hint = what, where, why, hint
        super().__init__(what)

    def __str__(self) -> str:
        rows = [("at: ", self.where), ("why: ", self.why), ("hint:", self.hint)]
        told = [f"  {name} {showable_lines(text, ' ' * 8)}" for name, text in rows if text]
        return "\n".join([showable_lines(self.what, " " * 8), *told])


class UsageError(CompressError):
    """The command, the model, the inputs, the weights or the budget are not usable as given."""

    exit_code = 2


class NothingError(UsageError):
    """The model is not supported: nothing of it can shrink."""

    exit_code = 4


class GateError(CompressError):
    """A check of the result failed; nothing is written."""

    exit_code = 1


class WrongError(GateError):
    """The result is not equal to what it has to be equal to: proof or parity failed."""

    exit_code = 5


class SilentError(WrongError):
    """No output of the model says anything: it would be equal whatever was done to it."""


class ContractError(AssertionError):
    """A pass broke its own promise. This is a bug in the compressor: please report it."""
