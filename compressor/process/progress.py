"""Stages of a build: how long each took, and a line (or a bar) while it runs.

with watch.stage("capture"):        spinner on a terminal, "capture ... 1.9 s" in a log
    ...
watch.advance(3, 30)                turns the spinner into a bar
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from compressor.base.terminal_text import Screen, say
from compressor.passes.base.safe_text import showable


class Reached(Exception):
    """The stage that the user wanted to get to is done."""


class Watch:
    """Times the stages by `clock`; `seconds` has them in order. This one says nothing."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self.current = ""
        self.until: str | None = None
        """The stage after which nothing more is done."""
        self._clock = clock

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run one stage. A name that comes again adds to its time."""
        start = self._clock()
        self.current = name
        self._begin(name)
        done = False
        try:
            yield
            done = True
        finally:
            took = self._clock() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + took
            self._end(name, took, done)
        self.reached(name)

    def reached(self, *names: str) -> None:
        """Stages that are done, also where what they make was kept from before."""
        if self.until in names:
            raise Reached(self.until)

    @contextmanager
    def rounds(self, *names: str) -> Iterator[None]:
        """Around stages that come again until all rounds are done; then `names` are reached."""
        until, self.until = self.until, None
        try:
            yield
        finally:
            self.until = until
        self.reached(*names)

    def advance(self, done: int, total: int) -> None:
        """How far the present stage is."""

    def note(self, text: str) -> None:
        """What the user should know, and which changes nothing."""

    def _begin(self, name: str) -> None:
        """Shown when a stage starts."""

    def _end(self, name: str, took: float, done: bool) -> None:
        """Shown when a stage ends; `done` is False where an error ended it."""


class Lines(Watch):
    """One plain line a stage, for logs."""

    def note(self, text: str) -> None:
        say(f"note: {text}", sys.stderr)

    def _end(self, name: str, took: float, done: bool) -> None:
        say(f"{showable(name)} ... {took:.1f} s{'' if done else ', failed'}", sys.stderr)


class Bars(Watch):
    """A spinner or a bar while a stage runs, a line when it is done, for terminals."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def _begin(self, name: str) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task(showable(name), total=None)
        self._progress.start()

    def note(self, text: str) -> None:
        self._console.print(f"note: {text}", soft_wrap=True)

    def advance(self, done: int, total: int) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)

    def _end(self, name: str, took: float, done: bool) -> None:
        if self._progress is not None:
            self._progress.stop()
        mark = ("✓", "green") if done else ("failed:", "red")
        self._console.print(Text.assemble(mark, f" {showable(name)} ", (f"{took:.1f} s", "dim")))


def wide_console() -> Console:
    """Standard output; a log has no width of its own, so lines there are not folded at 80."""
    console = Screen()
    return console if console.is_terminal else Screen(width=160)


def watch(quiet: bool) -> Watch:
    """Bars on a terminal, lines in a log, nothing where it must be quiet."""
    if quiet:
        return Watch()
    console = Screen(stderr=True)
    return Bars(console) if console.is_terminal else Lines()
