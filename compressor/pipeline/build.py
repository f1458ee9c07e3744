"""`compressor build`: load, compress, save. What is Python's in these is what Python does."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from compressor import passes
from compressor.base.messages import near
from compressor.config import Recipe
from compressor.config.unused_options import asked_of, refuse_idle
from compressor.config.user_file import with_code
from compressor.loading import load_callable, load_data, load_inputs, load_model
from compressor.loading.calls import Inputs
from compressor.loading.short_names import wishes
from compressor.passes.base.errors import UsageError
from compressor.pipeline.compile import Given, Job
from compressor.pipeline.compress import prepared
from compressor.pipeline.report_contents import amounts, asked, groups
from compressor.process.progress import Reached, Watch
from compressor.release import layout
from compressor.result.build_cache import STAGES, BuildCache, stages_of
from compressor.result.built import Built
from compressor.storage import sealing
from compressor.storage.atomic_replace import alone
from compressor.train.nets import helper


def build(
    recipe: Recipe,
    watch: Watch,
    *,
    force: bool = False,
    start: str | None = None,
    until: str | None = None,
) -> Built | None:
    """Make the release that was asked for and return it; nothing is left behind on an error.

    Where several processes train together, all but the first return None when that is done. What
    was killed goes on where it was, from `start` anew; it ends after the stage `until`, with None.
    """
    for stage in (start, until):
        if stage not in (None, *STAGES):
            raise UsageError(f"there is no stage {stage!r}", hint=near(str(stage), STAGES))
    if recipe.output is None:
        raise UsageError("there is no directory to write", hint="name one with -o")
    layout.check(recipe.output, force=force)
    key = None if recipe.encrypt_key is None else sealing.read_key(recipe.encrypt_key)
    work = BuildCache.of(recipe.output, start, key)
    watch.until = until
    try:
        with nullcontext() if helper() else alone(recipe.output):
            work.check()
            return _kept(recipe, watch, work, force, key)
    except Reached:
        return None


def _kept(
    recipe: Recipe, watch: Watch, work: BuildCache, force: bool, key: bytes | None
) -> Built | None:
    """What is built; the work folder stays only where it was stopped, and can go on."""
    try:
        built = _built(recipe, watch, work, force, key)
    except Reached:
        raise
    except Exception:
        work.forget()
        raise
    if built is not None:
        work.forget()
    return built


def _built(
    recipe: Recipe, watch: Watch, work: BuildCache, force: bool, key: bytes | None
) -> Built | None:
    assert recipe.output is not None
    if recipe.sign is not None:
        sealing.check_key(recipe.sign)
    if key is not None and recipe.checkpoints is not None:
        raise UsageError(
            "checkpoints are not encrypted, and the release is to be",
            where=str(recipe.checkpoints),
            hint="leave out --checkpoints, or train first and give the weights by --weights",
        )
    built = _job(recipe, watch, work).run()
    if helper():
        return None
    built.save(recipe.output, force=force, sign=recipe.sign, key=key)
    return built


@dataclass(frozen=True)
class Expected:
    """What a build would do, as far as that can be known without doing it."""

    model: str
    plan: passes.Plan

    def to_json(self) -> dict[str, Any]:
        """As plain values, like the report of a build."""
        return {
            "model": self.model,
            "budget": asked(self.plan),
            "unit": self.plan.unit,
            "cost": amounts(self.plan),
            "groups": groups(self.plan),
        }


def expect(recipe: Recipe, watch: Watch) -> Expected:
    """The plan of a build, and what it would save. Nothing is written."""
    job = _job(recipe, watch)
    return Expected(job.name, job.expected())


def _job(recipe: Recipe, watch: Watch, work: BuildCache | None = None) -> Job:
    with watch.stage("load"):
        recipe = with_code(recipe)
        for stage in (watch.until, None if work is None else work.start):
            _check_runs(stage, recipe)
        refuse_idle(asked_of(recipe))
        model, inputs, given = _loaded(recipe)
    return prepared(model, inputs, given, recipe, recipe.title, watch, work)


def _check_runs(stage: str | None, recipe: Recipe) -> None:
    """Raise UsageError for a stage that this build does not have."""
    there = stages_of(recipe)
    if stage is not None and stage not in there:
        raise UsageError(
            f"this build has no stage {stage!r}",
            why=_WHY.get(stage, ""),
            hint=f"it has {', '.join(there)}",
        )


_WHY = {
    "measure": "there is no --data to measure with",
    "repair": "there is no --data to repair with",
    "evaluate": "there is no --evaluate",
    "profile": "nothing is asked of --latency",
    "race": "--no-race leaves it out",
    **dict.fromkeys(("sparse", "distill", "finetune"), "no training of this kind is asked for"),
}


def _loaded(recipe: Recipe) -> tuple[Any, Inputs, Given]:
    """Everything that the recipe names, loaded."""
    assert recipe.model is not None
    budget, dynamic, _ = recipe.budget(), recipe.axes(), recipe.options()  # refused early
    model, namespace = load_model(recipe.model, recipe.weights, trust=recipe.trust)
    inputs = load_inputs(namespace, recipe.input_shape, recipe.inputs)
    own = recipe.input_shape is None and recipe.inputs is None
    wished, remarks = wishes(namespace) if own else ({}, ())
    data, eval_data, train_data = (
        None if spec is None else load_data(spec)
        for spec in (recipe.data, recipe.eval_data, recipe.train_data)
    )
    loss, finetune, criterion_loss = (
        None if spec is None else load_callable(spec)
        for spec in (recipe.loss, recipe.train_with, recipe.criterion_loss)
    )
    given = Given(
        budget=budget,
        data=data,
        evaluate=recipe.evaluate,
        eval_data=eval_data,
        training=recipe.training(loss),
        train_data=train_data,
        finetune=finetune,
        dynamic=dynamic,
        criterion_loss=criterion_loss,
        wished={} if recipe.dynamic else wished,
        remarks=remarks,
    )
    return model, inputs, given
