"""The first lines of a child process: it ends when its parent does, however that ends.

    python -P child_start.py PARENT script.py ...     runs the script, bound to its parent
    bound(parent)                                     the same in a process that is forked

On Linux the kernel kills it, stopped or in native code that never returns. Elsewhere a thread
looks whether the parent is still there. This file imports nothing of ours: it runs alone as well.
"""

import ctypes
import os
import runpy
import signal
import sys
import threading
import time

_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG."""
_LOOK = 1.0
"""Seconds between looks at the parent, where the kernel does not tell."""


def bound(parent: int) -> None:
    """End this process when its parent, which has this id, ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    elif os.name == "posix":
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.name == "posix" and os.getppid() != parent:  # it ended before the kernel was asked
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


if __name__ == "__main__":
    bound(int(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_path(sys.argv[0], run_name="__main__")
