"""Imported by the process that builds fork from (`forked`): it builds once.

One thread: what forks from a process with a pool of threads waits for them for ever.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, which is below

from tests.tools.reliability.forked import warm

warm()
