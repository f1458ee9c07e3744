"""`compressor reduce`: the smallest recipe and network that still fail in the same way.

1. Options go back to their defaults, one by one, for as long as the failure stays.
2. The network is captured, stored as a program of its own, and half of its channels goes for as
   long as the failure stays (`widths.py`).
3. Its operators are cut down (`graph.py`), and then single widths.

What cannot be captured, or does not fail as a captured program, keeps the user's own model; the
result says so.
"""

import json
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.base.messages import reason
from compressor.config import Recipe
from compressor.config.model import option_name
from compressor.config.names import for_folder
from compressor.config.sources import resolve
from compressor.config.toml import resolved
from compressor.passes.base.errors import CompressError, UsageError
from compressor.process.environment import environment
from compressor.process.progress import Watch
from compressor.storage.files import write_file

from .attempt import COMMANDS, ENDS, Attempts, Failure

if TYPE_CHECKING:  # importing torch takes seconds: only the functions that need it do
    from .graph import Net

MODEL = frozenset({"model", "code", "weights", "input_shape", "inputs", "dynamic", "trust"})
"""Fields that say what is looked at: one program in a file takes their place."""


SHORTEST = 0.1
"""Seconds of a race, where the failure does not come from it."""


@dataclass(frozen=True)
class Case:
    """A command, and the recipe with which it fails."""

    command: str
    recipe: Recipe


@dataclass(frozen=True)
class NetworkSizes:
    """Of a network that was cut down: before, and after."""

    operators: tuple[int, int]
    weights: tuple[int, int]
    """Numbers in them."""
    why: str
    """Why it is no narrower."""


@dataclass
class Reduced:
    """What is left, and what was tried."""

    failure: Failure
    recipe: Recipe
    dropped: list[str]
    sizes: NetworkSizes | None
    """None where the network is the user's still."""
    why: str
    """Why the network could not be cut down."""
    tries: int

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        failed = {
            "exit_code": self.failure.code,
            "kind": self.failure.kind,
            "where": self.failure.place,
        }
        sizes = None if self.sizes is None else asdict(self.sizes)
        return {"failure": failed, "dropped": self.dropped, "network": sizes,
                "why": self.why, "tries": self.tries}  # fmt: skip


Parsed = Callable[[str, list[str], Path], dict[str, Any]]
"""What a command line gives the options of a command; the file is the one that it was read from."""


