"""The log of a release (passes.json), read, and run again on the original.

    capture                     the module, called as in the build
    prune, and other passes     as each says itself (`Pass.again`)
    sparse, distill, finetune   nothing: the release has the tensors that they made
    export, simplify, ...       nothing: they made model.onnx of the small module

Reading a log needs no torch; what is read is judged before it is used.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.base.messages import reason
from compressor.base.untrusted import read_json
from compressor.passes.base.errors import ContractError, UsageError
from compressor.passes.ir.log import Entry, Log
from compressor.release.kept_indices import WRONG, KeptIndices

if TYPE_CHECKING:  # importing torch takes seconds: only the functions that need it do
    from torch import nn

    from compressor.loading.calls import Inputs
    from compressor.passes import Program

NAME = "passes.json"
_OTHER = "another version of the compressor made it: use that one"
_NO_LOG = "take passes.json as a build has written it"


def read(data: bytes, path: Path) -> Log:
    """The log in a passes.json. Raises UsageError where it is none, or no build writes it."""
    try:
        return log_from(read_json(data), path)
    except ValueError as error:
        raise UsageError(f"{path} is no log of passes", why=reason(error), hint=_NO_LOG) from error


def log_from(found: Any, path: Path) -> Log:
    """The same of what its JSON says. Passes that are not known here may be in it."""
    try:
        log = Log.from_json(found)
    except UsageError as error:
        raise UsageError(
            f"{path}: {error.what}", why=error.why, hint=error.hint or _NO_LOG
        ) from error
    for entry in log:
        if (entry.name, entry.version) == ("prune", 1):
            cut_in(entry, path)
    return log


def cut_in(entry: Entry, path: Path) -> KeptIndices:
    """What an entry of `prune` leaves. Raises UsageError where it does not say so."""
    try:
        return KeptIndices.of(entry.metadata)
    except WRONG as error:
        raise UsageError(
            f"{path} does not say what stays", where="the pass prune", why=reason(error)
        ) from error


def cut_by(log: Log, path: Path) -> KeptIndices:
    """What cuts a checkpoint of the original. Raises UsageError where that is not one `prune`."""
    check_known(log, path)
    cuts = [cut_in(entry, path) for entry in log if entry.name == "prune"]
    if len(cuts) != 1:
        raise UsageError(
            f"a checkpoint cannot be cut by {path}",
            why=f"it has the pass prune {len(cuts)} times, and indices of the original are needed",
        )
    return cuts[0]


def check_known(log: Log, path: Path) -> None:
    """Raise UsageError for a pass, or a version of one, that cannot be run again here."""
    count, versions_of = len(log.entries), known()
    for number, entry in enumerate(log, 1):
        where = f"pass {number} of {count}"
        versions = versions_of.get(entry.name)
        if versions is None:
            raise UsageError(
                f"{path} has a pass that is not known: {entry.name[:40]!r}",
                where=where,
                why=f"known are {', '.join(sorted(versions_of))}",
                hint=_OTHER,
            )
        if entry.version not in versions:
            raise UsageError(
                f"{path} has the pass {entry.name} in a version that is not known",
                where=where,
                why=f"it is version {entry.version!r:.40}; known: {', '.join(map(str, versions))}",
                hint=_OTHER,
            )
        if (entry.name == "capture") is not (number == 1):
            raise UsageError(f"{path} does not begin with its only capture", where=where)


# ---------------------------------------------------------------------------- run again


def replay(log: Log, module: "nn.Module", example_inputs: "Inputs", path: Path) -> "Program":
    """The small network that the log makes of `module`, with the values of `module`.

    `example_inputs` are only needed where the log does not say how the model is called. Raises
    UsageError for a pass that is not known, and where the log is of another model.
    """
    check_known(log, path)
    if not log.entries:
        raise UsageError(f"{path} has no passes")
    first, *others = log
    program = _captured(first, module, example_inputs, path)
    for entry in others:
        program = _again(entry, program, path)
    return program


def _again(entry: Entry, program: "Program", path: Path) -> "Program":
    from compressor.passes.pipeline.registry import PASSES

    if entry.name in STAGES:
        return program
    try:
        return PASSES[entry.name].again(entry, program)
    except UsageError as error:
        raise UsageError(
            f"{path}: {error.what}", where=error.where, why=error.why, hint=error.hint
        ) from error
    except (LookupError, ValueError, ContractError) as error:
        raise UsageError(
            "the plan is for another model",
            where=str(path.parent),
            why=reason(error),
            hint="give the module that the release was built from, in the same sizes",
        ) from error


def _captured(entry: Entry, module: "nn.Module", example_inputs: "Inputs", path: Path) -> "Program":
    from compressor import passes
    from compressor.loading import call_structure
    from compressor.loading.calls import as_call
    from compressor.loading.dynamic_axes import parse

    if example_inputs is None:
        call = call_structure.made(entry.metadata.get("call"), str(path))
    else:
        call = as_call(example_inputs)
    return passes.capture(module, *call, parse(_words(entry, "dynamic", path)))


def _words(entry: Entry, option: str, path: Path) -> tuple[str, ...]:
    found = entry.options.get(option, ())
    if not isinstance(found, list | tuple) or not all(isinstance(one, str) for one in found):
        raise UsageError(f"{path}: {option} is no list of words", where=f"the pass {entry.name}")
    return tuple(found)


STAGES = (
    *("capture", "sparse", "distill", "finetune"),
    *("export", "simplify", "sums-before-norms", "align"),
)
"""What a build logs beside passes over a program: nothing is to be done again."""


def known() -> Mapping[str, tuple[int, ...]]:
    """Everything that may be in a log, with the versions that can be run again here."""
    from compressor.passes.pipeline.registry import PASSES

    return dict.fromkeys(STAGES, (1,)) | {name: (one.version,) for name, one in PASSES.items()}
