"""Readers on malformed files: each is read, or refused in plain words; never a traceback or a hang.

    python -m benchmarks reliability --only malformed --files 5000 --seed 0

A good file of each kind (`readers`, `release_readers`) is spoilt by a seed (`spoil`). Readers run
in a child process with a limit on memory, one file at a time with a limit on time; a child that
hangs or dies is a row, and the next one goes on. To see one again:

    python -m tests.tools.reliability.malformed FOLDER --kind "device table" --seed 3087
"""

import json
import os
import random
import resource
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from compressor.passes.base.errors import CompressError

from tests.tools.reliability.disks import ROOT
from tests.tools.reliability.readers import Reader
from tests.tools.reliability.release_readers import READERS, SLOW
from tests.tools.reliability.spoil import by_format

SECONDS = 20.0
"""For one file; three times as much for readers that are slow."""
STARTING = 300.0
"""For the imports, and to make the good files."""
MEMORY = 6 << 30
"""Bytes of address space that all readers together may take beside what is taken before."""
ROUNDS = 10
"""Slow readers are given one file in so many rounds."""


@dataclass(frozen=True)
class Read:
    """One file, and what became of it."""

    kind: str
    seed: int
    outcome: str
    """`read`, `refused`, `crash`, `hang` or `died`."""
    seconds: float
    why: str = ""

    @property
    def bad(self) -> bool:
        return self.outcome not in ("read", "refused") or self.seconds > 3 * SECONDS


def prepared(kind: str, place: Path) -> Reader:
    """The reader of a kind. It has read its good files: what is imported late is there then."""
    place.mkdir()
    reader = READERS[kind](place)
    for name, data in reader.files.items():
        try:
            _with_file(place, name, data, reader.read)
        except CompressError as error:
            raise RuntimeError(f"{kind}: the good {name} is refused: {error}") from error
    return reader


def _with_file(place: Path, name: str, data: bytes, read: Callable[[Path], object]) -> None:
    """Have a file read in a folder of its own, which goes again."""
    case = place / "case"
    case.mkdir()
    try:
        (case / name).write_bytes(data)
        read(case / name)
    finally:
        shutil.rmtree(case)


def limited(memory: int = MEMORY) -> None:
    """From here on this process may take so much more memory."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))


def orders(kinds: Sequence[str], count: int, seed: int) -> list[tuple[str, int]]:
    """`count` files in turn over all kinds, slow ones more seldom: (kind, seed)."""
    found: list[tuple[str, int]] = []
    turn = 0
    while len(found) < count:
        for kind in kinds:
            if kind not in SLOW or turn % ROUNDS == 0:
                found.append((kind, seed + len(found)))
        turn += 1
    return found[:count]


def chosen(kind: str, reader: Reader, seed: int) -> tuple[str, bytes]:
    """The name of one of its files, and what it is spoilt to."""
    name = random.Random(f"{kind} {seed}").choice(sorted(reader.files))
    return name, by_format(reader.files[name], Path(name).suffix, seed)


def one(kind: str, reader: Reader, place: Path, seed: int) -> Read:
    """One spoilt file, read in this process."""
    name, data = chosen(kind, reader, seed)
    outcome, why, start = "read", "", time.perf_counter()
    try:
        _with_file(place, name, data, reader.read)
    except CompressError as error:
        outcome, why = "refused", error.what.replace(str(place), "")[:80]
    except BaseException as error:  # what must not happen
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome, why = "crash", f"{name}: {type(error).__name__}: {error}"[:400]
    return Read(kind, seed, outcome, round(time.perf_counter() - start, 3), why)


# ---------------------------------------------------------------------------- in a child process


def run(folder: Path, count: int, seed: int = 0, kinds: Sequence[str] = ()) -> Iterator[Read]:
    """`count` malformed files, in children with limits. `folder` is a new one of their own."""
    child = _Child(folder / "first")
    try:
        for kind, own in orders(tuple(kinds) or tuple(READERS), count, seed):
            row = child.ask(kind, own)
            yield row
            if row.outcome in ("hang", "died"):
                child.stop()
                child = _Child(folder / f"after {own}")
    finally:
        child.stop()


class _Child:
    """A process that reads one file for each line that it is sent: a kind and a seed."""

    def __init__(self, folder: Path) -> None:
        (folder / "tmp").mkdir(parents=True)
        self._said = (folder / "said").open("w+b")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.tools.reliability.malformed", str(folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
                 "TMPDIR": str(folder / "tmp"), "XDG_CACHE_HOME": str(folder / "tmp")},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, cwd=folder,
        )  # fmt: skip
        self._ready: set[str] = set()

    def ask(self, kind: str, seed: int) -> Read:
        """Have a file read. Raises RuntimeError where the good ones are not."""
        if kind not in self._ready and self._answer(kind, None, STARTING) != kind:
            raise RuntimeError(f"the reader of {kind} does not start: {self._words()}")
        self._ready.add(kind)
        limit = SECONDS * (3 if kind in SLOW else 1)
        start = time.monotonic()
        found = self._answer(kind, seed, limit)
        if found is not None:
            return Read(**found)
        seconds = round(time.monotonic() - start, 3)
        if self._process.poll() is None:
            return Read(kind, seed, "hang", seconds, f"more than {limit:g} s")
        return Read(kind, seed, "died", seconds, f"{self._process.returncode}: {self._words()}")

    def _answer(self, kind: str, seed: int | None, seconds: float) -> Any:
        """None where there is none in time, or where the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps([kind, seed])}\n".encode())
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return None
        if line := self._process.stdout.readline():
            return json.loads(line)
        self._process.wait()
        return None

    def _words(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace").strip()[-300:]

    def stop(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.communicate()
        self._said.close()


def main(
    folder: Path,
    kind: Annotated[str | None, typer.Option(help="read one file of this kind here")] = None,
    seed: Annotated[int, typer.Option(help="of that file")] = 0,
) -> None:
    """Answer what is asked on standard input; or read one file, with its traceback."""
    if kind is not None:
        reader = prepared(kind, folder / "0")
        _with_file(folder / "0", *chosen(kind, reader, seed), reader.read)
        return
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints there is no answer
    import torch  # its address space is taken before the limit

    assert torch
    limited()
    readers: dict[str, tuple[Reader, Path]] = {}
    for line in sys.stdin:
        asked, own = json.loads(line)
        if own is None:
            place = folder / str(len(readers))
            readers[asked] = prepared(asked, place), place
            print(json.dumps(asked), file=answers)
        else:
            print(json.dumps(asdict(one(asked, *readers[asked], own))), file=answers)


def summary(rows: Sequence[Read]) -> dict[str, Any]:
    """Counts by kind, the slowest, and everything that must not happen."""
    kinds = dict.fromkeys(row.kind for row in rows)
    return {
        "files": len(rows),
        "memory_limit_bytes": MEMORY,
        "slowest_seconds": max((row.seconds for row in rows), default=0.0),
        "kinds": {k: dict(Counter(row.outcome for row in rows if row.kind == k)) for k in kinds},
        "bad": [asdict(row) for row in rows if row.bad],
    }


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
