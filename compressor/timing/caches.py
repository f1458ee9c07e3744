"""What a network takes on top of its kernels, once its weights no longer fit into the caches.

    n copies of a convolution, each with weights of its own, run in turn: n = 2, 4, 6, 8 ... 32
    a copy's time is level while all fit, then it grows with every byte that must be read again

Kernels are measured in small company, with their weights in a cache. A shrunk network often fits
where the original does not; so what reading adds belongs to the network, and to no kernel.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compressor.onnx.sessions import CPU
from compressor.passes.cost.kernels import Kernel
from compressor.timing.kernel_models import weights
from compressor.timing.measure_kernels import REFERENCE, Setting, side_by_side

COPIES = (2, 4, 6, 8, 10, 12, 16, 24, 32)
SWEEPS = 3
BYTES = 4
"""Of a weight."""
HEAVY = Kernel(
    "conv",
    tuple((key, (7, 7) if key == "pixels" else value) for key, value in REFERENCE.fixed),
    (256, 256, 1),
)
"""3x3 by 256 channels on 7x7 pixels: many weights (2.4 MB), little else."""


@dataclass(frozen=True)
class Caches:
    """How much longer each byte of weights takes, by how many bytes a network goes over."""

    held: tuple[float, ...] = (0.0,)
    """Ascending: bytes of weights and activations."""
    slower: tuple[float, ...] = (0.0,)
    """For each: over the reference kernel's time, for a byte of weights."""

    def reading(self, held: float, others: float = 0.0) -> float:
        """What reading so many bytes of weights takes, beside `others` of activations; over the
        reference kernel's time."""
        return held * float(np.interp(held + others, self.held, self.slower))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"held": list(self.held), "slower": [float(f"{one:.5g}") for one in self.slower]}


def caches_of(found: Mapping[str, Any]) -> Caches:
    """From plain values. Raises ValueError, in words, where they make no sense."""
    held, slower = (tuple(map(float, found[key])) for key in ("held", "slower"))
    if not held or len(held) != len(slower) or list(held) != sorted(set(held)):
        raise ValueError("'held' must ascend, with as many values in 'slower'")
    if not all(0 <= one < math.inf for one in (*held, *slower)):
        raise ValueError("'held' and 'slower' must be 0 or more")
    return Caches(held, slower)


def measured(setting: Setting) -> Caches:
    """This machine's. A device with memory of its own reads as its kernels were measured."""
    if setting.provider != CPU:
        return Caches()
    rows = [[_copy(copies, setting) for copies in COPIES] for _ in range(SWEEPS)]
    each = weights(HEAVY) * BYTES
    times, references = np.median(rows, axis=0).T  # where many copies run, the reference is slow
    slower = np.maximum.accumulate((times - times[0]) / references[0] / each)
    held = tuple(copies * each for copies in COPIES)
    return Caches(held, tuple(map(float, slower)))


def _copy(copies: int, setting: Setting) -> tuple[float, float]:
    """Seconds of one of so many, and of the reference beside them."""
    ratios, reference = side_by_side([HEAVY] * copies, setting)
    return float(np.mean(ratios)) * reference, reference
