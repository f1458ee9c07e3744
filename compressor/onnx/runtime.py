"""The exported model in ONNX Runtime, called like the module it came from, and compared with it."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.base.messages import first_line, reason
from compressor.loading.calls import Called, at_batch, at_sizes, randomised, run
from compressor.onnx.output_parity import Beside
from compressor.onnx.output_parity import Parity as Parity
from compressor.onnx.sessions import errors, opened, options
from compressor.passes.base.errors import CompressError, UsageError
from compressor.passes.ir.program import Program

TOLERANCE = 1e-4
"""Largest difference between ONNX Runtime and torch, over the largest number; see `tolerance`."""

BATCHES = (1, 5)


class OnnxModel:
    """An ONNX model that takes and gives what the program's module does."""

    def __init__(self, data: bytes, program: Program, threads: int = 0) -> None:
        try:
            self._session = opened(data, "model.onnx", options(threads))
        except CompressError as error:
            raise CompressError(
                "ONNX Runtime refuses the exported model",
                why=error.why,
                hint="it may run in float32: model.float(); otherwise report this model",
            ) from error
        self._names = [one.name for one in self._session.get_inputs()]
        self.outputs = [one.name for one in self._session.get_outputs()]
        self._signature = inspect.signature(program.module.forward)
        self._example = self._signature.bind(*program.args, **program.kwargs).arguments
        self._outputs = getattr(program.module, "_out_spec", None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Tensors or arrays in, tensors in the structure of the module's result out."""
        found = self._run(self.feed(args, kwargs))
        if self._outputs is None or self._outputs.num_leaves != len(found):
            return found[0] if len(found) == 1 else tuple(found)
        return pytree.tree_unflatten(found, self._outputs)

    def _run(self, feed: dict[str, np.ndarray]) -> list[Tensor]:
        try:
            found = self._session.run(None, feed)
        except errors(RuntimeError) as error:
            if type(error).__name__ == "InvalidArgument":
                raise  # the caller's mistake, in ONNX Runtime's own words
            raise CompressError(
                "ONNX Runtime cannot run the exported model",
                why=first_line(error),
                hint="the pruned torch module is fine: compress(...).module; report this model",
            ) from error
        return [torch.from_numpy(np.asarray(one)) for one in found]

    def feed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, np.ndarray]:
        """The arguments as arrays by the names of the ONNX inputs.

        They may be given by position or by name, in any order, as to the module itself.
        """
        leaves = [leaf for leaf in self._flat(args, kwargs) if _is_array(leaf)]
        if len(leaves) != len(self._names):
            raise UsageError(
                f"the ONNX model takes {len(self._names)} tensors, {len(leaves)} were given",
                where=", ".join(self._names),
                hint="call it as the model is called with the example inputs",
            )
        return {
            name: leaf.detach().cpu().numpy() if isinstance(leaf, Tensor) else leaf
            for name, leaf in zip(self._names, leaves, strict=True)
        }

    def _flat(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """All leaves, in the order of the example inputs that the model was exported with."""
        try:
            given = self._signature.bind_partial(*args, **kwargs).arguments
            missing = [name for name in self._example.keys() - given if self._needs(name)]
            if missing:
                raise TypeError(f"{', '.join(sorted(missing))} is missing")
            leaves = []
            for name, example in self._example.items():
                structure = pytree.tree_structure(example)
                leaves += structure.flatten_up_to(given.get(name, example))
        except (TypeError, ValueError) as error:
            raise UsageError(
                "the ONNX model is called in another way than it was exported with",
                where=", ".join(self._example),
                why=reason(error),
                hint="call it as the model is called with the example inputs",
            ) from error
        return leaves

    def _needs(self, name: str) -> bool:
        """Numbers and flags are part of the exported model; tensors have to be given."""
        return any(map(_is_array, pytree.tree_leaves(self._example[name])))


def parity(
    program: Program,
    data: bytes,
    call: Called,
    seed: int = 0,
    others: Sequence[Mapping[str, int]] = (),
    batches: Sequence[int] = BATCHES,
) -> list[Parity]:
    """Compare on the example inputs and on random ones, at `batches` where the batch is dynamic.

    `others` are sizes of free axes to look at as well. Further inputs are tried where an output is
    the same for all of these. Raises WrongError where any difference, of an output or of a slice
    along its last axis or axis 1, exceeds `tolerance(program)`, and what torch itself loses to
    rounding there; or where no output changes with the inputs.
    """
    model = OnnxModel(data, program)
    beside = Beside(program, model, tolerance(program))
    for sizes in ({}, *others):
        for index, batch in enumerate((1,) if program.batch is None else batches):
            given = at_batch(at_sizes(call, program, sizes), program.batch, batch)
            beside.compare(given, "example", batch, sizes)
            beside.compare(randomised(given, seed + index), "random", batch, sizes)
    batch = 1 if program.batch is None else batches[0]
    beside.search(at_batch(call, program.batch, batch), batch, seed)
    return beside.judged()


def batches_of(program: Program, call: Called) -> tuple[int, ...]:
    """Those of `BATCHES` at which the program runs, else the batch size of its example.

    A model may not take a batch of one: ``x.squeeze()`` then drops the batch as well.
    """
    if program.batch is None:
        return (1,)
    found = []
    for batch in BATCHES:
        try:
            run(program.module, at_batch(call, program.batch, batch))
        except (RuntimeError, IndexError, ValueError):  # not a size for them; the report says so
            continue
        found.append(batch)
    return tuple(found) or (program.batch,)


def tolerance(program: Program) -> float:
    """`TOLERANCE`, or 8 steps of the coarsest number that the model computes with, if that is more.

    In float16 two right answers differ by that much: ONNX Runtime adds up in float32, torch not.
    """
    floats = {one.dtype for one in program.tensors().values() if one.is_floating_point()}
    return max([TOLERANCE, *(8 * torch.finfo(dtype).eps for dtype in floats)])


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, Tensor | np.ndarray)
