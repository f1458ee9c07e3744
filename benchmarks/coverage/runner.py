"""One process a model, with limits; the record grows with every row, so a run can go on."""

import fnmatch
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

from benchmarks.apart import apart
from benchmarks.coverage import zoo
from benchmarks.coverage.child import main
from benchmarks.coverage.outcome import OURS, Outcome, read, rows
from benchmarks.coverage.score import summary
from benchmarks.recording import write
from compressor.process.environment import environment
from models.zoo.cases import Case

WARM = (
    "torch.export",
    "torch._dynamo",
    "onnxruntime",
)
"""Imported once, so that no model pays for them, and `capture` is torch.export's own time."""
WALL_SECONDS = 1800
"""No process lives longer."""


@dataclass(frozen=True)
class Run:
    """What is run, and where it is written."""

    zoo: str
    path: Path
    only: str = "*"
    engines: tuple[str, ...] = (OURS,)
    jobs: int = 1
    memory: int = 16
    """GiB of address space a process."""
    again: bool = False
    exports: bool = True

    def tasks(self) -> list[tuple[Case, str, bool]]:
        """Model, engine and whether it is exported, of what is not in the record yet.

        Peers run on the stated sample of the zoo, we on all of it.
        """
        done = {(row.name, row.engine): row for row in (() if self.again else read(self.path))}
        every, peers_every = zoo.EXPORTED_EVERY.get(self.zoo, 1), zoo.PEERS_EVERY.get(self.zoo, 1)
        found = []
        for index, case in enumerate(zoo.cases(self.zoo)):
            for engine in self.engines if fnmatch.fnmatchcase(case.name, self.only) else ():
                if engine != OURS and index % peers_every:
                    continue
                export = self.exports and engine == OURS and index % every == 0
                row = done.get((case.name, engine))
                if row is None or (export and row.outcome == "equal" and not row.exported):
                    found.append((case, engine, export))
        return found


def run(task: Run, say: Callable[[str], None]) -> None:
    """Run what is missing, a line a model."""
    tasks = task.tasks()
    known = {(row.name, row.engine): row for row in read(task.path)}
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")  # imports what takes seconds once
    context.set_forkserver_preload(["benchmarks.coverage.child", *WARM, zoo.HOMES[task.zoo]])
    with ThreadPoolExecutor(task.jobs) as pool:
        done: Iterator[Outcome] = pool.map(lambda one: _apart(context, task, *one), tasks)
        for index, row in enumerate(done, 1):
            known[row.name, row.engine] = row
            every = list(known.values())
            found = {"environment": environment(), "summary": summary(every), "rows": rows(every)}
            write(task.path, found)
            say(f"{index}/{len(tasks)} {line(row)}")
            if row.engine == OURS and row.trace:
                say(row.trace)


def line(row: Outcome) -> str:
    """A row in words: `resnet18 equal 68 % gone, 12.3 s`."""
    outcome = row.outcome.upper() if row.outcome in ("wrong", "crash") else row.outcome
    peer = "" if row.engine == OURS else f" [{row.engine}]"
    took = f"{sum(row.seconds.values()):.1f} s, {row.memory} MiB"
    return (
        f"{row.name}{peer} {outcome}, "
        f"{row.params_gone:.0%} gone, {took}{': ' + row.why[:160] if row.why else ''}"
    )


def _apart(context: ForkServerContext, task: Run, case: Case, engine: str, export: bool) -> Outcome:
    """One model in its own process; a process that dies is a crash."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        given = (task.zoo, case.name, engine, export, task.memory, folder)
        code = apart(context, main, given, WALL_SECONDS)
        row = Path(folder) / "row.json"
        if row.exists():
            return Outcome(**json.loads(row.read_text()))
        said = (Path(folder) / "log.txt").read_text(errors="replace")
    stages = ["start", *(one[7:] for one in said.splitlines() if one.startswith("stage: "))]
    took = {"all": round(time.monotonic() - start, 1)}
    why = f"process ended ({code}) in {stages[-1]}"
    return Outcome(case.name, case.family, "crash", engine, why, seconds=took, trace=said[-2000:])
