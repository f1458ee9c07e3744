"""What this machine can do at best, measured in ONNX Runtime itself.

The roofline model: S. Williams, A. Waterman, D. Patterson, "Roofline: An Insightful Visual
Performance Model for Multicore Architectures", 2009.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compressor.onnx.sessions import opened, options

SIDE = 768
"""Of the matrices: 1.8 MB each, so that blocks fit the caches and the work is large."""
NUMBERS = 1 << 24
"""Of the copy: 64 MiB read and as many written, more than any cache."""
SMALLEST = 4e-6
"""Seconds that a call costs whatever it does."""


@dataclass(frozen=True)
class Roofline:
    """Multiply-accumulates, and bytes, a second."""

    macs: float
    bytes: float

    def seconds(self, macs: float, moved: float) -> float:
        """The least time for so much work."""
        return max(macs / self.macs, moved / self.bytes)

    def computes(self, macs: float, moved: float) -> bool:
        """Whether the arithmetic is the limit, and not the memory."""
        return macs / self.macs >= moved / self.bytes


def measure(threads: int = 1, repeats: int = 10) -> Roofline:
    """The best of `repeats` runs on the CPU: of a matrix product or a convolution, whichever
    multiplies more a second, and of a negation of a long array."""
    square = np.random.default_rng(0).standard_normal((SIDE, SIDE)).astype(np.float32)
    images, filters = np.ones((1, 64, 64, 64), np.float32), np.ones((64, 64, 3, 3), np.float32)
    line = np.ones(NUMBERS, np.float32)
    product = _best("MatMul", {"a": square}, {"b": square}, threads, repeats)
    convolved = _best("Conv", {"a": images}, {"b": filters}, threads, repeats, pads=[1] * 4)
    moved = _best("Neg", {"a": line}, {}, threads, repeats)
    macs = max(SIDE**3 / product, images.size * filters[0].size / convolved)
    return Roofline(macs=macs, bytes=2 * line.nbytes / moved)


def _best(
    op: str,
    arrays: dict[str, np.ndarray],
    constants: dict[str, np.ndarray],
    threads: int,
    repeats: int,
    **attributes: Any,
) -> float:
    import onnxruntime as ort

    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
        for name, array in arrays.items()
    ]
    shape = next(iter(arrays.values())).shape
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    node = helper.make_node(op, [*arrays, *constants], ["y"], **attributes)
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([node], op, inputs, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    session = opened(model.SerializeToString(), op, options(threads))
    binding = session.io_binding()
    for name, array in arrays.items():
        binding.bind_cpu_input(name, array)
    binding.bind_ortvalue_output("y", ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32))
    took = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        took.append(time.perf_counter() - start)
    return min(took[1:])
