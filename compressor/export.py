"""From a program to the bytes of a deployable ONNX model.

torch.onnx.export(dynamo, optimize)   folds batch norm; once a build
tidy                                  batch axis named, build machine's paths stripped, checked
onnxsim                               in a child process; kept where parity holds
"""

import inspect
import logging
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.export import Dim
from torch.utils import _pytree as pytree

from compressor.passes.errors import CompressError
from compressor.passes.program import Program

SIMPLIFY_SECONDS = 300
LARGEST_INLINE = 2_000_000_000
"""Protocol buffers end at 2 GiB."""


@dataclass(frozen=True)
class Simplified:
    """What onnxsim made of a model, or why it made nothing."""

    data: bytes | None
    why: str = ""


def export(program: Program) -> bytes:
    """The program as an ONNX model with a dynamic batch where the program has one.

    Raises CompressError where torch's exporter does, with its reason.
    """
    module = program.module
    try:
        with _quiet():
            exported = torch.onnx.export(
                module,
                program.args,
                kwargs=dict(program.kwargs),
                dynamo=True,
                optimize=True,
                dynamic_shapes=_dynamic(program),
                verbose=False,
            )
    except Exception as error:  # the exporter wraps whatever went wrong in its own classes
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        raise CompressError(
            "torch.onnx.export failed on the model",
            why=f"{type(root).__name__}: {(str(root).strip().splitlines() or [''])[0][:300]}",
            hint="the pruned torch module is fine: compress(...).module; report this model",
        ) from error
    assert exported is not None
    return tidy(exported.model_proto)


def _dynamic(program: Program) -> dict[str, Any] | None:
    if program.batch is None:
        return None

    def spec(leaf: Any) -> Any:
        shares = isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == program.batch
        return {0: Dim.AUTO} if shares else None

    bound = inspect.signature(program.module.forward).bind(*program.args, **program.kwargs)
    return {name: pytree.tree_map(spec, value) for name, value in bound.arguments.items()}


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
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _strip(inner)


def _name_batch(graph: onnx.GraphProto) -> None:
    """torch calls the batch s77; call it batch, wherever it is written."""
    first = [value.type.tensor_type.shape.dim for value in graph.input]
    symbols = {dims[0].dim_param for dims in first if len(dims) and dims[0].dim_param}
    if len(symbols) != 1:
        return
    symbol = re.compile(rf"\b{re.escape(symbols.pop())}\b")
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = symbol.sub("batch", dim.dim_param)


def simplify(data: bytes) -> Simplified:
    """onnxsim's version of the model, made in a child process with a time limit."""
    child = Path(__file__).with_name("simplify_child.py")
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
        given.write_bytes(data)
        try:
            done = subprocess.run(
                [sys.executable, "-P", str(child), str(given), str(made)],
                capture_output=True,
                text=True,
                timeout=SIMPLIFY_SECONDS,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Simplified(None, f"onnxsim took longer than {SIMPLIFY_SECONDS} s")
        if done.returncode != 0 or not made.exists():
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            return Simplified(None, f"onnxsim failed: {last[:200]}")
        return Simplified(tidy(onnx.load_model_from_string(made.read_bytes())))


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress and logs its internals; the report says what matters."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
