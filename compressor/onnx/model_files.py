"""ONNX files of strangers: what they name outside themselves, and how much they claim to hold.

    safe(path)              the path, after a look: external data stays in the model's folder
    read(path)              the whole model as one serialized proto, external data taken in
    held(files, name)       the same of files that are in memory: nothing is read from the disk
    external_files(path)    what belongs to the model beside its file

ONNX Runtime and onnx follow what a model names as the place of its tensors. A place that is
absolute, that has `..` in it, or that is a link leads to files that have nothing to do with the
model, so it is refused before anything is opened; so are tensors whose sizes do not fit their data,
before memory is taken for them.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.base.messages import reason
from compressor.base.untrusted import inside
from compressor.passes.base.errors import UsageError
from compressor.storage.files import read_file

if TYPE_CHECKING:
    import onnx

LARGEST = 2_147_483_647
"""Protocol buffers end there."""
DEEPEST = 50
"""Graphs within graphs."""


def safe(path: Path) -> Path:
    """The path of an ONNX file that names nothing outside its folder. Raises UsageError."""
    if path.suffix != ".ort":  # ONNX Runtime's own format has everything in one file
        try:
            stat = path.stat()
        except OSError as error:
            raise UsageError(f"cannot read {path}", why=error.strerror or str(error)) from error
        _looked_at(path, stat.st_mtime_ns, stat.st_size)
    return path


def read(path: Path) -> bytes:
    """A model with all its tensors, as bytes. Raises UsageError where it is too large."""
    from onnx.external_data_helper import load_external_data_for_model, uses_external_data

    data = read_file(safe(path))
    model = parsed(data, path)
    if not any(uses_external_data(one) for one in tensors(model)):
        return data
    load_external_data_for_model(model, str(path.parent))
    if model.ByteSize() > LARGEST:
        raise UsageError(f"{path} has more than 2 GB of tensors", why="it has to fit in one file")
    return bytes(model.SerializeToString())


def external_files(path: Path) -> frozenset[Path]:
    """Files outside the model that its tensors name, wherever in it they are: each once.

    Raises UsageError where one is not there.
    """
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    if path.suffix == ".ort":  # ONNX Runtime's own format has everything in one file
        return frozenset()
    model = parsed(read_file(path), path)
    check(model, path)
    outside = filter(uses_external_data, tensors(model))
    found = {path.parent / inside(ExternalDataInfo(one).location) for one in outside}
    if missing := sorted(one.name for one in found if not one.is_file()):
        raise UsageError(f"{path} names data that are not there", where=missing[0])
    return frozenset(found)


@lru_cache(maxsize=64)
def _looked_at(path: Path, changed: int, size: int) -> None:
    """Once for each state of a file."""
    if size > LARGEST:
        raise UsageError(f"{path} is no ONNX file", why=f"it has {size:,} bytes")
    model = parsed(read_file(path), path)
    try:
        _read_names(model)
        check(model, path)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not an ONNX file", why=reason(error)) from error


def _read_names(model: "onnx.ModelProto") -> None:
    """Raises UnicodeDecodeError where a name of an input, an output or a size is no text."""
    for value in (*model.graph.input, *model.graph.output):
        for text in (value.name, *(dim.dim_param for dim in value.type.tensor_type.shape.dim)):
            if isinstance(text, bytes):  # protobuf's answer where it is not UTF-8
                text.decode()


def parsed(data: bytes, path: Path) -> "onnx.ModelProto":
    """The model in `data`, without its external data."""
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise UsageError(
            f"{path} is not an ONNX file",
            why=reason(error),
            hint="give an ONNX file, with its external data beside it",
        ) from error
    return model


@dataclass(frozen=True)
class Held:
    """A model in memory, and files with tensors of it where they are too large to be in it."""

    data: bytes
    beside: Mapping[str, bytes]
    kinds: frozenset[int]
    """Types of the numbers in it, by onnx's numbers."""

    def lend(self, options: Any) -> None:
        """Give the files beside the model to the options of a session of ONNX Runtime."""
        if not self.beside:
            return
        if not hasattr(options, "add_external_initializers_from_files_in_memory"):
            raise UsageError(
                "this onnxruntime cannot take tensors of more than 2 GB from memory",
                hint="pip install --upgrade onnxruntime",
            )
        options.add_external_initializers_from_files_in_memory(
            list(self.beside), list(self.beside.values()), list(map(len, self.beside.values()))
        )


def held(files: Mapping[str, bytes], name: str, largest: int = LARGEST) -> Held:
    """A model whose external data are among `files`. Raises UsageError as `safe` does.

    What fits is taken in. Beyond that tensors of the main graph stay where they are: the runtime is
    given their files by name.
    """
    from onnx.external_data_helper import uses_external_data

    path = Path(name)
    model = parsed(files[name], path)
    try:
        _read_names(model)
        check(model, path, {place: len(data) for place, data in files.items()})
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not an ONNX file", why=reason(error)) from error
    every = list(tensors(model))
    kinds = frozenset({one.data_type for one in every} | set(_types(model)))
    outside = [one for one in every if uses_external_data(one)]
    if not outside:
        return Held(files[name], {}, kinds)
    stay: list[onnx.TensorProto] = []
    if model.ByteSize() + sum(len(_bytes_of(one, files)) for one in outside) > largest:
        main = len(model.graph.initializer)  # they come first
        stay = [one for one in every[:main] if uses_external_data(one)]
        outside = [one for one in every[main:] if uses_external_data(one)]
    for tensor in outside:
        tensor.raw_data = bytes(_bytes_of(tensor, files))
        tensor.data_location = tensor.DEFAULT
        del tensor.external_data[:]
    beside = {place: files[place] for place in dict.fromkeys(_place(one)[0] for one in stay)}
    return Held(bytes(model.SerializeToString()), beside, kinds)


