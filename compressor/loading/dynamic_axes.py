"""Axes that stay free: read from the command line, and tried at other sizes.

    --dynamic input_ids:1=sequence --dynamic image:2=height
    other_sizes(model, program, call)   sizes at which model and program were seen to agree

What was captured at one size may be wrong, or not run, at another: a branch on a size is gone from
the graph. So every free size is tried, a larger and a smaller one, before anything else is done.
"""

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from compressor.base.messages import reason
from compressor.loading.calls import Called, at_sizes, run
from compressor.passes.base.errors import UsageError
from compressor.passes.frontend.dynamic_axes import Dynamic
from compressor.passes.frontend.torch_export import eager
from compressor.passes.ir.compare import worst
from compressor.passes.ir.dtypes import array
from compressor.passes.ir.leaves import tensors
from compressor.passes.ir.program import Program

Captured = TypeVar("Captured")
FreeSizes = Mapping[str, int]
"""A size for each of some free axes, by name."""

_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
AGREE = 1e-3
"""Largest difference of model and program over the largest output, in the model's own precision."""


def parse(options: Sequence[str]) -> Dynamic:
    """`NAME:AXIS=SYMBOL`, several times. Raises UsageError for anything else."""
    found: dict[str, dict[int, str]] = {}
    for option in options:
        place, equals, symbol = option.partition("=")
        name, colon, axis = place.rpartition(":")
        number = axis.strip().removeprefix("-")
        if not (equals and colon and name.strip() and number.isdigit() and symbol.strip()):
            raise UsageError(
                f"cannot read what is dynamic: '{option}'",
                why="expected NAME:AXIS=SYMBOL",
                hint="for example --dynamic input_ids:1=sequence",
            )
        axes = found.setdefault(name.strip(), {})
        if int(axis) in axes:
            raise UsageError(f"axis {axis} of {name} is named twice: '{option}'")
        axes[int(axis)] = symbol.strip()
    return found


def said(dynamic: Dynamic) -> list[str]:
    """As `parse` reads it."""
    return [f"{of}:{axis}={size}" for of, axes in dynamic.items() for axis, size in axes.items()]


def other_sizes(model: nn.Module, program: Program, call: Called) -> tuple[FreeSizes, ...]:
    """For each free size a larger and a smaller one, then all changed at once.

    Raises UsageError where the model runs at no other size, or does there what was not captured.
    """
    found: dict[str, list[int]] = {}
    for symbol, size in program.free.items():
        found[symbol] = []
        why = ""
        for direction in (_larger(size), _smaller(size)):
            for other in direction:
                if not (why_not := _disagreement(model, program, call, {symbol: other})):
                    found[symbol].append(other)
                    break
                why = why or why_not
        if not found[symbol]:
            raise UsageError(
                f"the model runs at no other size of '{symbol}' than {size}",
                why=f"with {_larger(size)[0]}: {why}",
                hint=f"leave '{symbol}' out of what is dynamic",
            )
    each = [{symbol: size} for symbol, sizes in found.items() for size in sizes]
    together = {symbol: sizes[-1] for symbol, sizes in found.items()}
    if len(found) > 1 and not _disagreement(model, program, call, together):
        each.append(together)
    return tuple(each)


def free_where_possible(
    wished: Dynamic, found: Callable[[Dynamic], Captured]
) -> tuple[Captured, str]:
    """What is captured with these axes free, else with none, and why."""
    if not wished:
        return found({}), ""
    try:
        return found(wished), ""
    except UsageError as error:
        captured = found({})
        names = sorted({symbol for axes in wished.values() for symbol in axes.values()})
        why = f"{error.what}{f': {error.why}' if error.why else ''}"
        return captured, (
            f"The exported model takes inputs of the example's {' and '.join(names)} alone, "
            f"because it cannot be free: {why}."
        )


def _larger(size: int) -> list[int]:
    return [size + step for step in _STEPS] + [2 * size, 3 * size]


def _smaller(size: int) -> list[int]:
    return [n for n in (*(size - step for step in _STEPS), size // 2) if n > 1]


def _disagreement(model: nn.Module, program: Program, call: Called, sizes: FreeSizes) -> str:
    """Why the model does not run at these sizes; empty if it does, like the program.

    Raises UsageError where it runs and the program does something else.
    """
    given = at_sizes(call, program, sizes)
    try:
        with torch.no_grad():
            wanted = tensors(eager(model, *given))
    except Exception as error:  # whatever the user's forward raises
        return f"{reason(error)[:200]}{_line(error)}"
    try:
        found = tensors(run(program.module, given))
        far = worst([*map(array, wanted)], [*map(array, found)])
        why = "" if far <= AGREE else "its outputs are others"
    except Exception as error:  # the graph has lost a branch
        why = reason(error)[:200]
    if why:
        named = ", ".join(f"{symbol} {size}" for symbol, size in sizes.items())
        raise UsageError(
            f"what was captured of the model does not hold for other sizes: {named}",
            why=f"the model runs there, but the captured graph does not: {why}",
            hint=f"leave '{next(iter(sizes))}' out of what is dynamic, or do not branch on sizes",
        )
    return ""


def _line(error: Exception) -> str:
    """The user's line that raised it."""
    package = str(Path(torch.__file__).parent)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    own = [frame for frame in frames if not frame.filename.startswith(package)]
    return f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
