"""From a program to the bytes of a deployable ONNX model.

torch.onnx.export(dynamo, optimize)   folds batch norm; once a build
named_axes                            free sizes called as the user calls them
tidy                                  batch axis named, build machine's paths stripped, checked
onnxsim                               in a child process with limits; kept where parity holds
"""

import math
import re
import subprocess
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import onnx
import torch
from torch.utils import _pytree as pytree

from compressor.base.messages import reason
from compressor.onnx.constants import folded
from compressor.onnx.lowering import exportable
from compressor.onnx.model_files import inner
from compressor.passes.base.errors import CompressError
from compressor.passes.base.library_logs import quiet
from compressor.passes.frontend.dynamic_axes import dynamic_shapes
from compressor.passes.ir.program import Program, shares_batch
from compressor.process import children

SIMPLIFY_SECONDS = 300
SIMPLIFY_MEMORY = 4 << 30
"""Bytes of address space of onnxsim's process, beside ten times the model: it unfolds constants,
and has taken 20 GB for a graph of three nodes. On Windows there is no such limit."""
LARGEST_INLINE = 2_000_000_000
"""Protocol buffers end at 2 GiB."""

BATCH = "batch"
"""What dimension 0 is called."""

_SYMBOL = re.compile(r"[A-Za-z_]\w*")
_HINT = "the pruned torch module is fine: compress(...).module; report this model"
_NOISY = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
_NO_MEMORY = ("MemoryError", "bad_alloc", "alloc failed", "Failed to allocate")
"""An allocation was refused: Python's exception, or C++'s, which nobody caught."""
_NOT_VALID = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError)


@dataclass(frozen=True)
class Simplified:
    """What onnxsim made of a model, or why it made nothing."""

    data: bytes | None
    why: str = ""


def export(program: Program, *, optimize: bool = True) -> bytes:
    """The program as an ONNX model with a dynamic batch where the program has one.

    Without `optimize` it is as torch's exporter leaves it, before onnxscript folds and fuses.
    Raises CompressError where torch's exporter does, with its reason.
    """
    module = exportable(folded(program))
    try:
        with quiet(*_NOISY), redirect_stdout(StringIO()):
            exported = torch.onnx.export(
                module,
                _positional(program),
                kwargs=dict(program.kwargs),
                dynamo=True,
                optimize=optimize,
                dynamic_shapes=dynamic_shapes(
                    module.forward, program.args, program.kwargs, program.batch, program.axes
                ),
                verbose=False,
            )
    except Exception as error:  # the exporter wraps whatever went wrong in its own classes
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        raise CompressError(
            "torch.onnx.export failed on the model",
            why=reason(root)[:300],
            hint=_HINT,
        ) from error
    assert exported is not None
    try:
        return tidy(named_axes(exported.model_proto, program))
    except _NOT_VALID as error:
        raise CompressError(
            "torch.onnx.export made a model that is not valid", why=reason(error)[:300], hint=_HINT
        ) from error


def _positional(program: Program) -> tuple[Any, ...]:
    """The exporter takes a dict at the end for keyword arguments, unless there are any."""
    dict_is_last = bool(program.args) and isinstance(program.args[-1], dict)
    return (*program.args, {}) if dict_is_last and not program.kwargs else program.args


def tidy(model: onnx.ModelProto) -> bytes:
    """Name the batch axis, drop metadata that names the build machine, and check the model."""
    _name_batch(model.graph)
    del model.metadata_props[:]
    model.producer_name, model.producer_version, model.doc_string = "compressor", "", ""
    for graph in [model.graph, *model.functions]:
        _strip(graph)
    data: bytes = model.SerializeToString(deterministic=True)
    if len(data) > LARGEST_INLINE:
        raise CompressError(
            f"the ONNX model is {len(data):,} bytes",
            why="models over 2 GB need external data, which this version does not write",
            hint="ask for a smaller budget",
        )
    onnx.checker.check_model(data, full_check=True)
    return data


def _strip(graph: Any) -> None:
    """Node metadata carries absolute paths and stack traces."""
    members = [graph, *graph.node, *graph.value_info]
    for name in ("input", "output", "initializer"):
        members += [one for one in getattr(graph, name, []) if not isinstance(one, str)]
    for member in members:
        member.doc_string = ""
        if hasattr(member, "metadata_props"):
            del member.metadata_props[:]
    for one in inner(graph.node):
        _strip(one)


def named_axes(model: onnx.ModelProto, program: Program) -> onnx.ModelProto:
    """torch calls free sizes s77; call them as the user does, wherever they are written.

    Raises CompressError where an axis that was to be free has become a number.
    """
    graph = model.graph
    leaves = pytree.tree_leaves((program.args, dict(program.kwargs)))
    tensors = [index for index, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    names: dict[str, str] = {}
    for position, value in zip(tensors, graph.input, strict=True):
        dims = value.type.tensor_type.shape.dim
        if shares_batch(leaves[position], program.batch) and dims[0].dim_param:
            names[dims[0].dim_param] = BATCH  # also where torch sees no call that joins them
        for axis, name in program.axes.get(position, {}).items():
            if not dims[axis].dim_param:
                raise CompressError(
                    f"torch.onnx.export made a number of axis {axis} of {value.name} ('{name}')",
                    hint=_HINT,
                )
            names[dims[axis].dim_param] = name
    _rename(graph, names)
    return model


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Other names for sizes, also inside sums and products of them."""
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = _SYMBOL.sub(lambda n: names.get(n[0], n[0]), dim.dim_param)


def _name_batch(graph: onnx.GraphProto) -> None:
    """torch calls the batch s77; call it batch, wherever it is written."""
    first = [value.type.tensor_type.shape.dim for value in graph.input]
    symbols = {dims[0].dim_param for dims in first if len(dims) and dims[0].dim_param}
    if len(symbols) == 1:
        _rename(graph, {symbols.pop(): BATCH})


def simplify(data: bytes) -> Simplified:
    """onnxsim's version of the model, made in a child process with limits of time and memory."""
    memory = SIMPLIFY_MEMORY + 10 * len(data)
    try:
        done = children.script(
            Path(__file__).with_name("simplify_child.py"),
            str(memory),
            str(math.ceil(SIMPLIFY_SECONDS)),
            given=data,
            seconds=SIMPLIFY_SECONDS,
            env={"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
        )
    except subprocess.TimeoutExpired:
        return Simplified(None, f"onnxsim took longer than {SIMPLIFY_SECONDS} s")
    said = done.stderr.decode(errors="replace")
    if done.returncode != 0 and any(words in said for words in _NO_MEMORY):
        return Simplified(None, f"onnxsim took more than {memory >> 20:,} MiB of memory")
    if done.returncode != 0 or not done.stdout:
        last = (said.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Simplified(None, f"onnxsim failed: {last[:200]}")
    try:
        return Simplified(tidy(onnx.load_model_from_string(done.stdout)))
    except _NOT_VALID as error:
        return Simplified(None, f"onnxsim's result is not valid: {reason(error)[:200]}")


def operators(data: bytes) -> Counter[str]:
    """How often a model has each operator."""
    return Counter(node.op_type for node in onnx.load_model_from_string(data).graph.node)
