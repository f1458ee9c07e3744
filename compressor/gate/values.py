"""The sizes of the values of an ONNX graph, and those values that no input can change.

inferred    by onnx, from the inputs and the weights alone: what a file says of values between
            them is not believed
tried       what onnx does not know (operators of ONNX Runtime's own, shapes that are computed):
            by running the graph on several made-up inputs; where that gives several sizes, they
            depend on the data, and are not known
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compressor.base.messages import reason
from compressor.onnx.model_files import LARGEST, inner
from compressor.onnx.sessions import Refused, errors, opened, options
from compressor.passes.base.errors import UsageError

from .operators import Shape, domain_of

SMALL = 1024
"""Numbers that sizes may be computed from; larger tensors are weights."""

RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
     "RandomUniformLike", "Dropout"}
)  # fmt: skip

FEEDS: tuple[Callable[[np.random.Generator, Shape], np.ndarray], ...] = (
    lambda generator, shape: generator.standard_normal(shape),
    lambda generator, shape: -generator.standard_normal(shape),
    lambda _, shape: np.zeros(shape),
)
"""What is tried: whatever depends on the data should differ between them."""


class Values:
    """What is known of the values of one graph.

    `inputs` are the types of its formal inputs, as far as they are known; `folder` is that of its
    external data. `outer` is the graph around it, whose values it may use.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        inputs: Mapping[str, onnx.TypeProto],
        folder: Path,
        outer: "Values | None" = None,
    ) -> None:
        self.graph, self._model, self._folder, self._outer = model.graph, model, folder, outer
        self._inputs = dict(inputs)
        self._captured = [] if outer is None else sorted(free_names(self.graph))
        self._tried: dict[str, list[np.ndarray]] = {}

    # -------------------------------------------------------------------------------- questions

    def shape(self, name: str) -> Shape:
        """The sizes of a value. Raises UsageError where they are not known."""
        found = _sizes(self._types.get(name))
        if found is None and name in self._captured and self._outer is not None:
            return self._outer.shape(name)
        if found is None:
            shapes = {one.shape for one in self._try(name)}
            if len(shapes) != 1:
                raise UsageError(
                    f"the size of {name!r} depends on the data",
                    why=f"it was {' and '.join(map(str, sorted(shapes)))}",
                )
            (found,) = shapes
        return found

    def type_of(self, name: str) -> onnx.TypeProto:
        """Element type and sizes. Raises UsageError where they are not known."""
        if name in self._captured and self._outer is not None:
            return self._outer.type_of(name)
        known = self._types.get(name)
        shape = self.shape(name)
        if known is not None and known.tensor_type.elem_type:
            kind = known.tensor_type.elem_type
        else:
            kind = helper.np_dtype_to_tensor_dtype(self._try(name)[0].dtype)
        return helper.make_tensor_type_proto(kind, shape)

    def constant(self, name: str) -> np.ndarray | None:
        """The value, where it is the same whatever the inputs are; else None."""
        if name in self._captured and self._outer is not None:
            return self._outer.constant(name)
        if name in self._literals:
            return self._literals[name]
        if name not in self._fixed:
            return None
        first, *others = self._try(name)
        return first if all(np.array_equal(first, one) for one in others) else None

    def inner(self, graph: onnx.GraphProto, inputs: Mapping[str, onnx.TypeProto]) -> "Values":
        """Those of a graph within this one, whose formal inputs are of these types."""
        model = onnx.ModelProto(ir_version=self._model.ir_version)
        model.opset_import.extend(self._model.opset_import)
        model.graph.CopyFrom(graph)
        return Values(model, inputs, self._folder, self)

    # --------------------------------------------------------------------------------- answers

    @cached_property
    def _overridden(self) -> set[str]:
        """Initialisers that are inputs as well: whoever calls the model may give others."""
        late = self._model.ir_version >= 4
        return {one.name for one in self.graph.input} if late else set()

    @cached_property
    def _literals(self) -> dict[str, np.ndarray]:
        """Small tensors that are written into the graph."""
        tensors = [one for one in self.graph.initializer if one.name not in self._overridden]
        found = {one.name: one for one in tensors}
        for node in self.graph.node:
            for attribute in node.attribute if node.op_type == "Constant" else ():
                if attribute.HasField("t"):
                    found[node.output[0]] = attribute.t
        return {
            name: numpy_helper.to_array(one, str(self._folder))
            for name, one in found.items()
            if np.prod(one.dims, dtype=object) <= SMALL
        }

    @cached_property
    def _fixed(self) -> set[str]:
        """What is computed of literals and sizes alone."""
        found = {one.name for one in self.graph.initializer} - self._overridden
        for node in self.graph.node:
            known = node.op_type in ("Shape", "Size") or all(
                name in found for name in node.input if name
            )
            if known and not inner([node]) and node.op_type not in RANDOM and not domain_of(node):
                found |= set(node.output)
        return found

    @cached_property
    def _types(self) -> dict[str, onnx.TypeProto]:
        """As inferred; of what is not in it nothing is known."""
        light = self._light()
        _forget(light.graph)
        if light.ByteSize() > LARGEST:
            raise UsageError("the graph is too large", why="it has more than 2 GB of constants")
        try:
            graph = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
            raise UsageError("the sizes of the graph are not known", why=reason(error)) from error
        found = {one.name: one.type for one in (*graph.input, *graph.value_info)}
        for one in graph.initializer:
            found[one.name] = helper.make_tensor_type_proto(one.data_type, one.dims)
        return found

    def _light(self) -> onnx.ModelProto:
        """The graph by itself: weights and values of the graphs around it are inputs."""
        light = onnx.ModelProto(ir_version=self._model.ir_version)
        light.opset_import.extend(self._model.opset_import)
        graph = light.graph
        graph.name = self.graph.name or "graph"
        weights = {name: one for name, one in _weights(self.graph) if name not in self._literals}
        graph.initializer.extend(
            numpy_helper.from_array(one, name) for name, one in self._given_literals().items()
        )
        graph.node.extend(
            node
            for node in self.graph.node
            if not (node.op_type == "Constant" and node.output[0] in weights)
        )
        types = {**self._inputs, **weights, **self._outer_types()}
        graph.input.extend(
            onnx.ValueInfoProto(name=name, type=one)
            for name, one in types.items()
            if name not in self._given_literals()
        )
        return light

    def _given_literals(self) -> dict[str, np.ndarray]:
        """Literals that are no nodes: initialisers, and those of the graphs around."""
        own = {one.name for one in self.graph.initializer}
        found = {name: one for name, one in self._literals.items() if name in own}
        if self._outer is not None:
            around = {name: self._outer.literal(name) for name in self._captured}
            found |= {name: one for name, one in around.items() if one is not None}
        return found

    def literal(self, name: str) -> np.ndarray | None:
        """A small tensor that is written into this graph or one around it."""
        if name in self._captured and self._outer is not None:
            return self._outer.literal(name)
        return self._literals.get(name)

    def _outer_types(self) -> dict[str, onnx.TypeProto]:
        if self._outer is None:
            return {}
        return {name: self._outer.type_of(name) for name in self._captured}

    def _try(self, name: str) -> list[np.ndarray]:
        """The value for each of `FEEDS`."""
        if name not in self._tried:
            made = [one for node in self.graph.node for one in node.output if one]
            unknown = {one for one in made if _sizes(self._types.get(one)) is None}
            self._tried |= self._run(sorted(unknown | {name}))
        return self._tried[name]

    def _run(self, names: list[str]) -> dict[str, list[np.ndarray]]:
        """Run the graph for these values of it. Raises UsageError where it does not run."""
        import onnxruntime as ort

        wanted = options()
        wanted.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        place = "session.model_external_initializers_file_folder_path"
        wanted.add_session_config_entry(place, str(self._folder))
        try:
            session = opened(self._runnable(names), names[0], wanted)
            found = [session.run(names, feed) for feed in self._feeds(session)]
        except errors(Refused, RuntimeError, ValueError, TypeError) as error:
            why = reason(error.__cause__ or error)
            raise UsageError(
                f"the size of {names[0]!r} is not known",
                why=f"onnx does not infer it, and it does not run: {why}",
            ) from error
        return {name: [one[at] for one in found] for at, name in enumerate(names)}

    def _runnable(self, names: list[str]) -> bytes:
        """The graph with these values as its outputs; of a graph within another, without weights
        of that."""
        model = onnx.ModelProto()
        model.CopyFrom(self._light() if self._outer is not None else self._model)
        model.graph.ClearField("output")
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        if model.ByteSize() > LARGEST:
            raise UsageError("the model is too large to be tried", why="it has more than 2 GB")
        return bytes(model.SerializeToString())

    def _feeds(self, session: Any) -> Iterator[dict[str, np.ndarray]]:
        """Made-up inputs of the sizes that are known."""
        generator = np.random.default_rng(0)
        for make in FEEDS:
            feed = {}
            for one in session.get_inputs():
                kind = self._types[one.name].tensor_type.elem_type
                shape = _sizes(self._types[one.name])
                if shape is None:
                    raise UsageError(f"the size of the input {one.name!r} is not fixed")
                dtype = helper.tensor_dtype_to_np_dtype(kind)
                numbers = np.asarray(make(generator, shape))
                if dtype.kind in "iub":
                    numbers = np.abs(numbers) > 0.5
                feed[one.name] = np.asarray(numbers, dtype)
            yield feed


