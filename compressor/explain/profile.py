"""Every operator of a loaded model, with its time, shapes and work.

ONNX Runtime's profile is of the graph that really runs: fused, and in the kernels' own layouts. It
is silent about weights that were packed for their kernel; these are read off that graph.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.base.messages import first_line
from compressor.bench.inputs import asked_inputs, random_feeds
from compressor.onnx.sessions import CPU, errors, opened, options
from compressor.passes.base.errors import UsageError
from compressor.process.temporary_folders import Scratch
from compressor.process.time_limit import LEAST, Limit

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]

_KERNEL = "_kernel_time"
_CONVS = ("Conv", "FusedConv", "ConvTranspose")
_MATRICES = ("MatMul", "FusedMatMul", "Gemm", "FusedGemm", "TransposeMatMul")


@dataclass(frozen=True)
class Operator:
    """One call of a kernel: the median over all runs, in seconds, and what it works on."""

    name: str
    kind: str
    provider: str
    seconds: float
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    bytes: int
    """Read and written: activations, weights, outputs."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Of its node in the graph that runs, by ONNX's names."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and matrix products; 0 for anything else."""
        if not self.outputs or len(self.inputs) < 2:
            return 0
        out = math.prod(self.outputs[0])
        if self.kind == "ConvTranspose":
            return math.prod(self.inputs[0]) * math.prod(self.inputs[1][1:])
        if self.kind in _CONVS:
            return out * math.prod(self.inputs[1][1:])
        if self.kind in _MATRICES and self.outputs[0] and self.inputs[0]:
            columns = self.outputs[0][-1]
            return out * (math.prod(self.inputs[1][-2:]) // max(columns, 1))
        return 0


def profile(
    model: bytes | Path,
    *,
    inputs: Mapping[str, np.ndarray] | None = None,
    batch: int = 1,
    threads: int = 1,
    providers: Sequence[str] | None = None,
    runs: int = 30,
    warmup: int = 5,
    seed: int = 0,
    time_limit: float = LEAST,
) -> list[Operator]:
    """Run the model `runs` times under ONNX Runtime's profiler: operators in the order they run.

    Raises UsageError for a model that cannot be loaded, inputs that do not fit it, or a run that
    takes more than `time_limit` seconds.
    """
    if runs < 1 or warmup < 0:
        raise UsageError(f"{runs} runs after {warmup}: there must be one at least")
    with Scratch() as scratch:
        wanted = options(threads, steady=True)
        cpu = list(providers or [CPU]) == [CPU]  # others may compile parts that cannot be written
        scratch.ask(wanted, graph=cpu)
        name = model.name if isinstance(model, Path) else "model"
        session = opened(model, name, wanted, providers or [CPU])
        scratch.begun()
        try:
            asked = asked_inputs(session)
            feeds = inputs or random_feeds(asked, batch, np.random.default_rng(seed))
            with Limit(time_limit) as limit:
                for _ in range(warmup + runs):
                    with limit.on(name):
                        session.run(None, dict(feeds), limit.options)
        except errors(RuntimeError, ValueError) as error:
            raise UsageError("ONNX Runtime cannot run this model", why=first_line(error)) from error
        events = scratch.events(session.end_profiling)
        nodes = _nodes(scratch.graph()) if cpu else {}
    return _operators(events, warmup, nodes)


@dataclass(frozen=True)
class _Node:
    """What a profile does not say: by name, sizes of constant inputs and attributes."""

    attributes: Mapping[str, Any]
    inputs: tuple[tuple[Shape, int] | None, ...]
    """Shape and bytes of a number, or None for what is computed."""

    def shapes(self, listed: tuple[Shape, ...]) -> tuple[tuple[Shape, ...], int]:
        """All shapes in their places, and the bytes of those that are not in the list."""
        constants = [one for one in self.inputs if one is not None]
        largest_first = sorted(constants, key=lambda one: -math.prod(one[0]))
        packed = largest_first[: len(self.inputs) - len(listed)]
        rest, found = iter(listed), list[Shape]()
        for one in self.inputs:
            found.append(one[0] if one in packed and one is not None else next(rest, ()))
        return tuple(found), sum(math.prod(shape) * size for shape, size in packed)


def _nodes(graph: Any) -> dict[str, _Node]:
    """The nodes of the graph that runs, by name."""
    import onnx

    known = {one.name: (tuple(one.dims), _bytes(onnx, one)) for one in graph.initializer}
    return {
        node.name: _Node(
            {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute},
            tuple(known.get(name) for name in node.input if name),
        )
        for node in graph.node
    }


def _bytes(onnx: Any, tensor: "onnx.TensorProto") -> int:
    return int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _operators(
    events: list[dict[str, Any]], warmup: int, nodes: Mapping[str, _Node]
) -> list[Operator]:
    """Median of each operator's times, without the first runs."""
    times: dict[str, list[int]] = defaultdict(list)
    first: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            key = f"{event['args'].get('node_index', '')} {event['name']}"
            first.setdefault(key, event)
            times[key].append(int(event["dur"]))
    return [_operator(event, times[key][warmup:], nodes) for key, event in first.items()]


def _operator(
    event: dict[str, Any], microseconds: list[int], nodes: Mapping[str, _Node]
) -> Operator:
    args = event["args"]
    name = event["name"].removesuffix(_KERNEL)
    sizes = ("activation_size", "parameter_size", "output_size")
    inputs, packed = _shapes(args.get("input_type_shape", [])), 0
    if (node := nodes.get(name)) is not None and len(inputs) < len(node.inputs):
        inputs, packed = node.shapes(inputs)
    return Operator(
        name=name,
        kind=args["op_name"],
        provider=args.get("provider", ""),
        seconds=statistics.median(microseconds) / 1e6 if microseconds else 0.0,
        inputs=inputs,
        outputs=_shapes(args.get("output_type_shape", [])),
        bytes=sum(int(args.get(size, 0)) for size in sizes) + packed,
        attributes={} if node is None else node.attributes,
    )


def _shapes(listed: list[dict[str, list[int]]]) -> tuple[Shape, ...]:
    return tuple(tuple(shape) for one in listed for shape in one.values())
