"""The ONNX file: valid, its batch named, nothing in it of the machine that made it."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from compressor.passes.base.errors import CompressError
from onnx import TensorProto, helper
from torch import Tensor, nn

from compressor import passes
from compressor.onnx import export as exporter
from compressor.onnx.export import export, simplify, tidy


def program_of(model: nn.Module, *args, **kwargs) -> passes.Program:
    return passes.capture(model.eval(), args, kwargs)


def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def handmade(*nodes: onnx.NodeProto, inputs=(("x", "s77", 4),)) -> onnx.ModelProto:
    """A model of one operator or more, with the symbols that torch writes."""
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Relu", ["x"], ["y"])],
        "graph",
        [value(*one) for one in inputs],
        [value("y", "s77", 4)],
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9)


def first_dims(data: bytes) -> list[str]:
    graph = onnx.load_model_from_string(data).graph
    return [one.type.tensor_type.shape.dim[0].dim_param for one in (*graph.input, *graph.output)]


# ---------------------------------------------------------------------------- refusals


class Sorting(nn.Linear):
    """torch.export takes it, the ONNX exporter has no translation for it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.special.bessel_j0(x).sum()


def test_what_the_exporter_cannot_translate_is_refused_with_its_reason():
    program = program_of(Sorting(4, 4), torch.ones(2, 4))
    with pytest.raises(CompressError, match=r"torch\.onnx\.export failed") as caught:
        export(program)
    assert "bessel_j0" in caught.value.why
    assert caught.value.exit_code == 1


def test_what_onnx_does_not_allow_is_refused_with_its_reason():
    program = program_of(nn.Conv1d(4, 4, 1).bfloat16(), torch.ones(2, 4, 4).bfloat16())
    with pytest.raises(CompressError, match="not valid") as caught:
        export(program)
    assert "bfloat16" in caught.value.why


class Attention(nn.Module):
    """Attention over windows: as many axes in front of [length, entries] as asked for."""

    def __init__(self, lead: tuple[int, ...]) -> None:
        super().__init__()
        self.lead, self.parts, self.out = lead, nn.Linear(6, 24), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[0], *self.lead, -1, 8)
        query, key, value = (part.reshape(size) for part in self.parts(x).chunk(3, -1))
        return self.out(nn.functional.scaled_dot_product_attention(query, key, value))


@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 1, 3)])
def test_attention_on_any_number_of_axes_is_exported(lead):
    x = torch.randn(2, 12, 6)
    program = program_of(Attention(lead), x)
    session = onnxruntime.InferenceSession(export(program))
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        assert np.allclose(found, program.module(x).numpy(), atol=1e-5)


def test_a_model_over_two_gigabytes_is_refused(monkeypatch):
    monkeypatch.setattr(exporter, "LARGEST_INLINE", 10)
    with pytest.raises(CompressError, match=r"the ONNX model is \d+ bytes") as caught:
        tidy(handmade())
    assert "external data" in caught.value.why


def test_a_model_that_is_not_valid_is_our_mistake():
    with pytest.raises(onnx.checker.ValidationError):
        tidy(handmade(helper.make_node("Nonsense", ["x"], ["y"])))


# ---------------------------------------------------------------------------- tidying


def test_the_batch_is_named_wherever_it_is_written():
    model = handmade(
        helper.make_node("Relu", ["x"], ["inner"]),
        helper.make_node("Relu", ["inner"], ["y"]),
    )
    model.graph.value_info.append(value("inner", "s77", "2*s77 + s7"))
    tidied = onnx.load_model_from_string(tidy(model))
    dims = tidied.graph.value_info[0].type.tensor_type.shape.dim
    assert [dim.dim_param for dim in dims] == ["batch", "2*batch + s7"]
    assert first_dims(tidy(model)) == ["batch", "batch"]


