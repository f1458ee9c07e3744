"""ONNX Runtime beside torch: small slices, flags, and outputs that say nothing."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from compressor.passes.base.errors import SilentError, UsageError, WrongError
from compressor.passes.ir.compare import CONSTANT, NONE
from torch import Tensor, nn

from compressor import Budget, compress, passes
from compressor.onnx import runtime
from compressor.onnx.export import export
from compressor.onnx.output_parity import Parity
from compressor.onnx.runtime import parity
from compressor.pipeline import report_contents
from compressor.release import verify
from compressor.report import summary
from models._random import normal, seeded


class Net(nn.Module):
    """Two convolutions, and something done to their result."""

    def __init__(self, last) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), last
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor):
        x = torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3))
        return self.last(self.head(x))


def net(last) -> nn.Module:
    return seeded(lambda: Net(last), 3)


X = normal(2, 3, 12, 12)
DATA = [normal(12, 3, 12, 12, seed=seed) for seed in (1, 2)]


def built(last, data=None):
    return compress(net(last), X, budget=Budget(macs=0.5), data=data)


# ---------------------------------------------------------------------------- slices


class Detector(nn.Module):
    """Boxes of 640 beside scores below 1, in one tensor."""

    def __init__(self, seen: float = 1.0) -> None:
        super().__init__()
        self.trunk, self.head, self.seen = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 84, 1), seen

    def forward(self, x: Tensor) -> Tensor:
        y = torch.sigmoid(self.head(torch.relu(self.trunk(x)))).flatten(2)
        return torch.cat([y[:, :4] * 640, y[:, 4:] * self.seen], 1)


@pytest.mark.parametrize("turned", [False, True])
def test_a_mistake_in_scores_beside_boxes_is_refused(turned):
    def made(seen: float) -> nn.Module:
        model = seeded(lambda: Detector(seen), 1)
        return Turned(model) if turned else model

    right = passes.capture(made(1.0).eval(), (X,), {})
    wrong = passes.capture(made(1.01).eval(), (X,), {})
    found = parity(right, export(right), ((X,), {}))
    assert max(out.max_rel for one in found for out in one.outputs) < 1e-5
    with pytest.raises(WrongError, match="differ by") as caught:
        parity(right, export(wrong), ((X,), {}))
    assert "output slice " in caught.value.where


class Turned(nn.Module):
    """Boxes and scores along the last axis."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).transpose(1, 2)


def test_small_numbers_that_are_differences_of_large_ones_are_not_refused():
    class Cancelling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.large = nn.Parameter(torch.full((12, 12), 3e2))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, (x + x @ self.large) - x @ self.large], 1)

    program = passes.capture(Cancelling().eval(), (X,), {})
    assert parity(program, export(program), ((X,), {}))


# ---------------------------------------------------------------------------- flags and classes

STEPS = {
    "mask": lambda y: y > 0,
    "classes": lambda y: y.argmax(1),
    "both": lambda y: {"mask": y > 0, "scores": y, "classes": y.argmax(1)},
    "masked": lambda y: torch.cat([y, torch.full_like(y[:, :1], -torch.inf)], 1),
}


@pytest.mark.parametrize("data", [None, DATA], ids=["no data", "data"])
@pytest.mark.parametrize("name", STEPS)
def test_masks_and_classes_are_built_and_proven(name, data):
    one = built(STEPS[name], data)
    assert all(out.why == "" for p in one.onnx.parity for out in p.outputs)
    assert all(out.why == "" for out in one.proof.outputs)


def test_batches_of_other_sizes_are_compared_where_an_output_is_one_number_a_sample():
    uneven = [normal(n, 3, 12, 12, seed=n) for n in (10, 7, 16, 3)]
    assert built(lambda y: {"scores": y, "class": y.argmax(1)}, uneven).repaired is not None


class Fake:
    """Stands for an exported model: the module, with something done to its result."""

    def __init__(self, change):
        self.change = change

    def __call__(self, data, program):
        return lambda *args, **kwargs: self.change(program.module(*args, **kwargs))


