"""How analysis grows: with operators, not with parameters.

LLaMA's shape on the meta device, at several depths and widths. Each row is `compressor inspect` as
a process of its own, with two threads: its wall clock and processor seconds, and the most memory
that it held.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
SHAPES = (
    *((8, width) for width in (1_024, 2_048, 4_096, 8_192)),
    *((layers, 8_192) for layers in (20, 40, 80)),
)
MOST_SECONDS, MOST_BYTES = 120, 2_000_000_000
"""Of the largest one."""

METER = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss]))
print(done.stdout)
"""
"""What a command took. A process of its own, because Linux counts the memory of the process that
starts another one as the other one's peak, and a test run may have held gigabytes."""


@dataclass(frozen=True)
class Row:
    """What it took to list the groups of one network."""

    layers: int
    width: int
    parameters: int
    operators: int
    groups: int
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int

    @property
    def passed(self) -> bool:
        """Processor seconds are judged: a busy machine makes nobody's analysis slower."""
        return self.cpu_seconds <= MOST_SECONDS and self.peak_bytes <= MOST_BYTES

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


def run(layers: int, width: int) -> Row:
    """Inspect one network in a process of its own. Raises RuntimeError where that fails."""
    model = f"{ROOT}/benchmarks/llama.py:llama_{layers}x{width}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    start = time.perf_counter()
    command = [sys.executable, "-m", "compressor", "inspect", model, "--json"]
    metered = subprocess.run(
        [sys.executable, "-c", METER, *command],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
        check=True,
    )
    first, said = metered.stdout.split("\n", 1)
    status, seconds, peak = json.loads(first)
    if status:
        raise RuntimeError(f"inspecting {layers} layers of {width} ended with {status}")
    found = json.loads(said)
    return Row(
        layers=layers,
        width=width,
        parameters=found["params"],
        operators=found["operators"],
        groups=len(found["groups"]),
        wall_seconds=round(time.perf_counter() - start, 2),
        cpu_seconds=round(seconds, 2),
        peak_bytes=peak * (1 if sys.platform == "darwin" else 1024),
    )


def table(rows: Iterable[Row]) -> Table:
    """All rows, with what took too much in red."""
    shown = Table(title="compressor inspect, LLaMA's shape on the meta device")
    for column in ("layers", "width", "parameters", "operators", "groups"):
        shown.add_column(column, justify="right")
    for column in ("seconds", "CPU seconds", "peak memory"):
        shown.add_column(column, justify="right")
    for row in rows:
        memory = f"{row.peak_bytes / 1e6:,.0f} MB"
        shown.add_row(
            f"{row.layers}",
            f"{row.width:,}",
            f"{row.parameters:,}",
            f"{row.operators:,}",
            f"{row.groups}",
            f"{row.wall_seconds:.1f}",
            f"{row.cpu_seconds:.1f}",
            memory if row.passed else f"[red]{memory}[/]",
        )
    return shown
