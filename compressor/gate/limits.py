"""Metrics of the user's own, of two ONNX files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compressor.metrics.metric import Pairs
from compressor.onnx.sessions import opened
from compressor.passes.base.errors import UsageError
from compressor.process.time_limit import LEAST, run_within


def metrics(new: Path, baseline: Path, wanted: Sequence[str], time_limit: float = LEAST) -> Pairs:
    """Every metric of both files, by ``path/file.py:callable``, which gets a `predict`.

    `predict` takes what the ONNX model takes, by position or by name, as tensors or arrays, and
    gives tensors: one, or a tuple. Raises UsageError for what is no callable, and for a run that
    takes more than `time_limit` seconds.
    """
    from compressor.metrics.evaluate import compared, evaluations

    for one in wanted:
        if ":" not in one:
            raise UsageError(
                f"{one!r} cannot be measured on files alone",
                hint="give path/file.py:callable, which gets predict and returns a number",
            )
    return compared(
        evaluations(wanted, None), predictor(baseline, time_limit), predictor(new, time_limit)
    )


def predictor(model: Path, time_limit: float = LEAST) -> Callable[..., Any]:
    """A function that runs an ONNX file."""
    import torch

    session = opened(model, model.name)
    names = [one.name for one in session.get_inputs()]

    def predict(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        if given.keys() != set(names) or len(args) > len(names):
            raise UsageError(
                f"{model.name} takes {', '.join(names)}",
                why=f"{len(args)} inputs by position and {list(kwargs)} by name were given",
            )
        feed = {
            name: value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
            for name, value in given.items()
        }
        outputs = run_within(session, feed, time_limit, model.name)
        found = [torch.from_numpy(np.asarray(one)) for one in outputs]
        return found[0] if len(found) == 1 else tuple(found)

    return predict
