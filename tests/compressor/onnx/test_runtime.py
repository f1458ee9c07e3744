"""The exported model is called like the module, and is not trusted until it gives the same."""

import numpy as np
import pytest
import torch
from compressor.passes.base.errors import CompressError, GateError, UsageError
from torch import Tensor, nn

from compressor import Budget, compress, passes
from compressor.loading.calls import Called
from compressor.onnx import runtime
from compressor.onnx.export import export
from compressor.onnx.runtime import OnnxModel, parity


class Gated(nn.Module):
    """By position or by name, a number among the tensors, a structure as the result."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x: Tensor, gates: dict[str, Tensor], scale: float = 1.0):
        gate = gates["up"] - gates["down"]
        y = torch.relu(self.first(x)) * torch.sigmoid(self.second(gate)) * scale
        return {"y": y, "more": (y.sum(1), y > 0)}


def x(seed: int, batch: int = 3) -> Tensor:
    return torch.randn(batch, 6, generator=torch.Generator().manual_seed(seed))


def gates() -> dict[str, Tensor]:
    return {"up": x(1), "down": x(2)}


def captured(model: nn.Module, *args, **kwargs) -> passes.Program:
    return passes.capture(model.eval(), args, kwargs)


@pytest.fixture(scope="module")
def gated() -> tuple[passes.Program, bytes]:
    program = captured(Gated(), x(0), gates(), scale=2.0)
    return program, export(program)


@pytest.fixture(scope="module")
def plain() -> passes.Program:
    return captured(nn.Linear(6, 4), x(0))


# ---------------------------------------------------------------------------- calls


@pytest.mark.parametrize(
    ("args", "kwargs", "why"),
    [
        ((), {}, "gates, x is missing"),
        ((x(0),), {}, "gates is missing"),
        ((x(0), x(1)), {}, "mismatch"),
        ((x(0), {"up": x(1)}), {}, "mismatch"),
        ((x(0), gates(), 2.0, x(1)), {}, "too many positional"),
        ((x(0), gates()), {"x": x(0)}, "multiple values"),
        ((x(0), gates()), {"gait": x(1)}, "gait"),
    ],
)
def test_another_call_than_the_examples_is_refused(gated, args, kwargs, why):
    program, data = gated
    with pytest.raises(UsageError, match="called in another way") as caught:
        OnnxModel(data, program)(*args, **kwargs)
    assert caught.value.where == "x, gates, scale"
    assert why in caught.value.why


def test_a_number_in_place_of_a_tensor_is_refused(plain):
    model = OnnxModel(export(plain), plain)
    with pytest.raises(UsageError, match="takes 1 tensors, 0 were given"):
        model(3)


def test_a_model_that_fails_while_it_runs_is_refused_with_the_runtimes_words():
    class Last(nn.LSTM):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[0]

    program = captured(Last(4, 6, proj_size=3, batch_first=True), torch.ones(2, 5, 4))
    with pytest.raises(CompressError, match="cannot run the exported model") as caught:
        OnnxModel(export(program), program)(torch.ones(2, 5, 4))
    assert "LSTM" in caught.value.why  # ONNX knows no projected state, and torch exports one


def test_what_is_no_model_is_refused_with_the_runtimes_words(plain):
    with pytest.raises(CompressError, match="refuses the exported model") as caught:
        OnnxModel(b"no model", plain)
    assert "ONNXRuntimeError" in caught.value.why


TURNED = {"down": x(2), "up": x(1)}
ARRAYS = {name: one.numpy() for name, one in gates().items()}
CALLS: dict[str, Called] = {
    "positions": ((x(0), gates(), 2.0), {}),
    "names": ((), {"x": x(0), "gates": gates(), "scale": 2.0}),
    "names turned around": ((), {"gates": TURNED, "x": x(0)}),
    "mixed": ((x(0),), {"gates": TURNED}),
    "arrays": ((x(0).numpy(), ARRAYS), {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_arguments_are_told_apart_by_position_and_by_name(gated, name):
    program, data = gated
    args, kwargs = CALLS[name]
    with torch.no_grad():
        wanted = program.module(x(0), gates(), scale=2.0)
    found = OnnxModel(data, program)(*args, **kwargs)
    assert found["more"][1].dtype == torch.bool
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_runs(gated, batch):
    program, data = gated
    given = {name: one[:1].expand(batch, 6) for name, one in gates().items()}
    found = OnnxModel(data, program)(x(0, batch), given)
    assert found["y"].shape == (batch, 4)


# ---------------------------------------------------------------------------- parity


class Fake:
    """Stands for an exported model: the module, with something done to its result."""

    def __init__(self, change):
        self.change = change

    def __call__(self, data, program):
        return lambda *args, **kwargs: self.change(program.module(*args, **kwargs).detach())


def compared(program: passes.Program, monkeypatch, change) -> list[runtime.Parity]:
    monkeypatch.setattr(runtime, "OnnxModel", Fake(change))
    return parity(program, b"", ((x(0),), {}))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda y: y + 0.1, "differ by"),
        (lambda y: y * float("nan"), "differ by inf"),
        (lambda y: y.where(y < y.max(), torch.inf), "differ by inf"),
        (lambda y: y[:, :3], "gives (3, 3) where torch gives (3, 4)"),
        (lambda y: (y, y), "the ONNX model gives 2 tensors, torch gives 1"),
    ],
    ids=["numbers", "nan", "infinity", "shape", "count"],
)
def test_a_difference_is_refused(plain, monkeypatch, change, what):
    static = passes.Program(plain.module, plain.args, plain.kwargs, plain.engine, None)
    with pytest.raises(GateError) as caught:
        compared(static, monkeypatch, change)
    assert what in caught.value.what


class Cancelling(nn.Module):
    """Large numbers that nearly cancel: single precision loses four digits in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.large = nn.Parameter(torch.full((6, 6), 3e3))

    def forward(self, x: Tensor) -> Tensor:
        return (x + x @ self.large) - x @ self.large


