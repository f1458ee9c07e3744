"""A race as a table for the terminal."""

from typing import TYPE_CHECKING

from compressor.bench.result import Race, RaceRow
from compressor.passes.base.safe_text import showable

if TYPE_CHECKING:
    from rich.table import Table

CLOCKS = {"wall": "wall time", "cpu": "CPU time"}


def render(race: Race) -> "Table":
    """A table of one line per model: its size, its milliseconds, its time ratios."""
    from rich.table import Table

    from compressor.base.terminal_text import words

    baseline = showable(race.rows[0].name)
    table = Table(
        title=words(
            f"Time of one run as a ratio to {baseline} ({CLOCKS[race.primary]}; "
            "below 1x is faster), with 95 % interval"
        ),
        caption=words(f"noise: {baseline} against itself {race.noise}\n{_circumstances(race)}"),
    )
    table.add_column("model", overflow="fold")
    headings = ("size", "wall ms", "p90", "p99", "CPU ms", *_ratio_headings(race))
    for heading in headings:
        table.add_column(heading, justify="right")
    for position, row in enumerate(race.rows):
        table.add_row(words(row.name), *_cells(race, row, is_baseline=position == 0))
    return table


def _ratio_headings(race: Race) -> tuple[str, str]:
    other = "cpu" if race.primary == "wall" else "wall"
    return f"{CLOCKS[race.primary]} ratio", f"({CLOCKS[other]} ratio)"


def _cells(race: Race, row: RaceRow, *, is_baseline: bool) -> tuple[str, ...]:
    times = (row.wall_ms, row.p90_ms, row.p99_ms, row.cpu_ms)
    other = row.cpu_ratio if race.primary == "wall" else row.wall_ratio
    ratios = ("1x", "1x") if is_baseline else (str(row.ratio), str(other))
    return _size(row.file_bytes), *(f"{time:.3g}" for time in times), *ratios


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _circumstances(race: Race) -> str:
    threads = f"{race.threads} thread{'s' if race.threads > 1 else ''}"
    ended = "" if race.converged else ", stopped by the time limit"
    return f"{race.provider}, {threads}, {race.rounds} rounds{ended}; {race.why}"
