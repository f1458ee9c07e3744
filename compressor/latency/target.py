"""A budget of time: a share of the original's, or milliseconds.

"0.5", "50%"     half of the original's time
"8ms", "0.01s"   so much, on the device that measures
"""

import re
from dataclasses import dataclass

from compressor.passes.errors import UsageError

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Target:
    """One of the two."""

    ratio: float | None = None
    ms: float | None = None

    def share(self, dense_ms: float) -> float:
        """As a share of an original that takes so long."""
        return self.ratio if self.ratio is not None else (self.ms or 0.0) / dense_ms

    def __str__(self) -> str:
        return f"{self.ms:g} ms" if self.ms is not None else f"{self.ratio:g} of the latency"


def parse(text: str) -> Target:
    """Raises UsageError for what is neither."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%|us|ms|s|)\s*", text)
    amount = float(found[1]) if found is not None else 0.0
    if found is not None and found[2] in _UNITS and amount > 0:
        return Target(ms=amount * _UNITS[found[2]])
    ratio = amount / 100 if found is not None and found[2] == "%" else amount
    if found is None or not 0 < ratio < 1:
        raise UsageError(
            f"a latency of {text!r} means nothing",
            hint="give a share of the original's, such as 0.5 or 50%, or a time, such as 8ms",
        )
    return Target(ratio=ratio)
