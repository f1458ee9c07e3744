"""How a model is called, as plain values: what a log keeps of the example inputs of a build.

((x,), {"scale": 2.0})      {"tuple": [{"tuple": [{"tensor": 0, "dtype": ..., "shape": ...}]},
                                       {"dict": {"scale": {"value": 2.0}}}]}
"""

import math
from typing import Any

import torch
from torch import Tensor

from compressor.base.messages import reason
from compressor.loading.calls import Called
from compressor.passes.base.errors import UsageError

LARGEST = 1 << 32
"""Bytes of an example input that is made anew."""


def structure(call: Called) -> Any:
    """Arguments as plain values, tensors as their places; None where that cannot say it."""
    count = 0

    def plain(value: Any) -> Any:
        nonlocal count
        if isinstance(value, Tensor):
            count += 1
            return {"tensor": count - 1, "dtype": str(value.dtype), "shape": list(value.shape)}
        if isinstance(value, tuple | list):
            return {type(value).__name__: [plain(one) for one in value]}
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {"dict": {key: plain(one) for key, one in value.items()}}
        if value is None or isinstance(value, bool | int | float | str):
            return {"value": value}
        raise TypeError

    try:
        return plain(call)
    except TypeError:
        return None


def made(found: Any, where: str) -> Called:
    """Example inputs of the sizes of the build: zeros and ones, which capture does not look at.

    Raises UsageError for what `structure` does not make.
    """
    try:
        args, kwargs = _made(found)
        if not isinstance(args, tuple) or not isinstance(kwargs, dict):
            raise TypeError("these are no arguments")
    except (TypeError, LookupError, ValueError, AttributeError, RuntimeError, ArithmeticError,
            MemoryError) as error:  # fmt: skip
        raise UsageError(
            f"{where} does not say how the model is called",
            why=reason(error),
            hint="give example_inputs=",
        ) from error
    return args, kwargs


def _made(one: Any) -> Any:
    if "tensor" in one:
        dtype = getattr(torch, one["dtype"].removeprefix("torch."))
        if math.prod(one["shape"]) * dtype.itemsize > LARGEST:
            raise ValueError(f"a tensor of {one['shape']} is too large to make")
        return torch.ones(one["shape"], dtype=dtype)
    if "value" in one:
        return one["value"]
    if "dict" in one:
        return {key: _made(value) for key, value in one["dict"].items()}
    ((kind, values),) = one.items()
    return {"tuple": tuple, "list": list}[kind](map(_made, values))
