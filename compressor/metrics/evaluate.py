"""What a model is worth: the user's own metric, or a ready-made one on labelled data.

    evaluations(["net.py:score", "f1"], data)     what is to be measured
    compared(evaluations, original, small)        {"f1": {"original": 0.93, "small": 0.91}}
    refuse_drop(found, 0.01)                      GateError where it is worse by more than that

A `predict` function is a model as a user calls it: arguments in, outputs out. The ready-made
metrics look at the first floating-point output; torchmetrics computes them.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.base.messages import kind_of, listed, near, reason
from compressor.base.optional import torchmetrics
from compressor.loading import load_callable
from compressor.loading.calibration_data import Batch
from compressor.metrics.metric import Pairs, decided
from compressor.passes.base.errors import GateError, UsageError

Predict = Callable[..., Any]
Measure = Callable[[Predict], Any]
"""The user's: a number, or several by name."""


@dataclass(frozen=True)
class Evaluation:
    """Something to measure: `run` takes the predict functions of a model and of the original."""

    name: str
    run: Callable[[Predict, Predict], dict[str, float]]


@dataclass(frozen=True)
class _Ready:
    """A ready-made metric: a torchmetrics object, made when the number of classes is known."""

    make: Callable[[int], Any]
    labels: bool = True
    classes: bool = True


def _of_classes(name: str, average: str) -> Callable[[int], Any]:
    return lambda classes: getattr(torchmetrics().classification, f"Multiclass{name}")(
        num_classes=classes, average=average, validate_args=False
    )


READY: Mapping[str, _Ready] = {
    "accuracy": _Ready(_of_classes("Accuracy", "micro")),
    "agreement": _Ready(_of_classes("Accuracy", "micro"), labels=False),
    "f1": _Ready(_of_classes("F1Score", "macro")),
    "mse": _Ready(lambda _: torchmetrics().regression.MeanSquaredError(), classes=False),
    "recall": _Ready(_of_classes("Recall", "macro")),
}
"""By the name of `--evaluate`; F1 and recall are means over the classes."""


def evaluations(wanted: Any, data: Iterable[Batch] | None) -> tuple[Evaluation, ...]:
    """What `wanted` names: callables, names in `READY`, ``path/file.py:callable``, or several.

    Raises UsageError for a name that is unknown, and for a ready-made metric without its data.
    """
    given = [wanted] if isinstance(wanted, str) or callable(wanted) else list(wanted or ())
    return tuple(_evaluation(one, data) for one in given)


def _evaluation(wanted: Any, data: Iterable[Batch] | None) -> Evaluation:
    if callable(wanted):
        name = _name_of(wanted)
        return _users(name, wanted, name)
    name = str(wanted)
    if ":" in name:
        return _users(name, load_callable(name), name.rpartition(":")[2].rpartition(".")[2])
    if name not in READY:
        raise UsageError(
            f"unknown metric {name!r}",
            why=f"one of: {', '.join(READY)}; or path/file.py:callable",
            hint=near(name, READY),
        )
    ready = READY[name]
    if data is None or (ready.labels and not _labelled(data)):
        kind = "inputs with targets" if ready.labels else "inputs"
        raise UsageError(
            f"{name} is measured on {kind}, and there are none",
            hint="give them with --eval-data path/file.py:callable, or eval_data=",
        )
    torchmetrics()  # a build must not fail at its end for want of it
    return Evaluation(name, lambda *models: _measured(name, ready, data, *models))


def _labelled(data: Iterable[Batch]) -> bool:
    return next(iter(data)).target is not None


def _name_of(measure: Measure) -> str:
    """Of a function, a method or a class of the user's; a lambda has none."""
    inner = measure
    while isinstance(inner, functools.partial):
        inner = inner.func
    name = getattr(inner, "__name__", type(inner).__name__)
    return name if name.isidentifier() else "metric"


def _users(spec: str, measure: Measure, name: str) -> Evaluation:
    return Evaluation(spec, lambda predict, _: numbers(measure(predict), spec, name))


def numbers(value: Any, spec: str, name: str) -> dict[str, float]:
    """What an evaluation returned: numbers by name, or one, which is called `name`."""
    given = list(value.items()) if isinstance(value, Mapping) else [(name, value)]
    found: dict[str, float] = {}
    for key, one in given:
        if str(key) in found:
            raise UsageError(f"{spec} returned two numbers that are called {str(key)!r}")
        try:
            found[str(key)] = number(one)
        except (TypeError, ValueError, OverflowError) as error:
            raise UsageError(
                f"{spec} returned {kind_of(value)}",
                where=f"{str(key)!r}" if isinstance(value, Mapping) else "",
                why=reason(error),
                hint="return a number, or a dict of numbers by name",
            ) from error
    if not found:
        raise UsageError(f"{spec} returned no number", hint="return at least one, by name")
    return found


def number(value: Any) -> float:
    """A real number of Python, numpy or torch, alone or in an array of one; NaN is one too.

    Raises TypeError or ValueError for anything else: truth values, text and complex numbers, whose
    conversion would say something that nobody measured.
    """
    if isinstance(value, np.ndarray | np.generic | Tensor):
        if np.ma.is_masked(value):
            raise ValueError("the number is masked")
        count = value.numel() if isinstance(value, Tensor) else value.size
        if count != 1:
            raise ValueError(f"{count} numbers, not one")
        if getattr(value, "is_meta", False):
            raise ValueError("a tensor on the meta device has no value")
        kind = str(value.dtype)
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in "fiubcO":
            raise TypeError(f"{kind} is no number")
        value = value.item()
    if isinstance(value, bool | complex | str | bytes) or value is None:
        raise TypeError(f"{kind_of(value)} is no measurement")
    return float(value)


