"""Names in a recipe: files and callables are looked up beside it, wherever it is read from.

    other/compressor.toml      model = "nets/net.py:make"             weights = "net.pt"
    read one folder above      model = "other/./nets/net.py:make"     weights = "other/net.pt"

`/./` ends the folder that the code may import from, here the recipe's (rsync writes it so). In
memory all names are those of the current folder.

The recipe of a release has the names of the folder in which it was built, so that it is the same
wherever that was. They are looked up in the nearest folder above the release that has all of them,
else in the current one.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from compressor.loading.callables import HOME, apart
from compressor.loading.short_names import is_short

from .model import Recipe, option_name

RELEASED = ("recipe.toml", "manifest.json")
"""A recipe of this name, beside a file of that name, is a release's."""

CALLABLES = frozenset(
    {
        *("model", "code", "inputs", "data", "evaluate", "eval-data"),
        *("train-data", "train-with", "loss", "criterion-loss"),
    }
)
"""Keys whose values name code."""

FILES = frozenset(
    option_name(name)
    for name, field in Recipe.model_fields.items()
    if Path in (field.annotation, *get_args(field.annotation))
)
"""Keys whose values are files and folders."""


def from_here(stored: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The keys of a file, with the names that are looked up in `folder` as those of this one."""
    return _moved(stored, folder, Path.cwd())


def for_folder(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with its names as a file in `folder` has to state them."""
    values = {option_name(name): getattr(recipe, name) for name in Recipe.model_fields}
    moved = _moved(values, Path.cwd(), folder)
    return recipe.model_copy(
        update={name: moved[option_name(name)] for name in Recipe.model_fields}
    )


def folder_of(config: Path, stored: Mapping[str, Any]) -> Path:
    """Where the names in a recipe are looked up."""
    name, beside = RELEASED
    if config.name != name or not (config.parent / beside).is_file():
        return config.parent
    places = [*config.parent.resolve().parents, Path.cwd()]
    needed, helpful = list(_needed(stored)), list(_helpful(stored))
    there = [one for one in places if all((one / file).exists() for file in needed)]
    if not needed and not helpful:
        return Path.cwd()
    return max(
        there,
        key=lambda one: sum(any((one / form).exists() for form in forms) for forms in helpful),
        default=Path.cwd(),
    )


def _needed(stored: Mapping[str, Any]) -> Iterator[str]:
    """Files that have to be there."""
    for key, text in _texts(stored):
        if key in FILES:
            yield text
        elif (spec := _spec(key, text)) is not None and apart(spec)[1]:
            yield spec


def _helpful(stored: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Forms of what may also be installed, or on a hub."""
    for key, text in _texts(stored):
        if key in CALLABLES and (folder := _checkpoint(key, text)):
            yield (folder,)
        elif (spec := _spec(key, text)) is not None and not apart(spec)[1]:
            home, _, module = spec.rpartition(HOME)
            first = os.path.join(home, module.partition(".")[0])
            yield (first, f"{first}.py")


def _texts(stored: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in stored.items():
        for text in value if isinstance(value, list | tuple) else (value,):
            if key in FILES | CALLABLES and isinstance(text, str):
                yield key, text


# ---------------------------------------------------------------------------- from folder to folder


def _moved(values: Mapping[str, Any], source: Path, target: Path) -> dict[str, Any]:
    """The same values, where names are seen from another folder."""

    def moved(key: str, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(moved(key, one) for one in value)
        if key in FILES and isinstance(value, str | Path):
            return type(value)(_path(value, source, target))
        return _callable(key, value, source, target) if isinstance(value, str) else value

    if os.path.realpath(source) == os.path.realpath(target):
        return dict(values)
    named = FILES | CALLABLES
    return {key: moved(key, one) if key in named else one for key, one in values.items()}


def _path(value: str | Path, source: Path, target: Path) -> str:
    if os.path.isabs(value):
        return str(value)
    whole = os.path.join(os.path.realpath(source), value)
    try:
        return Path(os.path.relpath(whole, os.path.realpath(target))).as_posix()
    except ValueError:  # another drive
        return Path(os.path.normpath(whole)).as_posix()


def _callable(key: str, text: str, source: Path, target: Path) -> str:
    if folder := _checkpoint(key, text):
        there = (source / folder).is_dir()
        return f"hf:{_path(folder, source, target)}" if there else text
    spec = _spec(key, text)
    if spec is None:
        return text
    home, _, rest = text.rpartition(HOME) if HOME in spec else ("", "", text)
    home = _path(home, source, target)
    return rest if home == "." else f"{home}{HOME}{rest}"


def _spec(key: str, text: str) -> str | None:
    """The file or module that a callable is looked up in; None where it is another kind of name."""
    if (key == "model" and is_short(text)) or (key == "evaluate" and _is_word(text)):
        return None
    source = text.rpartition(":")[0] or text
    if not source or os.path.isabs(source) or (key == "model" and _is_word(text)):
        return None
    return source


def _is_word(text: str) -> bool:
    """A ready-made metric, or a mistake that is told as it was written."""
    return not any(sign in text for sign in ":/\\.")


def _checkpoint(key: str, text: str) -> str:
    """The folder of `hf:folder`, or nothing: it may be a name on the hub as well."""
    library, _, name = text.partition(":")
    return name if key == "model" and library == "hf" and not os.path.isabs(name) else ""
