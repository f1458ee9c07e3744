"""`python -m benchmarks`: run experiments and record them with their circumstances."""

import fnmatch
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import halves, huge, recording
from benchmarks.cases import SUITES
from benchmarks.coverage import runner, score
from benchmarks.coverage.outcome import OURS, PEERS, read
from benchmarks.coverage.zoo import ZOOS
from benchmarks.recording import RESULTS

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
        recording.record(f"halves-{suite}", {"rows": [row.to_json() for row in rows]})
    if not all(row.passed for row in rows):
        sys.exit(1)


@app.command("accuracy")
def run_accuracy(
    only: Annotated[str, typer.Option(help="name pattern of the rows to run")] = "*",
) -> None:
    """What pruning keeps without training, on real data. Goes on where a run was stopped."""
    from benchmarks.accuracy import networks, rows

    if not networks.available():
        sys.exit(f"error: there is no {networks.DATA}: the networks and their data")
    path = RESULTS / "accuracy.json"
    known = rows.run(path, lambda name: fnmatch.fnmatchcase(name, only), _say)
    recording.write(path, {**recording.read(path), "summary": rows.summary(known), "rows": known})
    Console(width=None if sys.stdout.isatty() else 170).print(*rows.tables(known))


@app.command("latency")
def run_latency(
    only: Annotated[str, typer.Option(help="name pattern of the rows to run")] = "*",
) -> None:
    """Plans by time, raced in ONNX Runtime. Goes on where a run was stopped."""
    from benchmarks.latency import rows, tables

    path = RESULTS / "latency.json"
    known = recording.resumed(path, rows.rows(), lambda name: fnmatch.fnmatchcase(name, only), _say)
    Console(width=None if sys.stdout.isatty() else 150).print(*tables.tables(known))


@app.command("coverage")
def run_coverage(
    zoo: Annotated[str, typer.Option(help=f"one of: {', '.join(ZOOS)}")] = "torchvision",
    only: Annotated[str, typer.Option(help="name pattern of the models to run")] = "*",
    peer: Annotated[list[str] | None, typer.Option(help="another tool to run beside")] = None,
    jobs: Annotated[int, typer.Option(help="processes at a time")] = 1,
    again: Annotated[bool, typer.Option(help="run what is in the results already")] = False,
    export: Annotated[bool, typer.Option(help="export and run in ONNX Runtime")] = True,
) -> None:
    """Every model of a zoo: equal, frozen, wrong or crash. Goes on where a run was stopped."""
    if zoo not in ZOOS:
        sys.exit(f"error: unknown zoo '{zoo}'; one of: {', '.join(ZOOS)}")
    if unknown := set(peer or ()) - set(PEERS):
        sys.exit(f"error: unknown peer '{min(unknown)}'; one of: {', '.join(PEERS)}")
    path = RESULTS / f"coverage-{zoo}.json"
    task = runner.Run(zoo, path, only, (OURS, *(peer or ())), jobs, again=again, exports=export)
    runner.run(task, _say)
    rows = [row for row in read(path) if fnmatch.fnmatchcase(row.name, only)]
    if not rows:
        sys.exit(f"error: no model of {zoo} matches '{only}'")
    console = Console(width=None if sys.stdout.isatty() else 170)
    console.print(score.misses(rows), score.table(zoo, rows))
    if any(row.outcome in ("wrong", "crash") for row in rows if row.engine == OURS):
        sys.exit(1)


@app.command("fuzz")
def run_fuzz(
    seed: Annotated[int, typer.Option(help="of the first network")] = 0,
    count: Annotated[int, typer.Option(help="of networks, one for each seed")] = 100,
    onnx: Annotated[int, typer.Option(help="how many of them run in ONNX Runtime too")] = 0,
    inflate: Annotated[int, typer.Option(help="further networks to make wider by hand")] = 0,
    wrong: Annotated[
        int, typer.Option(help="further networks, and the reference models, to make wrong")
    ] = 0,
    jobs: Annotated[int, typer.Option(help="processes")] = 1,
    genomes: Annotated[Path, typer.Option(help="where networks that fail are written")] = Path(
        "tests/fuzz"
    ),
    record: Annotated[bool, typer.Option(help="write benchmarks/results/fuzz.json")] = False,
    add: Annotated[bool, typer.Option(help="to what is recorded, not in its place")] = False,
) -> None:
    """Random networks: removing equals silencing in every one, or there is a reason."""
    from tests.tools.fuzz.run import inflated, kept, run
    from tests.tools.fuzz.tally import Tally, show
    from tests.tools.fuzz.wrong import planted, summary

    tally = run(seed, count, onnx, jobs, kept(genomes))
    tally.inflated = inflated(seed, inflate)
    show(tally, Console(width=None if sys.stdout.isatty() else 120))
    if wrong:
        told = list(planted(seed, wrong))
        print(f"planted wrong networks: {summary(told)}")
        if any(one.kind == "survived" for one in told):
            sys.exit(1)
    if record:
        if add and (before := recording.recorded("fuzz")):
            tally += Tally.from_json(before)
        recording.record("fuzz", tally.to_json())
    if tally.failed:
        sys.exit(1)


