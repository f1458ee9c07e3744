"""Power failures while something is written: releases, single files, a sweep, checkpoints.

`writers` is run once under strace. Then, at a random point of each kind's calls, the disk loses
power (`storage`), in either model; what a failure may have left is put into a folder, and looked at
as the next build would (`release.recover`). Each output has to be absent, as it was, or complete:
the very bytes that were there before or in the end, or that a rename gave this name. Complete
releases also pass `verify`.

    python -m benchmarks reliability --only power --power 500 --seed 0

The same seed cuts the same calls at the same points; a row that is torn names the point, and the
calls that left nothing behind.
"""

import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from compressor.release import layout
from compressor.release.verify import verify
from tests.tools.reliability import syscalls, writers
from tests.tools.reliability.disks import ROOT
from tests.tools.reliability.storage import MODELS, Disk, History, Left

ABSENT, EARLIER, COMPLETE, TORN = "absent", "as before", "complete", "torn"
FORGOTTEN = "forgotten"
"""Absent or as before, though the command had ended: allowed, but counted."""


@dataclass(frozen=True)
class Failure:
    """One power failure, and what one output was afterwards."""

    kind: str
    model: str
    seed: int
    point: int
    of: int
    """How many changes were made in all."""
    output: str
    there: str
    why: str = ""
    lost: tuple[str, ...] = ()
    """Of what is torn: some of the calls that left nothing on the disk."""


@dataclass(frozen=True)
class Recording:
    """What one kind did to its folder, and which outputs it has (see `writers.OUTPUTS`)."""

    kind: str
    history: History
    outputs: Mapping[str, str]

    @cached_property
    def whole(self) -> dict[str, list[Any]]:
        """By output, every tree that is complete."""
        before, now = self.history.before, self.history.now
        found: dict[str, list[Any]] = {one: [] for one in self.outputs}
        named = [(path, tree) for _, path, tree in self.history.bound]
        for path, tree in [*_all(before), *named, *_all(now)]:
            for one, what in self.outputs.items():
                if path == one or (what == writers.FOLDERS and path.rpartition("/")[0] == one):
                    found[one].append(tree)
        return found

    def bindings(self, output: str, point: int) -> int:
        """How often something complete got a name in a folder, up to a point."""
        return sum(
            at <= point and path.rpartition("/")[0] == output and not _hidden(path)
            for at, path, _ in self.history.bound
        )


def _hidden(path: str) -> bool:
    return path.rpartition("/")[2].startswith(".")


