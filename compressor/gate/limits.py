"""Other limits of a check: multiply-accumulates, and metrics of the user's own."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compressor.limit import LEAST, run_within
from compressor.passes.errors import UsageError

Pairs = dict[str, dict[str, float]]


def macs(path: Path, batch: int) -> int:
    """Multiply-accumulates of convolutions and matrix products, by the shapes of the graph.

    Raises UsageError where a shape of one of them is not known.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    for one in model.graph.input:
        first = one.type.tensor_type.shape.dim[:1]
        if first and not first[0].HasField("dim_value"):
            first[0].dim_value = batch
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {one.name: tuple(one.dims) for one in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return sum(_macs(node, shapes) for node in graph.node)


def _macs(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    x, weight, out = (shapes.get(name, ()) for name in (*node.input[:2], node.output[0]))
    if not all((*x, *weight, *out)) or not (x and weight and out):
        raise UsageError(
            f"the multiply-accumulates of {node.name or node.op_type} are not known",
            why=f"its sizes are {x}, {weight} and {out}; 0 is one that is not fixed",
            hint="export with fixed sizes, or limit latency and file size alone",
        )
    if node.op_type == "Conv":
        return math.prod(out) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(x) * math.prod(weight[1:])
    turned = any(one.name == "transA" and one.i for one in node.attribute)
    return math.prod(out) * (x[-2] if turned else x[-1])


def metrics(new: Path, baseline: Path, wanted: Sequence[str], time_limit: float = LEAST) -> Pairs:
    """Every metric of both files, by ``path/file.py:callable``, which gets a `predict`.

    `predict` takes what the ONNX model takes, by position or by name, as tensors or arrays, and
    gives tensors: one, or a tuple. Raises UsageError for what is no callable, and for a run that
    takes more than `time_limit` seconds.
    """
    from compressor.evaluate import compared, evaluations

    for one in wanted:
        if ":" not in one:
            raise UsageError(
                f"{one!r} cannot be measured on files alone",
                hint="give path/file.py:callable, which gets predict and returns a number",
            )
    return compared(
        evaluations(wanted, None), predictor(baseline, time_limit), predictor(new, time_limit)
    )


def predictor(model: Path, time_limit: float = LEAST) -> Callable[..., Any]:
    """A function that runs an ONNX file."""
    import onnxruntime as ort
    import torch

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises classes of its own
        raise UsageError(
            f"ONNX Runtime cannot load {model}", why=str(error).strip().splitlines()[0][:300]
        ) from error
    names = [one.name for one in session.get_inputs()]

    def predict(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        if given.keys() != set(names) or len(args) > len(names):
            raise UsageError(
                f"{model.name} takes {', '.join(names)}",
                why=f"{len(args)} inputs by position and {list(kwargs)} by name were given",
            )
        feed = {
            name: value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
            for name, value in given.items()
        }
        outputs = run_within(session, feed, time_limit, model.name)
        found = [torch.from_numpy(np.asarray(one)) for one in outputs]
        return found[0] if len(found) == 1 else tuple(found)

    return predict
