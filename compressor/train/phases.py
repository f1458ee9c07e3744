"""From a network to a trained one: which phases run, on what, and what they want.

sparsened    the original with small groups, before channels are chosen
trained      the small network, distilled, then fine-tuned
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from compressor.config.training import Training
from compressor.loading.calibration_data import Signature, Source
from compressor.metrics.evaluate import Evaluation
from compressor.metrics.metric import deciding
from compressor.passes import Coupling, Plan, Program
from compressor.passes.base.errors import UsageError
from compressor.passes.ir.rebuild import with_tensors
from compressor.process.progress import Watch

from .feed import Feed
from .loop import Phase, Run
from .nets import Trainee
from .objectives import Distillation, Labelled, Objective, Sparse, moved, returned
from .sparse import GroupPenalty


def frozen_norms(model: nn.Module) -> tuple[str, ...]:
    """Batch norms that the user froze: in eval mode, in a model that is in training mode."""
    return tuple(
        name
        for name, part in model.named_modules()
        if isinstance(part, _BatchNorm) and model.training and not part.training
    )


@dataclass(frozen=True)
class Task:
    """What is trained on, and what decides which state is the best."""

    settings: Training
    source: Source
    evaluations: tuple[Evaluation, ...] = ()
    metric: str | None = None
    frozen: tuple[str, ...] = ()
    """Modules whose batch norm was frozen by the user."""

    def apart(self, name: str) -> "Task":
        """The same with checkpoints of its own."""
        folder = self.settings.checkpoints
        settings = replace(self.settings, checkpoints=folder and folder / name)
        return replace(self, settings=settings)


def sparsened(coupling: Coupling, task: Task, watch: Watch) -> tuple[Program, list[dict[str, Any]]]:
    """The coupling's program after training with a penalty on its groups, and what happened."""
    program = coupling.program
    penalty = GroupPenalty(coupling, task.settings.penalty)

    def objective(trainee: Trainee) -> Callable[[torch.device], Objective]:
        labelled = _labelled(task, program)
        own = dict(trainee.net.named_parameters(remove_duplicate=False))
        return lambda _: Sparse(labelled, penalty, own, task.settings.penalty_weight)

    return _run("sparse", task.settings.sparse, program, program, objective, task, watch, last=True)


def trained(
    original: Program, small: Program, plan: Plan, task: Task, watch: Watch
) -> tuple[Program, list[dict[str, Any]]]:
    """The small network after the phases that were asked for, and what happened in each."""
    settings = task.settings
    happened: list[dict[str, Any]] = []

    def distillation(trainee: Trainee) -> Callable[[torch.device], Objective]:
        return lambda device: Distillation(original, small, plan, settings.feature_weight, device)

    def labelled(trainee: Trainee) -> Callable[[torch.device], Objective]:
        return lambda _: _labelled(task, original)

    phases = (
        ("distill", settings.distill, distillation),
        ("finetune", settings.finetune, labelled),
    )
    for name, epochs, objective in phases:
        if epochs:
            small, history = _run(name, epochs, small, original, objective, task, watch)
            happened += history
    return small, happened


def _run(
    name: str,
    epochs: int,
    program: Program,
    original: Program,
    objective: Callable[[Trainee], Callable[[torch.device], Objective]],
    task: Task,
    watch: Watch,
    last: bool = False,
) -> tuple[Program, list[dict[str, Any]]]:
    """One phase. `last`: the last state counts, not the one that scores best."""
    settings = task.settings
    hold_out = not task.evaluations and not last
    feed = Feed(task.source, program, settings.batch_size, settings.seed, hold_out)
    if name != "distill" and not feed.labelled:
        raise UsageError(
            f"{name} needs targets, and the training data have none",
            hint="give (inputs, target) pairs with --train-data, or --distill, which needs none",
        )
    trainee = Trainee(with_tensors(program, program.tensors()).module, (), task.frozen)
    signature = Signature((program.args, dict(program.kwargs)), program.batch, program.axes)
    score = None if last or not task.evaluations else _scored(task, original)
    phase = Phase(name, epochs, trainee, objective(trainee), feed, signature, score, last)
    with watch.stage(name):
        state, history = Run(phase, settings, watch).finish()
    names = program.tensors()
    idle = not feed.makes_batches and settings.batch_size != Training.batch_size
    told = asdict(history) | ({"ignored": "batch_size"} if idle else {})
    return with_tensors(program, {key: state[key] for key in names}), [told]


def _labelled(task: Task, program: Program) -> Labelled:
    return Labelled(task.settings.loss, returned(program))


def _scored(task: Task, original: Program) -> Callable[[Trainee], float]:
    """The metric that decides, of a network in training; higher is better."""

    def score(trainee: Trainee) -> float:
        device = next(trainee.parameters()).device
        net = trainee.net

        def predict(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = pytree.tree_map(lambda leaf: moved(leaf, device), (args, kwargs))
            return pytree.tree_map(
                lambda leaf: moved(leaf, torch.device("cpu")), net(*args, **kwargs)
            )

        return _value(task.evaluations, predict, original.module, task.metric)

    return score


def _value(
    evaluations: Sequence[Evaluation], predict: Any, original: Any, metric: str | None
) -> float:
    found: dict[str, float] = {}
    for one in evaluations:
        found |= one.run(predict, original)
        if metric is None:
            break  # the first decides
    decides = deciding(found, metric)
    return decides.gain(found[decides.name])
