"""Passes as text: printed from their options, and parsed into them.

    prune{criterion=obs round_to=8} repair flush-denormals{below=1e-30}

A value is a number, `true`, `false`, `none`, a word, a quoted string, or a list ``[a, b]``. Options
that are as by default are not printed.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ..base.errors import UsageError

Plain = None | bool | int | float | str | tuple["Plain", ...]
"""What an option may be."""


def options_of(step: Any) -> dict[str, Any]:
    """The options of a pass that are not as by default: its fields of plain values."""
    found = {}
    for one in fields(step):
        value = getattr(step, one.name)
        default = one.default_factory() if one.default_factory is not MISSING else one.default
        if is_plain(value) and value != default:
            found[one.name] = value
    return found


def is_plain(value: Any) -> bool:
    """Whether a value can be written in a spec."""
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def said(name: str, options: Mapping[str, Any]) -> str:
    """A pass with its options."""
    inside = " ".join(f"{key}={_written(value)}" for key, value in options.items())
    return f"{name}{{{inside}}}" if inside else name


def spec(steps: Any) -> str:
    """Several passes, as `parsed` reads them."""
    return " ".join(said(step.name, options_of(step)) for step in steps)


def parsed(text: str, known: Mapping[str, type]) -> list[Any]:
    """The passes that a text names, made with its options.

    `known` are the passes by name (`registry.PASSES`). Raises UsageError, with the place, for what
    is not a spec, a pass that is not known, an option that it does not have, a value of another
    type, and an option that it lacks.
    """
    return [_made(name, options, known) for name, options in _read(text)]


def _made(name: str, options: Mapping[str, Any], known: Mapping[str, type]) -> Any:
    if name not in known:
        near = get_close_matches(name, known, 1)
        raise UsageError(
            f"unknown pass {name!r}; one of: {', '.join(sorted(known))}",
            hint=f"did you mean {near[0]}?" if near else "",
        )
    own = {one.name: one for one in fields(known[name])}
    for key in options:
        if key not in own:
            raise UsageError(
                f"the pass {name} has no option {key!r}",
                hint=f"it has {', '.join(own)}" if own else "it has none",
            )
    types = get_type_hints(known[name])
    for key, value in options.items():
        if not _fits(value, types[key]):
            raise UsageError(
                f"{key}={_written(value)} is no value for the pass {name}",
                why=f"{key} is of the type {getattr(types[key], '__name__', types[key])}",
            )
    lacking = [key for key, one in own.items() if _needed(one) and key not in options]
    if lacking:
        raise UsageError(
            f"the pass {name} needs {' and '.join(lacking)}",
            why="it has no default, and the text has no value for it",
            hint="write option=value; what is not plain (a plan, data) is given in code only",
        )
    return known[name](**options)


def _needed(option: Field[Any]) -> bool:
    return option.default is MISSING and option.default_factory is MISSING


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a plain value is of the type that an option is annotated with."""
    if isinstance(wanted, UnionType):
        return any(_fits(value, one) for one in get_args(wanted))
    if get_origin(wanted) is tuple:
        return isinstance(value, tuple) and all(_fits(one, get_args(wanted)[0]) for one in value)
    if isinstance(value, bool):
        return wanted is bool
    return isinstance(value, int | float if wanted is float else wanted)


# --- values --------------------------------------------------------------------------------------

_WORD = re.compile(r"[A-Za-z_][\w./*:-]*")
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_KEY = re.compile(r"[A-Za-z_]\w*")
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_WORDS = {"true": True, "false": False, "none": None}


def _written(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_written, value))}]"
    for word, meant in _WORDS.items():
        if value is meant:
            return word
    if isinstance(value, str):
        bare = _WORD.fullmatch(value) and value not in _WORDS
        return value if bare else json.dumps(value)
    return repr(value)


class _Reader:
    """A text and how far it was read."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def spaces(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def take(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.at)
        if found is None:
            return None
        self.at = found.end()
        return found[0]

    def sign(self, sign: str) -> bool:
        there = self.text.startswith(sign, self.at)
        self.at += len(sign) if there else 0
        return there

    def refuse(self, wanted: str) -> UsageError:
        return UsageError(
            f"{self.text!r} is no list of passes",
            where=f"at character {self.at + 1}: {self.text[self.at : self.at + 20]!r}",
            why=f"here should be {wanted}",
            hint="for example: prune{criterion=obs round_to=8} repair",
        )


def _read(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = _Reader(text)
    reader.spaces()
    while reader.at < len(text):
        name = reader.take(_NAME)
        if name is None:
            raise reader.refuse("the name of a pass")
        yield name, _options(reader) if reader.sign("{") else {}
        before = reader.at
        reader.spaces()
        if reader.at == before and reader.at < len(text):
            raise reader.refuse("a space, or {options}")


def _options(reader: _Reader) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while True:
        reader.spaces()
        if reader.sign("}"):
            return found
        key = reader.take(_KEY)
        if key is None or not reader.sign("="):
            raise reader.refuse("option=value, or }")
        if key in found:
            raise reader.refuse(f"another option than {key}, which is there already")
        found[key] = _value(reader)


def _value(reader: _Reader) -> Any:
    if reader.sign("["):
        return _list(reader)
    if (number := reader.take(_NUMBER)) is not None:
        whole = re.fullmatch(r"[-+]?\d+", number)
        return int(number) if whole else float(number)
    if (quoted := reader.take(_STRING)) is not None:
        try:
            return json.loads(quoted)
        except ValueError:
            raise reader.refuse("a string as JSON writes it") from None
    if (word := reader.take(_WORD)) is not None:
        return _WORDS.get(word, word)
    raise reader.refuse("a number, a word, a string or a list")


def _list(reader: _Reader) -> tuple[Any, ...]:
    found: list[Any] = []
    reader.spaces()
    while not reader.sign("]"):
        found.append(_value(reader))
        reader.spaces()
        if not reader.sign(",") and not reader.text.startswith("]", reader.at):
            raise reader.refuse("a comma, or ]")
        reader.spaces()
    return tuple(found)
