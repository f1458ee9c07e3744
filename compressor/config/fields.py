"""The command line's options, made from the recipe's fields.

    @takes("model", "weights", "macs")        a command with these, -c and its own options
    def plan(recipe: Recipe, quiet: Quiet = False) -> None: ...

What the user did not give is None and left to the environment, the file and the default.
"""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer

from .model import Recipe, option_name
from .sources import resolve

SUBJECT = ("model", "code", "weights", "input_shape", "inputs", "dynamic", "trust")
"""What is looked at."""
BUDGET = ("latency", "macs", "params", "channels", "bytes_", "memory", "device")
CHOICE = ("criterion", "uniform", "round_to", "min_channels", "ignore", "sensitivity", "seed")
"""How channels are chosen."""

_CONFIG = typer.Option("--config", "-c", help="recipe: compressor.toml, or a pyproject.toml")
_SHORT = {"output": "-o"}


def takes(*fields: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of these fields, and hand it the recipe that they make."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(config: Path | None = None, **given: Any) -> None:
            asked = {option_name(name): given.pop(name, None) for name in fields}
            flags = {key: value for key, value in asked.items() if value not in (None, [])}
            command(resolve(flags, config), **given)

        _, *rest = inspect.signature(command).parameters.values()
        own = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in rest]
        made = [*map(_parameter, fields), _keyword("config", Annotated[Path | None, _CONFIG])]
        parameters = sorted((*made, *own), key=lambda one: one.name != "model")
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate


def _keyword(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _parameter(name: str) -> inspect.Parameter:
    field = Recipe.model_fields[name]
    kind = _plain(field.annotation)
    words = " ".join((field.description or "").split())
    if field.default not in (None, False, "", ()):
        words += f" [default: {field.default}]"
    if name == "model":
        return _keyword(name, Annotated[kind | None, typer.Argument(help=words)])
    flag = f"--{option_name(name)}"
    if kind is bool:
        flag += f"/--no-{option_name(name)}"
    names = (flag, _SHORT[name]) if name in _SHORT else (flag,)
    return _keyword(name, Annotated[kind | None, typer.Option(*names, help=words)])


def _plain(annotation: Any) -> Any:
    """What the command line reads: no limits, no None, a list for several."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _plain(get_args(annotation)[0])
    if origin in (Union, UnionType):
        (kind,) = (one for one in get_args(annotation) if one is not NoneType)
        return _plain(kind)
    return list[str] if origin is tuple else annotation
