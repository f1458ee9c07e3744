"""One captured network, and what is made of it: a build of a size, by time, or the smallest.

plan     which channels go: as scored, by a trial, in steps, or until a race meets the budget
build    cut, prove, repair, train, measure
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from compressor import passes
from compressor.config import Recipe
from compressor.config.training import Loss, Training
from compressor.criteria import choice
from compressor.loading.calibration_data import Data, Source
from compressor.loading.calls import at_sizes, randomised
from compressor.loading.dynamic_axes import FreeSizes
from compressor.metrics import accuracy_search as searching
from compressor.metrics.evaluate import Evaluation, refuse_drop
from compressor.metrics.metric import Pairs, named
from compressor.onnx.runtime import batches_of
from compressor.passes.base.errors import UsageError
from compressor.passes.base.threads import suited
from compressor.passes.frontend.dynamic_axes import Dynamic
from compressor.passes.importance.obs_curves import Curve
from compressor.passes.ir.log import Log
from compressor.passes.ir.rebuild import with_tensors
from compressor.passes.planning.targets import share as share_of
from compressor.pipeline import finishing, report_contents
from compressor.process.progress import Watch
from compressor.result import pass_log
from compressor.result.build_cache import STAGES, BuildCache, digest, of_program
from compressor.result.built import Built
from compressor.result.freshness import Snapshot, check_in_place
from compressor.result.kept_results import planned, repaired
from compressor.timing.closed_loop import Met
from compressor.timing.timing import Timing
from compressor.train.nets import helper, processes_started
from compressor.train.phases import Task, trained

Curves = Sequence[Curve] | None


ROUNDS = STAGES[STAGES.index("measure") : STAGES.index("evaluate") + 1]
"""Stages that a search goes through for each size."""


@dataclass(frozen=True, eq=False)
class Given:
    """What only Python can say: a budget, and things that run or hold data."""

    budget: passes.Budget | None = None
    data: Source | None = None
    evaluate: Any = None
    eval_data: Source | None = None
    training: Training = field(default_factory=Training)
    train_data: Source | None = None
    finetune: Callable[[nn.Module], object] | None = None
    dynamic: Dynamic | None = None
    criterion_loss: Loss | None = None
    wished: Dynamic = field(default_factory=dict)
    """What is free where the model allows it, and nobody said which axes are."""
    remarks: tuple[str, ...] = ()
    """What there is to say of the inputs."""


@dataclass(frozen=True, eq=False)
class Job:
    """A captured network with all that does not depend on the budget."""

    program: passes.Program
    coupling: passes.Coupling
    given: Given
    recipe: Recipe
    options: passes.Options
    """Those of the recipe, with the weights of its groups."""
    name: str
    watch: Watch
    sizes: tuple[FreeSizes, ...]
    data: Data | None
    judged: tuple[Evaluation, ...]
    task: Task | None
    happened: tuple[dict[str, Any], ...]
    work: BuildCache
    log: Log
    """What ran before channels are chosen."""
    remarks: tuple[str, ...] = ()

    def run(self) -> Built:
        """What the recipe asks for: a build of one size, or the smallest that is good enough."""
        if self.recipe.search:
            with self.watch.rounds(*ROUNDS):
                return self.smallest()
        met = self._met() if "latency" in self.budget.kinds else None
        plan = self.plan(self.budget) if met is None else met.plan
        plan = replace(plan, budget=self.budget)  # what was asked for, not what was aimed at
        built = self.build(plan, self.task)
        if met is not None:
            built.measured["budget_rounds"] = met.to_json()
        if self.recipe.max_drop is not None and not helper():
            refuse_drop(built.measured["accuracy"], self.recipe.max_drop, self.recipe.metric)
        return built

    @property
    def budget(self) -> passes.Budget:
        """How much may stay. Raises UsageError where nobody said."""
        if self.given.budget is None:
            raise UsageError(
                "no budget is given", hint="for example Budget(macs=0.5), or --macs 0.5"
            )
        return self.given.budget

    def _met(self) -> Met:
        """The plan whose race meets a budget of latency."""
        first: list[tuple[passes.Plan, Curves]] = []

        def choose(share: float) -> passes.Plan:
            budget = self.budget.with_target("latency", passes.Ratio(share))
            if first:
                return self._again(budget, *first[0])
            first.append(self._chosen(budget))
            return first[0][0]

        with self.watch.rounds("measure", "profile", "plan"):
            return self.timing.met(self.budget.target("latency"), choose)

    def expected(self) -> passes.Plan:
        """The plan as far as it is known without building: by the table, if it is about time."""
        return self.plan(self.budget)

    @cached_property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes that the original takes, among those that are looked at."""
        return batches_of(self.program, (self.program.args, dict(self.program.kwargs)))

    @cached_property
    def timing(self) -> Timing:
        """Tables and races, where time is asked for."""
        return Timing(self.coupling, self.recipe, self.watch, self.batches[0])

    def plan(self, budget: passes.Budget) -> passes.Plan:
        """Which channels go; by which criterion and in how many steps, is tried where there are
        data."""
        no_key = "latency" in budget.kinds or self.given.criterion_loss is not None
        if self.work.folder is None or self.data is None or no_key:
            return self._chosen(budget)[0]
        parts = {
            "program": of_program(self.coupling.program),
            "data": self._contents,
            "budget": budget.to_json(),
            "options": asdict(self.options),
            "steps": self.recipe.steps,
            "log": str(self.log),
        }
        least = self.options.least
        found = planned(
            self.work, parts, self.coupling, budget, least, lambda: self._chosen(budget)[0]
        )
        self.watch.reached("measure", "plan")  # kept from before, maybe
        return found

    def _threads(self) -> AbstractContextManager[None]:
        """As many as pay for a network of this size."""
        return suited(passes.Costs(self.coupling, "macs").dense)

    @cached_property
    def _contents(self) -> str:
        """A digest of the calibration data."""
        assert self.data is not None
        return digest(list(self.data.calls))

    @cached_property
    def measured(self) -> passes.Measured | None:
        """A curve for each group of the original, where there are data."""
        if self.data is None:
            return None
        options, trial = self.options, self.recipe.steps == 1
        loss = self.given.criterion_loss
        with self.watch.stage("measure"), self._threads():
            return choice.measured(self.coupling, self.data, options, loss, trial=trial)

    def _chosen(self, budget: passes.Budget) -> tuple[passes.Plan, Curves]:
        """A plan, and the curves that it goes by; None for scores of the weights."""
        options, data, measured = self.options, self.data, self.measured
        time = self.timing.cost if "latency" in budget.kinds else None
        with self.watch.stage("plan"), self._threads():
            if measured is None or data is None:
                return passes.choose(self.coupling, budget, options, time=time), None
            curves = {(1, name): found for name, found in measured.by_criterion.items()}
            steps = self.recipe.steps

            def measure(at: passes.Coupling, gone: Tensor, trial: bool) -> passes.Measured:
                if at is self.coupling:
                    return measured
                loss = self.given.criterion_loss
                again = choice.measured(at, data, options, loss, gone, trial)
                for name, found in again.by_criterion.items():
                    curves[steps or passes.STEPS, name] = found
                return again

            plan = passes.contest(self.coupling, budget, options, data.calls, measure, steps, time)
        return plan, curves.get((plan.trials[0].steps, plan.trials[0].criterion))

    def _again(self, budget: passes.Budget, before: passes.Plan, curves: Curves) -> passes.Plan:
        """A plan for nearly the same budget, by what the one before went by."""
        with self.watch.stage("plan"):
            options, time = self.options, self.timing.cost
            plan = passes.choose(self.coupling, budget, options, curves=curves, time=time)
        return replace(plan, trials=before.trials, samples=before.samples, why=before.why)

    def build(self, plan: passes.Plan, task: Task | None, like: Built | None = None) -> Built:
        """Cut, prove, repair, train and measure. `like`: a build that knows the original."""
        program, watch = self.program, self.watch
        own = (program.args, dict(program.kwargs))
        with watch.stage("shrink"):
            cut = passes.Shrink(plan)
            result = passes.apply(cut, self.coupling.program)
            result.program.module.eval()  # as it was captured
        with watch.stage("prove"):
            proof = self._prove(plan, result.program)
        log = self.log.then(pass_log.pruned(cut, result, self.options, proof))
        small, mended = result.program, None
        if self.data is not None:
            step = passes.Repair(plan, self.data.calls)
            with watch.stage("repair"), self._threads():
                mended = self._repair(step, small, log)
                small, log = mended.program, log.then(pass_log.mended(step, mended))
        small, happened = self._trained(small, plan, task)
        log = log.then(*pass_log.trained(happened, self.given.training))
        happened = [*self.happened, *happened]
        built = Built(
            program,
            small,
            plan,
            proof,
            self.options,
            own,
            self.name,
            watch,
            log,
            report_contents.build,
            finishing.save,
            self.sizes,
            self.data,
            mended,
            self.recipe,
            self.work,
            batches=self.batches,
            remarks=self.remarks,
            _original_onnx=None if like is None else like.original_onnx,
        )
        if happened:
            built.measured["training"] = {
                "options": self.given.training.to_json(),
                "phases": happened,
            }
        if self.judged and not helper():
            built.evaluate(self.judged)
            named(built.measured["accuracy"], self.recipe.metric)
        return built

    def _repair(self, step: passes.Repair, small: passes.Program, log: Log) -> passes.Repaired:
        if self.work.folder is None:
            return passes.mend(step, small)
        own = (of_program(self.coupling.program), of_program(small))
        channels = digest(step.plan.channels)
        parts = {"programs": own, "data": self._contents, "plan": channels, "log": str(log)}
        return repaired(self.work, parts, step, small, lambda: passes.mend(step, small))

    def _prove(self, plan: passes.Plan, small: passes.Program) -> passes.Proof:
        own = (self.program.args, dict(self.program.kwargs))
        seed = self.recipe.seed
        others = [randomised(at_sizes(own, self.program, one), seed) for one in self.sizes]
        return passes.prove(plan, small, [own, *others], randomised(own, seed))

    def _trained(
        self, small: passes.Program, plan: passes.Plan, task: Task | None
    ) -> tuple[passes.Program, list[dict[str, Any]]]:
        """After the phases that were asked for, and the user's own; what happened in each."""
        happened: list[dict[str, Any]] = []
        if task is not None:
            small, happened = trained(self.program, small, plan, task, self.watch)
        if self.given.finetune is not None:
            small = with_tensors(small, small.tensors())  # what is known of it stays as it was
            with self.watch.stage("finetune"):
                happened.append(_by_the_user(self.given.finetune, small))
        return small, happened

    def smallest(self) -> Built:
        """The smallest build that keeps to the limit."""
        least, limit, metric = self.given.budget, self.recipe.max_drop, self.recipe.metric
        if limit is None:
            raise UsageError(
                "a search needs to know what to keep", hint="give --max-drop, or max_drop="
            )
        if processes_started() > 1:
            raise UsageError(
                "a search runs in one process", hint="search first, then train with its budget"
            )
        if least is not None and "latency" in least.kinds:
            raise UsageError(
                "a search cannot lead by latency", hint="give --macs, or sweep over --latency"
            )
        kind = "macs" if least is None else least.kind
        first: list[Built] = []

        def build(plan: passes.Plan) -> tuple[Built, Pairs]:
            task = None if self.task is None else self.task.apart(f"{plan.reached:.0f}")
            built = self.build(plan, task, first[0] if first else None)
            first[:] = first or [built]  # it knows the original
            return built, built.measured["accuracy"]

        def plan(share: float) -> passes.Plan:
            return self.plan(passes.Budget(**{kind: passes.Ratio(share)}))

        dense = passes.Costs(self.coupling, kind).dense
        floor = searching.FLOOR if least is None else share_of(least.target(), dense)
        built, tries = searching.smallest((floor, 1.0), plan, build, limit, metric)
        built.measured["search"] = searching.to_json(tries, limit, kind)
        assert isinstance(built, Built)
        return built


def _by_the_user(train: Callable[[nn.Module], object], small: passes.Program) -> dict[str, Any]:
    """What happened when the user's function trained the network in place.

    Raises UsageError where it is another network afterwards, or the function trained another one.
    """
    before = Snapshot.of(small)
    returned = train(small.module)
    small.module.eval()
    now = before.now(small)
    before.check_ready(small, now)
    check_in_place(small.module, returned, now != before.digest)
    same = {} if now != before.digest else {"changed": False}
    return {"name": "finetune", "by": "the user's function"} | same
