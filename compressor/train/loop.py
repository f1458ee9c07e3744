"""The training loop, on Hugging Face accelerate: devices, processes, precision, checkpoints.

    for each epoch:   steps, then a score; the best state so far is kept
    at the end:       the best state, which may be the one before the first step

A step is a group of batches (`accumulate` of them); its gradient is the mean over all rows of all
processes. Nothing but data and weights decides what happens, so a run that goes on from a
checkpoint ends like one that was never killed.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.base.optional import accelerate
from compressor.config.training import Training
from compressor.loading.calibration_data import Batch, Signature
from compressor.passes.base.errors import UsageError
from compressor.process.progress import Watch

from .checkpoint import Checkpoint, History, Progress
from .feed import Feed, share
from .nets import Trainee
from .objectives import Objective, moved

WARM_UP = 0.1
"""Share of the steps during which the step size rises."""


@dataclass
class Phase:
    """One stretch of training: epochs of one objective."""

    name: str
    epochs: int
    trainee: Trainee
    objective: Callable[[torch.device], Objective]
    """Made on the device of the network."""
    feed: Feed
    signature: Signature
    score: Callable[[Trainee], float] | None
    """Of the weights, by the evaluation; None: the loss on what is held out."""
    last: bool = False
    """The last state counts, whatever its score: the next step is not better without it."""


class Run:
    """One phase with its accelerator, optimiser and best state."""

    def __init__(self, phase: Phase, settings: Training, watch: Watch) -> None:
        self._phase, self._settings, self._watch = phase, settings, watch
        self.accelerator = _accelerator(settings)
        device = self.accelerator.device
        trainee = phase.trainee.to(device).train()
        self._objective = phase.objective(device)
        trainee.taps = self._objective.taps
        trained = [one for one in trainee.parameters() if one.requires_grad]
        if not trained:
            raise UsageError("no parameter of this model is trained", hint="set requires_grad")
        optimiser = torch.optim.AdamW(_decayed(trained, settings.weight_decay), lr=0.0)
        self._model, self._optimiser = self.accelerator.prepare(trainee, optimiser)
        self._trainee = trainee
        self._progress = Progress(History(phase.name))
        self._best = _snapshot(trainee)
        self._checkpoint = Checkpoint(phase.name, settings, self.accelerator, self._best)

    def finish(self) -> tuple[dict[str, Tensor], History]:
        """Train, from a checkpoint if there is one: the best state by name, on the CPU."""
        self._resume()
        progress, phase = self._progress, self._phase
        if not progress.history.scores and not phase.last:
            progress.history.scores.append(self._score())
        while progress.epoch < phase.epochs and not progress.history.stopped:
            self._epoch()
            self._judge()
            progress.epoch, progress.batch = progress.epoch + 1, 0
            self._checkpoint.save(progress, self._best)
        self.accelerator.wait_for_everyone()
        scores = progress.history.scores
        if scores and not any(map(math.isfinite, scores)):
            raise UsageError(
                f"no state of {phase.name} has a finite score",
                why="so none of them is known to be the best",
                hint="look at what --evaluate measures, at the training data, and at its loss",
            )
        return self._best, progress.history

    def _resume(self) -> None:
        found = self._checkpoint.load()
        if found is not None:
            self._progress, self._best = found

    # ----------------------------------------------------------------------------------- steps

    def _epoch(self) -> None:
        """The steps of one epoch that are still to be made."""
        progress, total = self._progress, self._phase.feed.batches()
        every = self._settings.checkpoint_steps
        losses: list[Tensor] = []
        for index, group in self._groups(progress.epoch):
            if index < progress.batch:
                continue
            losses.append(self._step(group, progress.epoch + index / total))
            progress.batch = index + len(group)
            self._watch.advance(progress.epoch * total + progress.batch, self._phase.epochs * total)
            if every and (index // self._settings.accumulate + 1) % every == 0:
                progress.history.losses += self._mean(losses)
                losses = []
                self._checkpoint.save(progress, self._best)
        progress.history.losses += self._mean(losses)

    def _groups(self, epoch: int) -> Iterator[tuple[int, list[Batch]]]:
        """Batches that make a step together, with the number of the first."""
        count, group = self.accelerator.num_processes, []
        start = 0
        for index, batch in enumerate(self._phase.feed.epoch(epoch)):
            if _rows(batch, self._phase.signature) >= count:  # fewer do not go round
                group.append(batch)
            if len(group) == self._settings.accumulate:
                yield start, group
                start, group = index + 1, []
        if group:
            yield start, group

    def _step(self, group: Sequence[Batch], at: float) -> Tensor:
        """One step of the optimiser: the mean loss of this process."""
        for parameters in self._optimiser.param_groups:
            parameters["lr"] = self._settings.learning_rate * _factor(at / self._phase.epochs)
        total = torch.zeros((), device=self.accelerator.device)
        for index, batch in enumerate(group):
            last = index == len(group) - 1
            with nullcontext() if last else self.accelerator.no_sync(self._model):
                loss = self._loss(batch) / len(group)
                self.accelerator.backward(loss)
            total += loss.detach()
        if not bool(torch.isfinite(total)):
            raise UsageError(
                f"the loss became {float(total)} in epoch {int(at) + 1}",
                why="training diverged",
                hint="take a smaller --learning-rate, or --precision no",
            )
        self._optimiser.step()
        self._optimiser.zero_grad()
        return total

    def _loss(self, batch: Batch) -> Tensor:
        own, weight = share(
            batch,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            self._phase.signature,
        )
        device = self.accelerator.device
        outputs, features = self._model(
            *(moved(one, device) for one in pytree.tree_leaves(own.call))
        )
        own = own._replace(target=pytree.tree_map(lambda one: moved(one, device), own.target))
        with self.accelerator.autocast():  # the original runs in the same precision
            return weight * self._objective(outputs, features, own)

    def _mean(self, losses: Sequence[Tensor]) -> list[float]:
        """Losses of all processes together."""
        if not losses:
            return []
        found: Tensor = self.accelerator.reduce(torch.stack(list(losses)), "mean")
        return found.tolist()

    # ----------------------------------------------------------------------------------- scores

    def _judge(self) -> None:
        """Keep the state if it is the best so far; stop when there was none for long."""
        if self._phase.last:
            self._best = _snapshot(self._trainee)
            return
        history, score = self._progress.history, self._score()
        history.scores.append(score)
        if _better(score, history.scores[history.best]):
            history.best = len(history.scores) - 1
            self._best = _snapshot(self._trainee)
        elif len(history.scores) - 1 - history.best >= self._settings.patience:
            history.stopped = f"no better score in {self._settings.patience} epochs"

    def _score(self) -> float:
        """The first process decides for all: they must stop together."""
        value = [0.0]
        if self.accelerator.is_main_process:
            self._trainee.eval()
            with torch.no_grad():
                score = self._phase.score
                value = [score(self._trainee) if score else -self._held_out()]
            self._trainee.train()
        found: list[float] = accelerate().utils.broadcast_object_list(value)
        return found[0]

    def _held_out(self) -> float:
        device, total, rows = self.accelerator.device, 0.0, 0
        for batch in self._phase.feed.held_out():
            count = _rows(batch, self._phase.signature)
            leaves = [moved(one, device) for one in pytree.tree_leaves(batch.call)]
            target = pytree.tree_map(lambda one: moved(one, device), batch.target)
            outputs, features = self._trainee(*leaves)
            loss = self._objective(outputs, features, batch._replace(target=target))
            total, rows = total + float(loss) * count, rows + count
        return total / max(rows, 1)


def _better(score: float, best: float) -> bool:
    """What is not finite is never better, and always worse."""
    return math.isfinite(score) and (score > best or not math.isfinite(best))


def _factor(done: float) -> float:
    """The step size at a share of the way: up in a line, down along a cosine."""
    if done < WARM_UP:
        return (done + 1e-3) / (WARM_UP + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


def _decayed(parameters: Sequence[Tensor], decay: float) -> list[dict[str, Any]]:
    """Weights decay, scales and biases do not."""
    return [
        {"params": [one for one in parameters if one.dim() > 1], "weight_decay": decay},
        {"params": [one for one in parameters if one.dim() <= 1], "weight_decay": 0.0},
    ]


def _rows(batch: Batch, signature: Signature) -> int:
    """How many samples a batch has."""
    leaves = pytree.tree_leaves(batch.call)
    if signature.batch is None:
        return 1
    for one, example in zip(leaves, pytree.tree_leaves(signature.call), strict=True):
        if isinstance(example, Tensor) and example.dim() and example.shape[0] == signature.batch:
            return len(one)
    return 1


def _snapshot(trainee: Trainee) -> dict[str, Tensor]:
    state = trainee.net.state_dict()
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def _accelerator(settings: Training) -> Any:
    library = accelerate()
    library.state.AcceleratorState._reset_state()  # the last run may have had another precision
    parallel = library.utils.DistributedDataParallelKwargs(find_unused_parameters=True)
    try:
        return library.Accelerator(mixed_precision=settings.precision, kwargs_handlers=[parallel])
    except ValueError as error:
        raise UsageError(
            f"this machine does not train with --precision {settings.precision}",
            why=str(error).splitlines()[0],
            hint="--precision no",
        ) from error
