"""All faults against all networks that run the changed code, and what came of it.

A fault survives if any network survives; it is found if any finds it and none survives; else it is
harmless.
"""

import faulthandler
import json
import os
import resource
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.table import Table

from benchmarks.apart import TooSlow, apart, within
from compressor import passes
from tests.tools.faults.judge import Verdict, judge
from tests.tools.faults.networks import network
from tests.tools.faults.planted import HEALTHY, Fault, planted

SECONDS = 60
"""CPU seconds: what runs longer on one network hangs; nothing would be published."""
WALL_SECONDS = 1800
"""No process lives longer."""
GIGABYTES = 12
"""Of address space a process."""
MOST = 6
"""Networks a fault, besides those that it names."""
ORDER = ("survived", "found", "harmless", "untouched")


@dataclass(frozen=True)
class Row:
    """One fault, and its verdicts."""

    fault: Fault
    verdicts: tuple[Verdict, ...]

    @property
    def kind(self) -> str:
        """The worst that became of it on any network."""
        found = {verdict.kind for verdict in self.verdicts}
        return next((kind for kind in ORDER if kind in found), "untouched")

    def count(self, kind: str) -> int:
        return sum(verdict.kind == kind for verdict in self.verdicts)

    @property
    def by(self) -> dict[str, int]:
        """What found it, and how often."""
        return dict(Counter(v.by for v in self.verdicts if v.kind == "found").most_common())

    def to_json(self) -> dict[str, Any]:
        counts = {kind: self.count(kind) for kind in ORDER}
        survived = [asdict(v) for v in self.verdicts if v.kind == "survived"]
        return {"sentence": self.fault.sentence, "file": self.fault.file, "kind": self.kind,
                **counts, "by": self.by, "survivors": survived}  # fmt: skip


Line = tuple[str, int]
Coverage = dict[str, frozenset[Line]]
"""Network: the lines of the passes that run on it."""


def coverage(names: Iterable[str]) -> Coverage:
    """Which lines the healthy passes run on each network. All of them must get through."""
    found = {}
    for name in names:
        lines: set[Line] = set()
        own = network(name)
        _ = own.program, own.coupling  # torch.export is slow under a tracer
        with _watched(lines):
            verdicts = judge(passes, None, own)
        if any(verdict.kind != "untouched" for verdict in verdicts):
            raise AssertionError(f"the healthy passes fail on {name}: {verdicts}")
        found[name] = frozenset(lines)
    return found


@contextmanager
def _watched(lines: set[Line]) -> Iterator[None]:
    root = str(HEALTHY)

    def note(frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        code = frame.f_code
        if event == "call" and not code.co_filename.startswith(root):
            return None
        lines.add((code.co_filename, frame.f_lineno))
        return note

    before = sys.gettrace()
    sys.settrace(note)
    try:
        yield
    finally:
        sys.settrace(before)


def concerned(fault: Fault, covered: Coverage) -> list[str]:
    """The networks that the fault names, and others that run a changed line, evenly spread.

    A line of a table runs on import: every network may be concerned.
    """
    path = HEALTHY / fault.file
    text = path.read_text(encoding="utf-8")
    first = text[: text.index(fault.old)].count("\n") + 1
    changed = {(str(path), first + n) for n in range(fault.old.count("\n") + 1)}
    ran = [name for name, lines in covered.items() if changed & lines]
    ran = ran or list(covered)
    return list(dict.fromkeys([*fault.networks, *ran[:: -(-len(ran) // MOST)]]))


def run(
    faults: Sequence[Fault], names: Sequence[str], progress: Callable[[Row], None]
) -> list[Row]:
    """Plant every fault, in a process of its own, and judge it on every network that it concerns.

    The processes are forked, so that each has the networks as they were captured here.
    """
    covered = coverage(names)
    rows = []
    for fault in faults:
        rows.append(Row(fault, tuple(verdicts(fault, concerned(fault, covered)))))
        progress(rows[-1])
    return rows


def verdicts(fault: Fault, names: Sequence[str]) -> list[Verdict]:
    """What became of a fault; one that ends its process is found there, and goes on with the next.

    `abort`: the process died; `timeout`: it had to be stopped.
    """
    found: list[Verdict] = []
    left = list(names)
    while left:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "verdicts.jsonl"
            path.touch()
            code = apart(get_context("fork"), _judge_all, (fault, left, path), WALL_SECONDS)
            rows = [json.loads(line) for line in path.read_text().splitlines()]
        found += [Verdict(**one) for row in rows for one in row]
        left = left[len(rows) :]
        if code == 0 or not left:
            return found
        by = "timeout" if code in (-signal.SIGXCPU, -signal.SIGKILL) else "abort"
        found.append(Verdict(left.pop(0), "", "found", by, f"its process ended with {code}"))
    return found


def _judge_all(fault: Fault, names: Sequence[str], path: Path) -> None:
    """Write the verdicts of a fault into a file, a line a network."""
    most = SECONDS * (len(names) + 1)
    resource.setrlimit(resource.RLIMIT_CPU, (most, most + 5))
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES << 30, GIGABYTES << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(1)  # a fork has no other: it would wait for them forever
    faulthandler.disable()  # the parent says what became of it
    with path.open("a") as file, open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        for found in _each(fault, names):
            file.write(json.dumps([asdict(verdict) for verdict in found]) + "\n")
            file.flush()


def _each(fault: Fault, names: Sequence[str]) -> Iterator[list[Verdict]]:
    try:
        own = planted(fault)
    except LookupError:
        raise
    except Exception as error:  # it cannot even be imported
        note = f"{type(error).__name__}: {error}"
        yield from ([Verdict(name, "", "found", "crash", note)] for name in names)
        return
    for name in names:
        try:
            with within(SECONDS):
                yield judge(own, fault, network(name))
        except TooSlow as error:
            yield [Verdict(name, "", "found", "timeout", str(error))]


def score(rows: Sequence[Row]) -> tuple[int, int]:
    """How many faults were found, of those that are not harmless."""
    found, survived = (sum(row.kind == kind for row in rows) for kind in ("found", "survived"))
    return found, found + survived


def to_json(rows: Sequence[Row]) -> dict[str, Any]:
    """The score, and every row with its survivors."""
    found, harmful = score(rows)
    return {"faults": len(rows), "harmful": harmful, "found": found,
            "rows": [row.to_json() for row in rows]}  # fmt: skip


def table(rows: Sequence[Row]) -> Table:
    """One line a fault, the survivors first."""
    found, harmful = score(rows)
    title = f"{len(rows)} planted faults: {found} of {harmful} harmful ones found"
    shown = Table(title=title)
    for column in ("fault", "file", "", "by"):
        shown.add_column(column)
    for column in ("found", "survived", "harmless"):
        shown.add_column(column, justify="right")
    for row in sorted(rows, key=lambda row: ORDER.index(row.kind)):
        counts = (str(row.count(kind)) for kind in ("found", "survived", "harmless"))
        kind = f"[red]{row.kind}[/]" if row.kind == "survived" else row.kind
        shown.add_row(row.fault.sentence, row.fault.file, kind, ", ".join(row.by), *counts)
    return shown