def test_more_is_allowed_where_torch_itself_is_that_inexact(plain, monkeypatch):
    program = passes.capture(Cancelling(), (x(0),), {})
    assert max(one.max_rel for one in compared(program, monkeypatch, lambda y: y * 1.0005)) > 4e-4
    for network, factor in ((program, 1.05), (plain, 1.0005)):
        with pytest.raises(GateError, match="differ by"):
            compared(network, monkeypatch, lambda y, factor=factor: y * factor)


def test_the_worst_batch_is_named(plain, monkeypatch):
    with pytest.raises(GateError, match="differ by") as caught:
        compared(plain, monkeypatch, lambda y: y + 0.1 * (len(y) == 5))
    assert caught.value.where in ("example inputs, batch 5", "random inputs, batch 5")


def test_example_and_random_inputs_are_compared_at_two_batch_sizes(plain, monkeypatch):
    found = compared(plain, monkeypatch, lambda y: y)
    assert [(one.inputs, one.batch) for one in found] == [
        ("example", 1),
        ("random", 1),
        ("example", 5),
        ("random", 5),
    ]
    assert all((one.max_abs, one.max_rel, one.top1) == (0, 0, 1) for one in found)


def test_a_fixed_batch_is_compared_as_it_is(plain, monkeypatch):
    static = passes.Program(plain.module, plain.args, plain.kwargs, plain.engine, None)
    found = compared(static, monkeypatch, lambda y: y)
    assert [one.inputs for one in found] == ["example", "random"]


def test_half_precision_is_compared_as_coarsely_as_its_numbers_are(plain):
    assert runtime.tolerance(plain) == runtime.TOLERANCE
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).half()
    built = compress(model, torch.ones(2, 8).half(), budget=Budget(channels=0.5))
    assert runtime.tolerance(built.small) == 8 * 2**-10
    assert all(one.max_rel < 8 * 2**-10 for one in built.onnx.parity)


def test_the_three_numbers_of_parity(plain, monkeypatch):
    wanted = plain.module(x(0)).detach()
    largest = float(wanted.abs().max())
    monkeypatch.setattr(runtime, "TOLERANCE", 10.0)
    static = passes.Program(plain.module, plain.args, plain.kwargs, plain.engine, None)
    found = compared(static, monkeypatch, lambda y: y.roll(1, 1))[0]
    gap = float((wanted - wanted.roll(1, 1)).abs().max())
    assert found.max_abs == pytest.approx(gap)
    assert found.max_rel == pytest.approx(gap / largest)
    assert found.top1 == 0


def test_outputs_without_classes_have_no_top1(monkeypatch):
    program = captured(nn.Sequential(nn.Linear(6, 1), nn.Flatten(0)), x(0))
    assert {one.top1 for one in compared(program, monkeypatch, lambda y: y)} == {None}


class Hopeless(nn.Linear):
    """Its result is the same infinity on both sides."""

    def forward(self, given: Tensor) -> Tensor:
        y = super().forward(given)
        return torch.cat([y, y / torch.zeros(())], 1)


def test_the_same_infinities_are_no_difference(monkeypatch):
    program = captured(Hopeless(6, 4), x(0))
    assert {one.max_rel for one in compared(program, monkeypatch, lambda y: y)} == {0.0}


class Adding(nn.Linear):
    """Writes into its input."""

    def forward(self, given: Tensor) -> Tensor:
        return super().forward(given.add_(1))


def test_networks_that_write_into_their_input_are_compared_on_the_same_input():
    program = captured(Adding(6, 4), x(0))
    found = parity(program, export(program), ((x(0),), {}))
    assert max(one.max_rel for one in found) <= 1e-6


def test_random_inputs_depend_on_the_seed(plain, monkeypatch):
    seen: list[np.ndarray] = []

    def note(y):
        seen.append(y.numpy())
        return y

    for seed in (0, 0, 1):
        monkeypatch.setattr(runtime, "OnnxModel", Fake(note))
        parity(plain, b"", ((x(0),), {}), seed)
    first, again, other = seen[1], seen[5], seen[9]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
