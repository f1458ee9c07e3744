"""Passed, regressed, or inconclusive."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from compressor.bench import Race, TimeRatio, race
from compressor.bench.contest import Progress
from compressor.gate import arithmetic, limits
from compressor.metrics.metric import Pairs, decided, named, refuse_unmeasured
from compressor.passes.base.errors import UsageError
from compressor.process.time_limit import limit_of
from compressor.report.summary import finite

PASSED, REGRESSED, INCONCLUSIVE = "passed", "regressed", "inconclusive"
EXIT_CODES = {PASSED: 0, REGRESSED: 1, INCONCLUSIVE: 3}

_FINE = 4
"""Intervals as narrow as the margin over this end a race."""


@dataclass(frozen=True)
class Verdict:
    """What came out of a check, and the numbers behind it."""

    answer: str
    why: str
    hint: str
    ratio: TimeRatio
    """Time of the new model over the baseline's, with its 95 % interval."""
    noise: TimeRatio
    """The baseline against itself in the same race."""
    max_regression: float
    sizes: Mapping[str, int]
    """Bytes of "baseline" and "new"."""
    race: Race
    macs: Mapping[str, int] = field(default_factory=dict)
    """Of "baseline" and "new", where they are limited."""
    accuracy: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Metrics of "original" (the baseline) and "small" (the new one), where they were asked for."""

    @property
    def exit_code(self) -> int:
        """0 passed, 1 regressed, 3 inconclusive."""
        return EXIT_CODES[self.answer]

    def to_json(self) -> dict[str, Any]:
        """Everything, raw samples too."""
        return {
            "answer": self.answer,
            "why": self.why,
            "hint": self.hint,
            "max_regression": self.max_regression,
            "sizes": dict(self.sizes),
            "macs": dict(self.macs),
            "accuracy": finite(self.accuracy),
            "race": self.race.to_json(),
        }


def check(
    new: Path,
    baseline: Path,
    *,
    max_regression: float = 0.05,
    max_growth: float | None = None,
    max_macs_growth: float | None = None,
    evaluate: Sequence[str] = (),
    max_drop: float | None = None,
    metric: str | None = None,
    inputs: Mapping[str, np.ndarray] | None = None,
    batch: int = 1,
    threads: int = 1,
    providers: Sequence[str] | None = None,
    max_seconds: float = 30,
    seed: int = 0,
    time_limit: float | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Race `new` against `baseline`, and say whether it takes more than 1 + `max_regression`.

    `max_growth` limits the size of the file and its external data in the same way,
    `max_macs_growth` its arithmetic (`arithmetic.macs`); `max_drop` limits how much worse a metric
    of `evaluate` may become, `metric` (``NAME``, ``NAME:min`` or ``NAME:max``) or the first: see
    `limits.metrics`. The other options are those of `bench.race`. Raises UsageError for models that
    cannot be raced or counted, for limits that are no number of 0 or more, and for a metric that is
    not finite for the baseline, or of which it is not known whether less is better.
    """
    _refuse_nonsense(max_regression=max_regression, max_growth=max_growth,
                     max_macs_growth=max_macs_growth, max_drop=max_drop)  # fmt: skip
    if metric is not None and max_drop is None:
        raise UsageError("--metric would be ignored", why="it says what --max-drop is about",
                         hint="give --max-drop, or leave it out")  # fmt: skip
    pair = {"baseline": baseline, "new": new}
    limit = limit_of(max_seconds) if time_limit is None else time_limit
    accuracy = limits.metrics(new, baseline, evaluate, limit) if evaluate else {}
    dropped = _dropped(accuracy, max_drop, metric)
    counted = {} if max_macs_growth is None else arithmetic.macs(pair, batch, inputs)
    found = race(
        pair,
        inputs=inputs,
        batch=batch,
        threads=threads,
        providers=providers,
        max_seconds=max_seconds,
        target=max(max_regression / _FINE, 0.002),
        seed=seed,
        time_limit=time_limit,
        progress=progress,
    )
    sizes = {row.name: row.file_bytes for row in found.rows}
    ratio = found.rows[1].ratio
    answer, why, hint = _latency(ratio, found.noise, max_regression)
    broken = [
        _grown("the file is {} larger", sizes, max_growth),
        _grown("it multiplies {} more", counted, max_macs_growth),
        dropped,
    ]
    if said := "; ".join(filter(None, broken)):
        answer, why, hint = REGRESSED, said, ""
    return Verdict(
        answer, why, hint, ratio, found.noise, max_regression, sizes, found, counted, accuracy
    )


def _grown(words: str, sizes: Mapping[str, int], limit: float | None) -> str:
    """What is said of a size that is over its limit; nothing of one that is not."""
    if limit is None:
        return ""
    old, grown = sizes["baseline"], sizes["new"] - sizes["baseline"]
    if grown <= old * Fraction(repr(float(limit))):  # exactly: such counts may be no float
        return ""
    if not old:
        return f"{words.format(f'{grown:,}')} than none (limit {limit:.1%})"
    mils = round(Fraction(1000 * grown, old))
    return f"{words.format(f'{mils // 10}.{mils % 10}%')} (limit {limit:.1%})"


def _dropped(accuracy: Pairs, limit: float | None, metric: str | None) -> str:
    """What is said of a metric that is over its limit."""
    if not accuracy:
        refuse_unmeasured(limit, metric)
        return ""
    named(accuracy, metric)
    return "" if limit is None else decided(accuracy, metric).broken(limit)


def _refuse_nonsense(**limits: object) -> None:
    for name, limit in limits.items():
        if limit is None:
            continue
        number = float(limit) if isinstance(limit, Real) and not isinstance(limit, bool) else -1
        if not (math.isfinite(number) and number >= 0):
            raise UsageError(
                f"{name} = {limit!r}: it must be a number, 0 or more", hint="5% is 0.05"
            )


def _latency(ratio: TimeRatio, noise: TimeRatio, margin: float) -> tuple[str, str, str]:
    """The answer, why, and what to do."""
    limit = 1 + margin
    said = f"{ratio} of the baseline's time (limit {limit:.3g}x)"
    quiet = "run it again on a quieter machine, or give it more --seconds"
    if not all(map(math.isfinite, (noise.low, noise.high, ratio.low, ratio.median, ratio.high))):
        return INCONCLUSIVE, f"{said}, and {noise} of its own: no such times were measured", quiet
    if noise.low > 1 + margin / 2 or noise.high < 1 - margin / 2:
        return INCONCLUSIVE, f"the baseline against itself is {noise}: too noisy to judge", quiet
    if ratio.median > limit and ratio.low > 1:
        return REGRESSED, said, ""
    if ratio.median <= limit and (ratio.high <= limit or ratio.half_width <= margin / 2):
        return PASSED, said, ""
    return INCONCLUSIVE, f"{said}: the interval is too wide to say", quiet


def percentage(text: str) -> float:
    """``"5%"`` and ``"0.05"`` are 0.05. Raises UsageError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", text)
    if found is None:
        raise UsageError(f"{text!r} is no share", hint="write 5% or 0.05")
    return float(found[1]) / (100 if found[2] else 1)
