"""The library: a live module in, a smaller proven one out.

built = compress(model, example_inputs, budget=Budget(macs=0.5))
built.module             torch module, called like the original
built.plan.kept          kept indices of every parameter, by state_dict name
built.report             everything that was found out, as plain values
built.save("build/net")  model.onnx, weights, plan, report: all of them, or nothing
"""

import fnmatch
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from compressor import passes, release, report
from compressor import search as searching
from compressor.data import Data, Source
from compressor.evaluate import Evaluation, Pairs, compared, evaluations, refuse_drop
from compressor.export import export, simplify
from compressor.freedom import Sizes, other_sizes
from compressor.inputs import Called, Inputs, as_call, at_sizes, check_runs, randomised
from compressor.load import check_finite
from compressor.load.words import near
from compressor.passes.errors import CompressError, UsageError
from compressor.passes.free import Dynamic
from compressor.runtime import OnnxModel, Parity, batches_of, parity
from compressor.stages import Watch
from compressor.train.nets import helper, processes_started
from compressor.train.phases import Task, frozen_norms, sparsened, trained
from compressor.train.settings import Training


@dataclass(frozen=True, eq=False)
class Onnx:
    """The exported small model, what onnxsim did to it, and how it compares with torch."""

    data: bytes
    simplified: bool
    note: str
    parity: tuple[Parity, ...]


