"""How a build ends, from Python and from the command line: race, keep the fastest form, write.

    refused      where its repair lost the original, unless `allow_worse`
    evaluated    again, where the module has other weights than were measured
    exported     and compared with torch
    raced        with its other forms, against the original; the fastest is deployed
    refused      where it is slower, unless `allow_slower`
    written      all files of the release, or none

What is known already of the weights as they are is not measured again. Without `race`, the race and
the refusal after it are left out.
"""

from pathlib import Path

from compressor.passes.base.errors import GateError
from compressor.pipeline.variant_race import keep_fastest, operators, raced
from compressor.release import layout, writing
from compressor.release.destination import Place
from compressor.result.build_cache import digest
from compressor.result.built import Built
from compressor.result.kept_results import look_at_operators, look_at_race
from compressor.timing.closed_loop import refuse_slower

CONSTANT = 1.0
"""Error over the variance of the outputs (`divergence`): that of always giving their mean."""


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
    or as far from it as a constant, and `allow_slower` or `allow_worse` was not asked for.
    """
    _refuse_lost(built)
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


def _refuse_lost(built: Built) -> None:
    """Raise GateError for a repair that is as far from the original as a constant output.

    Training afterwards may bring it back: then other gates judge.
    """
    done = built.repaired
    if done is None or built.recipe.allow_worse or built.changed or "training" in built.measured:
        return
    lost = done.divergences[done.chosen]
    if lost < CONSTANT:
        return
    raise GateError(
        "the small model has lost what the original computes: it is no nearer to it than a "
        "constant output",
        why=f"on {done.samples['held_out']} inputs that nothing was fitted to, its error is "
        f"{lost:.3g} of the variance of the original's outputs; {done.samples['used']} of "
        f"{done.samples['given']} inputs were used",
        hint="give more inputs with --data, keep more, train with --distill, or add "
        "--allow-worse (allow_worse=True)",
    )


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
