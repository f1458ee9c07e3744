"""What models ask for, and arrays that fit it.

A dynamic dimension fits anything. The models of a race must agree: the same input names, types
and shapes. Where no arrays are given they are made up, but a size is never guessed:

    first dimension dynamic    the batch size
    another one dynamic        refused, with a hint to pass arrays
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from compressor.base.free_memory import check_fits
from compressor.passes.base.errors import UsageError

TYPES = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
}


@dataclass(frozen=True)
class Input:
    """What a model asks for; a dimension that is no number is dynamic."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name}: {self.type}[{sizes}]"

    @property
    def batched(self) -> bool:
        return bool(self.shape) and not isinstance(self.shape[0], int)


def asked_inputs(session: Any) -> tuple[Input, ...]:
    """What an ONNX Runtime session takes, by name."""
    asked = (Input(one.name, one.type, tuple(one.shape)) for one in session.get_inputs())
    return tuple(sorted(asked, key=lambda one: one.name))


def common_inputs(asked: Mapping[str, tuple[Input, ...]]) -> tuple[Input, ...]:
    """What fits every model: a fixed dimension of one fills the dynamic one of another.

    Raises UsageError, naming two models and their inputs, when nothing does.
    """
    (first, baseline), *others = asked.items()

    def meet(common: tuple[Input, ...], other: tuple[str, tuple[Input, ...]]) -> tuple[Input, ...]:
        name, theirs = other
        pairs = list(zip(common, theirs, strict=False))
        if len(common) != len(theirs) or not all(_agree(a, b) for a, b in pairs):
            raise UsageError(
                f"the models {first!r} and {name!r} do not take the same inputs",
                why=f"{_listed(common)}  against  {_listed(theirs)}",
                hint="race models that take the same input names, types and shapes",
            )
        return tuple(_merged(a, b) for a, b in pairs)

    return reduce(meet, others, baseline)


def _agree(a: Input, b: Input) -> bool:
    same = (a.name, a.type, len(a.shape)) == (b.name, b.type, len(b.shape))
    return same and all(_fits(x, y) for x, y in zip(a.shape, b.shape, strict=True))


def _fits(x: int | str | None, y: int | str | None) -> bool:
    return x == y or not (isinstance(x, int) and isinstance(y, int))


def _merged(a: Input, b: Input) -> Input:
    sizes = zip(a.shape, b.shape, strict=True)
    return Input(a.name, a.type, tuple(x if isinstance(x, int) else y for x, y in sizes))


def random_feeds(
    wanted: tuple[Input, ...], batch: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Floats are standard normal, integers 0 or 1, truth values True.

    Raises UsageError where a size or a type cannot be made up.
    """
    if batch != 1 and not any(one.batched for one in wanted):
        raise UsageError(
            f"batch size {batch} asked for, but the batch of these models is fixed",
            why=_listed(wanted),
            hint="leave the batch size out, or export with a dynamic batch",
        )
    return {one.name: _random(one, batch, generator) for one in wanted}


def _random(one: Input, batch: int, generator: np.random.Generator) -> np.ndarray:
    shape = (batch, *one.shape[1:]) if one.batched else one.shape
    sizes = [size for size in shape if isinstance(size, int)]
    if len(sizes) != len(shape) or one.type not in TYPES:
        raise UsageError(
            f"no input can be made up for {one}",
            why="only the first dimension of an input may be dynamic, and its type must be one of "
            f"{', '.join(TYPES)}",
            hint=f"pass inputs={{{one.name!r}: array}}",
        )
    kind = np.dtype(TYPES[one.type])
    check_fits(f"the input {one.name}", sizes, max(kind.itemsize, 8))  # made in eight bytes
    if kind.kind == "f":
        return np.asarray(generator.standard_normal(sizes), kind)
    if kind.kind == "b":
        return np.ones(sizes, kind)
    return np.asarray(generator.integers(2, size=sizes), kind)


def checked_feeds(
    wanted: tuple[Input, ...], given: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The given arrays, contiguous in memory; UsageError if the models ask for others."""
    if {one.name for one in wanted} != set(given):
        raise UsageError(
            f"the models take the inputs {_listed(wanted)}",
            why=f"given: {', '.join(given) or 'none'}",
        )
    for one in wanted:
        array = given[one.name]
        kind = TYPES.get(one.type)
        fits = len(array.shape) == len(one.shape) and all(map(_fits, array.shape, one.shape))
        if not fits or (kind is not None and array.dtype != kind):
            raise UsageError(
                f"an input does not fit: the models take {one}",
                why=f"given: {array.dtype}{list(array.shape)}",
            )
    return {one.name: np.asarray(given[one.name], order="C") for one in wanted}


def _listed(inputs: tuple[Input, ...]) -> str:
    return "; ".join(map(str, inputs)) or "none"
