"""What a race gives back: the numbers, the raw samples behind them, the circumstances."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from compressor.bench.statistics import TimeRatio, paired_ratio

Clock = Literal["wall", "cpu"]


@dataclass(frozen=True)
class Samples:
    """One model's raw samples, one per round, each the nanoseconds of `runs` runs together."""

    runs: int
    wall_ns: tuple[int, ...]
    cpu_ns: tuple[int, ...]


@dataclass(frozen=True)
class RaceRow:
    """One model's results; `*_ms` are milliseconds for one run.

    `wall_ms` and `cpu_ms` are medians over the rounds, `p90_ms` and `p99_ms` percentiles of the
    wall time of every single run (`samples` holds their sums only). The ratios are times divided
    by the baseline's: below 1 is faster. `file_bytes` includes external data.
    """

    name: str
    file_bytes: int
    wall_ms: float
    cpu_ms: float
    p90_ms: float
    p99_ms: float
    wall_ratio: TimeRatio
    cpu_ratio: TimeRatio
    primary: Clock
    samples: Samples

    @property
    def ratio(self) -> TimeRatio:
        """The headline: the ratio by the clock that `Race.primary` names."""
        return self.wall_ratio if self.primary == "wall" else self.cpu_ratio


@dataclass(frozen=True)
class Race:
    """All models of one race; the first row is the baseline, `control` the same model again.

    `primary` names the clock of the headline ratio and `why` says why it is that one.
    `converged`: every primary interval is as narrow as was asked for; if not, the time was up
    first. `seconds` is the time it all took. `heat` is the number of rounds between two
    loadings of the models. `order` has, for each round, the order of the entries: positions in
    `rows`, the last one being the control.
    """

    rows: tuple[RaceRow, ...]
    control: RaceRow
    primary: Clock
    why: str
    provider: str
    threads: int
    shapes: Mapping[str, tuple[int, ...]]
    seconds: float
    converged: bool
    denormals_flushed: bool
    seed: int
    heat: int
    order: tuple[tuple[int, ...], ...]
    environment: Mapping[str, object]

    @property
    def rounds(self) -> int:
        """How many rounds were raced."""
        return len(self.order)

    @property
    def noise(self) -> TimeRatio:
        """The baseline against itself, by the primary clock: what a ratio of 1 looks like here."""
        return self.control.ratio

    def between(self, name: str, other: str) -> TimeRatio:
        """How long one model takes over another of the same race, round by round.

        Raises KeyError where one of them did not take part.
        """
        rows = {row.name: row.samples for row in self.rows}
        return paired_ratio(*(self._times(rows[one]) for one in (name, other)), heat=self.heat)

    def _times(self, samples: Samples) -> list[float]:
        whole = samples.wall_ns if self.primary == "wall" else samples.cpu_ns
        return [time / samples.runs for time in whole]

    def to_json(self) -> dict[str, object]:
        """Everything, raw samples and orders too, in dicts, lists, strings and numbers."""
        whole = _plain(asdict(self))
        assert isinstance(whole, dict)
        return whole | {"rounds": self.rounds, "noise": _plain(asdict(self.noise))}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
