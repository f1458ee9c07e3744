"""The library: a live module in, a smaller proven one out.

built = compress(model, example_inputs, budget=Budget(macs=0.5))
built.module             torch module, called like the original
built.plan.kept          kept indices of every parameter, by state_dict name
built.report             everything that was found out, as plain values
built.save("build/net")  what `compressor build` writes: raced, and all files or nothing
"""

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from torch import nn

from compressor import passes
from compressor.base.messages import near
from compressor.config import Recipe
from compressor.config.training import Loss, Training
from compressor.config.unused_options import asked_of, refuse_idle
from compressor.criteria import choice, group_weights
from compressor.loading import check_finite
from compressor.loading.calibration_data import Data, Source
from compressor.loading.calls import Inputs, as_call, check_runs, in_eval_mode
from compressor.loading.dynamic_axes import FreeSizes, free_where_possible, other_sizes, said
from compressor.metrics.evaluate import Evaluation, evaluations
from compressor.metrics.metric import refuse_unmeasured
from compressor.passes.base.errors import UsageError
from compressor.passes.calibration.overflow import refuse_negative_variances
from compressor.passes.frontend.dynamic_axes import Dynamic
from compressor.passes.ir.log import Log
from compressor.pipeline.compile import Given, Job
from compressor.process.progress import Watch
from compressor.result import pass_log
from compressor.result.build_cache import BuildCache
from compressor.result.built import Built
from compressor.train.phases import Task, frozen_norms, sparsened


def compress(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    budget: passes.Budget | None = None,
    data: Source | None = None,
    evaluate: Any = None,
    eval_data: Source | None = None,
    training: Training | None = None,
    train_data: Source | None = None,
    finetune: Callable[[nn.Module], object] | None = None,
    dynamic: Dynamic | None = None,
    criterion_loss: Loss | None = None,
    name: str = "",
    watch: Watch | None = None,
    **options: Any,
) -> Built:
    """Remove channels of `model` until it meets the budget, and prove that it was done right.

    `model` is left untouched. `example_inputs` is a tensor, a tuple, or a dict of keyword
    arguments; `data` is an iterable of such inputs, or of (inputs, target) pairs. `dynamic` names
    axes whose sizes stay free, ``{"input_ids": {1: "sequence"}}``; equal names are equal sizes.

    `evaluate` is a callable(predict), a name such as "accuracy" (see `READY` of
    `compressor.metrics.evaluate`), or several; both exported models are measured, by name on
    `eval_data` (by default `data`). `training` has the epochs of distillation and fine-tuning, on
    `train_data` (by default `data`); `finetune` is a function of yours that trains the small module
    in place. `criterion_loss` (outputs, target) is what the criteria by gradients differentiate, on
    pairs of `data`.

    `options` are those of the recipe about the choice and the limits: criterion, steps, uniform,
    round_to, min_channels, ignore, seed, max_drop, metric, search, the file of a `sensitivity`; and
    for a budget of latency the table of the `device`. `Built.save` ends a build as the command line
    does, by a race: `threads` and `bench_seconds` are of it, `race=False` leaves it out, and
    `allow_slower=True` writes a model that is slower, and `allow_worse=True` one whose repair left
    it no nearer to the original than a constant. With `search`, the result is the smallest model
    found that keeps to `max_drop`; `budget` is then the least.

    Raises UsageError for inputs or a budget that cannot be used, or an axis that cannot be free,
    GateError where the surgery is not equal to silencing the removed channels, or a metric drops by
    more than `max_drop`.
    """
    if unknown := options.keys() - OPTIONS:
        raise UsageError(f"unknown option {min(unknown)!r}", hint=near(min(unknown), OPTIONS))
    given = Given(
        budget, data, evaluate, eval_data, training or Training(), train_data, finetune, dynamic,
        criterion_loss,
    )  # fmt: skip
    recipe = Recipe.of(dynamic=said(dynamic or {}), **options)
    refuse_idle(asked_of(recipe) | _asked_of(given))
    return prepared(model, example_inputs, given, recipe, name, watch or Watch()).run()


def _asked_of(given: Given) -> dict[str, Any]:
    """What is asked for in Python alone, by the names of the recipe."""
    named = {
        "data": given.data,
        "evaluate": given.evaluate,
        "eval_data": given.eval_data,
        "train_data": given.train_data,
        "train_with": given.finetune,
    }
    found = {name: value for name, value in named.items() if value is not None}
    for field in fields(Training):
        value = getattr(given.training, field.name)
        if value != field.default:
            found[{"sparse": "sparse_train"}.get(field.name, field.name)] = value
    kinds = () if given.budget is None else given.budget.kinds
    return found | {{"bytes": "bytes_"}.get(kind, kind): True for kind in kinds}


