"""What a pass is, and the one way to run it.

A pass is a frozen dataclass; its fields of plain values are its options. It says

    sites      where it could act, in how many steps, and what each step would lose
    requires   what the caller has to keep
    run        does it, and gives a new program
    ensures    what it promises of the result
    metadata   what somebody needs, besides the options, to do the same again
    again      does that, from the entry of a log

Losses of all passes are in one unit: the rise of the error of the outputs on the calibration inputs
after a refit, so that channels can be weighed against whatever else could go.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from .log import Entry, Log
from .program import Program
from .spec import options_of


@dataclass(frozen=True, eq=False)
class PassResult:
    """The new program, and one line for each change; no lines mean "left alone"."""

    program: Program
    changes: tuple[str, ...]
    evidence: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    """What the pass itself found that shows that it is right: ``{"kind": "bounded", ...}``."""


@dataclass(frozen=True)
class Site:
    """A place where a pass could act."""

    name: str
    """In the user's own names."""
    steps: int
    """How many steps there are to take, at most."""
    losses: tuple[float, ...] = ()
    """What is lost in all after 1, 2, ... steps; empty where nothing was measured."""


class Pass(Protocol):
    """A step from a program to a program."""

    name: ClassVar[str]
    """In specs, logs and reports."""
    version: ClassVar[int]
    """Counts up where the same options come to mean something else."""

    def sites(self, program: Program) -> Sequence[Site]:
        """Where it could act on `program`; none where that is nowhere."""

    def requires(self, before: Program) -> None:
        """Raise CompressError (the caller's mistake) unless the pass can run on `before`."""

    def run(self, before: Program) -> PassResult:
        """Do it, without changing `before`."""

    def ensures(self, before: Program, after: Program) -> None:
        """Raise ContractError (our mistake) unless `after` is what was promised."""

    def metadata(self, result: PassResult) -> Mapping[str, Any]:
        """Plain values that `again` needs besides the options."""

    @classmethod
    def again(cls, entry: Entry, program: Program) -> Program:
        """What an entry of a log makes of a program that was captured anew: its sizes; the values
        of its tensors are put in afterwards.

        Raises UsageError for an entry that says nothing of use, and ValueError, LookupError or
        ContractError where it is of another program.
        """


def apply(step: Pass, program: Program) -> PassResult:
    """Run a pass with its checks before and after; what it gives is closed (`Program.check`)."""
    step.requires(program)
    result = step.run(program)
    if result.program is not program:
        result.program.check()
    step.ensures(program, result.program)
    return result


def entry(step: Pass, result: PassResult, evidence: Mapping[str, Any] | None = None) -> Entry:
    """What the log keeps of a pass that has run; `evidence` is what was found out about it later,
    such as a proof, beside its own.
    """
    return Entry(
        step.name,
        step.version,
        options_of(step),
        dict(step.metadata(result)),
        {**result.evidence, **(evidence or {})},
        result.changes,
    )


@dataclass(frozen=True)
class Sequential:
    """Passes one after another: the program that comes out, and the log of what ran."""

    steps: tuple[Pass, ...]

    def run(self, program: Program) -> tuple[Program, Log]:
        """Raises what any of the steps raises."""
        log = Log()
        for step in self.steps:
            result = apply(step, program)
            program, log = result.program, log.then(entry(step, result))
        return program, log
