"""Does it still fail in the same way? Each try has a process of its own, and a limit of time."""

import json
import multiprocessing
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compressor.config import Recipe
from compressor.passes.base.errors import CompressError
from compressor.process.child_start import bound
from compressor.process.children import scratch
from compressor.process.exit_codes import BUG
from compressor.process.progress import Watch

COMMANDS = ("build", "inspect", "plan")
ENDS = ("hang", "crash")
"""Failures that end the process in which they happen, or never let it end."""
_IMPORTED = ("compressor.debug.warm", "onnxscript", "torch.onnx._internal.exporter._core")
"""Once, for all tries."""
_OURS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Failure:
    """What two failures have in common: the exit code, the class, and where or what it was."""

    code: int
    kind: str
    place: str
    text: str = ""
    """All that was said; not compared."""

    def like(self, other: "Failure | None") -> bool:
        """Whether it is the same failure."""
        return other is not None and (self.code, self.kind, self.place) == (
            other.code, other.kind, other.place
        )  # fmt: skip


def failure(error: BaseException) -> Failure:
    """An exception as a failure: the innermost frame of ours, or the words without numbers."""
    text = "".join(traceback.format_exception(error))
    if isinstance(error, CompressError):
        words = re.sub(r"'[^']*'|[\w./-]*/[\w./-]+|[\d.,]+(e-?\d+)?", "*", error.what)
        return Failure(error.exit_code, type(error).__name__, words[:200], str(error))
    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if Path(one.filename).is_relative_to(_OURS)] or frames
    names = [f"{Path(one.filename).name}:{one.name}" for one in ours[-1:]]
    return Failure(BUG, type(error).__name__, "".join(names), text)


class Attempts:
    """Runs a command with other recipes; knows how often it did."""

    def __init__(self, command: str, seconds: float) -> None:
        self.count = 0
        self._command, self._seconds = command, seconds
        how = "forkserver" if sys.platform != "win32" else "spawn"
        self._context: Any = multiprocessing.get_context(how)
        if how == "forkserver":
            self._context.set_forkserver_preload(list(_IMPORTED))

    def __call__(self, recipe: Recipe) -> Failure | None:
        """How the command fails with this recipe; None where it does not."""
        self.count += 1
        with scratch() as place:
            given = (self._command, recipe.model_dump(exclude={"output"}), place, str(Path.cwd()))
            process = self._context.Process(target=_run, args=given)
            process.start()
            try:
                process.join(self._seconds)
                hangs = process.is_alive()
            finally:  # interrupted, or told to end
                process.kill()
                process.join()
            if hangs:
                return Failure(BUG, ENDS[0], f"it took more than {self._seconds:g} s")
            if not (place / "found.json").exists():
                return Failure(BUG, ENDS[1], f"the process ended with {process.exitcode}")
            found = json.loads((place / "found.json").read_text())
            return None if found is None else Failure(**found)


def _run(command: str, values: Mapping[str, Any], place: Path, where: str) -> None:
    """In the process of a try."""
    bound(os.getppid())
    os.chdir(where)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    found = None
    try:
        recipe = Recipe.of(**values, output=place / "out")
        _command(command)(recipe, Watch())
    except Exception as error:  # what is looked for
        found = asdict(failure(error))
    (place / "found.json").write_text(json.dumps(found))


def _command(name: str) -> Callable[[Recipe, Watch], object]:
    if name == "inspect":
        from compressor.analysis.inspection import inspect

        return inspect
    if name == "plan":
        from compressor.analysis.planning import plan

        return plan
    from compressor.pipeline.build import build

    return build
