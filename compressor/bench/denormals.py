"""Numbers below 1e-38 flushed to zero in the thread that measures.

Trained weights can hold such numbers, and a processor may take many times longer over them. ONNX
Runtime's ``session.set_denormal_as_zero`` reaches the calling thread, which does the work when
there is one thread, only from the first session of a process, and then for good (seen on 1.31.1).
So it is set here, around the race only, and what came of it is observed rather than assumed.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

MXCSR = 7  # the control word of the vector unit: the last of the eight words of x86-64's fenv_t
FLUSH = 0x8040  # flush results to zero, take operands as zero


@contextmanager
def denormals_flushed() -> Iterator[bool]:
    """Flush denormals in this thread, put everything back after; yields whether they are flushed.

    Elsewhere than on 64-bit x86 Linux the thread is left as ONNX Runtime's setting makes it.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        yield _are_flushed()
        return
    libc = ctypes.CDLL(None)
    before = (ctypes.c_uint32 * 8)()
    libc.fegetenv(before)
    flushing = (ctypes.c_uint32 * 8)(*before)
    flushing[MXCSR] |= FLUSH
    libc.fesetenv(flushing)
    try:
        yield _are_flushed()
    finally:
        libc.fesetenv(before)


def _are_flushed() -> bool:
    tiny = np.full(4, 1e-37, np.float32) * np.float32(1e-3)
    return not tiny.any()
