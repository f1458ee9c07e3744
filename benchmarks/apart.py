"""A function in a process of its own, with limits: it may hang, run out of memory, or die."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkContext, ForkServerContext
from types import FrameType
from typing import Any


class TooSlow(BaseException):
    """The limit of time is over; a BaseException, so that no fallback takes it for an error."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TooSlow after this many CPU seconds; end the process where that does not help."""

    def over(_signal: int, _frame: FrameType | None) -> None:
        raise TooSlow(f"more than {seconds:.0f} s")

    signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds, seconds / 8)  # a callback may swallow one
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def apart(
    context: ForkContext | ForkServerContext,
    target: Callable[..., None],
    given: tuple[Any, ...],
    seconds: float,
) -> int | None:
    """Run `target(*given)` in a process; its exit code, negative for the signal that ended it.

    No process lives longer than `seconds` on the clock: its own limits are CPU seconds, which
    waiting does not use.
    """
    process = context.Process(target=target, args=given)
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode
