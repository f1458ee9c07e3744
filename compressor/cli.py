"""The command line: what each command takes. The work is done elsewhere, and imported late."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressor import onnx_commands
from compressor.exits import exits
from compressor.options import AsJson, Quiet, Seed, Threads, print_json, stdout_is_ours

if TYPE_CHECKING:
    from compressor.passes import Budget

app = typer.Typer(
    help="Remove whole channels of a trained PyTorch model, prove it, and export a smaller ONNX.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Model = Annotated[
    str, typer.Argument(help="module:callable or path/file.py:callable that returns the model")
]
Weights = Annotated[
    Path | None, typer.Option(help="state dict to load: .safetensors, or .pt read weights-only")
]
InputShape = Annotated[
    str | None, typer.Option(help="example input, such as 1,3,224,224 or 1,16:int64;1,8")
]
InputsFrom = Annotated[
    str | None, typer.Option("--inputs", help="callable that returns the example inputs")
]
DataFrom = Annotated[
    str | None,
    typer.Option("--data", help="callable that returns batches of inputs, for calibration"),
]
Evaluate = Annotated[
    list[str] | None,
    typer.Option(
        help="callable(predict) that returns a number, or several by name; or "
        "accuracy, f1, recall, mse, agreement; repeatable"
    ),
]
EvalData = Annotated[
    str | None,
    typer.Option(help="callable that returns (inputs, target) pairs; default: those of --data"),
]
MaxDrop = Annotated[
    float | None, typer.Option(min=0, help="fail if the metric becomes worse by more than this")
]
Metric = Annotated[
    str | None, typer.Option(help="which metric --max-drop is about; default: first")
]
Search = Annotated[
    bool,
    typer.Option("--search", help="the smallest model within --max-drop; a budget is the least"),
]
Distill = Annotated[
    int, typer.Option(min=0, help="epochs towards the original's outputs and features; no labels")
]
Finetune = Annotated[int, typer.Option(min=0, help="epochs with labels")]
SparseTrain = Annotated[
    int, typer.Option(min=0, help="epochs of the original that make whole groups small; labels")
]
TrainData = Annotated[
    str | None,
    typer.Option(help="callable that returns a DataLoader, a Dataset or batches; default: --data"),
]
LossOf = Annotated[
    str | None, typer.Option("--loss", help="callable(outputs, target); default: by the targets")
]
Checkpoints = Annotated[
    Path | None, typer.Option(help="folder from which training that was killed goes on")
]
DynamicAxes = Annotated[
    list[str] | None,
    typer.Option(
        "--dynamic", help="axis whose size stays free, such as input_ids:1=sequence; repeatable"
    ),
]
Ignore = Annotated[
    list[str] | None, typer.Option(help="parameters never to touch, such as 'head.*'; repeatable")
]
Criterion = Annotated[str, typer.Option(help="how channels are scored")]
Uniform = Annotated[bool, typer.Option(help="the same share of every group")]
RoundTo = Annotated[
    int | None, typer.Option(min=1, help="kept widths are multiples of this; default: found")
]
MinChannels = Annotated[int, typer.Option(min=1, help="always keep this many in a group")]
Kept = typer.Option(help="keep this many, as a ratio (0.5) or a whole number")


@app.command()
@exits
def build(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="directory to write")],
    macs: Annotated[float | None, Kept] = None,
    params: Annotated[float | None, Kept] = None,
    channels: Annotated[float | None, Kept] = None,
    bytes_: Annotated[float | None, typer.Option("--bytes", help="keep this many")] = None,
    weights: Weights = None,
    input_shape: InputShape = None,
    inputs: InputsFrom = None,
    data: DataFrom = None,
    dynamic: DynamicAxes = None,
    evaluate: Evaluate = None,
    eval_data: EvalData = None,
    max_drop: MaxDrop = None,
    metric: Metric = None,
    search: Search = False,
    distill: Distill = 0,
    finetune: Finetune = 0,
    sparse_train: SparseTrain = 0,
    train_data: TrainData = None,
    loss: LossOf = None,
    learning_rate: Annotated[float, typer.Option(help="of training, at its largest")] = 1e-3,
    batch_size: Annotated[int, typer.Option(help="of training, of all processes together")] = 64,
    accumulate: Annotated[int, typer.Option(help="batches that make one step")] = 1,
    precision: Annotated[str, typer.Option(help="of training: no, bf16 or fp16")] = "no",
    patience: Annotated[int, typer.Option(help="epochs without a better score, at most")] = 3,
    penalty: Annotated[
        str, typer.Option(help="of --sparse-train: group-lasso or bn-scale")
    ] = "group-lasso",
    penalty_weight: Annotated[float, typer.Option(help="beside the loss")] = 1e-4,
    checkpoints: Checkpoints = None,
    criterion: Criterion = "auto",
    uniform: Uniform = False,
    round_to: RoundTo = None,
    min_channels: MinChannels = 1,
    ignore: Ignore = None,
    seed: Seed = 0,
    threads: Threads = 1,
    bench_seconds: Annotated[float, typer.Option(min=0.1, help="time for the race, at most")] = 20,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier release")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a smaller, proven, measured ONNX model with its report."""
    from compressor.build import Request
    from compressor.build import build as run
    from compressor.freedom import parse
    from compressor.passes import Options
    from compressor.stages import watch
    from compressor.train.nets import helper
    from compressor.train.settings import Training

    quiet = quiet or helper()
    given = {"macs": macs, "params": params, "channels": channels, "bytes": bytes_}
    request = Request(
        model=model,
        output=output,
        budget=None if search and not any(given.values()) else _budget(**given),
        options=Options(criterion, seed, uniform, round_to, min_channels, tuple(ignore or ())),
        weights=weights,
        input_shape=input_shape,
        inputs=inputs,
        data=data,
        dynamic=parse(dynamic or ()),
        evaluate=tuple(evaluate or ()),
        eval_data=eval_data,
        max_drop=max_drop,
        metric=metric,
        search=search,
        training=Training(
            sparse=sparse_train,
            distill=distill,
            finetune=finetune,
            learning_rate=learning_rate,
            batch_size=batch_size,
            accumulate=accumulate,
            precision=precision,
            patience=patience,
            penalty=penalty,
            penalty_weight=penalty_weight,
            checkpoints=checkpoints,
            seed=seed,
        ),
        train_data=train_data,
        loss=loss,
        threads=threads,
        bench_seconds=bench_seconds,
        force=force,
    )
    with stdout_is_ours(as_json):
        built = run(request, watch(quiet or as_json))
    if built is None:
        return
    found = built.report
    if as_json:
        print_json(found)
    elif not quiet:
        from compressor.report import table
        from compressor.stages import wide_console

        console = wide_console()
        console.print(table(found))
        for line in found["warnings"]:
            console.print(f"note: {line}", highlight=False, markup=False, soft_wrap=True)
        console.print(f"report: {output / 'report.html'}", highlight=False, soft_wrap=True)


