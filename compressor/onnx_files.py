"""ONNX files of strangers: what they name outside themselves, and how much they claim to hold.

    safe(path)              the path, after a look: external data stays in the model's folder
    read(path)              the whole model as one serialized proto, external data taken in
    external_files(path)    what belongs to the model beside its file

ONNX Runtime and onnx follow what a model names as the place of its tensors. A place that is
absolute, that has `..` in it, or that is a link leads to files that have nothing to do with the
model, so it is refused before anything is opened; so are tensors whose sizes do not fit their data,
before memory is taken for them.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.files import read_file
from compressor.load.words import reason
from compressor.outside import inside
from compressor.passes.errors import UsageError

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


def check(model: "onnx.ModelProto", path: Path) -> None:
    """Raise UsageError for a tensor outside the model's folder, or of a size that is not there."""
    from onnx.external_data_helper import uses_external_data

    for tensor in tensors(model):
        if uses_external_data(tensor):
            _check_place(tensor, path)
        elif tensor.HasField("raw_data"):
            _check_size(tensor, len(tensor.raw_data), path)
        elif any(n < 0 for n in tensor.dims):
            raise _odd(tensor, path, f"its sizes are {list(tensor.dims)}")


def _check_place(tensor: "onnx.TensorProto", path: Path) -> None:
    entries = {one.key: one.value for one in tensor.external_data}
    place = entries.get("location", "")
    try:
        steps = inside(place)
    except ValueError as error:
        raise _odd(tensor, path, f"its data are said to be outside the folder: {error}") from error
    file = path.parent
    for step in steps.parts:
        file = file / step
        if file.is_symlink():
            raise _odd(tensor, path, f"its data are in {place!r}, which is a link")
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or -1)
        if not file.is_file():
            raise _odd(tensor, path, f"there is no file {place!r} beside it")
        stat = file.stat()
        if stat.st_nlink > 1:
            raise _odd(tensor, path, f"{place!r} is a hard link, to a file of another name too")
        there = stat.st_size
    except (ValueError, OSError) as error:
        raise _odd(tensor, path, reason(error)) from error
    length = there - offset if length < 0 else length
    if offset < 0 or offset + length > there:
        raise _odd(
            tensor, path, f"{place!r} has {there:,} bytes, and it ends at {offset + length:,}"
        )
    _check_size(tensor, length, path)


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
        graphs = [attribute.g] if attribute.HasField("g") else []
        for graph in (*graphs, *attribute.graphs):
            yield from _of_graph(graph, depth + 1)