@dataclass(eq=False)
class Built:
    """A shrunk network with the evidence that the surgery was right."""

    original: passes.Program
    small: passes.Program
    plan: passes.Plan
    proof: passes.Proof
    options: passes.Options
    call: Called
    name: str
    watch: Watch
    changes: tuple[str, ...]
    sizes: tuple[Sizes, ...] = ()
    """Other sizes of free axes: proof and parity look at these as well."""
    data: Data | None = None
    """The calibration data, where some were given."""
    groups: passes.Measured | None = None
    """What was measured of every group before the plan was made, where there were data."""
    repaired: passes.Repaired | None = None
    """What the repair did: `small` is its result where there were data."""
    measured: dict[str, Any] = field(default_factory=dict)
    """Accuracy, latency and file sizes, where they were measured."""

    @property
    def module(self) -> nn.Module:
        """The small network: called like the original, trainable, exportable."""
        return self.small.module

    @cached_property
    def onnx(self) -> Onnx:
        """The deployable model, exported once and compared with torch in ONNX Runtime."""
        return self._deployed(self.small, "")

    @cached_property
    def original_onnx(self) -> Onnx:
        """The original, exported the same way: what the small one is raced against."""
        return self._deployed(self.original, " original")

    def _deployed(self, program: passes.Program, which: str) -> Onnx:
        with self.watch.stage(f"export{which}"):
            data = export(program)
        with self.watch.stage(f"parity{which}"):
            found = self._parity(program, data)
        with self.watch.stage(f"simplify{which}"):
            return self._simplified(program, data, found)

    @cached_property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes that the original takes, among those that are looked at."""
        return batches_of(self.original, self.call)

    def _parity(self, program: passes.Program, data: bytes) -> list[Parity]:
        return parity(program, data, self.call, self.options.seed, self.sizes, self.batches)

    def _simplified(self, program: passes.Program, data: bytes, found: list[Parity]) -> Onnx:
        """onnxsim's version where it makes one that agrees with torch, else the exporter's."""
        tried = simplify(data)
        if tried.data is None:
            return Onnx(data, False, tried.why, tuple(found))
        try:
            again = self._parity(program, tried.data)
        except CompressError as error:
            return Onnx(data, False, f"onnxsim's result was discarded: {error.what}", tuple(found))
        return Onnx(tried.data, True, "", tuple(again))

    def evaluate(self, wanted: Sequence[Evaluation]) -> None:
        """Measure both exported models in ONNX Runtime."""
        small, original = self.onnx.data, self.original_onnx.data
        with self.watch.stage("evaluate"):
            self.measured["accuracy"] = compared(
                wanted, OnnxModel(original, self.original), OnnxModel(small, self.small)
            )

    @property
    def report(self) -> dict[str, Any]:
        """Everything that is known so far, as plain values."""
        return report.build(self)

    def save(self, directory: str | Path, *, force: bool = False) -> Path:
        """Write the release directory; beside its name first, so that it is complete or absent.

        Raises UsageError where the directory exists (unless `force`) or cannot be written.
        """
        with release.prepared(Path(directory), force=force) as folder:
            release.write(self, folder)
        return Path(directory)


def compress(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    budget: passes.Budget | None = None,
    data: Source | None = None,
    evaluate: Any = None,
    eval_data: Source | None = None,
    max_drop: float | None = None,
    metric: str | None = None,
    search: bool = False,
    training: Training | None = None,
    train_data: Source | None = None,
    criterion: str = "auto",
    ignore: Sequence[str] = (),
    uniform: bool = False,
    round_to: int | None = None,
    least: int = 1,
    seed: int = 0,
    dynamic: Dynamic | None = None,
    name: str = "",
    watch: Watch | None = None,
) -> Built:
    """Remove channels of `model` until it meets the budget, and prove that it was done right.

    `model` is left untouched. `example_inputs` is a tensor, a tuple, or a dict of keyword
    arguments; `data` is an iterable of such inputs, or of (inputs, target) pairs. `ignore` holds
    name patterns of parameters never to touch, `round_to` the unit of kept widths (found if None),
    `least` how many channels always stay in a group. `dynamic` names axes whose sizes stay free,
    ``{"input_ids": {1: "sequence"}}``; equal names are equal sizes.

    `evaluate` is a callable(predict), a name such as "accuracy" (see `compressor.evaluate.READY`),
    or several; both exported models are measured, by name on `eval_data` (by default `data`).
    `max_drop` is how much worse `metric` (by default the first) may become. `training` has the
    epochs of distillation and fine-tuning, on `train_data` (by default `data`). With `search`, the
    result is the smallest model found that keeps to `max_drop`; `budget` is then the least.

    Raises UsageError for inputs or a budget that cannot be used, or an axis that cannot be free,
    GateError where the surgery is not equal to silencing the removed channels, or a metric drops by
    more than `max_drop`.
    """
    ignore = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    options = passes.Options(criterion, seed, uniform, round_to, least, ignore)
    watch = watch or Watch()
    training = training or Training()
    check_finite(model)
    frozen = frozen_norms(model)
    args, kwargs = as_call(example_inputs)
    with in_eval_mode(model):
        check_runs(model, (args, kwargs))
        with watch.stage("capture"):
            program = passes.capture(model, args, kwargs, dynamic)
            sizes = other_sizes(model, program, (program.args, dict(program.kwargs)))
    check_ignored(model, program, ignore)
    batches = None if data is None else Data(data, program)
    judged = evaluations(evaluate, batches if eval_data is None else Data(eval_data, program))
    if max_drop is not None and not judged:
        raise UsageError("a drop is limited, and nothing is evaluated", hint="give --evaluate")
    with watch.stage("couple"):
        coupling = passes.couple(program, options.ignore)
    task = _task(training, train_data, data, judged, metric, frozen)
    coupling, happened = _sparse(coupling, task, ignore, watch)
    calls = None if batches is None else batches.calls
    measured = None
    if calls is not None:
        with watch.stage("measure"):
            measured = passes.Measured.of(coupling, calls, options)
    job = _Job(
        program,
        coupling,
        options,
        name or type(model).__name__,
        watch,
        sizes,
        batches,
        calls,
        measured,
        judged,
        task,
        tuple(happened),
    )
    if search:
        return job.smallest(budget, max_drop, metric)
    if budget is None:
        raise UsageError("no budget is given", hint="for example Budget(macs=0.5), or --macs 0.5")
    built = job.build(job.plan(budget), task)
    if max_drop is not None and not helper():
        refuse_drop(built.measured["accuracy"], max_drop, metric)
    return built


@dataclass(frozen=True, eq=False)
class _Job:
    """A captured network with all that does not depend on the budget."""

    program: passes.Program
    coupling: passes.Coupling
    options: passes.Options
    name: str
    watch: Watch
    sizes: tuple[Sizes, ...]
    data: Data | None
    calls: Any
    measured: passes.Measured | None
    judged: tuple[Evaluation, ...]
    task: Task | None
    happened: tuple[dict[str, Any], ...]

    def plan(self, budget: passes.Budget) -> passes.Plan:
        """Which channels go."""
        curves = None if self.measured is None else self.measured.curves
        with self.watch.stage("plan"):
            return passes.choose(self.coupling, budget, self.options, curves=curves)

    def build(self, plan: passes.Plan, task: Task | None, like: Built | None = None) -> Built:
        """Cut, prove, repair, train and measure. `like`: a build that knows the original."""
        program, watch, seed = self.program, self.watch, self.options.seed
        with watch.stage("shrink"):
            result = passes.apply(passes.Shrink(plan), self.coupling.program)
            result.program.module.eval()  # as it was captured
        with watch.stage("prove"):
            own = (program.args, dict(program.kwargs))
            others = [randomised(at_sizes(own, program, one), seed) for one in self.sizes]
            proof = passes.prove(plan, result.program, [own, *others], randomised(own, seed))
        small, repaired = result.program, None
        if self.calls is not None:
            with watch.stage("repair"):
                repaired = passes.mend(passes.Repair(plan, self.calls), small)
                small = repaired.program
        happened = list(self.happened)
        if task is not None:
            small, more = trained(program, small, plan, task, watch)
            happened += more
        built = Built(
            program,
            small,
            plan,
            proof,
            self.options,
            own,
            self.name,
            watch,
            result.changes,
            self.sizes,
            self.data,
            self.measured,
            repaired,
        )
        if like is not None:
            built.__dict__["original_onnx"] = like.original_onnx
        if task is not None:
            built.measured["training"] = {"options": task.settings.to_json(), "phases": happened}
        if self.judged and not helper():
            built.evaluate(self.judged)
        return built

    def smallest(
        self, least: passes.Budget | None, limit: float | None, metric: str | None
    ) -> Built:
        """The smallest build that keeps to the limit."""
        if limit is None:
            raise UsageError(
                "a search needs to know what to keep", hint="give --max-drop, or max_drop="
            )
        if processes_started() > 1:
            raise UsageError(
                "a search runs in one process", hint="search first, then train with its budget"
            )
        kind = "macs" if least is None else least.kind
        first: list[Built] = []

        def build(plan: passes.Plan) -> tuple[Built, Pairs]:
            task = None if self.task is None else self.task.apart(f"{plan.reached:.0f}")
            built = self.build(plan, task, first[0] if first else None)
            first[:] = first or [built]  # it knows the original
            return built, built.measured["accuracy"]

        def plan(share: float) -> passes.Plan:
            return self.plan(passes.Budget(**{kind: share}))

        dense = passes.Costs(self.coupling, kind).dense
        floor = searching.FLOOR if least is None else least.target(dense) / dense
        built, tries = searching.smallest((floor, 1.0), plan, build, limit, metric)
        built.measured["search"] = searching.to_json(tries, limit, kind)
        assert isinstance(built, Built)
        return built


def _task(
    training: Training,
    train_data: Source | None,
    data: Source | None,
    judged: tuple[Evaluation, ...],
    metric: str | None,
    frozen: tuple[str, ...],
) -> Task | None:
    """What is to be trained. Raises UsageError where there is nothing to train on."""
    if not training.wanted:
        return None
    source = data if train_data is None else train_data
    if source is None:
        raise UsageError(
            "there is nothing to train on", hint="give --train-data or --data, or train_data="
        )
    return Task(training, source, judged, metric, frozen)


def _sparse(
    coupling: passes.Coupling, task: Task | None, ignore: tuple[str, ...], watch: Watch
) -> tuple[passes.Coupling, list[dict[str, Any]]]:
    """The coupling of the network after sparse training, where that was asked for."""
    if task is None or not task.settings.sparse:
        return coupling, []
    program, happened = sparsened(coupling, task, watch)
    return passes.couple(program, ignore), happened


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Afterwards every part of the model is in the mode that it was in: some may be frozen."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


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
