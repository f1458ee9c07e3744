"""A front: one build for each time that is asked for, and what each keeps.

    folder/0.65/         the release of one build, as `compressor build` writes it
    folder/front.json    what is known of all of them
    folder/front.html    the same as a page, with a picture

A build that is there already is not made again, so a sweep that was stopped goes on. A time that no
build meets is part of the front too, with the reason.

Builds are made one after another here, or on several machines (`compressor.latency.remote`). Never
two at once on one machine: a build measures from its plan to its last race, and another one beside
it, in whatever stage, would be in those numbers.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from compressor.base.messages import reason
from compressor.base.untrusted import inside, read_json
from compressor.config import Recipe
from compressor.passes.base.errors import CompressError, UsageError
from compressor.storage.atomic_replace import alone
from compressor.storage.files import read_file, write_file

from .pareto import Front, point_of
from .pareto_page import page

Build = Callable[[Recipe], object]
"""Writes the release of a recipe."""

Run = Callable[[Sequence[Recipe]], Iterator[tuple[Recipe, str]]]
"""Builds recipes in any order; says of each, when it is done, why it is not there, or nothing."""


def sweep(recipe: Recipe, run: Run) -> Front:
    """Build every time of `recipe.latency`, a list with commas, below the folder of the recipe.

    Raises UsageError where there is nothing to sweep over, or no folder.
    """
    recipes = candidates(recipe)
    assert recipe.output is not None
    with alone(recipe.output):
        recipe.output.mkdir(exist_ok=True)
        reports: dict[str, dict[str, Any] | str] = {
            asked: _report(one) for asked, one in recipes.items() if _report_of(one).exists()
        }
        front = _written(recipe, reports, recipes)
        missing = [one for asked, one in recipes.items() if asked not in reports]
        try:
            for one, why in run(missing):
                reports[str(one.latency)] = why or _report(one)
                front = _written(recipe, reports, recipes)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(
                "what is built is kept, and the same command goes on"
            ) from error
    return front


def one_by_one(build: Build) -> Run:
    """Builds here, one after another."""

    def run(recipes: Sequence[Recipe]) -> Iterator[tuple[Recipe, str]]:
        for recipe in recipes:
            why = ""
            try:
                build(recipe)
            except CompressError as error:
                why = unmet(error)
            yield recipe, why

    return run


def unmet(error: CompressError) -> str:
    """Why no build meets a time. Raises the error where it is about the command instead."""
    if isinstance(error, UsageError) and "cannot be reached" not in error.what:
        raise error
    return error.what


def candidates(recipe: Recipe) -> dict[str, Recipe]:
    """A recipe for each time, with its folder. What is wrong with the command is found here."""
    asked = [one.strip() for one in (recipe.latency or "").split(",") if one.strip()]
    if len(asked) < 2 or recipe.output is None:
        raise UsageError(
            "a sweep needs several times and a folder",
            hint="for example --latency 0.8,0.65,0.5,0.35 -o sweep",
        )
    if recipe.encrypt_key is not None:
        raise UsageError(
            "a sweep cannot read reports that are encrypted",
            hint="leave out --encrypt-key, and build the one that you choose with it",
        )
    if not recipe.race:
        raise UsageError("a sweep compares builds by their races", hint="leave out --no-race")
    found = {}
    for one in asked:
        recipe.model_copy(update={"latency": one}).budget()  # refused before anything is built
        try:
            update = {"latency": one, "output": recipe.output / inside(one)}
        except ValueError as error:
            raise UsageError(f"no folder can be called {one!r}", why=str(error)) from error
        found[one] = recipe.model_copy(update=update)
    return found


def _report_of(recipe: Recipe) -> Path:
    assert recipe.output is not None
    return recipe.output / "report.json"


def _report(recipe: Recipe) -> dict[str, Any]:
    path = _report_of(recipe)
    try:
        found = read_json(read_file(path))
        if not isinstance(found, dict):
            raise ValueError("it is no table")
        point_of("", found)
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
        raise UsageError(
            f"{path} is not a report",
            why=reason(error),
            hint=f"remove {path.parent}: it is built anew",
        ) from error
    return found


def _written(
    recipe: Recipe, reports: Mapping[str, dict[str, Any] | str], order: Iterable[str]
) -> Front:
    """The front as far as it is known, as files."""
    assert recipe.output is not None
    known = {asked: reports[asked] for asked in order if asked in reports}
    front = Front.of(recipe.title, recipe.metric, known)
    write_file(recipe.output / "front.json", _text(front.to_json()).encode())
    write_file(recipe.output / "front.html", page(front).encode())
    return front


def _text(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"
