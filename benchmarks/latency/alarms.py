"""Does the gate cry wolf? Checks of a model against itself, and against one a tenth wider.

Other processes compute in bursts meanwhile: each check has its own number of them, from none to one
a core, and their bursts are random.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from benchmarks.latency.subjects import exported, ratio
from compressor import bench, passes
from compressor.gate import check
from models._random import normal, seeded

WIDTH, WIDER = 160, 176
"""Channels inside: a tenth more of them, of the arithmetic, and (see `truth`) of the time."""
CHECKS = 10
"""A row."""
MARGIN = 0.05
SECONDS = 30.0
"""A check, at most."""
BURSTS = """
import random, sys, time
random.seed(int(sys.argv[1]))
while True:
    end = time.perf_counter() + random.expovariate(5)
    while time.perf_counter() < end:
        sum(range(10_000))
    time.sleep(random.expovariate(5))
"""


@cache
def _model(width: int) -> bytes:
    """Two blocks of convolutions with so many channels inside: about 10 ms."""

    def make() -> nn.Module:
        blocks = [
            nn.Sequential(
                nn.Conv2d(160, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
                nn.Conv2d(width, 160, 3, padding=1), nn.BatchNorm2d(160), nn.ReLU(),
            )
            for _ in range(2)
        ]  # fmt: skip
        return nn.Sequential(*blocks)

    return exported(passes.capture(seeded(make, 0), (normal(2, 160, 36, 36),), {}))


@contextmanager
def _busy(seed: int) -> Iterator[None]:
    """Other processes that compute now and then."""
    count = int(np.random.default_rng(seed).integers(0, (os.cpu_count() or 1) + 1))
    others = [
        subprocess.Popen([sys.executable, "-c", BURSTS, str(seed * 64 + n)]) for n in range(count)
    ]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            with suppress(subprocess.TimeoutExpired):
                other.wait(10)


def _checks(width: int, seeds: range) -> dict[str, Any]:
    answers, seconds, ratios = Counter[str](), list[float](), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        old, new = Path(folder) / "old.onnx", Path(folder) / "new.onnx"
        old.write_bytes(_model(WIDTH))
        new.write_bytes(_model(width))
        for seed in seeds:
            with _busy(seed):
                start = time.perf_counter()
                verdict = check(new, old, max_regression=MARGIN, max_seconds=SECONDS, seed=seed)
                seconds.append(round(time.perf_counter() - start, 1))
            answers[verdict.answer] += 1
            ratios.append(verdict.ratio.median)
    return {"answers": answers, "low": min(ratios), "high": max(ratios), "seconds": seconds}


def same(batch: int) -> dict[str, Any]:
    """Ten checks of a model against an identical file."""
    return _checks(WIDTH, range(batch * CHECKS, (batch + 1) * CHECKS))


def wider(batch: int) -> dict[str, Any]:
    """Ten checks of the wider model against the narrow one."""
    return _checks(WIDER, range(1_000 + batch * CHECKS, 1_000 + (batch + 1) * CHECKS))


def truth() -> dict[str, Any]:
    """How much longer the wider model takes, in one long race without other processes of ours."""
    race = bench.race({"narrow": _model(WIDTH), "wider": _model(WIDER)}, max_seconds=60)
    own = race.rows[0]
    return {"ms": getattr(own, f"{race.primary}_ms"), **ratio(race.rows[1]),
            "noise": ratio(race.control)}  # fmt: skip