def test_two_dynamic_sizes_are_not_both_called_batch():
    add = helper.make_node("Add", ["x", "z"], ["y"])
    model = handmade(add, inputs=(("x", "s77", 4), ("z", "s3", 4)))
    assert first_dims(tidy(model)) == ["s77", "s3", "s77"]


def test_a_fixed_batch_has_no_name():
    model = handmade(inputs=(("x", 2, 4),))
    del model.graph.output[:]
    model.graph.output.append(value("y", 2, 4))
    assert first_dims(tidy(model)) == ["", ""]


def test_metadata_goes_everywhere_also_inside_branches():
    relu = helper.make_node("Relu", ["x"], ["b"])
    branch = helper.make_graph([relu], "branch", [], [value("b", "s77", 4)])
    model = handmade(
        helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", 9, [], [True])),
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
    )
    inside = model.graph.node[1].attribute[0].g.node[0]
    places = (model, model.graph, model.graph.node[0], model.graph.input[0], inside)
    for place in places:
        place.doc_string = "SECRET"
        place.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="SECRET")
    assert b"SECRET" not in tidy(model)


def test_tidying_twice_changes_nothing():
    once = tidy(handmade())
    assert tidy(onnx.load_model_from_string(once)) == once


# ---------------------------------------------------------------------------- exporting


class Pair(nn.Module):
    """Takes its tensors in a dict, by position."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, pair: dict[str, Tensor]) -> Tensor:
        return self.head(pair["left"] - pair["right"])


@pytest.fixture(scope="module")
def pair() -> passes.Program:
    return program_of(Pair(), {"left": torch.ones(2, 4), "right": torch.zeros(2, 4)})


def test_a_dict_by_position_is_one_argument(pair):
    session = onnxruntime.InferenceSession(export(pair))
    left, right = (np.float32(np.random.default_rng(i).normal(size=(5, 4))) for i in (0, 1))
    names = [one.name for one in session.get_inputs()]
    (found,) = session.run(None, dict(zip(names, (left, right), strict=True)))
    wanted = pair.module({"left": torch.from_numpy(left), "right": torch.from_numpy(right)})
    torch.testing.assert_close(torch.from_numpy(found), wanted.detach())


def test_exporting_twice_gives_the_same_bytes(pair):
    assert export(pair) == export(pair)


class Constant(nn.Module):
    """Gives something that does not depend on its input; onnx_ir has a word to say about it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(x), torch.arange(3)


def test_exporting_says_nothing_and_leaves_the_model_alone(capfd):
    program = program_of(Constant(), torch.ones(2, 4))
    code = program.module.code
    export(program)
    assert capfd.readouterr() == ("", "")
    assert program.module.code == code


def test_a_model_with_a_fixed_batch_is_exported_with_it():
    program = replace(program_of(nn.Linear(4, 3), torch.ones(2, 4)), batch=None)
    graph = onnx.load_model_from_string(export(program)).graph
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2


class Masked(nn.Module):
    """Turns a mask of whole numbers around: torch's exporter fails on the cast hidden in it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.head(x) * (1.0 - mask)


class Halves(nn.Module):
    """Two images beside each other in the batch, as optical flow has them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        first, second = self.conv(torch.cat([x, y])).chunk(2)
        return first - 2 * second


@pytest.mark.parametrize("batch", [1, 3])
def test_parts_whose_size_follows_the_batch_are_exported(batch):
    program = program_of(Halves(), torch.randn(2, 3, 6, 6), torch.randn(2, 3, 6, 6))
    given = torch.randn(2, batch, 3, 6, 6)
    (found,) = onnxruntime.InferenceSession(export(program)).run(
        None, {"x": given[0].numpy(), "y": given[1].numpy()}
    )
    wanted = program.module(*given).detach()
    assert torch.allclose(torch.from_numpy(found), wanted, atol=1e-5)


def test_a_number_less_a_tensor_of_another_kind_is_exported():
    x, mask = torch.ones(2, 4), torch.tensor([[1], [0]])
    program = program_of(Masked(), x, mask)
    session = onnxruntime.InferenceSession(export(program))
    (found,) = session.run(None, {"x": x.numpy(), "mask": mask.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), program.module(x, mask).detach())


