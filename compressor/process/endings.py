"""A command that is told to end, by SIGTERM or SIGHUP, cleans up as one that is interrupted.

    with ending() as told:      what runs here gets a KeyboardInterrupt, where it stands
        ...
    told.code                   128 and the signal's number; 130 for an interrupt

Python raises between two steps of its own. Where a step takes longer than `PATIENCE`, a model's run
in native code, the process ends without cleaning: its children end with it, its folders are cleared
by the next one (`children`). A second signal ends it at once.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

PATIENCE = 10.0
"""Seconds from the signal until the process ends by itself."""
INTERRUPTED = 130
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@dataclass
class Told:
    """Which signal came."""

    number: int | None = None

    @property
    def code(self) -> int:
        """What the process ends with."""
        return INTERRUPTED if self.number is None else 128 + self.number

    @property
    def how(self) -> str:
        """In a word."""
        name = "" if self.number is None else signal.Signals(self.number).name
        return f"ended by {name}" if name else "interrupted"


@contextmanager
def ending() -> Iterator[Told]:
    """Around a command. Signals that are ignored, or handled by somebody else, stay so."""
    told = Told()
    mine = [one for one in _SIGNALS if signal.getsignal(one) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread() or not mine:
        yield told
        return

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        told.number = number
        raise KeyboardInterrupt

    for one in mine:
        signal.signal(one, end)
    try:
        with _watched(mine):
            yield told
    finally:
        for one in mine:
            signal.signal(one, signal.SIG_DFL)


@contextmanager
def _watched(mine: list[int]) -> Iterator[None]:
    """The signals, seen by a thread as well: it ends the process where the main one cannot."""
    if os.name != "posix":  # there, only sockets wake
        yield
        return
    done, (read, write) = threading.Event(), os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    if before != -1:  # somebody else's
        signal.set_wakeup_fd(before)
    thread = threading.Thread(target=_end_late, args=(read, mine, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        os.close(write)
        thread.join()
        os.close(read)


def _end_late(read: int, mine: list[int], done: threading.Event) -> None:
    while byte := os.read(read, 1):
        if byte[0] in mine and not done.wait(PATIENCE):
            os._exit(128 + byte[0])
