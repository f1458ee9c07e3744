"""Words for errors: near names, short lists, what kind of thing a value is, paths as given."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from compressor.passes.base.errors import UsageError

_SHOWN = 4
"""How many names an error lists before it says how many more there are."""


def existing_file(path: Path) -> Path:
    """`path` made absolute; an error with near names if there is no such file."""
    if path.is_file():
        return path.resolve()
    folder = path.parent
    beside = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    alike = [name for name in beside if path.suffix in ("", Path(name).suffix)]
    raise UsageError(
        f"{path} is a folder, not a file" if path.is_dir() else f"no such file: {path}",
        where=f"looked from {Path.cwd()}",
        why="" if folder.is_dir() else f"there is no folder {folder}",
        hint=near(path.name, alike),
    )


def near(name: str, known: Iterable[str]) -> str:
    """`did you mean ...?`, else the first few of what there is, else nothing."""
    known = list(known)
    if alike := difflib.get_close_matches(name, known, n=3):
        return f"did you mean {' or '.join(alike)}?"
    return f"there is {listed(known)}" if known else ""


def listed(names: Iterable[str], separator: str = ", ") -> str:
    """`a, b, c, d and 7 more`."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return separator.join(names[:_SHOWN]) + more


def kind_of(value: object) -> str:
    """`a dict`, `an int`, `a numpy.ndarray`, `None`."""
    if value is None:
        return "None"
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def reason(error: BaseException) -> str:
    """`ValueError: the first line of its message`."""
    line = first_line(error)
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def first_line(error: BaseException) -> str:
    """Of its message, cut after 300 characters; empty where it has none."""
    return next(iter(str(error).strip().splitlines()), "")[:300]


def shown(path: Path) -> str:
    """Relative to where the user stands, if it is below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def file_of(namespace: ModuleType) -> str:
    """Its file, or its name where it has none: a namespace package, a built-in module."""
    file = getattr(namespace, "__file__", None)
    return shown(Path(file)) if file else namespace.__name__
