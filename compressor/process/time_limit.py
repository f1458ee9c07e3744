"""An end to runs of models that have none: a loop of 2**62 steps is a valid ONNX model.

    with Limit(60.0) as limit:
        with limit.on("net.onnx"):                  UsageError where this takes longer
            session.run(None, feeds, limit.options)

A thread tells ONNX Runtime to stop, which it does between two operators. In a single operator that
never ends nothing stops it; then `stuck` is called, with which the command line ends the process.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from compressor.passes.base.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

LEAST = 60.0
"""Seconds that a single run may always take."""
GRACE = 10.0
"""Seconds between asking a run to stop and giving it up."""


def _nobody(error: UsageError) -> None:
    """Nobody can do anything: the run goes on."""


stuck: Callable[[UsageError], None] = _nobody
"""Called from another thread where a run cannot be stopped."""


def limit_of(seconds: float) -> float:
    """Seconds of one run, for a race that takes so long."""
    return max(LEAST, 2 * seconds)


class Limit:
    """One watcher for any number of runs, one after another, of at most `seconds` each."""

    def __init__(self, seconds: float) -> None:
        import onnxruntime as ort

        if not seconds > 0:
            raise UsageError(f"time_limit = {seconds}: it must be more than 0")
        self.seconds, self.options = seconds, ort.RunOptions()
        self.options.log_severity_level = 4
        self._name, self._deadline, self._over = "", float("inf"), False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Limit":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    @contextmanager
    def on(self, name: str, runs: int = 1) -> Iterator[None]:
        """Around so many runs of a model. Raises UsageError where they took too long."""
        self._name, self._deadline = name, time.monotonic() + self.seconds * runs
        try:
            yield
        except Exception as error:
            if self._over:
                raise self._error() from error
            raise
        finally:
            self._deadline = float("inf")
        if self._over:  # it ended in the moment in which it was stopped
            raise self._error()

    def _error(self) -> UsageError:
        return UsageError(
            f"a run of {self._name!r} did not end within {self.seconds:g} s",
            why="it may never end: loops in a model can have any number of steps",
            hint="if it is only slow, give it more by --time-limit",
        )

    def _watch(self) -> None:
        look = max(self.seconds / 4, 0.02)
        while not self._done.wait(min(look, max(self._deadline - time.monotonic(), 0.01))):
            if time.monotonic() > self._deadline:
                self._over = True
                self.options.terminate = True
                if not self._done.wait(GRACE):
                    stuck(self._error())
                return


def run_within(
    session: Any, feeds: "Mapping[str, np.ndarray]", seconds: float, name: str
) -> "list[np.ndarray]":
    """All outputs of one run. Raises UsageError where it takes longer than `seconds`."""
    with Limit(seconds) as limit, limit.on(name):
        found: list[np.ndarray] = session.run(None, dict(feeds), limit.options)
        return found
