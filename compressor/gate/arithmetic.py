"""How many multiply-accumulates an ONNX model makes in one run: counted, or refused.

    If       the dearer branch, unless its condition is fixed
    Loop     as often as it runs: a fixed number of times, or it is refused
    Scan     once for each step
    functions of the model are put in where they are called

The sizes are those of one run (`values`), the rules of single operators are in `operators`. What is
in no table may multiply, and is refused: a limit that does not see something is no limit.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, inliner

from compressor.base.messages import reason
from compressor.onnx.model_files import parsed, safe
from compressor.passes.base.errors import UsageError
from compressor.storage.files import read_file

from .operators import RULES, NodeCall, domain_of, idle, named
from .values import Values

OTHERWISE = "limit latency, file size or a metric instead of the arithmetic"


def macs(
    paths: Mapping[str, Path], batch: int, inputs: Mapping[str, np.ndarray] | None = None
) -> dict[str, int]:
    """Multiply-accumulates of one run of each model, by name, all for the same inputs.

    They are of the sizes of `inputs`, else those that any of the models fixes; `batch` is the first
    size of an input that is free in all of them. Raises UsageError where an operator, a size or the
    number of its runs is not known.
    """
    models = {name: _inlined(path) for name, path in paths.items()}
    given = _inputs(list(models.values()))
    sizes = {name: _sizes(values, batch) for name, values in given.items()}
    sizes |= {name: list(one.shape) for name, one in (inputs or {}).items()}
    found = {}
    for name, model in models.items():
        own = _inputs([model])
        types = {one: _typed(values[0], sizes[one]) for one, values in own.items()}
        found[name] = count(model.graph, Values(model, types, paths[name].parent))
    return found


def _inlined(path: Path) -> onnx.ModelProto:
    """A model without functions of its own."""
    if path.suffix == ".ort":
        raise UsageError(f"the arithmetic of {path} cannot be counted", why="it is no ONNX file")
    model = parsed(read_file(safe(path)), path)
    if not model.functions:
        return model
    for one in model.functions:
        if domain_of(one) in RULES or one.domain.startswith(("ai.onnx", "com.ms", "com.microsoft")):
            name = ".".join(filter(None, (one.domain, one.name)))
            raise UsageError(
                f"{path} has a function that is called {name}",
                why="ONNX Runtime has operators of that domain, and may run one instead",
                hint=f"give the function a domain of its own, or {OTHERWISE}",
            )
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # of onnx's own, in C++
        raise UsageError(
            f"the functions of {path} cannot be put in where they are called",
            why=reason(error)[:300],
            hint=OTHERWISE,
        ) from error


def _inputs(models: Sequence[onnx.ModelProto]) -> dict[str, list[onnx.ValueInfoProto]]:
    """What has to be given, by name, of each model that takes it; weights are there already."""
    found: dict[str, list[onnx.ValueInfoProto]] = {}
    for model in models:
        own = {one.name for one in model.graph.initializer}
        for one in model.graph.input:
            if one.name not in own:
                found.setdefault(one.name, []).append(one)
    return found


def _sizes(values: Sequence[onnx.ValueInfoProto], batch: int) -> list[int]:
    """Of an input that these models take; 0 is a size that none of them fixes."""
    shapes = [[dim.dim_value for dim in one.type.tensor_type.shape.dim] for one in values]
    if any(len(shape) != len(shapes[0]) for shape in shapes):
        raise UsageError(f"the models do not take the same input {values[0].name!r}")
    found = [max(0, *pair) for pair in zip(*shapes, strict=True)]
    if found and not found[0]:
        found[0] = batch
    return found


def _typed(value: onnx.ValueInfoProto, sizes: Sequence[int]) -> onnx.TypeProto:
    """The type of an input of these sizes."""
    known = [one or None for one in sizes]
    return helper.make_tensor_type_proto(value.type.tensor_type.elem_type, known)


def count(graph: onnx.GraphProto, values: Values) -> int:
    """Multiply-accumulates of a graph with what is within it."""
    return sum(_of_node(node, values) for node in graph.node)


def _of_node(node: onnx.NodeProto, values: Values) -> int:
    if idle([node]):
        return 0
    domain = domain_of(node)
    within = CONTROL.get(node.op_type) if not domain else None
    rule = RULES.get(domain, {}).get(node.op_type)
    call = NodeCall(node, values.shape, values.constant)
    try:
        if within is not None:
            return within(call, values)
        if rule is not None:
            return rule(call)
    except UsageError as error:
        if error.hint:  # it says all there is to say
            raise
        raise UsageError(
            f"the multiply-accumulates of {named(node)} are not known",
            why=". ".join(filter(None, (error.what, error.why))),
            hint=f"export with fixed sizes, or {OTHERWISE}",
        ) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"the multiply-accumulates of {named(node)} are not known",
            why=f"its sizes and attributes do not fit together ({reason(error)})",
            hint=OTHERWISE,
        ) from error
    raise UsageError(
        f"the multiply-accumulates of {named(node)} are not known",
        why="no rule says what this operator multiplies",
        hint=OTHERWISE,
    )


# ------------------------------------------------------------------------ graphs within graphs


def _graph(call: NodeCall, name: str) -> onnx.GraphProto:
    found = call.attribute(name)
    if not isinstance(found, onnx.GraphProto):
        raise UsageError(f"it has no {name}")
    return found


def _either(call: NodeCall, values: Values) -> int:
    """Of If: the dearer branch; one that is never taken counts as none."""
    branches = {
        True: _graph(call, "then_branch"),
        False: _graph(call, "else_branch"),
    }
    condition = values.constant(call.node.input[0])
    if condition is not None and condition.size == 1:
        branches = {True: branches[bool(condition.item())]}
    return max(count(one, values.inner(one, {})) for one in branches.values())


def _again(call: NodeCall, values: Values) -> int:
    """Of Loop: its body, times a number of runs that nothing in it can change."""
    body = _graph(call, "body")
    if idle(body.node):
        return 0
    times = values.constant(call.node.input[0]) if call.has(0) else None
    start = values.constant(call.node.input[1]) if call.has(1) else np.asarray(True)
    if times is None or times.size != 1 or start is None or not _goes_on(body):
        raise UsageError(
            f"how often {named(call.node)} runs is not known",
            why="it depends on the data, or on a condition",
            hint=f"give it a fixed number of runs, or {OTHERWISE}",
        )
    runs = max(int(times.item()), 0) if bool(start.item()) else 0
    counter, condition = body.input[0].name, body.input[1].name
    types = {
        counter: helper.make_tensor_type_proto(onnx.TensorProto.INT64, []),
        condition: helper.make_tensor_type_proto(onnx.TensorProto.BOOL, []),
    }
    names = [one.name for one in body.input[2:]]
    carried = dict(zip(names, call.node.input[2:], strict=True))
    ends = dict(zip(names, (one.name for one in body.output[1:]), strict=False))
    types |= {name: values.type_of(outer) for name, outer in carried.items()}
    return runs * _steady(body, values, types, ends) if runs else 0


def _goes_on(body: onnx.GraphProto) -> bool:
    """Whether the condition that a body gives is the one that it gets, or always true."""
    made = {name: node for node in body.node for name in node.output}
    name = body.output[0].name
    while (node := made.get(name)) is not None and node.op_type in ("Identity", "Cast"):
        name = node.input[0]
    if name == body.input[1].name:
        return True
    tensors = [one for one in body.initializer if one.name == name]
    if node is not None and node.op_type == "Constant":
        tensors = [one.t for one in node.attribute if one.HasField("t")]
    return bool(tensors) and bool(onnx.numpy_helper.to_array(tensors[0]).all())


def _each(call: NodeCall, values: Values) -> int:
    """Of Scan: its body, once for each step along the scanned axis."""
    body = _graph(call, "body")
    scanned = call.attribute("num_scan_inputs")
    names = [one.name for one in body.input]
    if len(call.node.input) != len(names):
        raise UsageError("it is a Scan of before opset 9, which has a batch of its own")
    axes = call.attribute("scan_input_axes") or [0] * scanned
    states = len(names) - scanned
    ends = dict(zip(names[:states], (one.name for one in body.output), strict=False))
    types, steps = {}, 0
    for at, (name, outer) in enumerate(zip(names, call.node.input, strict=True)):
        found = values.type_of(outer)
        if at >= states:
            shape = list(values.shape(outer))
            steps = shape.pop(axes[at - states])
            found = helper.make_tensor_type_proto(found.tensor_type.elem_type, shape)
        types[name] = found
    return steps * _steady(body, values, types, ends) if steps else 0


def _steady(
    body: onnx.GraphProto,
    values: Values,
    types: dict[str, onnx.TypeProto],
    ends: Mapping[str, str],
) -> int:
    """Of a body whose sizes are the same in every run.

    `ends` says under which name a value that is carried on leaves. One that leaves with another
    size than it came with has no size that is known.
    """
    types = dict(types)
    while True:
        inner = values.inner(body, types)
        changed = [name for name, end in ends.items() if _grows(inner, types[name], end)]
        if not changed:
            return count(body, inner)
        for name in changed:
            types[name].tensor_type.ClearField("shape")


def _grows(inner: Values, before: onnx.TypeProto, end: str) -> bool:
    """Whether a value leaves with other sizes than it came with."""
    if not before.tensor_type.HasField("shape"):
        return False  # nothing is said of it any more
    try:
        after = inner.shape(end)
    except UsageError:
        return True
    return after != tuple(one.dim_value for one in before.tensor_type.shape.dim)


CONTROL: Mapping[str, Callable[[NodeCall, Values], int]] = {
    "If": _either,
    "Loop": _again,
    "Scan": _each,
}
