"""`python -m benchmarks`: run experiments and record them with their circumstances."""

import fnmatch
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import halves
from benchmarks.cases import SUITES
from compressor.environment import environment

RESULTS = Path(__file__).with_name("results")

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def experiments() -> None:
    """Experiments on the compressor."""


@app.command("halves")
def run_halves(
    suite: Annotated[str, typer.Argument(help=f"one of: {', '.join(SUITES)}")] = "reference",
    only: Annotated[str, typer.Option(help="name pattern of the models to run")] = "*",
    record: Annotated[bool, typer.Option(help="write benchmarks/results/")] = True,
) -> None:
    """Half of the channels of every model of a suite: proof, parity, size and seconds."""
    if suite not in SUITES:
        sys.exit(f"error: unknown suite '{suite}'; one of: {', '.join(SUITES)}")
    cases = [case for case in SUITES[suite] if fnmatch.fnmatchcase(case.name, only)]
    if not cases:
        sys.exit(f"error: no model of {suite} matches '{only}'")
    rows = []
    for case in cases:
        rows.append(halves.run(case))
        print(f"{case.name}: {'passed' if rows[-1].passed else 'FAILED'}", file=sys.stderr)
    Console(width=None if sys.stdout.isatty() else 170).print(halves.table(rows))
    if record and only == "*":
        found = {"environment": environment(), "rows": [row.to_json() for row in rows]}
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"halves-{suite}.json"
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"recorded in {path.relative_to(Path.cwd())}", file=sys.stderr)
    if not all(row.passed for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    app()
