"""The median of paired ratios, and how sure of it one can be.

times        b0 b1 b2 ...   the baseline's, one per round
             m0 m1 m2 ...   the model's, in the same rounds
ratios       m0/b0 m1/b1 m2/b2 ...            a slow round slows both: it cancels
resample     [m5/b5 m6/b6 m7/b7] [m1/b1 ...]  whole blocks: neighbouring rounds resemble
                                              each other, and single draws would hide that
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST = 6  # with fewer values no interval inside their range holds the median with 95 %

Times = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Ratio:
    """A time divided by the baseline's: the median, and the ends of its 95 % interval."""

    median: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval's width, as a share of the ratio: 0.01 is one per cent."""
        return (self.high - self.low) / (2 * self.median)

    def __str__(self) -> str:
        digits = 2 if self.high - self.low >= 0.01 else 3
        low, high = f"{self.low:.{digits}f}", f"{self.high:.{digits}f}"
        return f"{self.median:.{digits}f}x ({low}-{high})"


def paired_ratio(times: Times, baseline: Times, *, seed: int = 0) -> Ratio:
    """The median of `times[i] / baseline[i]`, with its moving-block bootstrap interval.

    Both hold one positive time per round, in the same unit. The blocks are `n ** (1/3)` rounds
    long and wrap around. With fewer than six rounds the interval is the range of the ratios.
    """
    ratios = np.asarray(times, dtype=np.float64) / np.asarray(baseline, dtype=np.float64)
    median = float(np.median(ratios))
    if len(ratios) < FEWEST:
        return Ratio(median, float(ratios.min()), float(ratios.max()))
    medians = np.median(ratios[_block_indices(len(ratios), seed)], axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    return Ratio(median, float(low), float(high))


def _block_indices(n: int, seed: int) -> np.ndarray:
    """`[RESAMPLES, n]` positions: each row strings random blocks of neighbours together."""
    length = round(n ** (1 / 3))
    blocks = -(-n // length)
    starts = np.random.default_rng(seed).integers(n, size=(RESAMPLES, blocks, 1))
    rows = (starts + np.arange(length)) % n
    return rows.reshape(RESAMPLES, -1)[:, :n]
