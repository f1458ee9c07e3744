"""What came of one model in one engine: a row of the scoreboard, a line of its JSONL file."""

import json
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

OUTCOMES = ("equal", "frozen", "wrong", "crash")
LEAST_GONE = 0.35
OURS = "compressor"
FOLDERS = sorted(
    {str(ROOT), *map(sysconfig.get_path, ("purelib", "stdlib"))}, key=len, reverse=True
)
"""Where this project, its dependencies and Python lie: the longest first."""
PEERS = ("torch-pruning", "onnxsim")


@dataclass(frozen=True)
class Outcome:
    """One model in one engine. Seconds are CPU seconds of one thread; memory in MiB."""

    zoo: str
    name: str
    family: str
    outcome: str
    engine: str = OURS
    why: str = ""
    params_gone: float = 0.0
    macs_gone: float = 0.0
    groups: int = 0
    frozen_axes: int = 0
    reasons: tuple[str, ...] = ()
    capture: str = ""
    proof: float | None = None
    parity: float | None = None
    exported: bool = False
    overhead: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    memory: int = 0
    trace: str = ""

    def line(self) -> str:
        """For the JSONL file, without the paths of the machine that it came from."""
        line = json.dumps(asdict(self))
        for folder in FOLDERS:
            line = line.replace(f"{folder}/", "")
        return line


def read(path: Path) -> Iterator[Outcome]:
    """The rows of a JSONL file; the last row of a model and engine counts. None if it is absent."""
    if not path.exists():
        return
    found = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        row["reasons"] = tuple(row["reasons"])
        found[row["name"], row["engine"]] = Outcome(**row)
    yield from found.values()