def read(path: Path, parsed: Parsed) -> Case:
    """A reproducer's folder (with its command.txt), or a recipe that `build` fails with."""
    if path.is_file():
        return Case("build", resolve({}, path))
    text = path / "command.txt"
    if not text.is_file():
        raise UsageError(f"{path} is no case", hint="name a reproducer's folder, or a recipe")
    try:
        typed = shlex.split(text.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{text} is no command", why=reason(error)) from error
    rest = typed[typed.index("compressor") + 1 :] if "compressor" in typed else []
    command, *words = rest or [""]
    if command not in COMMANDS:
        raise UsageError(f"{command!r} cannot be reduced", why=f"only {', '.join(COMMANDS)}")
    given = parsed(command, words, text)
    flags = {
        option_name(name): given[name]
        for name in Recipe.model_fields
        if given.get(name) not in (None, [], ())
    }
    config = given.get("config")
    if config is not None and not Path(config).is_file():
        copy = path / Path(config).name  # what the reproducer has
        return Case(command, resolve(flags, copy, Path(config).parent))
    return Case(command, resolve(flags, config))


def reduce(case: Case, folder: Path, watch: Watch, most: int, seconds: float) -> Reduced:
    """Find the smallest, and write it to `folder`. Raises UsageError where nothing fails."""
    if folder.exists():
        raise UsageError(f"{folder} exists already", hint="name another folder with -o")
    tried = Attempts(case.command, seconds)
    with watch.stage("reproduce"):
        failure = tried(case.recipe)
    if failure is None:
        raise UsageError("the case does not fail here", hint="run it where the command was run")
    with watch.stage("recipe"):
        recipe, dropped = _fewer_options(case.recipe, lambda one: failure.like(tried(one)), watch)
    folder.mkdir(parents=True)
    with watch.stage("network"):
        sizes, why = None, ""
        try:
            recipe, sizes = _smaller_network(recipe, folder, tried, failure, most)
        except CompressError as error:
            why = error.what
    found = Reduced(failure, recipe, dropped, sizes, why, tried.count)
    _write(found, case.command, folder)
    return found


def told(found: Reduced, folder: Path) -> str:
    """In words."""
    dropped = f"without {', '.join(found.dropped)}" if found.dropped else "no option could go"
    network = f"not cut down: {found.why}"
    if (sizes := found.sizes) is not None:
        (was, operators), (had, weights) = sizes.operators, sizes.weights
        network = f"{was} -> {operators} operators, {had:,} -> {weights:,} weights"
        network += f"; no narrower: {sizes.why}"
    failed = f"{found.failure.kind} ({found.failure.code}), {found.failure.place}"
    return f"{failed}\nrecipe: {dropped}\nnetwork: {network}\n{found.tries} tries; see {folder}"


def _fewer_options(
    recipe: Recipe, fails: Callable[[Recipe], bool], watch: Watch
) -> tuple[Recipe, list[str]]:
    """The recipe with every option at its default that has nothing to do with the failure."""
    dropped = []
    short = recipe.model_copy(update={"bench_seconds": SHORTEST})
    if recipe.bench_seconds > SHORTEST and fails(short):
        recipe = short  # what comes after a race is not waited for
    names = [
        name
        for name, one in Recipe.model_fields.items()
        if name not in (*MODEL, "output", "bench_seconds") and getattr(recipe, name) != one.default
    ]
    for index, name in enumerate(names):
        watch.advance(index, len(names))
        fewer = recipe.model_copy(update={name: Recipe.model_fields[name].default})
        if fails(fewer):
            recipe = fewer
            dropped.append(option_name(name))
    return recipe, dropped


def _smaller_network(
    recipe: Recipe, folder: Path, tried: Attempts, failure: Failure, most: int
) -> tuple[Recipe, NetworkSizes]:
    """The recipe with a program in `folder`. Raises UsageError where that does not fail."""
    from compressor.analysis.inspection import captured

    from .graph import Net

    path, best = folder / "try.pt2", folder / "model.pt2"
    cleared = {name: Recipe.model_fields[name].default for name in MODEL}
    own = recipe.model_copy(update=cleared | {"model": str(path), "trust": True})

    def fails(net: Net) -> bool:
        try:
            net.store(path)
        except Exception:  # torch refuses what is not a network: then it is no candidate
            return False
        if not failure.like(tried(own)):
            return False
        path.replace(best)
        return True

    whole = Net.of(captured(recipe, Watch()))
    if not fails(whole):
        path.unlink(missing_ok=True)
        raise UsageError("the captured program does not fail in the same way")
    small, no_narrower = _cut_down(whole, fails, most, widths=failure.kind not in ENDS)
    path.unlink(missing_ok=True)
    module, _ = small.module()
    write_file(folder / "graph.txt", f"{module.code.strip()}\n".encode())
    operators = len(whole.calls), len(small.calls)
    sizes = NetworkSizes(operators, (whole.numbers, small.numbers), no_narrower)
    return own.model_copy(update={"model": str(best)}), sizes


def _cut_down(
    whole: "Net", fails: Callable[["Net"], bool], most: int, *, widths: bool
) -> tuple["Net", str]:
    """Widths first, as all that follows is quicker then; and why there are no smaller ones."""
    from .graph import reduced
    from .widths import narrowed

    if not widths:  # this process has no limit of its own
        return reduced(whole, fails, most)[0], "coupling may be what takes too long, or crashes"
    narrow = narrowed(whole, fails, most, together=True)
    small, tried = reduced(narrow.net, fails, most - narrow.tried)
    last = narrowed(small, fails, most - narrow.tried - tried)
    return last.net, last.why


def _write(found: Reduced, command: str, folder: Path) -> None:
    line = ["compressor", command, "-c", str(folder / "recipe.toml"), "-o", "out"]
    line += ["--trust"] * found.recipe.trust
    files = {
        "recipe.toml": resolved(for_folder(found.recipe, folder)),
        "command.txt": shlex.join(line) + "\n",
        "failure.txt": found.failure.text,
        "reduced.json": json.dumps(found.to_json(), indent=1) + "\n",
        "environment.json": json.dumps(environment(), indent=1) + "\n",
    }
    for name, text in files.items():
        write_file(folder / name, text.encode())
