"""`compressor align`: any ONNX model, padded with zeros to the widths that its runtime likes.

A convolution of 62 channels can take twice the time of one of 64: the kernel's blocks do not fit.
Zeros in the missing places change nothing but that. Each unit of `UNITS` is tried; the model that
measures fastest is kept, and the original where none is faster.

    widths.py    which channel counts may grow, and what grows with them
    pad.py       the zeros
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from compressor.align.pad import padded
from compressor.align.widths import constants_of, widths_of
from compressor.base.messages import first_line
from compressor.bench import Race, race
from compressor.bench.contest import Progress
from compressor.bench.inputs import asked_inputs, random_feeds
from compressor.onnx.sessions import opened
from compressor.passes.base.errors import UsageError, WrongError
from compressor.passes.ir.compare import worst
from compressor.process.time_limit import limit_of, run_within

UNITS = (4, 8, 16, 32)
"""Blocks of the kernels of ONNX Runtime: 4 input channels, 8 (AVX2) or 16 (AVX-512) of a block."""
TOLERANCE = 1e-5
"""Over the largest output: another kernel adds up in another order, which is 1e-7 to 1e-6."""
LARGEST = 1 << 29
"""Bytes of a model that is tried at the end of a build."""
FASTER = 0.98
"""A model that is not 2 % faster for sure is not worth the larger file."""


@dataclass(frozen=True)
class Aligned:
    """The model that won, how much it was padded, and the evidence."""

    data: bytes
    unit: int | None
    """Of its widths; None where the original won."""
    widened: int
    """How many channel counts differ from the original."""
    max_rel: float
    """Largest difference from the original in ONNX Runtime, over the largest output."""
    race: Race | None
    """None where there was nothing to try."""

    @property
    def verdict(self) -> str:
        """In a sentence."""
        if self.race is None:
            return "every width fits already, or cannot grow; the model is as it was"
        if self.unit is None:
            return "no padding makes it faster; the model is as it was"
        return f"{self.widened} widths are now multiples of {self.unit}"

    def to_json(self) -> dict[str, Any]:
        """Everything but the model."""
        return {
            "unit": self.unit,
            "widened": self.widened,
            "max_rel": self.max_rel,
            "race": None if self.race is None else self.race.to_json(),
        }


def align(
    data: bytes,
    *,
    inputs: Mapping[str, np.ndarray] | None = None,
    batch: int = 1,
    threads: int = 1,
    providers: Sequence[str] | None = None,
    max_seconds: float = 30,
    units: Sequence[int] = UNITS,
    seed: int = 0,
    time_limit: float | None = None,
    progress: Progress | None = None,
) -> Aligned:
    """Pad the channels of an ONNX model where that is measured faster.

    `data` is the serialised model, under 2 GB; the other options are those of `bench.race`. Widths
    of inputs and outputs stay. Raises UsageError for what is no ONNX model, WrongError where a
    padded model computes something else.
    """
    model = _parsed(data)
    tried = _candidates(model, units)
    if not tried:
        return Aligned(data, None, 0, 0.0, None)
    limit = limit_of(max_seconds) if time_limit is None else time_limit
    gaps = {
        name: _checked(data, one, inputs, batch, seed, limit) for name, (one, _) in tried.items()
    }
    found = race(
        {"as it is": data, **{name: one for name, (one, _) in tried.items()}},
        inputs=inputs,
        batch=batch,
        threads=threads,
        providers=providers,
        max_seconds=max_seconds,
        seed=seed,
        time_limit=limit,
        progress=progress,
    )
    rows = [row for row in found.rows if row.name in tried and row.ratio.high <= FASTER]
    if not rows:
        return Aligned(data, None, 0, max(gaps.values()), found)
    best = min(rows, key=lambda row: row.ratio.median)
    one, widened = tried[best.name]
    return Aligned(one, int(best.name.split()[-1]), widened, gaps[best.name], found)


def candidates(data: bytes, units: Sequence[int] = UNITS) -> dict[str, bytes]:
    """The model with its channels padded, by name: one for each unit that changes any width."""
    if len(data) > LARGEST:
        return {}
    return {name: one for name, (one, _) in _candidates(_parsed(data), units).items()}


def _parsed(data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model)
        constants_of(model.graph)  # what the checker does not read: types of tensors in attributes
    except Exception as error:  # protobuf and onnx raise classes of their own
        raise UsageError("this is no valid ONNX model", why=first_line(error)) from error
    return model


def _candidates(model: onnx.ModelProto, units: Sequence[int]) -> dict[str, tuple[bytes, int]]:
    """Name -> model and number of wider channel counts; equal models once."""
    widths = widths_of(model)
    found: dict[tuple[int, ...], tuple[str, int]] = {}
    for unit in units:
        grown = tuple(widths.grown(segment, unit) for segment in widths.free())
        count = sum(new != old for new, old in zip(grown, widths.free().values(), strict=True))
        if count:
            found.setdefault(grown, (f"multiples of {unit}", count))
    return {
        name: (padded(model, widths, int(name.split()[-1])).SerializeToString(), count)
        for name, count in found.values()
    }


def _checked(
    data: bytes,
    other: bytes,
    inputs: Mapping[str, np.ndarray] | None,
    batch: int,
    seed: int,
    limit: float,
) -> float:
    """The largest difference of the two on random inputs. Raises WrongError if it is too large."""
    sessions = [opened(one, "model") for one in (data, other)]
    wanted = asked_inputs(sessions[0])
    given = inputs or random_feeds(wanted, batch, np.random.default_rng(seed))
    far = worst(*(run_within(session, given, limit, "model") for session in sessions))
    if not far <= TOLERANCE:
        raise WrongError(
            f"the padded model differs from the original by {far:.2g} (limit {TOLERANCE:g})",
            hint="report this model; nothing was written",
        )
    return far