@app.command("faults")
def run_faults(
    only: Annotated[str, typer.Option(help="pattern of the sentences or files to plant")] = "*",
    record: Annotated[bool, typer.Option(help="write benchmarks/results/faults.json")] = True,
) -> None:
    """Faults planted in the passes, one at a time: does the proof find them?"""
    from tests.tools.faults.networks import names
    from tests.tools.faults.runner import Row, run, score, table, to_json
    from tests.tools.faults.tables import FAULTS

    chosen = [
        fault
        for fault in FAULTS.values()
        if any(fnmatch.fnmatchcase(text, only) for text in (fault.sentence, fault.file))
    ]
    if not chosen:
        sys.exit(f"error: no fault matches '{only}'")

    def say(row: Row) -> None:
        print(f"{row.kind:9} {row.fault.sentence}", file=sys.stderr, flush=True)

    rows = run(chosen, names(), say)
    Console(width=None if sys.stdout.isatty() else 150).print(table(rows))
    if record and only == "*":
        recording.record("faults", to_json(rows))
    found, harmful = score(rows)
    if found < 0.99 * harmful:
        sys.exit(1)


@app.command("huge")
def run_huge(
    only: Annotated[str, typer.Option(help="pattern of shapes, such as '8x*'")] = "*",
    record: Annotated[bool, typer.Option(help="write benchmarks/results/huge.json")] = True,
) -> None:
    """LLaMA's shape on the meta device: does analysis grow with operators, or parameters?"""
    shapes = [one for one in huge.SHAPES if fnmatch.fnmatchcase(f"{one[0]}x{one[1]}", only)]
    if not shapes:
        sys.exit(f"error: no shape matches '{only}'")
    rows = []
    for layers, width in shapes:
        rows.append(huge.run(layers, width))
        print(f"{layers} x {width}: {rows[-1].wall_seconds} s", file=sys.stderr, flush=True)
    Console(width=None if sys.stdout.isatty() else 120).print(huge.table(rows))
    if record and only == "*":
        recording.record("huge", {"rows": [row.to_json() for row in rows]})
    if not all(row.passed for row in rows):
        sys.exit(1)


@app.command("reliability")
def run_reliability(
    only: Annotated[str, typer.Option(help="name pattern of the parts to run")] = "*",
    kills: Annotated[int, typer.Option(help="builds to kill at a random moment")] = 200,
    minutes: Annotated[float, typer.Option(help="for killed builds; then no more begin")] = 120.0,
    writes: Annotated[int, typer.Option(help="writers of releases to kill")] = 200,
    files: Annotated[int, typer.Option(help="malformed files to read")] = 5000,
    power: Annotated[int, typer.Option(help="power failures")] = 500,
    seed: Annotated[int, typer.Option(help="of moments and files")] = 0,
    record: Annotated[bool, typer.Option(help="write benchmarks/results/reliability.json")] = True,
) -> None:
    """Kills, full disks, power failures, malformed files, hostile folders: what must not happen."""
    from tests.tools.reliability.run import PARTS, Amounts, bad, run

    parts = [one for one in PARTS if fnmatch.fnmatchcase(one, only)]
    if not parts:
        sys.exit(f"error: no part matches '{only}'; one of: {', '.join(PARTS)}")
    amounts = Amounts(kills, minutes, writes, files, power, seed)
    found = run(amounts, parts, _say)
    wrong = bad(found)
    print(json.dumps({part: {**one, "bad": len(one["bad"])} for part, one in found.items()}))
    if record:
        known = recording.recorded("reliability")
        kept = {part: known[part] for part in PARTS if part in known}
        recording.record("reliability", kept | found)
    if wrong:
        sys.exit(1)


def _say(line: str) -> None:
    """How far an experiment is."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    app()
