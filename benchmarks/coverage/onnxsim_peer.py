"""onnxsim's structured pruning at half of the channels, on the ONNX file that we export.

It gives no record of what it removed; that is read off the initialisers, whose values are made
distinct first. Then the same slices are set to zero in the original file, and both run in ONNX
Runtime in float32; or our own surgery takes the same channels, for norms that count what is left.
"""

import contextlib
import time
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import nn

from benchmarks.coverage.oracle import (
    TOLERANCES,
    Unequal,
    difference,
    kept_elements,
    run,
    told_apart,
    twin,
)
from compressor import passes
from compressor.loading.calls import as_call
from compressor.onnx.export import export
from compressor.onnx.runtime import OnnxModel

TOLERANCE = TOLERANCES[torch.float32]


def attempt(model: nn.Module, inputs: Any) -> dict[str, Any]:
    """Share of parameters gone, difference and seconds; or why it failed, or is not equal."""
    import onnxsim

    call = as_call(inputs)
    program = passes.capture(model, *call)
    original = distinct(onnx.load_from_string(export(program)))
    start = time.process_time()
    try:
        pruned = onnxsim.apply_structured_pruning(original, 0.5)
        found = _run(pruned, program, call)
    except Exception as error:  # whatever the peer, or ONNX Runtime on its result, raises
        why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        return {"setting": "structured", "raised": why, "seconds": time.process_time() - start}
    before, after = _weights(original), _weights(pruned)
    row = {
        "setting": "structured",
        "seconds": time.process_time() - start,
        "params_gone": 1 - _count(after) / max(_count(before), 1),
    }
    try:
        kept = kept_elements(before, after)
    except Unequal as error:
        return row | {"unequal": str(error)}
    gap = difference(_run(_silent(original, before, kept), program, call), found)
    if not gap <= TOLERANCE:  # norms may count the channels that are left
        with contextlib.suppress(Unequal):
            gap = min(gap, difference(run(twin(model, inputs, kept), inputs), found))
    if not gap <= TOLERANCE:
        return row | {"unequal": f"differs by {gap:.1e} from the original with silent channels"}
    return row | {"proof": gap}


def distinct(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with no value twice in any weight: equal ones are moved to the next number."""
    for one in model.graph.initializer:
        array = numpy_helper.to_array(one)
        if not _is_weight(array) or len(np.unique(array)) < array.size // 2:
            continue  # a mask or a constant
        one.CopyFrom(numpy_helper.from_array(told_apart(array), one.name))
    return model


def _weights(model: onnx.ModelProto) -> dict[str, torch.Tensor]:
    arrays = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    return {
        name: torch.from_numpy(array.copy()) for name, array in arrays.items() if _is_weight(array)
    }


def _is_weight(array: np.ndarray) -> bool:
    return array.dtype in (np.float16, np.float32, np.float64) and array.size > 1


def _count(weights: dict[str, torch.Tensor]) -> int:
    return sum(one.numel() for one in weights.values())


def _silent(model: onnx.ModelProto, before: dict[str, Any], kept: Any) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for one in copy.graph.initializer:
        if one.name in kept:
            zeroed = before[one.name] * kept[one.name]
            one.CopyFrom(numpy_helper.from_array(zeroed.numpy(), one.name))
    return copy


def _run(model: onnx.ModelProto, program: passes.Program, call: Any) -> list[torch.Tensor]:
    args, kwargs = call
    onnxruntime.set_default_logger_severity(4)
    found = OnnxModel(model.SerializeToString(), program)(*args, **kwargs)
    leaves = torch.utils._pytree.tree_leaves(found)
    return [one if isinstance(one, torch.Tensor) else torch.as_tensor(one) for one in leaves]