# ------------------------------------------------------------------------------------ of graphs


def free_names(graph: onnx.GraphProto) -> set[str]:
    """What a graph and those within it use, and do not define."""
    own = {one.name for one in (*graph.input, *graph.initializer)}
    own |= {one.values.name for one in graph.sparse_initializer}
    own |= {name for node in graph.node for name in node.output}
    used = {name for node in graph.node for name in node.input if name}
    used |= {one.name for one in graph.output}
    return used.union(*map(free_names, inner(graph.node))) - own


def _weights(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TypeProto]]:
    """Tensors that are written into the graph, with their types."""
    for one in graph.initializer:
        yield one.name, helper.make_tensor_type_proto(one.data_type, one.dims)
    for one in graph.sparse_initializer:
        yield one.values.name, helper.make_tensor_type_proto(one.values.data_type, one.dims)
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.HasField("t"):
                kind, dims = attribute.t.data_type, attribute.t.dims
                yield node.output[0], helper.make_tensor_type_proto(kind, dims)
            if attribute.HasField("sparse_tensor"):
                values = attribute.sparse_tensor.values
                dims = attribute.sparse_tensor.dims
                yield node.output[0], helper.make_tensor_type_proto(values.data_type, dims)


def _forget(graph: onnx.GraphProto) -> None:
    """What a graph says of the sizes of values, in graphs within it too."""
    for one in inner(graph.node):
        one.ClearField("value_info")
        for value in (*one.input, *one.output):
            value.type.tensor_type.ClearField("shape")
        _forget(one)


def _sizes(kind: onnx.TypeProto | None) -> Shape | None:
    """The sizes of a tensor, where all of them are known."""
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    if not all(one.HasField("dim_value") and one.dim_value >= 0 for one in dims):
        return None
    return tuple(one.dim_value for one in dims)
