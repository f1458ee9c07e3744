"""A race under way: heat after heat, until the intervals are narrow or the time is up.

    heat     load every model anew, in random order; warm up; a few rounds
    round    sample every model, in random order
    sample   one run that does not count, then as many runs as fill 5 ms

Sessions are loaded anew because one keeps the memory that it happens to get, and with it about
half a per cent of speed; of several twins the one loaded last was a whole per cent faster
(ResNet-56, ONNX Runtime 1.31.1). Of a model against itself, the intervals held the true ratio
in 10 races of 25 without heats, and in 151 of 160 with them, at loads of 2 to 5 on two cores.
"""

import math
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from compressor.bench.result import Clock
from compressor.bench.sessions import Field, Runner
from compressor.bench.statistics import FEWEST_HEATS, TimeRatio, paired_ratio
from compressor.process.time_limit import Limit

TARGET = 0.01  # half-width of an interval, as a share of its ratio, at which a race may end
HEAT = 5  # rounds; loading takes about as long as they do
SAMPLE_NS = 5_000_000  # a sample is at least this long, so that reading the clocks costs nothing
TICKS = 20  # and at least this many ticks of the CPU clock (16 ms each on Windows)
FEWEST_ROUNDS = 3  # even when the time is up: fewer have no spread
GROWTH = 1.15  # rounds until the next look at the intervals: looking costs time, and tempts

Progress = Callable[[int, int], None]


@dataclass
class Readings:
    """What the clocks said of one entry: a sample per round, and each single run's wall time."""

    cpu_clock: Callable[[], int]
    runs: int = 0  # in a sample; 0 before the first warm-up
    wall_ns: list[int] = field(default_factory=list)
    cpu_ns: list[int] = field(default_factory=list)
    single_ns: "array[int]" = field(default_factory=lambda: array("q"))

    def warm_up(self, runner: Runner, runs: int) -> None:
        """Run a few times; the first time of all, settle how many runs make a sample."""
        runner.try_out()
        with runner.limit.on(runner.name, runs):
            times = [_timed(runner.run) for _ in range(runs)]
        if self.runs == 0:
            shortest = max(SAMPLE_NS, TICKS * _tick_ns(self.cpu_clock))
            self.runs = math.ceil(shortest / min(times))

    def sample(self, runner: Runner) -> None:
        """Take one sample. Its first run finds the caches full of another model: not counted."""
        with runner.limit.on(runner.name, self.runs + 1):
            self._sample(runner)

    def _sample(self, runner: Runner) -> None:
        run, now = runner.run, time.perf_counter_ns
        run()
        cpu_start = self.cpu_clock()
        marks = [now()]
        for _ in range(self.runs):
            run()
            marks.append(now())
        cpu = self.cpu_clock() - cpu_start
        self.wall_ns.append(max(marks[-1] - marks[0], 1))  # never 0: it will be divided by
        self.cpu_ns.append(max(cpu, 1))
        self.single_ns.extend(after - before for before, after in pairwise(marks))

    def per_run(self, clock: Clock) -> np.ndarray:
        """Nanoseconds of one run, for each round."""
        return np.array(self.wall_ns if clock == "wall" else self.cpu_ns) / self.runs


@dataclass
class Contest:
    """The entries of a race, their readings so far, and when to stop.

    `heat` is the number of rounds between two loadings, `target` the half-width at which it may
    end, `limit` ends runs that take too long, `order` is the order of entries in each round,
    `seconds` the time since the start.
    """

    entries: Field
    readings: Sequence[Readings]
    primary: Clock
    seed: int
    heat: int
    limit: Limit
    target: float = TARGET
    order: list[tuple[int, ...]] = field(default_factory=list)
    seconds: float = 0

    def run(self, rounds: int, max_seconds: float, warmup: int, progress: Progress | None) -> None:
        """Race until the intervals are narrow, after `rounds` rounds, or the time is up."""
        generator = np.random.default_rng(self.seed)
        look = expected = max(rounds, FEWEST_HEATS * self.heat)
        start = time.perf_counter()
        for loading in self._loadings(generator):
            runners = self._loaded(loading, warmup)
            for _ in range(self.heat):
                self._round(runners, generator)
                done, self.seconds = len(self.order), time.perf_counter() - start
                over = self.seconds >= max_seconds and done >= FEWEST_ROUNDS
                if not over and done >= look and done % self.heat == 0:
                    over = self.converged
                    look = math.ceil(done * GROWTH)
                    expected = self._forecast(max_seconds)
                if progress is not None:
                    progress(done, done if over else max(expected, done + 1))
                if over:
                    return
            del runners  # before the next ones are loaded

    def ratio(self, position: int, clock: Clock) -> TimeRatio:
        """How an entry compares with the first one."""
        times, baseline = (self.readings[one].per_run(clock) for one in (position, 0))
        return paired_ratio(times, baseline, heat=self.heat, seed=self.seed)

    @property
    def converged(self) -> bool:
        """Whether every interval is narrow."""
        return self._width() <= self.target

    def _loadings(self, generator: np.random.Generator) -> Iterator[tuple[int, ...]]:
        """Random orders, each followed by its mirror image: no entry is the last more often."""
        while True:
            order = self._shuffled(generator)
            yield order
            yield order[::-1]

    def _loaded(self, loading: Sequence[int], warmup: int) -> list[Runner]:
        runners = self.entries.load(loading, self.limit)
        for position in loading:
            self.readings[position].warm_up(runners[position], warmup)
        return runners

    def _round(self, runners: Sequence[Runner], generator: np.random.Generator) -> None:
        self.order.append(self._shuffled(generator))
        for position in self.order[-1]:
            self.readings[position].sample(runners[position])

    def _shuffled(self, generator: np.random.Generator) -> tuple[int, ...]:
        return tuple(generator.permutation(len(self.readings)).tolist())

    def _width(self) -> float:
        """The half-width of the widest interval, as a share of its ratio."""
        positions = range(1, len(self.readings))
        return max(self.ratio(position, self.primary).half_width for position in positions)

    def _forecast(self, max_seconds: float) -> int:
        """The rounds at the end: an interval narrows with the root of their number."""
        longer = min((self._width() / self.target) ** 2, max_seconds / self.seconds)
        return math.ceil(len(self.order) * longer)


def _timed(run: Callable[[], None]) -> int:
    """The wall time of one call in nanoseconds, never 0."""
    start = time.perf_counter_ns()
    run()
    return max(time.perf_counter_ns() - start, 1)


def _tick_ns(clock: Callable[[], int]) -> int:
    """The smallest step of a clock that only moves while we compute."""
    start = clock()
    while (now := clock()) == start:
        pass
    return now - start
