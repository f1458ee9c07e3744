"""From a request to its result: check, race, sum up."""

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np

from compressor.bench.contest import HEAT, TARGET, Contest, Progress, Readings
from compressor.bench.denormals import denormals_flushed
from compressor.bench.result import Clock, Race, RaceRow, Samples
from compressor.bench.sessions import MOST_THREADS, Model, file_bytes, line_up
from compressor.bench.statistics import FEWEST_HEATS
from compressor.onnx.sessions import CPU
from compressor.passes.base.errors import UsageError
from compressor.process.environment import environment
from compressor.process.time_limit import Limit, limit_of


def race(
    models: Mapping[str, Model],
    *,
    inputs: Mapping[str, np.ndarray] | None = None,
    batch: int = 1,
    rounds: int = 30,
    max_seconds: float = 60,
    threads: int = 1,
    providers: Sequence[str] | None = None,
    warmup: int = 5,
    target: float = TARGET,
    seed: int = 0,
    time_limit: float | None = None,
    progress: Progress | None = None,
) -> Race:
    """Time ONNX models (paths or bytes, by name) against the first one, side by side.

    All models are alive in this process, with the same options, and run on the same inputs:
    `inputs` by name, or made up, with `batch` for a dynamic first dimension. Each round takes
    a sample of every model, in random order. After five rounds (a heat) the models are loaded
    anew, and each makes one run and `warmup` more that are not counted. The race goes on for
    `rounds` rounds and six heats at least, until every 95 % interval is within `target` (1 %) of
    its ratio.
    When `max_seconds` seconds have passed it ends with the third round or any later one. A single
    run may take `time_limit` seconds, by default twice `max_seconds` and at least a minute.

    `threads` is the number of intra-op threads, and `providers` the execution providers in ONNX
    Runtime's order of preference: the CPU unless told otherwise. `progress` is called after each
    round with the rounds done and the rounds now expected.

    Raises UsageError for options, models or inputs that cannot be raced, a run that does not end
    and an unknown provider, and CompressError when ONNX Runtime falls back to another provider.
    """
    _refuse_nonsense(models, batch, rounds, max_seconds, threads, warmup)
    providers = (CPU,) if providers is None else tuple(providers)
    primary, why = _headline(providers, threads)
    cpu_clock = time.process_time_ns if primary == "wall" else time.thread_time_ns
    before = environment()
    limit = Limit(limit_of(max_seconds) if time_limit is None else time_limit)
    with denormals_flushed() as flushed, limit:
        entries = line_up(
            models, inputs=inputs, batch=batch, threads=threads, providers=providers, seed=seed
        )
        contest = Contest(
            entries,
            readings=[Readings(cpu_clock) for _ in entries.sources],
            primary=primary,
            seed=seed,
            heat=min(HEAT, math.ceil(rounds / FEWEST_HEATS)),
            limit=limit,
            target=target,
        )
        contest.run(rounds, max_seconds, warmup, progress)
    *rows, control = (_row(contest, position) for position in range(len(contest.readings)))
    return Race(
        rows=tuple(rows),
        control=control,
        primary=primary,
        why=why,
        provider=providers[0],
        threads=threads,
        shapes={name: array.shape for name, array in entries.feeds.items()},
        seconds=contest.seconds,
        converged=contest.converged,
        denormals_flushed=flushed,
        seed=seed,
        heat=contest.heat,
        order=tuple(contest.order),
        environment=before,
    )


def _refuse_nonsense(
    models: Mapping[str, Model],
    batch: int,
    rounds: int,
    max_seconds: float,
    threads: int,
    warmup: int,
) -> None:
    if not models:
        raise UsageError("no model to race", hint="give at least one, the baseline")
    counts = {"batch": batch, "rounds": rounds, "threads": threads, "warmup": warmup}
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"{name} = {count}: it must be at least 1")
    if threads > MOST_THREADS:
        raise UsageError(f"threads = {threads}: it must be at most {MOST_THREADS}")
    if not max_seconds > 0:
        raise UsageError(f"max_seconds = {max_seconds}: it must be more than 0")


def _headline(providers: Sequence[str], threads: int) -> tuple[Clock, str]:
    """The clock of the headline ratio, and why that one."""
    if providers[:1] != (CPU,):
        return "wall", "wall time is the headline because the work is not the calling thread's"
    if threads > 1:
        return "wall", "wall time is the headline because several threads share the work"
    return "cpu", "CPU time is the headline because one thread does all the work, undisturbed"


def _row(contest: Contest, position: int) -> RaceRow:
    name, model = contest.entries.sources[position]
    readings = contest.readings[position]
    p90, p99 = np.percentile(np.frombuffer(readings.single_ns, np.int64), [90, 99]) / 1e6
    return RaceRow(
        name=name,
        file_bytes=file_bytes(model),
        wall_ms=float(np.median(readings.per_run("wall"))) / 1e6,
        cpu_ms=float(np.median(readings.per_run("cpu"))) / 1e6,
        p90_ms=float(p90),
        p99_ms=float(p99),
        wall_ratio=contest.ratio(position, "wall"),
        cpu_ratio=contest.ratio(position, "cpu"),
        primary=contest.primary,
        samples=Samples(readings.runs, tuple(readings.wall_ns), tuple(readings.cpu_ns)),
    )