def _budget(**given: float | None) -> "Budget":
    from compressor.passes import Budget

    return Budget(**given)


@app.command()
@exits
def inspect(
    model: Model,
    weights: Weights = None,
    input_shape: InputShape = None,
    inputs: InputsFrom = None,
    dynamic: DynamicAxes = None,
    ignore: Ignore = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Show which channels stand or fall together, and what must stay and why."""
    from compressor.freedom import parse
    from compressor.inspection import Subject, tree
    from compressor.inspection import inspect as run
    from compressor.stages import watch, wide_console

    shown = watch(quiet or as_json)
    with stdout_is_ours(as_json):
        subject = Subject(model, weights, input_shape, inputs, parse(dynamic or ()))
        found = run(subject, tuple(ignore or ()), shown)
    if as_json:
        print_json(found)
    elif not quiet:
        wide_console().print(tree(found))


@app.command()
@exits
def sensitivity(
    model: Model,
    data: DataFrom,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="page to write, with a picture")
    ] = None,
    weights: Weights = None,
    input_shape: InputShape = None,
    inputs: InputsFrom = None,
    dynamic: DynamicAxes = None,
    evaluate: Evaluate = None,
    eval_data: EvalData = None,
    share: Annotated[
        list[float] | None,
        typer.Option(help="of a group's channels that goes; repeatable; default: 0.25, 0.5, 0.75"),
    ] = None,
    criterion: Criterion = "auto",
    ignore: Ignore = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Cut one group of channels at a time, repair, and show what that costs."""
    from compressor import sensitivity as analysis
    from compressor.freedom import parse
    from compressor.inspection import Subject
    from compressor.passes import Options
    from compressor.stages import watch, wide_console

    subject = Subject(model, weights, input_shape, inputs, parse(dynamic or ()))
    options = Options(criterion, seed, ignore=tuple(ignore or ()))
    asked = analysis.Asked(data, eval_data, tuple(evaluate or ()), tuple(share or ()))
    with stdout_is_ours(as_json):
        found = analysis.run(subject, options, asked, watch(quiet or as_json))
    if output is not None:
        analysis.write(found, output)
    if as_json:
        print_json(found.to_json())
    elif not quiet:
        wide_console().print(analysis.table(found))
        if output is not None:
            print(f"page: {output}")


@app.command()
@exits
def plan(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="plan.json to write")],
    macs: Annotated[float | None, Kept] = None,
    params: Annotated[float | None, Kept] = None,
    channels: Annotated[float | None, Kept] = None,
    bytes_: Annotated[float | None, typer.Option("--bytes", help="keep this many")] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="safetensors, a file or a folder of shards: read tensor by tensor"),
    ] = None,
    input_shape: InputShape = None,
    inputs: InputsFrom = None,
    dynamic: DynamicAxes = None,
    criterion: Criterion = "auto",
    uniform: Uniform = False,
    round_to: RoundTo = None,
    min_channels: MinChannels = 1,
    ignore: Ignore = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Choose which channels go, without running the model: it may be on the meta device."""
    from compressor.freedom import parse
    from compressor.inspection import Subject
    from compressor.passes import Options
    from compressor.passes.text import plan_to_text
    from compressor.planning import plan as run
    from compressor.stages import watch

    budget = _budget(macs=macs, params=params, channels=channels, bytes=bytes_)
    options = Options(criterion, seed, uniform, round_to, min_channels, tuple(ignore or ()))
    subject = Subject(model, None, input_shape, inputs, parse(dynamic or ()))
    with stdout_is_ours(as_json):
        found = run(subject, budget, options, weights, output, watch(quiet or as_json))
    if as_json:
        print_json(found.to_json())
    elif not quiet:
        print(plan_to_text(found.plan), end="")
        for kind, pair in found.to_json()["cost"].items():
            print(f"{kind}: {pair['original']:,} -> {pair['small']:,}")


@app.command()
@exits
def shards(
    plan: Annotated[Path, typer.Argument(help="plan.json, of `plan` or of a release")],
    source: Annotated[Path, typer.Argument(help="safetensors: a file, or a folder of shards")],
    output: Annotated[Path, typer.Option("--output", "-o", help="directory to write")],
    shard_bytes: Annotated[int, typer.Option(min=1, help="bytes in a file, at most")] = 5 * 10**9,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Cut a checkpoint down by a plan, tensor by tensor: it need not fit in memory."""
    from dataclasses import asdict

    from compressor.shards import read_plan, shrink_shards
    from compressor.stages import watch

    with watch(quiet or as_json).stage("cut"):
        done = shrink_shards(read_plan(plan), source, output, shard_bytes)
    if as_json:
        print_json(asdict(done))
    elif not quiet:
        print(
            f"{done.cut} of {done.tensors} tensors cut, {done.bytes_before:,} -> "
            f"{done.bytes_after:,} bytes in {len(done.files)} files: {output}"
        )


app.add_typer(onnx_commands.app)
