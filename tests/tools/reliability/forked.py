"""Builds in processes that fork from one that has built before: all is imported there already.

What a build writes, it writes after its imports, and these take most of a small one's time: so more
of them can be killed in the same time, and each at a moment that matters.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.tools.reliability.warm"])


class Started:
    """A build that runs, with all that it starts, in a process group of its own."""

    def __init__(self, folder: Path, line: list[str]) -> None:
        self._errors = folder.with_name(f"{folder.name}.stderr")
        self._process: ForkServerProcess = _CONTEXT.Process(
            target=_build, args=(folder, line, self._errors)
        )
        self._process.start()

    def ended(self, seconds: float | None = None) -> bool:
        """Wait this long at most; whether it has ended."""
        self._process.join(seconds)
        return not self._process.is_alive()

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        assert self._process.pid is not None
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has no group yet
            self._process.kill()
        self._process.join()

    @property
    def code(self) -> int:
        """How it ended."""
        assert self._process.exitcode is not None
        return self._process.exitcode

    @property
    def errors(self) -> str:
        """What it wrote to stderr."""
        return self._errors.read_text() if self._errors.exists() else ""


def _build(folder: Path, line: list[str], errors: Path) -> None:
    os.setpgrp()
    os.chdir(folder)
    with errors.open("w") as file:
        os.dup2(file.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv = ["compressor", *line]
    from compressor.cli.app import app

    app(line)


def warm() -> None:
    """One build, for what it imports."""
    from compressor.config import Recipe
    from compressor.pipeline import compress
    from compressor.pipeline.build import build
    from compressor.process.progress import Watch
    from tests.tools.reliability.builds import NET

    assert compress
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        (path / "net.py").write_text(NET)
        out = path / "out"
        recipe = Recipe.of(model=f"{name}/net.py", macs=0.5, bench_seconds=0.1, output=out,
                           allow_slower=True)  # fmt: skip
        build(recipe, Watch())
