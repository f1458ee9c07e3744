"""A sweep on several machines: who builds what, what goes there, and what comes back.

    there    the recipe and the files that it names; what the files import comes with the folder
    back     the files of the release as bytes, looked through and published here

A machine has one build at a time, because a race needs it quiet. One that loses a build is not
asked again; the next run of the same command builds what was lost. Keys stay here: a release is
signed when it has arrived.
"""

import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from compressor.base.untrusted import inside
from compressor.config import Recipe
from compressor.latency.keys import looks_private
from compressor.latency.sweep import Run, unmet
from compressor.passes.base.errors import CompressError, UsageError, WrongError
from compressor.release import layout
from compressor.storage import manifest, sealing
from compressor.storage.files import read_file, write_file

Files = Mapping[str, bytes]
"""By their names in a folder."""


@dataclass(frozen=True)
class Lost:
    """A build that ended with its machine, or with its process."""

    why: str


Outcome = Files | CompressError | Lost


@dataclass(frozen=True)
class Order:
    """What a machine is asked to build."""

    recipe: Recipe
    named: Files
    source: str
    """The digest of our code: two versions do not make one front."""


class Cluster(Protocol):
    """Machines that builds can be sent to."""

    def machines(self) -> Sequence[str]:
        """The names of those that are there now."""

    def start(self, machine: str, order: Order) -> Any:
        """Begin a build there; what it is known by."""

    def ended(self, builds: Collection[Any]) -> tuple[Any, Outcome] | None:
        """One of these that has ended; None where none did for a while."""


def distributed(cluster: Cluster, say: Callable[[str], None] = lambda line: None) -> Run:
    """Builds on the machines of a cluster, one at a time on each."""

    def run(recipes: Sequence[Recipe]) -> Iterator[tuple[Recipe, str]]:
        waiting = deque(recipes)
        running: dict[Any, tuple[str, Recipe]] = {}
        lost: dict[str, str] = {}
        for recipe in recipes:
            if recipe.sign is not None:
                sealing.check_key(recipe.sign)
        while waiting or running:
            busy = {machine for machine, _ in running.values()}
            free = [one for one in cluster.machines() if one not in busy and one not in lost]
            for machine, _ in zip(free, tuple(waiting), strict=False):
                recipe = waiting.popleft()
                running[cluster.start(machine, order(recipe))] = machine, recipe
                say(f"{recipe.latency}: started on {machine}")
            if not running:
                break
            if (found := cluster.ended(running)) is None:
                continue
            machine, recipe = running.pop(found[0])
            outcome = found[1]
            if isinstance(outcome, Lost):
                lost[machine] = outcome.why
                say(f"{recipe.latency}: lost with {machine}")
                continue
            why = _received(recipe, outcome, machine)
            say(f"{recipe.latency}: {why or 'built'} on {machine}")
            yield recipe, why
        _complain(lost, [str(one.latency) for one in waiting])

    return run


def _complain(lost: Mapping[str, str], waiting: Sequence[str]) -> None:
    if lost:
        raise UsageError(
            f"builds were lost on {', '.join(lost)}",
            why="; ".join(lost.values()),
            hint="the same command goes on: what is built is kept",
        )
    if waiting:
        raise UsageError("the cluster has no machine that builds",
                         why="none of its nodes has processors to give")  # fmt: skip


def _received(recipe: Recipe, outcome: Files | CompressError, machine: str) -> str:
    """Publish what came back; or why nothing did."""
    if isinstance(outcome, CompressError):
        outcome.where = ", ".join(filter(None, (machine, outcome.where)))
        return unmet(outcome)
    assert recipe.output is not None
    with layout.prepared(recipe.output) as folder:
        for name, data in outcome.items():
            write_file(folder / _safe(name, machine), data)
        manifest.check(folder, manifest.read(folder))
        if recipe.sign is not None:
            sealing.sign(folder, recipe.sign)
    return ""


def _safe(name: str, sender: str) -> PurePosixPath:
    """A name that somebody else chose. Raises WrongError where it leads elsewhere."""
    try:
        return inside(name)
    except ValueError as error:
        raise WrongError(
            "a file came back under a name that is none of a release",
            where=sender,
            why=str(error),
            hint="do not trust that machine; nothing of this build was kept",
        ) from error


# ---------------------------------------------------------------------------- there


def order(recipe: Recipe) -> Order:
    """What is sent for a recipe: with it, files of this folder that it names, ignored or not.

    Raises UsageError where one of these looks like a key.
    """
    bare = recipe.model_copy(update={"output": None, "sign": None, "encrypt_key": None})
    paths = {path for value in dict(bare).values() for path in _paths(value)}
    if keys := [path for path in sorted(paths) if looks_private(path)]:
        raise UsageError(
            f"{keys[0]} looks like a key, and keys are not sent",
            why="the recipe names it for a build on another machine",
            hint="give the file another name, or keep what it holds of keys elsewhere",
        )
    named = {path.as_posix(): read_file(path) for path in sorted(paths)}
    return Order(bare, named, manifest.source_digest())


def _paths(value: Any) -> Iterator[Path]:
    """Files of this folder in a value of a recipe: `net.pt`, and that of `net.py:make_net`."""
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, str | Path):
            text = str(one)
            for path in (Path(text), Path(text.rpartition(":")[0])):
                if path.is_file() and not path.is_absolute() and ".." not in path.parts:
                    yield path


def fulfilled(order: Order) -> Files | CompressError:
    """The release, made in the present folder, which is a copy of the user's."""
    from compressor.pipeline.build import build
    from compressor.process.progress import Watch

    try:
        if order.source != manifest.source_digest():
            raise UsageError("the compressor there is another version",
                             hint="install the same one on every machine")  # fmt: skip
        for name, data in order.named.items():
            write_file(Path(_safe(name, "this machine")), data)
        with tempfile.TemporaryDirectory(prefix=".compressor-", dir=".") as place:
            folder = Path(place) / "release"
            build(order.recipe.model_copy(update={"output": folder}), Watch())
            return {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
    except CompressError as error:
        return error
