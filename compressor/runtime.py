"""The exported model in ONNX Runtime, called like the module it came from, and compared with it."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from torch import Tensor
from torch.fx import Interpreter
from torch.utils import _pytree as pytree

from compressor.inputs import Called, at_batch, at_sizes, fresh, randomised, run
from compressor.load.words import reason
from compressor.passes.errors import CompressError, UsageError, WrongError
from compressor.passes.program import Program
from compressor.passes.state import float64_by_default, in_float64, widened

TOLERANCE = 1e-4
"""Largest difference between ONNX Runtime and torch, over the largest output; see `tolerance`."""

BATCHES = (1, 5)


class OnnxModel:
    """An ONNX model that takes and gives what the program's module does."""

    def __init__(self, data: bytes, program: Program, threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises classes of its own
            raise CompressError(
                "ONNX Runtime refuses the exported model",
                why=str(error).strip().splitlines()[0][:300],
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
        except InvalidArgument:  # the caller's mistake, in ONNX Runtime's own words
            raise
        except Exception as error:  # ONNX Runtime raises classes of its own
            raise CompressError(
                "ONNX Runtime cannot run the exported model",
                why=str(error).strip().splitlines()[0][:300],
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


@dataclass(frozen=True)
class Parity:
    """ONNX Runtime beside torch on one batch."""

    inputs: str
    batch: int
    sizes: Mapping[str, int]
    """Of free axes, where they are not those of the example."""
    max_abs: float
    max_rel: float
    """Largest difference over the largest magnitude of the same output."""
    top1: float | None
    """Share of rows with the same largest entry, where an output has rows of classes."""


def parity(
    program: Program,
    data: bytes,
    call: Called,
    seed: int = 0,
    others: Sequence[Mapping[str, int]] = (),
    batches: Sequence[int] = BATCHES,
) -> list[Parity]:
    """Compare on the example inputs and on random ones, at `batches` where the batch is dynamic.

    `others` are sizes of free axes to look at as well. Raises WrongError where any difference
    exceeds `tolerance(program)`, and what torch itself loses to rounding there.
    """
    model = OnnxModel(data, program)
    batches = (1,) if program.batch is None else batches
    found: list[tuple[Parity, Called]] = []
    for sizes in ({}, *others):
        for index, batch in enumerate(batches):
            given = at_batch(at_sizes(call, program, sizes), program.batch, batch)
            noise = randomised(given, seed + index)
            for name, inputs in (("example", given), ("random", noise)):
                found.append((_compare(program, model, inputs, name, batch, sizes), inputs))
    limit = tolerance(program)
    for worst, inputs in sorted(found, key=lambda pair: -pair[0].max_rel):
        if worst.max_rel <= limit or worst.max_rel <= _rounding(program, inputs):
            continue
        raise WrongError(
            f"ONNX Runtime and torch differ by {worst.max_rel:.2g} (limit {limit:.2g})",
            where=", ".join(
                [f"{worst.inputs} inputs", f"batch {worst.batch}"]
                + [f"{symbol} {size}" for symbol, size in worst.sizes.items()]
            ),
            hint="report this model; nothing was written",
        )
    return [one for one, _ in found]


ROUNDINGS, MOST = 8, 1e-2
"""ONNX Runtime may lose as many times what torch loses to rounding; never more than the second."""


def _rounding(program: Program, call: Called) -> float:
    """How far ONNX Runtime may be from torch where torch itself is far from exact.

    Weights that nearly cancel make any order of adding up look different: torch is compared with
    itself in float64. 0 where it has no kernels for that.
    """
    wide = [widened(leaf) for leaf in pytree.tree_leaves(fresh(call))]
    try:
        with torch.no_grad(), float64_by_default():
            exact = Interpreter(in_float64(program)).run(*wide, enable_io_processing=False)
    except (RuntimeError, NotImplementedError) as error:
        if "not implemented for" not in str(error):
            raise
        return 0.0
    wanted = _tensors(exact)
    own = _tensors(run(program.module, call))
    gaps = [_gap(a, b)[1] for a, b in zip(wanted, own, strict=True) if a.is_floating_point()]
    return min(ROUNDINGS * max(gaps, default=0.0), MOST)


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


def _compare(
    program: Program,
    model: OnnxModel,
    call: Called,
    name: str,
    batch: int,
    sizes: Mapping[str, int],
) -> Parity:
    args, kwargs = call
    try:
        wanted = _tensors(run(program.module, call))
    except Exception as error:
        raise WrongError(
            f"the small network does not run at a batch of {batch}, which the original does",
            why=reason(error),
            hint="report this model; nothing was written",
        ) from error
    found = _tensors(model(*args, **kwargs))
    if len(wanted) != len(found):
        raise WrongError(f"the ONNX model gives {len(found)} tensors, torch gives {len(wanted)}")
    absolute = relative = 0.0
    rows: list[float] = []
    for a, b in zip(wanted, found, strict=True):
        if a.shape != b.shape:
            raise WrongError(
                f"ONNX Runtime gives {tuple(b.shape)} where torch gives {tuple(a.shape)}"
            )
        if not torch.equal(torch.isfinite(a), torch.isfinite(b)):
            return Parity(name, batch, sizes, float("inf"), float("inf"), None)
        gaps = _gap(a, b)
        absolute, relative = max(absolute, gaps[0]), max(relative, gaps[1])
        if a.dim() >= 2 and a.shape[-1] > 1:
            rows.append(float((a.argmax(-1) == b.argmax(-1)).double().mean()))
    return Parity(name, batch, sizes, absolute, relative, min(rows, default=None))


def _gap(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Largest difference of the finite numbers, and over the largest of them."""
    if not a.numel():
        return 0.0, 0.0
    a, b = (torch.nan_to_num(t.double(), nan=0.0, posinf=0.0, neginf=0.0) for t in (a, b))
    gap, scale = float((a - b).abs().max()), float(a.abs().max())
    return gap, gap / scale if scale else gap


def _tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, Tensor | np.ndarray)