def _all(disk: Disk, number: int = 0, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every path of a disk with its tree."""
    for name, one in disk.tree(number).items() if number == 0 else ():
        yield from _below(f"{above}{name}", one)


def _below(path: str, one: Any) -> Iterator[tuple[str, Any]]:
    yield path, one
    if isinstance(one, Mapping):
        for name, inside in one.items():
            yield from _below(f"{path}/{name}", inside)


def record(folder: Path, kinds: Iterable[str] = writers.KINDS) -> list[Recording]:
    """Run the writers in `folder`, and read what they did. Raises where the reading is wrong."""
    root = folder.resolve()
    line = [sys.executable, "-m", "tests.tools.reliability.writers", str(root), *kinds]
    calls = syscalls.recorded(
        line, root, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1",
        XDG_CACHE_HOME=f"{root}/.cache", TMPDIR=tempfile.gettempdir(),
    )  # fmt: skip
    return [recording(root / kind, calls, writers.OUTPUTS[kind]) for kind in kinds]


def recording(place: Path, calls: Iterable[syscalls.Call], outputs: Mapping[str, str]) -> Recording:
    """Of the calls in one folder; it begins where `BEGIN` is made, or with the first."""
    synced = syscalls.Call("sync", str(place))  # its own making is no change inside it
    inside = [one for one in calls if one == synced or _is_in(one.path, place)]
    starts = [i for i, one in enumerate(inside) if one.path == f"{place}/{writers.BEGIN}"]
    start = starts[0] + 1 if starts else 0
    before = History(Disk(), inside[:start], str(place)).now
    history = History(before, inside[start:], str(place))
    if differing := _differing(history.now.tree(), tree_of(place)):
        raise RuntimeError(f"what was recorded of {differing} is not what is there")
    return Recording(place.name, history, outputs)


def _is_in(path: str, place: Path) -> bool:
    return path == "/" or path.startswith(f"{place}/")


def _differing(one: Any, other: Any, at: str = "") -> list[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return [
            path
            for name in sorted({*one, *other})
            for path in _differing(one.get(name), other.get(name), f"{at}/{name}")
        ]
    return [] if one == other else [at]


def tree_of(folder: Path) -> dict[str, Any]:
    """What is in a folder, as `storage` has it."""
    found: dict[str, Any] = {}
    for path in folder.iterdir():
        if path.is_symlink():
            found[path.name] = os.readlink(path)
        else:
            found[path.name] = tree_of(path) if path.is_dir() else path.read_bytes()
    return found


def put(tree: Mapping[str, Any], folder: Path) -> None:
    """The inverse."""
    folder.mkdir(exist_ok=True)
    for name, one in tree.items():
        if isinstance(one, Mapping):
            put(one, folder / name)
        elif isinstance(one, str):
            (folder / name).symlink_to(one)
        else:
            (folder / name).write_bytes(one)


# ---------------------------------------------------------------------------- failures


def failures(recordings: list[Recording], count: int, seed: int = 0) -> Iterator[Failure]:
    """`count` power failures in turn over the kinds; a row for each output of the kind."""
    for index in range(count):
        one = recordings[index % len(recordings)]
        model = MODELS[index // len(recordings) % len(MODELS)]
        yield from fail(one, model, seed + index)


def fail(recording: Recording, model: str, seed: int) -> Iterator[Failure]:
    """One power failure: what it left of each output."""
    rng, history = random.Random(seed), recording.history
    point = _point(history, rng)
    left = history.after(point, model, rng)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        put(left.disk.tree(), place)
        for output, what in recording.outputs.items():
            if what == writers.RELEASE and (place / output).parent.is_dir():
                layout.recover(place / output)
        tree = Disk.of(tree_of(place))
    for output, what in recording.outputs.items():
        there, why = _looked_at(recording, point, tree, output, what)
        if point == len(history.steps) and there in (ABSENT, EARLIER):
            there = FORGOTTEN
        lost = _about(left, output, why) if there == TORN else ()
        yield Failure(recording.kind, model, seed, point, len(history.steps), output, there, why,
                      lost)  # fmt: skip


def _point(history: History, rng: random.Random) -> int:
    """Anywhere; every other time near a rename, where there is most to lose."""
    point = rng.randint(0, len(history.steps))
    if history.bound and rng.random() < 0.5:
        point = rng.choice(history.bound)[0] + rng.randint(-2, 8)
    return max(0, min(point, len(history.steps)))


def _looked_at(
    recording: Recording, point: int, disk: Disk, output: str, what: str
) -> tuple[str, str]:
    """What an output is: `absent`, `as before`, `complete` or `torn`, and why that."""
    whole, before = recording.whole[output], recording.history.before
    number, earlier = disk.find(output), before.find(output)
    if what == writers.FOLDERS:
        shown = {} if number is None else disk.tree(number)
        visible = {name: tree for name, tree in shown.items() if not _hidden(name)}
        if odd := [name for name, tree in visible.items() if tree not in whole]:
            return TORN, f"{odd[0]} is not complete"
        if not visible and recording.bindings(output, point) > 1:
            return TORN, "neither the earlier one nor the new one is there"
        return (COMPLETE if visible else ABSENT), ""
    if number is None:
        why = "neither the earlier one nor the new one is there"
        return (ABSENT, "") if earlier is None else (TORN, why)
    tree = disk.tree(number)
    if earlier is not None and tree == before.tree(earlier):
        return EARLIER, ""
    if tree in whole:
        return COMPLETE, ""
    parts = _differing(tree, whole[-1])
    return TORN, f"not complete: {', '.join(one or output for one in parts[:5])}"


def _about(left: Left, output: str, why: str) -> tuple[str, ...]:
    """Some of the calls that were lost; first those about what is not complete."""
    names = [one.rpartition("/")[2].strip(",") for one in (output, *why.split())]
    ours = [one for one in left.lost if any(name in one for name in names if "." in name)]
    return tuple([*ours, *(one for one in left.lost if one not in ours)][:5])


def unsound(recording: Recording) -> list[str]:
    """Releases that count as complete and that `verify` refuses: then nothing is proven."""
    found = []
    for output, what in recording.outputs.items():
        if what != writers.RELEASE or recording.kind == "shards":
            continue
        for tree in recording.whole[output]:
            with tempfile.TemporaryDirectory() as name:
                put(tree, Path(name) / "release")
                try:
                    _verify(Path(name) / "release", sealed=recording.kind == "sealed")
                except Exception as error:  # a row says whatever is wrong
                    found.append(
                        f"{recording.kind}/{output}: {type(error).__name__}: {error}"[:300]
                    )
    return found


def _verify(folder: Path, *, sealed: bool) -> None:
    if not sealed:
        verify(folder)
        return
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            writers.keys()
            verify(folder, Path("key.pub"), Path("secret").read_bytes())
        finally:
            os.chdir(here)


def run(folder: Path, count: int, seed: int, say: Callable[[str], None]) -> list[Failure]:
    """All of it; nothing, with a line that says why, where programs cannot be recorded."""
    if not syscalls.possible():
        say("power: not run, because strace is not installed")
        return []
    recordings = record(folder)
    for one in recordings:
        say(f"power, {one.kind}: {len(one.history.steps)} changes recorded")
        if wrong := unsound(one):
            raise RuntimeError("; ".join(wrong))
    found = []
    for row in failures(recordings, count, seed):
        found.append(row)
        if row.there == TORN:
            say(f"power, {row.kind} ({row.model}, seed {row.seed}): {row.output} {row.why}")
    return found


def summary(rows: list[Failure]) -> dict[str, Any]:
    """Points and outcomes by kind and model, and every torn output."""
    kinds = dict.fromkeys((row.kind, row.model) for row in rows)
    return {
        "points": len({(row.kind, row.model, row.seed) for row in rows}),
        "outputs": {
            f"{kind}, {model}": dict(
                Counter(row.there for row in rows if (row.kind, row.model) == (kind, model))
            )
            for kind, model in kinds
        },
        "bad": [asdict(row) for row in rows if row.there == TORN],
    }