OPTIONS = frozenset(
    {
        *("criterion", "steps", "uniform", "round_to", "min_channels", "ignore", "sensitivity"),
        *("seed", "max_drop", "metric", "search", "device", "threads", "bench_seconds"),
        *("race", "allow_slower", "allow_worse"),
    }
)
"""Fields of the recipe that `compress` takes; the others are about files and commands."""


def prepared(
    model: nn.Module,
    example_inputs: Inputs,
    given: Given,
    recipe: Recipe,
    name: str,
    watch: Watch,
    work: BuildCache | None = None,
) -> Job:
    """Capture, couple and check: all that does not depend on how much goes."""
    options = recipe.options()
    weighed = None if recipe.sensitivity is None else group_weights.read(recipe.sensitivity)
    check_finite(model)
    frozen = frozen_norms(model)
    args, kwargs = as_call(example_inputs)
    with in_eval_mode(model):
        check_runs(model, (args, kwargs))

        def captured(wished: Dynamic) -> tuple[passes.Program, tuple[FreeSizes, ...], Dynamic]:
            dynamic = given.dynamic or wished
            program = passes.capture(model, args, kwargs, dynamic)
            sizes = other_sizes(model, program, (program.args, dict(program.kwargs)))
            return program, sizes, dynamic

        with watch.stage("capture"):
            (program, sizes, dynamic), fixed = free_where_possible(given.wished, captured)
    log = Log((pass_log.captured(program, dynamic),))
    refuse_negative_variances(program)
    check_ignored(model, program, options.ignore)
    data, judged = _measuring(given, recipe, program)
    with watch.stage("couple"):
        coupling = passes.couple(program, options.ignore)
    if weighed is not None:
        options = weighed.options(options, coupling)
    task = _task(given, judged, recipe.metric, frozen)
    coupling, happened = _sparse(coupling, task, options.ignore, watch)
    if given.criterion_loss is not None:
        choice.check_loss(options.criterion, data)
    if (recipe.steps or 1) > 1 and data is None:
        raise UsageError("several steps need calibration inputs", hint="give --data, or data=")
    return Job(
        program,
        coupling,
        given,
        recipe,
        options,
        name or type(model).__name__,
        watch,
        sizes,
        data,
        judged,
        task,
        tuple(happened),
        work or BuildCache(),
        log.then(*pass_log.trained(happened, given.training)),
        (*given.remarks, *filter(None, [fixed])),
    )


def _measuring(
    given: Given, recipe: Recipe, program: passes.Program
) -> tuple[Data | None, tuple[Evaluation, ...]]:
    """What is repaired with, and what is measured."""
    data = None if given.data is None else Data(given.data, program)
    pairs = data if given.eval_data is None else Data(given.eval_data, program)
    judged = evaluations(given.evaluate, pairs)
    if not judged:
        refuse_unmeasured(recipe.max_drop, recipe.metric)
    return data, judged


def _task(
    given: Given, judged: tuple[Evaluation, ...], metric: str | None, frozen: tuple[str, ...]
) -> Task | None:
    """What is to be trained. Raises UsageError where there is nothing to train on."""
    if not given.training.wanted:
        return None
    source = given.data if given.train_data is None else given.train_data
    if source is None:
        raise UsageError(
            "there is nothing to train on", hint="give --train-data or --data, or train_data="
        )
    return Task(given.training, source, judged, metric, frozen)


def _sparse(
    coupling: passes.Coupling, task: Task | None, ignore: tuple[str, ...], watch: Watch
) -> tuple[passes.Coupling, list[dict[str, Any]]]:
    """The coupling of the network after sparse training, where that was asked for."""
    if task is None or not task.settings.sparse:
        return coupling, []
    program, happened = sparsened(coupling, task, watch)
    return passes.couple(program, ignore), happened


def check_ignored(model: nn.Module, program: passes.Program, patterns: Sequence[str]) -> None:
    """Raise UsageError for a pattern that protects nothing: most likely it is misspelt."""
    own = (*model.named_parameters(remove_duplicate=False), *model.named_buffers())
    names = dict.fromkeys([*(name for name, _ in own), *program.tensors()])
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise UsageError(
                f"no parameter is called {pattern!r}",
                why="what is to be ignored is named as in state_dict(), with * for any characters",
                hint=near(pattern, names),
            )
