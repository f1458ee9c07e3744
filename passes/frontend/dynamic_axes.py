"""FreeAxes of inputs that stay free: the batch, and those that the user names.

    {"input_ids": {1: "sequence"}, "mask": {1: "sequence"}}     equal names: equal sizes
    {"image": {2: "height", 3: "width"}}

Dimension 0 is the batch and free without being asked for. Any other axis is only free on request,
because it costs: what the model does with a number (a table of positions) it cannot do with a
symbol. Then capturing fails, with the operator that needs the number.
"""

import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim
from torch.utils import _pytree as pytree

from ..base.errors import UsageError
from ..ir.program import FreeAxes, Nested, Program, shares_batch

Dynamic = Mapping[str, Mapping[int, str]]
"""Input name -> axis -> name of its size."""


def free_axes(
    forward: Callable[..., Any],
    args: tuple[Nested, ...],
    kwargs: Mapping[str, Nested],
    dynamic: Dynamic,
) -> FreeAxes:
    """The axes by the position of their input. Raises UsageError for what cannot be free."""
    leaves = pytree.tree_leaves((args, dict(kwargs)))
    names = input_names(forward, args, kwargs)
    tensors = {n: i for i, n in enumerate(names) if isinstance(leaves[i], Tensor)}
    found: dict[int, dict[int, str]] = {}
    sizes: dict[str, tuple[int, str]] = {}
    for name, axes in dynamic.items():
        if name not in tensors:
            raise UsageError(
                f"no input is called '{name}'", hint=f"there is {', '.join(tensors) or 'none'}"
            )
        shape = leaves[tensors[name]].shape
        for axis, symbol in axes.items():
            place = f"axis {axis} of {name}"
            _check(place, axis, symbol, shape)
            axis %= len(shape)
            size, first = sizes.setdefault(symbol, (shape[axis], place))
            if size != shape[axis]:
                raise UsageError(
                    f"{first} has size {size} and {place} has {shape[axis]}, but both are "
                    f"called '{symbol}'",
                    hint="give other names to sizes that differ, or other example inputs",
                )
            found.setdefault(tensors[name], {})[axis] = symbol
    return found


def _check(place: str, axis: int, symbol: str, shape: torch.Size) -> None:
    rank = len(shape)
    if not -rank <= axis < rank:
        raise UsageError(f"there is no {place}: its sizes are {list(shape)}")
    if axis % rank == 0:
        raise UsageError(
            f"{place} is the batch",
            hint="it is free without being asked for, where the model allows it",
        )
    if not symbol.isidentifier() or symbol == "batch":
        raise UsageError(
            f"'{symbol}' cannot be the name of {place}",
            hint="a name is letters, digits and _, and not 'batch'",
        )
    if shape[axis] < 2:
        raise UsageError(
            f"{place} is free, but has size {shape[axis]} in the example inputs",
            why="a size of 1 means broadcasting, and is always fixed",
            hint="give example inputs in which it is 2 or more",
        )


def input_names(
    forward: Callable[..., Any], args: tuple[Nested, ...], kwargs: Mapping[str, Nested]
) -> list[str]:
    """A name for each leaf of the inputs: ``mask``, or ``boxes.0`` inside a list."""
    leaves, spec = pytree.tree_flatten((args, dict(kwargs)))
    numbered_args, numbered_kwargs = pytree.tree_unflatten(list(range(len(leaves))), spec)
    bound = inspect.signature(forward).bind(*numbered_args, **numbered_kwargs)
    kinds = {name: p.kind for name, p in bound.signature.parameters.items()}
    names = [""] * len(leaves)
    for name, value in bound.arguments.items():
        for path, position in pytree.tree_flatten_with_path(value)[0]:
            own = [str(getattr(key, "idx", getattr(key, "key", key))) for key in path]
            whole = own if kinds[name] is inspect.Parameter.VAR_KEYWORD else [name, *own]
            names[position] = ".".join(whole)
    return names


