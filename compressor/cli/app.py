"""The command line: what each command takes. The work is done elsewhere, and imported late.

What describes a build is declared in `compressor.config`; here are only the names of it.
"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor import __version__
from compressor.base.terminal_text import say
from compressor.cli import latency_commands, onnx_commands
from compressor.cli.options import AsJson, Quiet, print_json, stdout_is_ours
from compressor.config import Recipe
from compressor.config.fields import BUDGET, CHOICE, SUBJECT, takes
from compressor.passes.base.errors import UsageError
from compressor.process.exit_codes import exits

if TYPE_CHECKING:
    from compressor.pipeline.build import Expected
    from compressor.result.built import Built

app = typer.Typer(
    help="Remove whole channels of a trained PyTorch model, prove it, and export a smaller ONNX.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Force = Annotated[bool, typer.Option("--force", help="replace what is there")]


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"compressor {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """Options of no command."""


@app.command()
@exits
@takes(*Recipe.model_fields)
def build(
    recipe: Recipe,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show the plan and the expected gain; write nothing")
    ] = False,
    save_config: Annotated[
        Path | None, typer.Option(help="write the recipe that these options make, and end")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="make this stage and later ones anew")
    ] = None,
    until: Annotated[str | None, typer.Option(help="end after this stage")] = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a smaller, proven, measured ONNX model with its report."""
    _refuse_early_ends(save_config is not None, dry_run, start, until)
    if save_config is not None:
        _save(recipe, save_config, force)
        return
    from compressor.pipeline import build as builds
    from compressor.process.progress import watch
    from compressor.train.nets import helper

    quiet = quiet or helper()
    shown = watch(quiet or as_json)
    with stdout_is_ours(as_json):
        if dry_run:
            expected, built = builds.expect(recipe, shown), None
        else:
            built = builds.build(recipe, shown, force=force, start=start, until=until)
    if dry_run:
        _show_expected(expected, quiet, as_json)
    elif built is not None:
        _show_built(built, recipe, quiet, as_json)


def _refuse_early_ends(saves: bool, dry_run: bool, start: str | None, until: str | None) -> None:
    """Raise UsageError for what has no use, because the command ends before it."""
    ended = "--save-config" if saves else "--dry-run" if dry_run else None
    given = {"--dry-run": saves and dry_run, "--from": start, "--until": until}
    for option, value in given.items():
        if ended is not None and value:
            raise UsageError(f"{option} would be ignored", why=f"{ended} ends before it",
                             hint="leave out one of them")  # fmt: skip


def _save(recipe: Recipe, path: Path, force: bool) -> None:
    from compressor.config.names import for_folder
    from compressor.config.toml import commented
    from compressor.storage.files import check_writable, write_file

    check_writable(path, force=force)
    write_file(path, commented(for_folder(recipe, path.parent)).encode())


def _show_expected(expected: "Expected", quiet: bool, as_json: bool) -> None:
    found = expected.to_json()
    if as_json:
        print_json(found)
    elif not quiet:
        from compressor.pipeline.report_contents import table
        from compressor.process.progress import wide_console

        _print_plan(expected.plan, {})
        wide_console().print(table(found))
        say("nothing was run or written")


def _show_built(built: "Built", recipe: Recipe, quiet: bool, as_json: bool) -> None:
    found = built.report
    if as_json:
        print_json(found)
    elif not quiet:
        from compressor.pipeline.report_contents import table
        from compressor.process.progress import wide_console
        from compressor.report.summary import kept, verdicts

        console = wide_console()
        for one in verdicts(found):
            if one.mark == "bad":
                console.print(f"warning: {one.short} {one.full}", soft_wrap=True)
        console.print(table(found))
        left = kept(found)
        own = [f"{left.short} {left.full}"] if left is not None and left.mark != "bad" else []
        for line in (*own, *found["warnings"]):
            console.print(f"note: {line}", soft_wrap=True)
        assert recipe.output is not None
        page = recipe.output / "report.html"
        console.print(f"report: {page}", soft_wrap=True)


def _print_plan(plan: Any, cost: dict[str, dict[str, int]]) -> None:
    from compressor.passes.pipeline.text import plan_to_text

    say(plan_to_text(plan).rstrip("\n"))
    for kind, pair in cost.items():
        say(f"{kind}: {pair['original']:,} -> {pair['small']:,}")


@app.command()
@exits
@takes(*SUBJECT, "ignore", "output")
def init(recipe: Recipe, force: Force = False) -> None:
    """Write a commented recipe (compressor.toml, or -o) after a look at the model."""
    from compressor.cli.starter_recipe import first
    from compressor.config.sources import NAME
    from compressor.process.progress import watch
    from compressor.storage.files import check_writable, write_file

    path = recipe.output or Path(NAME)
    check_writable(path, force=force)
    recipe = recipe.model_copy(update={"output": None})
    write_file(path, first(recipe, watch(False), path.parent).encode())
    say(f"recipe: {path}")


