"""`compressor build`: load, compress, export, evaluate, race, write. One straight function."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from compressor import bench, passes, release
from compressor.api import Built, compress
from compressor.inputs import at_batch
from compressor.load import load_callable, load_data, load_inputs, load_model
from compressor.passes.free import Dynamic
from compressor.runtime import OnnxModel
from compressor.stages import Watch
from compressor.train.nets import helper
from compressor.train.settings import Training


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    model: str
    output: Path
    budget: passes.Budget | None
    options: passes.Options
    weights: Path | None = None
    input_shape: str | None = None
    inputs: str | None = None
    data: str | None = None
    dynamic: Dynamic = field(default_factory=dict)
    evaluate: tuple[str, ...] = ()
    eval_data: str | None = None
    max_drop: float | None = None
    metric: str | None = None
    search: bool = False
    training: Training = field(default_factory=Training)
    train_data: str | None = None
    loss: str | None = None
    threads: int = 1
    bench_seconds: float = 20.0
    force: bool = False


def build(request: Request, watch: Watch) -> Built | None:
    """Make the release that was asked for and return it; nothing is left behind on an error.

    Where several processes train together, all but the first return None when that is done.
    """
    release.check(request.output, force=request.force)
    with watch.stage("load"):
        model, namespace = load_model(request.model, request.weights)
        inputs = load_inputs(namespace, request.input_shape, request.inputs)
        data = load_data(request.data) if request.data else None
        eval_data = load_data(request.eval_data) if request.eval_data else None
        train_data = load_data(request.train_data) if request.train_data else None
        loss = load_callable(request.loss) if request.loss else None
    options = request.options
    built = compress(
        model,
        inputs,
        budget=request.budget,
        data=data,
        evaluate=request.evaluate,
        eval_data=eval_data,
        max_drop=request.max_drop,
        metric=request.metric,
        search=request.search,
        training=replace(request.training, loss=loss),
        train_data=train_data,
        criterion=options.criterion,
        ignore=options.ignore,
        uniform=options.uniform,
        round_to=options.round_to,
        least=options.least,
        seed=options.seed,
        dynamic=request.dynamic,
        name=request.model,
        watch=watch,
    )
    if helper():
        return None
    small, original = built.onnx.data, built.original_onnx.data
    built.measured["file_bytes"] = {"original": len(original), "small": len(small)}
    with watch.stage("race"):
        built.measured["latency"] = _race(original, small, built, request, watch)
    with watch.stage("write"):
        built.save(request.output, force=request.force)
    return built


def _race(
    original: bytes, small: bytes, built: Built, request: Request, watch: Watch
) -> dict[str, Any]:
    """Original and small side by side in one run, at a batch of 1 if the model takes that."""
    batch = built.batches[0]
    race = bench.race(
        {"original": original, "small": small},
        inputs=OnnxModel(small, built.small).feed(*at_batch(built.call, built.small.batch, batch)),
        threads=request.threads,
        max_seconds=request.bench_seconds,
        progress=watch.advance,
        seed=request.options.seed,
    )
    rows = {row.name: row for row in race.rows}
    clock = race.primary
    ratio = rows["small"].ratio
    return {
        side: {"ms": getattr(row, f"{clock}_ms"), "wall_ms": row.wall_ms, "cpu_ms": row.cpu_ms}
        for side, row in rows.items()
    } | {
        "ratio": ratio.median,
        "low": ratio.low,
        "high": ratio.high,
        "clock": clock,
        "why": race.why,
        "noise": {"ratio": race.noise.median, "low": race.noise.low, "high": race.noise.high},
        "rounds": race.rounds,
        "converged": race.converged,
        "batch": batch,
        "threads": race.threads,
        "provider": race.provider,
        "samples": {side: asdict(row.samples) for side, row in rows.items()},
    }
