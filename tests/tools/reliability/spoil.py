"""Good files made bad, by a seed: at random bytes, and where their format says something.

    spoilt(good, seed)            bits flipped, bytes cut, added, repeated, absurd numbers
    by_format(good, suffix, seed) the same, or a value in JSON or TOML, a header of safetensors, a
                                  field of an ONNX model, a part of an archive, that cannot be right

What is spoilt by its format gets past the first look, and to the code behind it.
"""

import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_NUMBERS = (b"\xff" * 8, b"\x00" * 8, (2**62).to_bytes(8, "little"), b"-1", b"1e999", b"[" * 2000,
            b"null", b"NaN", b"{}", b'"../../x"')  # fmt: skip

DEEP = "[" * 5000 + "]" * 5000
"""JSON and TOML that no parser follows by recursion."""

ODD = (
    *("null", "true", "-1", "0", "1", "0.5", "1e999", "-1e999", "NaN", "Infinity", "-0.0", '""'),
    *(str(2**31), str(2**63), str(-(2**63)), "9" * 400, "9" * 5000, "1e308", "[]", "{}", "[[]]"),
    *('"../../x"', '"/etc/passwd"', '"\\u0000"', '"\\u001b[31mred"', '"a\\nb"', '"\\ud800"'),
    *('"' + "x" * 100_000 + '"', "[null]", '[1, "a"]', '{"a": 1}', "[-1]", "[[0, 1], [0]]", DEEP),
)
"""Values of JSON that are of another type or size than what was there."""

ODD_TOML = (
    *('""', "-1", "0", "inf", "-inf", "nan", "true", "1e400", "9" * 400, "[]", "{}", "1979-05-27"),
    *(
        '"../../x"',
        '"\\u001b[31m"',
        '"a:b"',
        '["a", 1]',
        "[[1]]",
        "'x.py:y'",
        '"' + "x" * 9999 + '"',
    ),
)
_MARK = "\ue000 value \ue001"


def spoilt(good: bytes, seed: int) -> bytes:
    """The same, with something wrong at random bytes."""
    rng = random.Random(seed)
    data = bytearray(good)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:]
            case 2:
                data[at:at] = rng.randbytes(rng.choice((1, 4, 100)))
            case 3:
                data[at : at + 8] = rng.choice(_NUMBERS)
            case 4:
                del data[at : at + rng.choice((1, 8, 64))]
            case _:
                data[at:at] = data[at : at + 64] * rng.choice((1, 50))
    return bytes(data)


def by_format(good: bytes, suffix: str, seed: int) -> bytes:
    """Something that its format can say, and that is wrong; every third time, random bytes."""
    rng = random.Random(seed)
    change = FORMATS.get(suffix)
    if change is None or rng.randrange(3) == 0:
        return spoilt(good, seed)
    return change(good, rng)


# ---------------------------------------------------------------------------- JSON and TOML


def _json(good: bytes, rng: random.Random) -> bytes:
    whole = json.loads(good)
    for _ in range(rng.choice((1, 1, 2))):
        whole = _odd_json(whole, rng)
        good = whole if isinstance(whole, bytes) else json.dumps(whole).encode()
        if isinstance(whole, bytes):
            break
    return good


def _odd_json(whole: Any, rng: random.Random) -> Any:
    """With one value replaced, dropped, or given twice. Bytes where it is no value any more."""
    places = list(_places(whole))
    if not places:
        return rng.choice(ODD).encode()
    holder, key = rng.choice(places)
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(("", "\x1b[31m", "a" * 1000, "../x", f"{key} "))] = holder.pop(key)
        case 2 if isinstance(holder, list):
            holder[key:key] = [holder[key]] * rng.choice((1, 1000))
        case _:
            odd = rng.choice(ODD)
            twice = isinstance(holder, dict) and rng.randrange(6) == 0
            there = json.dumps(holder[key])
            holder[key] = _MARK
            text = f"{there}, {json.dumps(key)}: {odd}" if twice else odd
            return json.dumps(whole).replace(json.dumps(_MARK), text).encode()
    return whole


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key) below a value."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _toml(good: bytes, rng: random.Random) -> bytes:
    lines = good.decode().splitlines()
    said = [at for at, line in enumerate(lines) if " = " in line]
    at = rng.choice(said)
    key = lines[at].lstrip("# ").partition(" = ")[0]
    line = f"{key} = {rng.choice(ODD_TOML)}"
    match rng.randrange(6):
        case 0:
            lines.insert(at, lines[at].lstrip("# "))  # given twice
            lines.insert(at, line)
        case 1:
            lines.insert(at, f"{key}.a = 1")
        case 2:
            lines.append(
                rng.choice((f"[{key}]", f"[[{key}]]", "a = " + DEEP, "\x07 = 1", '"" = 1'))
            )
        case _:
            lines[at] = line
    return "\n".join(lines).encode("utf-8", "surrogatepass")


# ---------------------------------------------------------------------------- binary formats


def _safetensors(good: bytes, rng: random.Random) -> bytes:
    """Another header, of the length that is said."""
    length = int.from_bytes(good[:8], "little")
    head = _json(good[8 : 8 + length], rng)
    return len(head).to_bytes(8, "little") + head + good[8 + length :]


