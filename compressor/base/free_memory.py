"""Memory, before it is taken: sizes in a file or an option can be anything."""

import math
import os
from collections.abc import Sequence

from compressor.passes.base.errors import UsageError


def memory() -> int | None:
    """Bytes of memory of this machine; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def check_fits(what: str, sizes: Sequence[int], each: int) -> None:
    """Raise UsageError where so many numbers of `each` bytes are more than this machine holds."""
    wanted, there = math.prod(sizes) * each, memory()
    if there is not None and wanted > there:
        raise UsageError(
            f"{what} of sizes {list(sizes)} does not fit into memory",
            why=f"it has {math.prod(sizes):,} numbers, {wanted:,} bytes; "
            f"this machine has {there:,} bytes",
            hint="give smaller sizes, or a smaller batch",
        )
