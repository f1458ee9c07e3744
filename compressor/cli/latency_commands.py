"""Commands about a device's time: profile."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressor.base.terminal_text import say
from compressor.cli.options import AsJson, Quiet, Threads, print_json, stdout_is_ours
from compressor.config import Recipe
from compressor.config.fields import SUBJECT, takes
from compressor.config.model import option_name
from compressor.config.unused_options import asked_of, refuse_idle
from compressor.passes.base.errors import UsageError
from compressor.process.exit_codes import exits

if TYPE_CHECKING:
    from compressor.latency.pareto import Front

app = typer.Typer()

DEVICE = Path("device.json")


@app.command()
@exits
@takes(*SUBJECT, "output")
def profile(
    recipe: Recipe,
    batch: Annotated[int, typer.Option(min=1, help="size of the batch that will be run")] = 1,
    threads: Threads = 1,
    provider: Annotated[
        str, typer.Option(help="execution provider that will run the models")
    ] = "CPUExecutionProvider",
    seconds: Annotated[
        float, typer.Option(min=0.0, help="time at most; run it again to go on")
    ] = 300.0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure what kernels take on this device: the table (-o device.json) to plan latency by.

    Without a model: kernels that most networks have.
    """
    from compressor import passes
    from compressor.analysis.inspection import captured
    from compressor.process.progress import watch
    from compressor.storage.files import check_writable
    from compressor.timing.measure_kernels import Setting
    from compressor.timing.profiling import profile as run
    from compressor.timing.profiling import usual, wanted

    path = recipe.output or DEVICE
    check_writable(path)
    shown = watch(quiet or as_json)
    with stdout_is_ours(as_json):
        needed = usual(batch)
        if recipe.model is not None or recipe.code is not None:
            needed = wanted(passes.couple(captured(recipe, shown)), batch)
        else:
            _refuse_inputs_alone(recipe)
        with shown.stage("profile"):
            table, complete = run(
                path, needed, Setting(provider, threads), seconds=seconds, progress=shown.advance
            )
    said = {"table": str(path), "complete": complete} | table.summary()
    if as_json:
        print_json(said)
    elif not quiet:
        say(f"{path}: {said['kernels']} kernels in {said['families']} families, "
              f"measured in {said['seconds']} s")  # fmt: skip
        if not complete:
            say("the time was up: run the same command again to go on")


def _refuse_inputs_alone(recipe: Recipe) -> None:
    """Raise UsageError for what is said of a model, where none is named."""
    said = [name for name in SUBJECT if name != "trust" and getattr(recipe, name)]
    if said:
        raise UsageError(
            f"--{option_name(said[0])} would be ignored",
            why="no model is named, and kernels that most networks have are measured",
            hint="name the model, or leave it out",
        )


@app.command()
@exits
@takes(*Recipe.model_fields)
def sweep(
    recipe: Recipe,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="build on the nodes of a Ray cluster"),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Builds for several times (--latency 0.8,0.65,0.5): a front as a table, JSON and a page."""
    from compressor.latency.pareto import table
    from compressor.process.progress import wide_console

    with stdout_is_ours(as_json):
        front = _swept(recipe, ray, quiet or as_json)
    if as_json:
        print_json(front.to_json())
    elif not quiet:
        wide_console().print(table(front))
        assert recipe.output is not None
        say(f"page: {recipe.output / 'front.html'}")
    if all(one.ratio is None for one in front.points):
        raise typer.Exit(1)


def _swept(recipe: Recipe, ray: str | None, quiet: bool) -> "Front":
    from compressor.config.user_file import with_code
    from compressor.latency.sweep import candidates, one_by_one, sweep

    candidates(recipe)  # refused before anything is written or sent
    refuse_idle(asked_of(with_code(recipe)))
    if ray is None:
        from compressor.pipeline.build import build
        from compressor.process.progress import watch

        return sweep(recipe, one_by_one(lambda one: build(one, watch(quiet))))
    from compressor.latency.on_ray import connected
    from compressor.latency.remote import distributed

    def note(line: str) -> None:
        if not quiet:
            say(line, sys.stderr)

    assert recipe.output is not None
    keys = [key for key in (recipe.sign, recipe.encrypt_key) if key is not None]
    with connected(ray, recipe.output, keys, note) as cluster:
        return sweep(recipe, distributed(cluster, note))
