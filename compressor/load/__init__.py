"""What the user names, found and loaded: callables, a model with its weights, example inputs.

    load_callable("models/net.py:accuracy")            any callable
    load_model("models/net.py:resnet", weights)        -> the model in eval mode, and its module
    load_inputs(namespace, input_shape, inputs)        -> what the model is called with
    load_data("models/net.py:calibration")             batches, in whatever form
    check_finite(model)                                no NaN and no infinity in any weight

`compressor.load(directory, module)` is the small network of a release (see `compressor.reload`):
this package is called.

Everything here runs or reads what somebody else wrote, so every mistake in it is a `UsageError`
that names the place, with the exception behind it attached.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .callables import load_callable
from .inputs import load_data, load_inputs
from .model import check_finite, load_model

__all__ = ["check_finite", "load_callable", "load_data", "load_inputs", "load_model"]

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


class _Callable(ModuleType):
    def __call__(
        self,
        directory: "str | Path",
        module: "nn.Module",
        example_inputs: Any = None,
        *,
        key: "bytes | str | Path | None" = None,
    ) -> "nn.Module":
        from compressor.reload import load

        return load(directory, module, example_inputs, key=key)


sys.modules[__name__].__class__ = _Callable
