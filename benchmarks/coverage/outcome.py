"""What came of one model in one engine: a row of the scoreboard, and of its record.

"resnet18": {"family": "classification", "compressor": ["equal", 0.73, 15.1, 2e-13, ...], ...}
"""

import json
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import recording

ROOT = Path(__file__).resolve().parents[2]

OUTCOMES = ("equal", "frozen", "wrong", "crash")
LEAST_GONE = 0.35
OURS = "compressor"
FOLDERS = sorted(
    {str(ROOT), *map(sysconfig.get_path, ("purelib", "stdlib"))}, key=len, reverse=True
)
"""Where this project, its dependencies and Python lie: the longest first."""
PEERS = ("torch-pruning", "onnxsim")
COLUMNS = ("outcome", "params_gone", "seconds", "proof", "overhead", "parity", "exported", "why")
"""Of a model and engine in the record, without what is empty at the end."""
WORDS = 240
"""Letters of a reason that are recorded: for our own rows alone."""


@dataclass(frozen=True)
class Outcome:
    """One model in one engine. Seconds are CPU seconds of one thread; memory in MiB."""

    name: str
    family: str
    outcome: str
    engine: str = OURS
    why: str = ""
    params_gone: float = 0.0
    proof: float | None = None
    parity: float | None = None
    exported: bool = False
    overhead: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    memory: int = 0
    trace: str = ""

    def line(self) -> str:
        """As JSON, without the paths of the machine that it came from."""
        line = json.dumps(asdict(self))
        for folder in FOLDERS:
            line = line.replace(f"{folder}/", "")
        return line

    def columns(self) -> list[Any]:
        """What is recorded."""
        found = {**asdict(self), "seconds": round(sum(self.seconds.values()), 2)}
        found["why"] = self.why[:WORDS] if self.engine == OURS else ""
        row = [found[name] for name in COLUMNS]
        while not row[-1]:
            row.pop()
        return [float(f"{one:.3g}") if isinstance(one, float) else one for one in row]


def read(path: Path) -> Iterator[Outcome]:
    """The rows of a record. None if it is absent."""
    for name, own in recording.read(path).get("rows", {}).items():
        family = own.pop("family")
        for engine, row in own.items():
            found = dict(zip(COLUMNS, row, strict=False))
            seconds = {"all": found.pop("seconds", 0.0)}
            yield Outcome(name, family, engine=engine, seconds=seconds, **found)


def rows(outcomes: Iterable[Outcome]) -> dict[str, dict[str, Any]]:
    """As they are recorded, by model; the last of a model and engine counts."""
    found: dict[str, dict[str, Any]] = {}
    for one in outcomes:
        found.setdefault(one.name, {"family": one.family})[one.engine] = one.columns()
    return found