@app.command()
@exits
def schema() -> None:
    """Print the JSON schema of a recipe."""
    print_json(Recipe.model_json_schema())


@app.command()
@exits
@takes(*SUBJECT, "ignore")
def inspect(
    recipe: Recipe,
    program: Annotated[
        bool, typer.Option("--program", help="print the captured graph instead, a line a value")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Show which channels stand or fall together, and what must stay and why."""
    from compressor.analysis.inspection import captured, tree
    from compressor.analysis.inspection import inspect as run
    from compressor.passes import program_to_text
    from compressor.process.progress import watch, wide_console

    if program:
        if as_json:
            raise UsageError("the graph is text", hint="leave --json or --program out")
        with stdout_is_ours(True):
            text = program_to_text(captured(recipe, watch(quiet)))
        for line in text.splitlines():
            say(line)
        return
    with stdout_is_ours(as_json):
        found = run(recipe, watch(quiet or as_json))
    if as_json:
        print_json(found)
    elif not quiet:
        wide_console().print(tree(found))


@app.command()
@exits
@takes(*SUBJECT, "data", "evaluate", "eval_data", "criterion", "ignore", "seed", "output")
def sensitivity(
    recipe: Recipe,
    share: Annotated[
        list[float] | None,
        typer.Option(help="of a group's channels that goes; repeatable; default: 0.25, 0.5, 0.75"),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Cut one group of channels at a time, repair, and show what that costs.

    -o x.html writes a page, -o x.json the weights that `--sensitivity x.json` plans by.
    """
    from compressor.analysis import sensitivity as analysis
    from compressor.process.progress import watch, wide_console

    with stdout_is_ours(as_json):
        found = analysis.run(recipe, share or (), watch(quiet or as_json))
    if recipe.output is not None:
        analysis.write(found, recipe.output)
    if as_json:
        print_json(found.to_json())
    elif not quiet:
        wide_console().print(analysis.table(found))
        if recipe.output is not None:
            say(f"written: {recipe.output}")


@app.command()
@exits
@takes(*SUBJECT, *BUDGET, *CHOICE, "output")
def plan(recipe: Recipe, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Write a plan (-o plan.json) without running the model: it may be on the meta device.

    The weights may be a folder of safetensors shards; they are read tensor by tensor.
    """
    from compressor.analysis.planning import plan as run
    from compressor.process.progress import watch

    with stdout_is_ours(as_json):
        found = run(recipe, watch(quiet or as_json))
    if as_json:
        print_json(found.to_json())
    elif not quiet:
        _print_plan(found.plan, found.to_json()["cost"])


@app.command()
@exits
def shards(
    plan: Annotated[Path, typer.Argument(help="plan.json of `plan`, or passes.json of a release")],
    source: Annotated[Path, typer.Argument(help="safetensors: a file, or a folder of shards")],
    output: Annotated[Path, typer.Option("--output", "-o", help="directory to write")],
    shard_bytes: Annotated[int, typer.Option(min=1, help="bytes in a file, at most")] = 5 * 10**9,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Cut a checkpoint down by a plan, tensor by tensor: it need not fit in memory."""
    from dataclasses import asdict

    from compressor.process.progress import watch
    from compressor.release.shards import read_plan, shrink_shards

    with watch(quiet or as_json).stage("cut"):
        done = shrink_shards(read_plan(plan), source, output, shard_bytes)
    if as_json:
        print_json(asdict(done))
    elif not quiet:
        say(
            f"{done.cut} of {done.tensors} tensors cut, {done.bytes_before:,} -> "
            f"{done.bytes_after:,} bytes in {len(done.files)} files: {output}"
        )


@app.command()
@exits
def reduce(
    case: Annotated[Path, typer.Argument(help="folder of a reproducer, or a recipe that fails")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write")] = Path(
        "reduced"
    ),
    tries: Annotated[int, typer.Option(min=1, help="networks to try, at most")] = 60,
    seconds: Annotated[float, typer.Option(min=1, help="of one try, at most")] = 300.0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Cut a failing recipe and network down to the smallest that still fail in the same way."""
    from compressor.debug import minimise
    from compressor.process.progress import watch

    with stdout_is_ours(as_json):
        found = minimise.reduce(
            minimise.read(case, parsed), output, watch(quiet or as_json), tries, seconds
        )
    if as_json:
        print_json(found.to_json())
    elif not quiet:
        say(minimise.told(found, output))


app.add_typer(onnx_commands.app)
app.add_typer(latency_commands.app)


def parsed(command: str, words: list[str], text: Path) -> dict[str, Any]:
    """What these words give the options of a command; `text` is the file that has them.

    Raises UsageError where they would be refused.
    """
    group: Any = typer.main.get_command(app)
    try:
        given: dict[str, Any] = group.commands[command].make_context(command, words).params
    except typer.Exit as error:  # of --help
        raise UsageError(f"{text} asks for no build", why=shlex.join(words)[:200]) from error
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's, of which typer has a copy
            raise
        raise UsageError(f"{text} is no command", why=error.format_message()[:200]) from error
    return given