# ---------------------------------------------------------------------------- onnxsim


def test_what_onnxsim_cannot_read_has_a_reason():
    failed = simplify(b"no model")
    assert failed.data is None
    assert failed.why.startswith("onnxsim failed: ")


def test_onnxsim_has_a_time_limit(monkeypatch):
    monkeypatch.setattr(exporter, "SIMPLIFY_SECONDS", 0.01)
    assert simplify(tidy(handmade())).why == "onnxsim took longer than 0.01 s"


def unfolding(count: int) -> bytes:
    """x + the sum of a constant of `count` zeros: three nodes, and as much memory as one likes."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
            helper.make_node("Add", ["x", "sum"], ["y"]),
        ],
        "unfolding",
        [value("x", onnx.TensorProto.FLOAT, [1])],
        [value("y", onnx.TensorProto.FLOAT, [1])],
        [onnx.numpy_helper.from_array(np.array([count], np.int64), "shape")],
    )
    opset = [helper.make_opsetid("", 17)]
    return tidy(helper.make_model(graph, opset_imports=opset, ir_version=8))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_onnxsim_has_a_limit_of_memory(monkeypatch):
    monkeypatch.setattr(exporter, "SIMPLIFY_MEMORY", 1 << 30)
    assert simplify(unfolding(10)).why == ""
    failed = simplify(unfolding(2 * 10**8))
    assert failed.why == "onnxsim took more than 1,024 MiB of memory"


def child(returncode: int, written: bytes = b"", stderr: str = ""):
    """A child process that ends in this way."""

    def run(command, **_):
        return subprocess.CompletedProcess(command, returncode, written, stderr.encode())

    return run


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (child(-11), "onnxsim failed: exit code -11"),
        (child(1, stderr="first\nlast line\n"), "onnxsim failed: last line"),
        (child(0), "onnxsim failed: exit code 0"),
        (child(0, b"\x08\x09"), "onnxsim's result is not valid: "),
    ],
    ids=["crash", "exception", "nothing", "not valid"],
)
def test_a_child_that_ends_badly_has_a_reason(end, why, monkeypatch):
    monkeypatch.setattr(subprocess, "run", end)
    failed = simplify(tidy(handmade()))
    assert failed.data is None
    assert failed.why.startswith(why)


def test_onnxsim_takes_out_what_does_nothing():
    model = handmade(
        helper.make_node("Identity", ["x"], ["same"]), helper.make_node("Relu", ["same"], ["y"])
    )
    simplified = simplify(tidy(model))
    assert simplified.data is not None
    nodes = onnx.load_model_from_string(simplified.data).graph.node
    assert [node.op_type for node in nodes] == ["Relu"]
    assert first_dims(simplified.data) == ["batch", "batch"]
    assert b"compressor" in simplified.data


class Windows(nn.Module):
    """Attention in windows; a view after it relies on the strides that attention gives."""

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.out = nn.Linear(6, 192), nn.Linear(64, 5)
        self.bias = nn.Parameter(torch.randn(1, 2, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        windows = x.reshape(-1, 4, 6)
        query, key, value = (
            part.reshape(-1, 4, 2, 32).transpose(1, 2) for part in self.parts(windows).chunk(3, -1)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, self.bias)
        return self.out(mixed.transpose(1, 2).reshape(-1, 2, 2, 64))


def test_attention_that_lost_entries_is_exported():
    x = torch.randn(2, 12, 6)
    program = program_of(Windows(), x)
    options = passes.Options(uniform=True)
    plan = passes.choose(passes.couple(program), passes.Budget(channels=0.5), options)
    small = passes.apply(passes.Shrink(plan), program).program
    session = onnxruntime.InferenceSession(export(small))
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        assert np.allclose(found, small.module(x).numpy(), atol=1e-5)