# --------------------------------------------------------------------------------- ready-made


def _measured(
    name: str, ready: _Ready, data: Iterable[Batch], predict: Predict, original: Predict
) -> dict[str, float]:
    metric = None
    for batch in data:
        found = first_output(predict(*batch.args, **batch.kwargs), name)
        if ready.labels:
            target = _target(batch.target, name)
        else:
            wanted = first_output(original(*batch.args, **batch.kwargs), name)
            target = wanted.argmax(_class_axis(wanted, None, name))
        if ready.classes:
            found, target, count = _classes(found, target, name)
        else:
            found, target, count = *_numbers(found, target, name), 0
        metric = ready.make(count) if metric is None else metric
        if len(found):  # a batch may be padding alone
            metric.update(found, target)
    assert metric is not None
    return {name: float(metric.compute())}


def first_output(outputs: Any, name: str) -> Tensor:
    """The first floating-point tensor of what a model gives."""
    for leaf in pytree.tree_leaves(outputs):
        tensor = torch.as_tensor(leaf)
        if tensor.is_floating_point():
            return tensor.detach().float().cpu()
    raise UsageError(
        f"{name} needs a floating-point output, and the model gives none",
        hint="write an evaluation of your own: path/file.py:callable",
    )


def _target(target: Any, name: str) -> Tensor:
    leaves = pytree.tree_leaves(target)
    if len(leaves) != 1:
        raise UsageError(
            f"{name} needs one target a batch, not {len(leaves)}",
            hint="write an evaluation of your own: path/file.py:callable",
        )
    return torch.as_tensor(leaves[0]).cpu()


def _class_axis(found: Tensor, target: Tensor | None, name: str) -> int:
    """The axis of the scores of classes: as in torch's cross entropy, or the last one."""
    shape = list(found.shape)
    if target is None:
        axis = 1 if len(shape) == 4 else len(shape) - 1
    elif len(shape) > 1 and shape[:1] + shape[2:] == list(target.shape):
        axis = 1
    else:
        axis = len(shape) - 1
    fits = target is None or shape[:axis] + shape[axis + 1 :] == list(target.shape)
    if not fits or len(shape) < 2 or shape[axis] < 2:
        labels = f" for targets {list(target.shape)}" if target is not None else ""
        raise UsageError(
            f"{name} needs scores of classes, and the model gives {shape}{labels}",
            hint="write an evaluation of your own: path/file.py:callable",
        )
    return axis


def _classes(found: Tensor, target: Tensor, name: str) -> tuple[Tensor, Tensor, int]:
    """Guessed and right classes in one row each; negative targets are padding."""
    axis = _class_axis(found, target, name)
    if target.is_floating_point():
        raise UsageError(
            f"{name} needs whole numbers as targets, not {str(target.dtype).split('.')[-1]}",
            hint="give the number of the class: labels.long()",
        )
    guess, target = found.argmax(axis).reshape(-1), target.reshape(-1).long()
    counted = target >= 0
    if bool((target >= found.shape[axis]).any()):
        raise UsageError(
            f"a target is class {int(target.max())}, and the model knows {found.shape[axis]}"
        )
    return guess[counted], target[counted], found.shape[axis]


def _numbers(found: Tensor, target: Tensor, name: str) -> tuple[Tensor, Tensor]:
    if found.numel() != target.numel():
        raise UsageError(
            f"{name} needs a target for each number, "
            f"and has {list(target.shape)} for {list(found.shape)}"
        )
    return found.reshape(-1), target.reshape(-1).float()


# --------------------------------------------------------------------------------- verdicts


def compared(wanted: Sequence[Evaluation], original: Predict, small: Predict) -> Pairs:
    """Every metric of both models.

    Raises UsageError where the names are others for the small model, or two are the same.
    """
    found: Pairs = {}
    for one in wanted:
        dense = one.run(original, original)
        pruned = one.run(small, original)
        if dense.keys() != pruned.keys():
            raise UsageError(
                f"{one.name} returned other names for the small model than for the original",
                why=f"{listed(pruned)} instead of {listed(dense)}",
                hint="return the same names each time",
            )
        if twice := next((name for name in dense if name in found), None):
            raise UsageError(
                f"two evaluations measure something that is called {twice!r}",
                where=", ".join(one.name for one in wanted),
                hint="return a dict with another name from one of them",
            )
        found |= {name: {"original": value, "small": pruned[name]} for name, value in dense.items()}
    return found


def refuse_drop(found: Pairs, limit: float, metric: str | None = None) -> None:
    """Raise GateError where the metric that decides is worse by more than `limit`.

    Raises UsageError as `metric.decided` does.
    """
    drop = decided(found, metric)
    if broken := drop.broken(limit):
        raise GateError(
            broken,
            where=f"{drop.original:.4g} before, {drop.small:.4g} after, in ONNX Runtime",
            hint="keep more (a larger budget), repair with --data, or train with --distill",
        )
