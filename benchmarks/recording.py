"""Records: `results/NAME.json`, one a benchmark, with the circumstances that they came about in.

A record of a long experiment is written again after every row, so a run goes on where it was
stopped. Records are small: a row a line, numbers to four digits.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.process.environment import environment

RESULTS = Path(__file__).with_name("results")

Known = Mapping[str, Mapping[str, Any]]
"""Rows by name."""


@dataclass(frozen=True)
class Row:
    """A name such as ``met/resnet50/0``, and how it is measured."""

    name: str
    run: Callable[[], dict[str, Any]]


def record(name: str, found: Mapping[str, Any]) -> None:
    """Write what was found, and say where."""
    path = RESULTS / f"{name}.json"
    write(path, {"environment": environment(), **found})
    print(f"recorded in {path.relative_to(RESULTS.parents[1])}", file=sys.stderr)


def recorded(name: str) -> dict[str, Any]:
    """What was recorded under a name before; nothing where nothing was."""
    return read(RESULTS / f"{name}.json")


def resumed(
    path: Path, rows: Iterable[Row], wanted: Callable[[str], bool], say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """All rows of a record, after those that are wanted and not in it yet were measured.

    Each is written when it is done, with the seconds that it took.
    """
    found = read(path)
    known: dict[str, dict[str, Any]] = found.get("rows", {})
    for row in rows:
        if row.name in known or not wanted(row.name):
            continue
        start = time.perf_counter()
        known[row.name] = row.run()
        known[row.name]["took"] = round(time.perf_counter() - start, 1)
        write(path, {**found, "environment": environment(), "rows": known})
        say(f"{row.name}: {json.dumps(rounded(known[row.name]))}")
    return known


def read(path: Path) -> dict[str, Any]:
    """A record; empty where there is none."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def write(path: Path, found: Mapping[str, Any]) -> None:
    """A record, as a whole or not at all: what stands in ``rows`` has a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for key, value in rounded(found).items():
        text = json.dumps(value, indent=1).replace("\n", "\n ")
        if key == "rows" and isinstance(value, dict):
            rows = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in value.items()]
            text = "{\n  " + ",\n  ".join(rows) + "\n }"
        elif key == "rows":
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    whole = path.with_suffix(".part")
    whole.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    whole.replace(path)


def rounded(value: Any) -> Any:
    """The same with floats to four digits, and to one decimal place where they are large."""
    if isinstance(value, float):
        return round(value, 1) if abs(value) >= 1000 else float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value
