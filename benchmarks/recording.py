"""Where results are kept: `results/NAME.json`, with the circumstances that they came about in."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor.environment import environment

RESULTS = Path(__file__).with_name("results")


def record(name: str, found: Mapping[str, Any]) -> None:
    """Write what was found, and say where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"environment": environment(), **found}, indent=1) + "\n")
    print(f"recorded in {path.relative_to(RESULTS.parents[1])}", file=sys.stderr)


def recorded(name: str) -> dict[str, Any]:
    """What was recorded under a name before; nothing where nothing was."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}