@pytest.fixture
def mask() -> passes.Program:
    class Over(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 > 0

    x = torch.tensor([[1e-7, 1.0, -1.0, 0.5], [-1.0, 2.0, 1.0, -3.0]])
    return passes.capture(Over(), (x,), {})


def flipped(at):
    def change(y: Tensor) -> Tensor:
        y = y.clone()
        if len(y) == 1 and bool(y[0, 0]) and bool(y[0, 1]) and not bool(y[0, 2]):  # the example
            y[0, at] = ~y[0, at]
        return y

    return change


def test_an_entry_may_flip_where_rounding_decides(mask, monkeypatch):
    monkeypatch.setattr(runtime, "OnnxModel", Fake(flipped(0)))
    found = parity(mask, b"", (mask.args, {}))
    assert found[0].outputs[0].note.startswith("1 of 4 entries differ, within rounding")
    monkeypatch.setattr(runtime, "OnnxModel", Fake(flipped(1)))
    with pytest.raises(WrongError, match="differ by inf"):
        parity(mask, b"", (mask.args, {}))


# ---------------------------------------------------------------------------- nothing was compared


@pytest.mark.parametrize("last", [lambda y: torch.log(-y.relu() - 1), lambda y: y * 0])
def test_a_network_that_says_nothing_is_not_built(last):
    with pytest.raises(SilentError, match="nothing could be compared") as caught:
        built(last)
    assert caught.value.exit_code == 5


def test_an_output_of_numbers_that_overflow_is_no_parity():
    program = passes.capture(net(lambda y: y * 1e30 * 1e30).eval(), (X,), {})
    with pytest.raises(SilentError, match="ONNX Runtime beside torch") as caught:
        parity(program, export(program), ((X,), {}))
    assert NONE in caught.value.where


def test_infinities_of_the_other_sign_are_a_difference(monkeypatch):
    program = passes.capture(net(lambda y: torch.cat([y, y / torch.zeros(())], 1)).eval(), (X,), {})
    monkeypatch.setattr(runtime, "OnnxModel", Fake(lambda y: torch.where(y.isinf(), -y, y)))
    with pytest.raises(WrongError, match="differ by inf"):
        parity(program, b"", ((X,), {}))


def test_report_summary_and_table_name_what_was_not_compared():
    one = built(lambda y: {"scores": y, "zero": y * 0})
    assert [out.why for out in one.onnx.parity[0].outputs] == ["", CONSTANT]
    found = one.report
    words = f"Nothing was compared at output['zero'] by the proof: {CONSTANT}"
    assert f"{words}." in found["warnings"]
    assert words in str(report_contents.table(found).caption)
    assert "Nothing was compared at output" in summary.summary(found)
    again = [Parity.of_json(plain) for plain in json.loads(json.dumps(found["parity"]))]
    assert again == list(one.onnx.parity)
    assert all(dataclasses.asdict(p)["outputs"] for p in again)


# ---------------------------------------------------------------------------- the user's numbers


def with_norm(variance: float) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    model[1].running_var[3] = variance
    return model


@pytest.mark.parametrize("data", [None, DATA], ids=["no data", "data"])
def test_a_negative_variance_is_named_with_its_norm(data):
    with pytest.raises(UsageError, match=r"1\.running_var has 1 negative among its 8") as caught:
        compress(with_norm(-0.5), X, budget=Budget(macs=0.5), data=data)
    assert caught.value.where.startswith("1")


def test_a_variance_just_below_zero_is_no_trouble():
    assert compress(with_norm(-1e-7), X, budget=Budget(macs=0.5)).proof.holds


def test_weights_that_overflow_are_named_with_their_layer_and_batch():
    model = net(lambda y: y)
    with torch.no_grad():
        model.second.weight.fill_(3e38)
    with pytest.raises(UsageError, match="no finite numbers on the calibration data") as caught:
        compress(model, X, budget=Budget(macs=0.5), data=DATA)
    assert caught.value.where.startswith("layer second")
    assert "batch " in caught.value.where


def test_an_output_that_is_nan_on_one_batch_is_named_with_it():
    class Sometimes(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return torch.where(x.amax((1, 2, 3))[:, None] > 50, torch.nan, y)

    far = [DATA[0], DATA[1], torch.cat([DATA[0][:5], DATA[1][:1] * 1e3])]
    with pytest.raises(UsageError, match="gives NaN on the calibration data: output") as caught:
        compress(seeded(lambda: Sometimes(lambda y: y), 3), X, budget=Budget(macs=0.5), data=far)
    assert caught.value.where == "batch 3"


def test_an_example_that_holds_nan_is_refused():
    with pytest.raises(UsageError, match="the example inputs hold NaN"):
        compress(net(lambda y: y), X * torch.nan, budget=Budget(macs=0.5))


# ---------------------------------------------------------------------------- verify


@pytest.mark.parametrize(
    ("wanted", "found", "far"),
    [
        ([1.0, np.nan, np.inf], [1.0, np.nan, np.inf], 0.0),
        ([1.0, np.nan, np.inf], [1.0, np.nan, -np.inf], np.inf),
        ([1.0, np.nan], [1.0, np.inf], np.inf),
        ([True, False, True, True], [True, False, True, False], 0.25),
        ([3, 4], [3, 4], 0.0),
        ([2.0, 4.0], [2.0, 4.4], 0.1),
        ([1.0], [True], np.inf),
    ],
)
def test_verify_asks_the_same(wanted, found, far):
    assert verify.gap(np.array(wanted), np.array(found)) == pytest.approx(far)
