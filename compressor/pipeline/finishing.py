"""How a build ends, from Python and from the command line: race, keep the fastest form, write.

    evaluated    again, where the module has other weights than were measured
    exported     and compared with torch
    raced        with its other forms, against the original; the fastest is deployed
    refused      where it is slower, unless `allow_slower`
    written      all files of the release, or none

What is known already of the weights as they are is not measured again. Without `race`, the third
and the fourth are left out.
"""

from pathlib import Path

from compressor.pipeline.variant_race import keep_fastest, operators, raced
from compressor.release import layout, writing
from compressor.release.destination import Place
from compressor.result.build_cache import digest
from compressor.result.built import Built
from compressor.result.kept_results import look_at_operators, look_at_race
from compressor.timing.closed_loop import refuse_slower


def save(
    built: Built, directory: Path, *, force: bool, sign: Path | None, key: bytes | None
) -> Path:
    """Finish a build and write its release (see `Built.save`)."""
    layout.check(directory, force=force)
    finish(built)
    with built.watch.stage("write"), layout.prepared(directory, force=force) as folder:
        writing.write(built, Place(folder, key), sign)
    return directory


def finish(built: Built) -> None:
    """All but the files.

    Raises GateError where `max_drop` is exceeded, or where the model is slower than the original
    and `allow_slower` was not asked for.
    """
    built.evaluate_again()
    small = built.onnx.data  # a stage of its own, before those of the race and of writing
    if not built.recipe.race:
        return
    if not built.measured.keys() >= {"latency", "operators"}:
        models = digest(built.original_onnx.data, small)
        with built.watch.stage("race"):
            _race(built, models)
    if not built.recipe.allow_slower:
        refuse_slower(built.measured["latency"], "latency" in built.plan.budget.kinds)


def _race(built: Built, models: str) -> None:
    """Deploy the fastest form, and look at what the operators of both models take."""
    recipe, measured, once = built.recipe, built.measured, built.work.once_json
    parts = {"models": models, "seed": recipe.seed, "log": str(built.log)}
    parts |= {"seconds": recipe.bench_seconds, "threads": recipe.threads}
    if "latency" not in measured:
        found = once("race", parts, lambda: raced(built), look_at_race)
        keep_fastest(built, found)
        measured["latency"] = found
        built.notes.pop("latency", None)
    parts |= {"of": "operators"}
    measured["operators"] = once("race", parts, lambda: operators(built), look_at_operators)
