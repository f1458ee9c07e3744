"""Commands about a device's time: profile."""

from pathlib import Path
from typing import Annotated

import typer

from compressor.exits import exits
from compressor.options import AsJson, Quiet, Threads, print_json, stdout_is_ours

app = typer.Typer()

Provider = Annotated[str, typer.Option(help="execution provider that will run the models")]


@app.command()
@exits
def profile(
    output: Annotated[Path, typer.Option("--output", "-o", help="table to write, or to go on with")],
    model: Annotated[
        str | None,
        typer.Argument(help="module:callable or path/file.py:callable; default: a common network"),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="state dict to load")] = None,
    input_shape: Annotated[
        str | None, typer.Option(help="example input, such as 1,3,224,224 or 1,16:int64;1,8")
    ] = None,
    inputs: Annotated[
        str | None, typer.Option("--inputs", help="callable that returns the example inputs")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="size of the batch that will be run")] = 1,
    threads: Threads = 1,
    provider: Provider = "CPUExecutionProvider",
    seconds: Annotated[float, typer.Option(min=0.0, help="time at most; run it again to go on")] = (
        300.0
    ),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure what kernels take on this device: the table that latency is planned by."""
    from compressor import passes
    from compressor.files import check_writable
    from compressor.inspection import Subject, captured
    from compressor.latency.probe import Setting
    from compressor.latency.profiling import profile as run
    from compressor.latency.profiling import usual, wanted
    from compressor.stages import watch

    check_writable(output)
    shown = watch(quiet or as_json)
    with stdout_is_ours(as_json):
        if model is None:
            needed = usual(batch)
        else:
            subject = Subject(model, weights, input_shape, inputs)
            needed = wanted(passes.couple(captured(subject, (), shown)), batch)
        with shown.stage("profile"):
            table, complete = run(
                output, needed, Setting(provider, threads), seconds=seconds, progress=shown.advance
            )
    said = {
        "table": str(output),
        "complete": complete,
        "families": len(table.families),
        "kernels": sum(family.times.size for family in table.families.values()),
        "seconds": round(table.seconds, 1),
        "stairs": {f"{kind} {place}": one.unit for (kind, place), one in table.stairs.items()},
    }
    if as_json:
        print_json(said)
    elif not quiet:
        print(f"{output}: {said['kernels']} kernels of {said['families']} families, "
              f"measured in {said['seconds']} s")  # fmt: skip
        if not complete:
            print("the time was up: run the same command again to go on")
