"""A recipe as a file: what is set, with the words of each key; the rest as comments."""

import json
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from .model import ONLY_FLAGS, Recipe, option_name

HEADS = {
    "model": "What is compressed",
    "latency": "How small (one amount or several, or search), and how it is chosen",
    "data": "What it is repaired and judged with",
    "distill": "Training, where repair is not enough",
    "sign": "Who may know",
    "seed": "Circumstances",
}
"""By the first key of each part."""

ELSEWHERE = ONLY_FLAGS | {"output", "checkpoints", "sign", "encrypt_key"}
"""Where files and keys are is not part of what is built."""


def resolved(recipe: Recipe) -> str:
    """Every key that has a value, given or by default: what goes into a release."""
    lines = [f"{key} = {shown(value)}" for key, value in values(recipe).items()]
    return "\n".join(lines) + "\n"


def values(recipe: Recipe) -> Mapping[str, Any]:
    """Every key that has a value; not where files go."""
    return {
        option_name(name): value
        for name in Recipe.model_fields
        if name not in ELSEWHERE and (value := getattr(recipe, name)) not in (None, ())
    }


def commented(recipe: Recipe, notes: Callable[[str], str] = lambda key: "") -> str:
    """The recipe with its words: what is not set, or as by default, is commented out.

    `notes` says more about a key.
    """
    lines: list[str] = []
    fields = {name: one for name, one in Recipe.model_fields.items() if name not in ONLY_FLAGS}
    for name, field in fields.items():
        if name in HEADS:
            lines += ["", f"# ---- {HEADS[name]}"]
        key = option_name(name)
        words = " ".join((field.description or "").split()).removesuffix("; repeatable")
        lines += ["", f"# {words}", *(f"# {line}" for line in notes(key).splitlines())]
        value = getattr(recipe, name)
        if value == field.default:
            example = f" {shown(value)}" if value not in (None, ()) else ""
            lines.append(f"#{key} ={example}")
        else:
            lines.append(f"{key} = {shown(value)}")
    return "\n".join(lines).lstrip() + "\n"


def shown(value: Any) -> str:
    """A value in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, str | PurePath):
        text = value.as_posix() if isinstance(value, PurePath) else value
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