def dynamic_shapes(
    forward: Callable[..., Any],
    args: tuple[Nested, ...],
    kwargs: Mapping[str, Nested],
    batch: int | None,
    axes: FreeAxes,
) -> dict[str, Nested] | None:
    """What torch's exporters call so: dimension 0 where it is the batch, and the free axes."""
    if batch is None and not axes:
        return None

    def marks(position: int, leaf: Nested) -> dict[int, Any] | None:
        own: dict[int, Any] = dict.fromkeys(axes.get(position, {}), Dim.DYNAMIC)
        if batch is not None and shares_batch(leaf, batch):
            own[0] = Dim.AUTO
        return own or None

    leaves, spec = pytree.tree_flatten((args, dict(kwargs)))
    marked = [marks(position, leaf) for position, leaf in enumerate(leaves)]
    marked_args, marked_kwargs = pytree.tree_unflatten(marked, spec)
    return dict(inspect.signature(forward).bind(*marked_args, **marked_kwargs).arguments)


def check_apart(program: Program) -> None:
    """Raise UsageError where two names turned out to be one size."""
    nodes = program.module.graph.nodes
    inputs = [node.meta.get("val") for node in nodes if node.op == "placeholder"]
    seen: dict[str, str] = {}
    for position, own in program.axes.items():
        for axis, symbol in own.items():
            size = str(inputs[position].shape[axis])
            if (other := seen.setdefault(size, symbol)) != symbol:
                raise UsageError(
                    f"the sizes '{other}' and '{symbol}' are the same in this model",
                    why="it combines them element by element",
                    hint=f"call both '{other}'",
                )


# --- what fixed an axis --------------------------------------------------------------------------

_LOGGER = "torch.fx.experimental.symbolic_shapes"
_CREATED = re.compile(r"create_symbol (\w+) = \d+ for (.+?)\.size\(\)\[(\d+)\]")
_FIXED = re.compile(r"set_replacement (\w+) = (\d+) ")


class Fixes(logging.Handler):
    """Listens to torch.export, and notes by which call a symbolic size became a number."""

    def __init__(self) -> None:
        super().__init__()
        self._axis: dict[str, str] = {}
        self.found: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if created := _CREATED.match(text):
            symbol, source, axis = created.groups()
            name = ".".join(re.findall(r"\['?(\w+)'?\]", source))
            self._axis[symbol] = f"axis {axis} of {name}"
        if (fixed := _FIXED.match(text)) and fixed[1] in self._axis:
            frame = sys._getframe()
            self.found.setdefault(
                self._axis[fixed[1]], f"is fixed at {fixed[2]} by {_operator(frame)}"
            )


_TRACING = str(Path(__file__).with_name("torch_export.py"))
_NOT_THE_USERS = (str(Path(torch.__file__).parent), str(Path(logging.__file__).parent), "<")


def _operator(frame: FrameType) -> str:
    """The outermost operator that is running, and the innermost line of the user's."""
    operator = line = ""
    at: FrameType | None = frame
    while at is not None and at.f_code.co_filename != _TRACING:
        call, file = at.f_locals.get("func"), at.f_code.co_filename
        if isinstance(call, torch._ops.OpOverload):
            operator = call._schema.name.removeprefix("aten::")
        if not line and file != __file__ and not file.startswith(_NOT_THE_USERS):
            line = f"{'/'.join(Path(file).parts[-2:])}:{at.f_lineno}"
        at = at.f_back
    return " at ".join(part for part in (operator, line) if part)


@contextmanager
def fixes(axes: FreeAxes) -> Iterator[dict[str, str]]:
    """What became a number here, and why: ``{"axis 1 of x": "is fixed at 16 by add at ..."}``.

    Nothing is listened to where no axis is to be free.
    """
    logger, handler = logging.getLogger(_LOGGER), Fixes()
    if not axes:
        yield handler.found
        return
    before = logger.level, logger.propagate, logger.handlers
    logger.setLevel(logging.INFO)
    logger.propagate, logger.handlers = False, [handler]
    try:
        yield handler.found
    finally:
        logger.setLevel(before[0])
        _, logger.propagate, logger.handlers = before
