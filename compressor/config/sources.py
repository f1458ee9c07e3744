"""Where a recipe comes from: flag > environment > file > default.

    compressor.toml                    the keys, at the top
    pyproject.toml                     the same under [tool.compressor]
    COMPRESSOR_MAX_DROP=0.01           numbers and words as on the command line, lists with commas

Names of files and callables in a file are looked up beside it (`names.py`), those in the
environment from the current folder, as on the command line.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_origin

from compressor.base.messages import near
from compressor.loading.short_names import is_short
from compressor.passes.base.errors import UsageError

from .model import ONLY_FLAGS, Recipe, option_name
from .names import folder_of, from_here

NAME, PYPROJECT = "compressor.toml", "pyproject.toml"
PREFIX = "COMPRESSOR_"
_RUN_NOTHING = frozenset(
    {
        *("weights", "input-shape", "dynamic", "output", "latency", "device", "criterion"),
        *("ignore", "sensitivity", "metric", "precision", "penalty", "checkpoints"),
        *("sign", "encrypt-key"),
    }
)
"""Keys with words or paths that are no code; with numbers none is. Any other key names code."""
LARGEST = 1_000_000
"""Bytes of a recipe that are read."""


def resolve(
    flags: Mapping[str, Any], config: Path | None = None, folder: Path | None = None
) -> Recipe:
    """The recipe of a command. `flags` has what was given on the command line, by key.

    Names in the recipe are looked up in `folder`, by default where it lies.
    Without `config` and without a model, the recipe of the current folder is read; what it names is
    not run then, nor what the environment names beside it, unless the flags say `trust`. Raises
    UsageError for an unknown key or a value that cannot be used, and says where it stands.
    """
    found = config is None and "model" not in flags
    config = _here() if found else config
    stored = {} if config is None else read(config)
    if config is not None:
        stored = from_here(stored, folder or folder_of(config, stored))
    environment = from_environment(os.environ)
    values = {**stored, **environment, **flags}

    def place(key: str) -> str:
        if key in flags:
            return f"--{key} on the command line"
        return _variable(key) if key in environment else str(config)

    recipe = Recipe.checked(values, place)
    if found and config is not None and not recipe.trust:
        for field in sorted(Recipe.model_fields):
            key = option_name(field)
            for text in _code(key, getattr(recipe, field)) if key in values.keys() - flags else ():
                raise UsageError(
                    f"{place(key)} names code that would run: {key} = {text!r}",
                    why=f"the command line names neither it nor {config}, which was found here",
                    hint=f"if it is yours: -c {config}, or --trust",
                )
    return recipe


def _code(key: str, value: Any) -> Iterator[str]:
    """What a key names that may be code: the folder where it was found may be somebody else's.

    Nothing is looked up: a model of a library and the name of a ready-made metric are known by
    their form, and everything else is code, whatever its ending.
    """
    several = value if isinstance(value, tuple) else (value,)
    for text in (str(one) for one in several if isinstance(one, str | Path)):
        harmless = is_short(text) if key == "model" else key == "evaluate" and text.isidentifier()
        if text and key not in _RUN_NOTHING and not harmless:
            yield text


def _here() -> Path | None:
    """`compressor.toml`, else a pyproject with our table, in the current folder."""
    if Path(NAME).is_file():
        return Path(NAME)
    project = Path(PYPROJECT)
    return project if project.is_file() and _table(project) is not None else None


def read(path: Path) -> Mapping[str, Any]:
    """The keys of a recipe file, not yet checked."""
    table = _table(path)
    if table is None:
        raise UsageError(f"{path} has no table [tool.compressor]")
    if not isinstance(table, Mapping):
        raise UsageError(f"{path}: tool.compressor is not a table")
    if never := sorted(table.keys() & ONLY_FLAGS):
        raise UsageError(f"{never[0]!r} is no key of a recipe", where=str(path),
                         hint=f"it is for the command line alone: --{never[0]}")  # fmt: skip
    return table


def _table(path: Path) -> Any:
    """None where a pyproject says nothing about us."""
    found: Any = _toml(path)
    if path.name != PYPROJECT:
        return found
    tool = found.get("tool")
    return tool.get("compressor") if isinstance(tool, Mapping) else None


def _toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}", why=error.strerror or str(error)) from error
    return from_text(data, path)


def from_text(data: bytes, path: Path) -> dict[str, Any]:
    """What a recipe file with these bytes says, not yet checked; `path` is for errors."""
    try:
        if len(data) > LARGEST:
            raise UsageError(f"{path} is larger than {LARGEST:,} bytes", why="it is no recipe")
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML", why=str(error).splitlines()[0]) from error
    except RecursionError:
        raise UsageError(f"{path} is not TOML", why="it is nested too deeply") from None


def from_environment(variables: Mapping[str, str]) -> dict[str, Any]:
    """The keys that the environment sets. Raises UsageError for one that is nearly ours."""
    known = Recipe.model_fields.keys() - ONLY_FLAGS
    fields = {_variable(option_name(name)): name for name in known}
    found: dict[str, Any] = {}
    for variable, text in variables.items():
        if not variable.startswith(PREFIX):
            continue
        if variable not in fields:
            raise UsageError(
                f"unknown environment variable {variable}", hint=near(variable, fields)
            )
        name = fields[variable]
        several = get_origin(Recipe.model_fields[name].annotation) is tuple
        found[option_name(name)] = text.split(",") if several else text
    return found


def _variable(key: str) -> str:
    return PREFIX + key.replace("-", "_").upper()
