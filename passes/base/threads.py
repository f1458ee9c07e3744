"""One thread, for work on small tensors: waking others costs more than they do."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

SMALL = 30_000_000
"""Multiply-accumulates of a network whose operators take about as long as waking a thread does."""


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes on the calling thread alone here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def suited(macs: float) -> AbstractContextManager[None]:
    """One thread for the work on a network that is so small; else as many as torch has.

    On two busy cores, planning for the digits network took eight times as long on two threads.
    """
    return one_thread() if macs < SMALL else nullcontext()
