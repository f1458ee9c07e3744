"""Example inputs: from a shape, from something the user names, or from the model's own file."""

import re
from types import ModuleType
from typing import TYPE_CHECKING, Any

from compressor.base.free_memory import check_fits
from compressor.base.messages import file_of, kind_of, near
from compressor.passes.base.errors import UsageError

from .callables import Found, find, folders_of

if TYPE_CHECKING:  # importing torch takes seconds: only the functions that need it do
    from torch import Tensor

_INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "bool")
_DTYPES = ("float32", "float64", "float16", "bfloat16", *_INTEGERS)
_SIZES = re.compile(r"\s*[1-9]\d*\s*(,\s*[1-9]\d*\s*)*")


def load_inputs(
    namespace: ModuleType, input_shape: str | None = None, inputs: str | None = None
) -> Any:
    """What the model is called with: a tensor, a tuple for several arguments, a dict by name.

    1. `input_shape`: `1,3,224,224`, or `1,16:int64; 1,16:bool` for two arguments.
    2. `inputs`: a callable without arguments, named as a model is.
    3. Neither: `example_inputs` of `namespace`, a value or a callable.
    """
    if input_shape is not None and inputs is not None:
        raise UsageError("example inputs are given twice", hint="give --input-shape or --inputs")
    if input_shape is not None:
        tensors = tuple(_random(part, input_shape) for part in input_shape.split(";"))
        return tensors[0] if len(tensors) == 1 else tensors
    if inputs is not None:
        return _checked(find(inputs))
    if hasattr(namespace, "example_inputs"):
        return _checked(_own_example(namespace))
    raise UsageError(
        "no example inputs to trace the model with",
        why=f"{file_of(namespace)} does not define `example_inputs`",
        hint="give --input-shape 1,3,224,224, or --inputs path/file.py:callable",
    )


def load_data(spec: str) -> Any:
    """What the callable that `spec` names returns: batches, in whatever form.

    Raises UsageError where that is nothing: somebody named data, and there are none.
    """
    found = find(spec).call_without_arguments()
    if found is None:
        raise UsageError(
            f"{spec} returned None, and no data",
            hint="does it end without `return`? it has to return a tensor, batches or a Dataset",
        )
    return found


def _own_example(namespace: ModuleType) -> Found:
    spec, value = f"{file_of(namespace)}:example_inputs", namespace.example_inputs
    return Found(spec, value, namespace, folders_of(namespace))


def _checked(found: Found) -> Any:
    """The value itself, or what it returns; refused if no model can be called with it."""
    from torch import Tensor
    from torch.utils import _pytree as pytree

    value = found.call_without_arguments() if callable(found.value) else found.value
    value = tuple(value) if isinstance(value, list) else value
    named = isinstance(value, dict) and all(isinstance(name, str) for name in value)
    fits = named or isinstance(value, Tensor | tuple)
    if not fits or not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value)):
        raise UsageError(
            f"{found.spec} gives {kind_of(value)} as example inputs",
            why="expected a tensor, a tuple of tensors, or a dict from argument name to tensor",
            hint="torch.from_numpy makes a tensor of an array",
        )
    return value


def _random(text: str, whole: str) -> "Tensor":
    """`1,3,224,224` gives normal numbers, `1,16:int64` zeros and ones; the same every time."""
    import torch

    sizes, _, dtype = (part.strip() for part in text.partition(":"))
    dtype = dtype or "float32"
    if dtype not in _DTYPES:
        raise UsageError(
            f"unknown type {dtype!r} in the input shape {whole!r}",
            why=f"one of: {', '.join(_DTYPES)}",
            hint=near(dtype, _DTYPES),
        )
    if not _SIZES.fullmatch(sizes):
        raise UsageError(
            f"cannot read the input shape {whole!r}",
            why=f"{sizes!r} is not a list of positive whole numbers",
            hint="for example 1,3,224,224; for two inputs 1,16:int64;1,16:bool",
        )
    shape = [int(size) for size in sizes.split(",")]
    check_fits("the example input", shape, 8)
    seeded = torch.Generator().manual_seed(0)
    if dtype in _INTEGERS:
        values = torch.randint(0, 2, shape, generator=seeded)
    else:
        values = torch.randn(shape, generator=seeded)
    return values.to(getattr(torch, dtype))
