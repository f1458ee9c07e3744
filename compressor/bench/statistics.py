"""The median of paired ratios, and how sure of it one can be.

    heat               1            2            3          sessions loaded anew in each
    baseline's times   b0 b1 b2     b3 b4 b5     b6 b7 b8
    the model's        m0 m1 m2     m3 m4 m5     m6 m7 m8   in the same rounds
    ratios             m0/b0 ...    m3/b3 ...    m6/b6 ...  a slow round slows both: it cancels
    resampled          heat 3       heat 1       heat 3     the interval: medians of such draws

Whole heats are drawn and not single rounds, because the rounds of a heat share their luck: which
memory the sessions got moves a ratio by about 0.5 %, and no number of rounds averages that out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST_HEATS = 6  # five values all lie on one side of their median more often than 5 % of the time

Times = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class TimeRatio:
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


def paired_ratio(times: Times, baseline: Times, *, heat: int, seed: int = 0) -> TimeRatio:
    """The median of `times[i] / baseline[i]`, with its interval from a bootstrap of blocks.

    Both hold one positive time per round, in the same unit; each `heat` rounds form a block, and
    the last one may be short. With fewer than six blocks the interval is the range of the ratios.
    """
    ratios = np.asarray(times, dtype=np.float64) / np.asarray(baseline, dtype=np.float64)
    median = float(np.median(ratios))
    blocks = -(-len(ratios) // heat)
    if blocks < FEWEST_HEATS:
        return TimeRatio(median, float(ratios.min()), float(ratios.max()))
    padded = np.full(blocks * heat, np.nan)
    padded[: len(ratios)] = ratios
    drawn = np.random.default_rng(seed).integers(blocks, size=(RESAMPLES, blocks))
    medians = np.nanmedian(padded.reshape(blocks, heat)[drawn].reshape(RESAMPLES, -1), axis=1)
    tail = _tail(blocks)
    low, high = np.quantile(medians, [tail, 1 - tail])
    return TimeRatio(median, float(low), float(high))


def _tail(n: int) -> float:
    """The share of resamples to leave out at each end for `n` values.

    Percentiles of resamples lie too close together when the values are few, as those of the
    normal distribution do beside Student's t. This is the *expanded percentile* interval of
    T. Hesterberg, "What Teachers Should Know About the Bootstrap", 2015; `t` is expanded in
    powers of one over the degrees of freedom, which is 1 % off for six values.
    """
    normal, freedom = NormalDist(), n - 1
    z = normal.inv_cdf((1 + CONFIDENCE) / 2)
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return normal.cdf(-t * math.sqrt(n / freedom))