def _bytes_of(tensor: "onnx.TensorProto", files: Mapping[str, bytes]) -> memoryview:
    place, offset, length = _place(tensor)
    whole = memoryview(files[place])[offset:]
    return whole[:length] if length else whole


def check_alone(data: bytes) -> None:
    """Raise UsageError for a model that takes data from outside its bytes, or is none."""
    held({"model.onnx": data}, "model.onnx")


def _types(model: "onnx.ModelProto") -> Iterator[int]:
    """Of the inputs and outputs."""
    for value in (*model.graph.input, *model.graph.output):
        yield value.type.tensor_type.elem_type


def check(model: "onnx.ModelProto", path: Path, files: Mapping[str, int] | None = None) -> None:
    """Raise UsageError for a tensor outside the model's folder, or of a size that is not there.

    `files` are the sizes of what is there, by name, where it is not to be looked for on the disk.
    """
    from onnx.external_data_helper import uses_external_data

    for tensor in tensors(model):
        if uses_external_data(tensor):
            _check_place(tensor, path, files)
        elif tensor.HasField("raw_data"):
            _check_size(tensor, len(tensor.raw_data), path)
        elif any(n < 0 for n in tensor.dims):
            raise _odd(tensor, path, f"its sizes are {list(tensor.dims)}")


def _place(tensor: "onnx.TensorProto") -> tuple[str, int, int]:
    """File, offset and length; 0 for a length that is not said. Raises ValueError."""
    entries = {one.key: one.value for one in tensor.external_data}
    place, offset = entries.get("location", ""), int(entries.get("offset") or 0)
    try:
        inside(place)
    except ValueError as error:
        raise ValueError(f"its data are said to be outside the folder: {error}") from error
    length = int(entries.get("length") or 0)
    if offset < 0 or length < 0:
        raise ValueError(f"it is said to be at {offset:,} and to have {length:,} bytes")
    return place, offset, length


def _check_place(tensor: "onnx.TensorProto", path: Path, files: Mapping[str, int] | None) -> None:
    try:
        place, offset, length = _place(tensor)
        there = _size_beside(tensor, path, place) if files is None else files.get(place)
    except (ValueError, OSError) as error:
        raise _odd(tensor, path, reason(error)) from error
    if there is None:
        raise _odd(tensor, path, f"there is no file {place!r} beside it")
    length = length or there - offset
    if offset + length > there or length < 0:
        raise _odd(
            tensor, path, f"{place!r} has {there:,} bytes, and it ends at {offset + length:,}"
        )
    _check_size(tensor, length, path)


def _size_beside(tensor: "onnx.TensorProto", path: Path, place: str) -> int | None:
    """Bytes of a file beside the model; None where there is none."""
    file = path.parent
    for step in inside(place).parts:
        file = file / step
        if file.is_symlink():
            raise _odd(tensor, path, f"its data are in {place!r}, which is a link")
    if not file.is_file():
        return None
    stat = file.stat()
    if stat.st_nlink > 1:
        raise _odd(tensor, path, f"{place!r} is a hard link, to a file of another name too")
    return stat.st_size


def _check_size(tensor: "onnx.TensorProto", there: int, path: Path) -> None:
    """What is declared is what is there: the runtime takes memory for what is declared."""
    bits = _BITS.get(tensor.data_type)
    if bits is None:
        return
    wanted = math.ceil(math.prod(tensor.dims) * bits / 8)
    if any(n < 0 for n in tensor.dims) or wanted != there:
        raise _odd(
            tensor,
            path,
            f"sizes {list(tensor.dims)} need {wanted:,} bytes, and {there:,} are there",
        )


_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64,
         14: 64, 15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4}  # fmt: skip
"""Bits of one element, by onnx's number of its type."""


def _odd(tensor: "onnx.TensorProto", path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path} has a tensor that cannot be read safely: {tensor.name[:80]!r}",
        why=why[:300],
        hint="save the model again, with its data in its own folder",
    )


def tensors(model: "onnx.ModelProto") -> Iterator["onnx.TensorProto"]:
    """Every tensor of a model, of its functions and of graphs within graphs too."""
    yield from _of_graph(model.graph, 0)
    for function in model.functions:
        yield from _of_attributes(function.attribute_proto, 0)  # their defaults
        yield from _of_nodes(function.node, 0)
    for step in model.training_info:
        yield from _of_graph(step.initialization, 0)
        yield from _of_graph(step.algorithm, 0)


def _of_graph(graph: "onnx.GraphProto", depth: int) -> Iterator["onnx.TensorProto"]:
    if depth > DEEPEST:
        raise UsageError("the model has graphs within graphs without an end")
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node, depth)


def _of_nodes(nodes: Any, depth: int) -> Iterator["onnx.TensorProto"]:
    for node in nodes:
        yield from _of_attributes(node.attribute, depth)


def _of_attributes(attributes: Any, depth: int) -> Iterator["onnx.TensorProto"]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for one in (*sparse, *attribute.sparse_tensors):
            yield from (one.values, one.indices)
        for graph in graphs_of(attribute):
            yield from _of_graph(graph, depth + 1)


def graphs_of(attribute: "onnx.AttributeProto") -> "list[onnx.GraphProto]":
    """Branches and bodies of loops that an attribute of a node holds."""
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def inner(nodes: "Iterable[onnx.NodeProto]") -> "list[onnx.GraphProto]":
    """The graphs that nodes run: of all their attributes."""
    return [graph for node in nodes for one in node.attribute for graph in graphs_of(one)]
