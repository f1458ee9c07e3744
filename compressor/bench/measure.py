"""The race itself: warm up, then rounds until the intervals are narrow or the time is up."""

import math
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from compressor.bench.denormals import denormals_flushed
from compressor.bench.result import Clock, Race, Row, Samples
from compressor.bench.sessions import CPU, Model, Runner, first_line, line_up, runtime_errors
from compressor.bench.statistics import Ratio, paired_ratio
from compressor.environment import environment
from compressor.passes.errors import (  # type: ignore[import-not-found, unused-ignore]
    UsageError,
)

TARGET = 0.01  # half-width of an interval, as a share of its ratio, at which a race may end
SAMPLE_NS = 5_000_000  # a sample is at least this long, so that reading the clocks costs nothing
TICKS = 20  # and at least this many ticks of the CPU clock (16 ms each on Windows)
FEWEST_ROUNDS = 3  # even when the time is up: fewer have no spread
GROWTH = 1.15  # rounds until the next look at the intervals: looking costs time, and tempts

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Stopwatch:
    """A runner and what the clocks said: one sample per round, and each single run's wall time."""

    runner: Runner
    runs: int
    cpu_clock: Callable[[], int]
    wall_ns: list[int] = field(default_factory=list)
    cpu_ns: list[int] = field(default_factory=list)
    single_ns: "array[int]" = field(default_factory=lambda: array("q"))

    def sample(self) -> None:
        """Run `runs` times and note the times."""
        run, now = self.runner.run, time.perf_counter_ns
        cpu_start = self.cpu_clock()
        marks = [now()]
        for _ in range(self.runs):
            run()
            marks.append(now())
        cpu = self.cpu_clock() - cpu_start
        self.wall_ns.append(max(marks[-1] - marks[0], 1))  # a ratio needs more than nothing
        self.cpu_ns.append(max(cpu, 1))
        self.single_ns.extend(after - before for before, after in pairwise(marks))

    def per_run(self, clock: Clock) -> np.ndarray:
        """Nanoseconds of one run, for each round."""
        return np.array(self.wall_ns if clock == "wall" else self.cpu_ns) / self.runs


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
    seed: int = 0,
    progress: Progress | None = None,
) -> Race:
    """Time ONNX models (paths or bytes, by name) against the first one, side by side.

    All models are loaded into this process with the same options and run on the same inputs:
    `inputs` by name, or made up, with `batch` for a dynamic first dimension. Each of the
    `rounds` rounds takes a sample of every model in random order. The race goes on until every
    95 % interval is within 1 % of its ratio, or the rounds have taken `max_seconds`
    seconds; three rounds are the least. `warmup` runs of each model come first and are not counted.

    `threads` is the number of intra-op threads, and `providers` the execution providers in ONNX
    Runtime's order of preference: the CPU unless told otherwise. `progress` is called after each
    round with the rounds done and the rounds now expected.

    Raises UsageError for options, models or inputs that cannot be raced and for an unknown
    provider, and CompressError when ONNX Runtime falls back to another provider.
    """
    _refuse_nonsense(models, batch, rounds, max_seconds, threads, warmup)
    providers = (CPU,) if providers is None else tuple(providers)
    primary, why = _headline(providers, threads)
    cpu_clock = time.process_time_ns if primary == "wall" else time.thread_time_ns
    before = environment()
    with denormals_flushed() as flushed:
        runners, feeds = line_up(
            models, inputs=inputs, batch=batch, threads=threads, providers=providers, seed=seed
        )
        shortest = max(SAMPLE_NS, TICKS * _tick_ns(cpu_clock))
        watches = [
            Stopwatch(one, math.ceil(shortest / _warm_up(one, warmup)), cpu_clock)
            for one in runners
        ]
        order, seconds = _go(watches, primary, rounds, max_seconds, seed, progress)
    rows = tuple(_row(watch, watches[0], primary, seed) for watch in watches)
    return Race(
        rows=rows[:-1],
        control=rows[-1],
        primary=primary,
        why=why,
        provider=providers[0],
        threads=threads,
        shapes={name: array.shape for name, array in feeds.items()},
        seconds=seconds,
        converged=_width(watches, primary, seed) <= TARGET,
        denormals_flushed=flushed,
        seed=seed,
        order=order,
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
    if not max_seconds > 0:
        raise UsageError(f"max_seconds = {max_seconds}: it must be more than 0")


def _headline(providers: Sequence[str], threads: int) -> tuple[Clock, str]:
    """The clock of the headline ratio, and why that one."""
    if providers[:1] != (CPU,):
        return "wall", "wall time is the headline because the work is not the calling thread's"
    if threads > 1:
        return "wall", "wall time is the headline because several threads share the work"
    return "cpu", "CPU time is the headline because one thread does all the work, undisturbed"


def _tick_ns(clock: Callable[[], int]) -> int:
    """The smallest step of a clock that only moves while we compute."""
    start = clock()
    while (now := clock()) == start:
        pass
    return now - start


def _warm_up(runner: Runner, runs: int) -> int:
    """Run a few times; the nanoseconds of the fastest."""
    times = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        try:
            runner.run()
        except runtime_errors() as error:
            raise UsageError(
                f"the model {runner.name!r} does not run on these inputs",
                why=first_line(error),
                hint="pass inputs that the model accepts",
            ) from error
        times.append(time.perf_counter_ns() - start)
    return max(min(times), 1)


def _go(
    watches: Sequence[Stopwatch],
    primary: Clock,
    rounds: int,
    max_seconds: float,
    seed: int,
    progress: Progress | None,
) -> tuple[tuple[tuple[int, ...], ...], float]:
    """Race round after round; the order of each, and the seconds they all took."""
    generator = np.random.default_rng(seed)
    order: list[tuple[int, ...]] = []
    expected = look = max(rounds, FEWEST_ROUNDS)
    start = time.perf_counter()
    while True:
        order.append(tuple(generator.permutation(len(watches)).tolist()))
        for position in order[-1]:
            watches[position].sample()
        done, seconds = len(order), time.perf_counter() - start
        over = seconds >= max_seconds and done >= FEWEST_ROUNDS
        if done == look and not over:
            width = _width(watches, primary, seed)
            over = width <= TARGET
            look = math.ceil(done * GROWTH)
            expected = _forecast(done, width, max_seconds / seconds)
        if progress is not None:
            progress(done, done if over else max(expected, done + 1))
        if over:
            return tuple(order), seconds


def _forecast(done: int, width: float, times_longer: float) -> int:
    """The rounds at which the race will end: intervals narrow with the root of their number."""
    return math.ceil(done * min((width / TARGET) ** 2, times_longer))


def _width(watches: Sequence[Stopwatch], primary: Clock, seed: int) -> float:
    """The half-width of the widest interval, as a share of its ratio."""
    baseline, *others = watches
    return max(_ratio(watch, baseline, primary, seed).half_width for watch in others)


def _ratio(watch: Stopwatch, baseline: Stopwatch, clock: Clock, seed: int) -> Ratio:
    return paired_ratio(watch.per_run(clock), baseline.per_run(clock), seed=seed)


def _row(watch: Stopwatch, baseline: Stopwatch, primary: Clock, seed: int) -> Row:
    p90, p99 = np.percentile(np.frombuffer(watch.single_ns, np.int64), [90, 99]) / 1e6
    return Row(
        name=watch.runner.name,
        file_bytes=watch.runner.file_bytes,
        wall_ms=float(np.median(watch.per_run("wall"))) / 1e6,
        cpu_ms=float(np.median(watch.per_run("cpu"))) / 1e6,
        p90_ms=float(p90),
        p99_ms=float(p99),
        wall_ratio=_ratio(watch, baseline, "wall", seed),
        cpu_ratio=_ratio(watch, baseline, "cpu", seed),
        primary=primary,
        samples=Samples(watch.runs, tuple(watch.wall_ns), tuple(watch.cpu_ns)),
    )