def _archive(good: bytes, rng: random.Random) -> bytes:
    """One part of a checkpoint is other bytes, or missing, or there twice."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(made, "w") as new:
        names = old.namelist()
        chosen = rng.choice(names)
        for name in names:
            data = old.read(name)
            if name != chosen:
                new.writestr(name, data)
            elif (what := rng.randrange(5)) > 1:
                new.writestr(name, spoilt(data, rng.randrange(1 << 30)))
            elif what == 1:
                new.writestr(f"{name}x", data)
    return made.getvalue()


def _onnx(good: bytes, rng: random.Random) -> bytes:
    """Fields of a model: sizes, types, names, nodes, attributes."""
    import onnx

    model = onnx.ModelProto()
    model.ParseFromString(good)
    for _ in range(rng.choice((1, 1, 2))):
        rng.choice(_ONNX)(model, rng)
    return bytes(model.SerializeToString())


_SIZES = (0, -1, 1, 2, 10**6, 2**31, 2**62, -(2**63))


def _size(model: Any, rng: random.Random) -> None:
    tensors = list(model.graph.initializer)
    if tensors:
        one = rng.choice(tensors)
        dims = [*one.dims, 1]
        dims[rng.randrange(len(dims))] = rng.choice(_SIZES)
        one.dims[:] = dims if rng.random() < 0.5 else dims[:-1]


def _input(model: Any, rng: random.Random) -> None:
    values = [*model.graph.input, *model.graph.output]
    if not values:
        return
    one = rng.choice(values).type.tensor_type
    match rng.randrange(4):
        case 0:
            one.elem_type = rng.choice((0, 2, 3, 7, 8, 9, 10, 14, 16, 17, 99))
        case 1:
            del one.shape.dim[:]
        case 2:
            one.ClearField("shape")
        case _:
            for dim in one.shape.dim:
                if rng.random() < 0.7:
                    dim.dim_value = rng.choice(_SIZES)
            if rng.random() < 0.3:
                one.shape.dim.add().dim_param = "a\x1b[31m"


def _type(model: Any, rng: random.Random) -> None:
    for one in model.graph.initializer:
        if rng.random() < 0.5:
            one.data_type = rng.choice((0, 2, 6, 7, 8, 10, 16, 23, 99))


def _nodes(model: Any, rng: random.Random) -> None:
    nodes = model.graph.node
    if not nodes:
        return
    one = rng.choice(list(nodes))
    match rng.randrange(6):
        case 0:
            nodes.remove(one)
        case 1:
            one.op_type = rng.choice(("Relu", "Loop", "If", "Einsum", "Nope", "", "Conv", "Scan"))
        case 2:
            one.domain = rng.choice(("com.microsoft", "nowhere", "ai.onnx.ml"))
        case 3:
            one.input[:] = [rng.choice(("", "x", "y", "nothing")) for _ in one.input]
        case 4:
            del nodes[:]
        case _:
            one.output[:] = [rng.choice(("x", "y", "")) for _ in one.output]


def _names(model: Any, rng: random.Random) -> None:
    odd = rng.choice(("", "a" * 10_000, "\x1b[31m\x07", "../../x", "a\nb", "\u202e"))
    values = [*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output]
    if values:
        rng.choice(values).name = odd


def _attributes(model: Any, rng: random.Random) -> None:
    if model.graph.node:
        made = rng.choice(list(model.graph.node)).attribute.add()
        made.name = rng.choice(("axis", "perm", "kernel_shape", "group", "body", ""))
        made.type = rng.randrange(15)
        made.i, made.f = rng.choice(_SIZES), float("inf")
        made.ints.extend([rng.choice(_SIZES)] * rng.choice((1, 8)))


def _external(model: Any, rng: random.Random) -> None:
    if model.graph.initializer:
        one = rng.choice(list(model.graph.initializer))
        one.data_location = 1
        place = rng.choice(("../secret", "/etc/passwd", "good.onnx", "", "a\0b", "none", "."))
        for key, value in (("location", place), ("offset", "-1"), ("length", str(2**62))):
            if rng.random() < 0.7:
                one.external_data.add(key=key, value=rng.choice((value, "x", "1" * 5000)))


def _versions(model: Any, rng: random.Random) -> None:
    if rng.random() < 0.5:
        model.ir_version = rng.choice((0, 1, 99, 2**62))
    else:
        del model.opset_import[:]
        for _ in range(rng.randrange(3)):
            model.opset_import.add(domain=rng.choice(("", "x")), version=rng.choice((0, 1, 99)))


def _deep(model: Any, rng: random.Random) -> None:
    graph = model.graph
    for _ in range(rng.choice((10, 60, 90))):
        node = graph.node.add(op_type="If", output=["y"], input=["x"])
        graph = node.attribute.add(name="then_branch", type=5).g


_ONNX: tuple[Callable[[Any, random.Random], None], ...] = (
    *(_size, _input, _type, _nodes, _names, _attributes, _external, _versions, _deep),
)

FORMATS: Mapping[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": _json,
    ".toml": _toml,
    ".safetensors": _safetensors,
    ".pt": _archive,
    ".onnx": _onnx,
}
"""By suffix, what spoils a file by what it says."""
