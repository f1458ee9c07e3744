"""The library: wrong calls, the live model that is left alone, and the small one that lives."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compressor.passes.base.errors import GateError, UsageError
from safetensors.torch import load_file
from torch import Tensor, nn

from compressor import Budget, Built, compress, passes
from compressor.onnx import export as exporter
from compressor.onnx.export import Simplified
from compressor.result import built as built_parts
from models import grouped
from tests.compressor import samples

HALF = Budget(macs=0.5)


def quarter(model: nn.Module, inputs: Any, **options: Any) -> Built:
    """Three quarters of the channels: small steps, so that any tiny network gets there."""
    return compress(model, inputs, budget=Budget(channels=0.75), **options)


class Gated(nn.Module):
    """Two inputs by position or by name, and a structure as the result."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(6, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor, gate: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        mixed = torch.relu(self.first(x)) * torch.sigmoid(self.second(gate))
        return {"logits": self.head(mixed) * scale, "gate": gate + 1}


def two() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, 6, generator=generator), torch.randn(3, 6, generator=generator)


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("inputs", "what"),
    [
        ("x", "example inputs are str"),
        (3, "example inputs are int"),
        ((), "hold no tensor"),
        ((1, 2), "hold no tensor"),
        ({}, "hold no tensor"),
        (torch.zeros(2, 4, 8, 8), "does not run on the example inputs"),
        ((torch.zeros(2, 3, 8, 8), 3), "does not run on the example inputs"),
        ({"y": torch.zeros(2, 3, 8, 8)}, "does not run on the example inputs"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, what):
    with pytest.raises(UsageError, match=what):
        quarter(samples.net(), inputs)


def test_weights_that_are_no_numbers_are_refused_by_name():
    with pytest.raises(UsageError, match=r"^mid\.weight has 1 NaN among its 4,608 values"):
        quarter(samples.with_nan(), samples.example_inputs())


def test_an_unknown_criterion_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="'l3'; one of: activation, auto, bn-scale, fisher"):
        quarter(samples.net(), samples.example_inputs(), criterion="l3")


@pytest.mark.parametrize("ignore", [["head.*", "haed.*"], "haed.*"])
def test_a_pattern_that_protects_nothing_is_refused(ignore):
    with pytest.raises(UsageError, match=r"no parameter is called 'haed\.\*'"):
        quarter(samples.net(), samples.example_inputs(), ignore=ignore)


def test_a_refusal_leaves_every_part_of_the_model_in_its_mode():
    model = samples.net()
    model.body.train()
    with pytest.raises(UsageError):
        quarter(model, torch.zeros(1))
    assert [part for part in model.modules() if part.training] == [model.body]


def test_surgery_that_is_wrong_is_refused_with_the_group_that_shows_it(monkeypatch):
    cut = passes.coupling.sizes.Sizes.cut

    def clumsy(self, tensor, value):
        small = cut(self, tensor, value)
        return small + 1 if tensor.shape == (24,) and small.shape != tensor.shape else small

    monkeypatch.setattr(passes.coupling.sizes.Sizes, "cut", clumsy)
    monkeypatch.setattr(passes.Shrink, "ensures", lambda *_: None)  # it would see this earlier
    with pytest.raises(GateError, match="the surgery is wrong") as caught:
        quarter(samples.net(), samples.example_inputs(), uniform=True)
    assert caught.value.where == "last.weight[0]"


# ---------------------------------------------------------------------------- the live model


class Counting(samples.Net):
    """Everything a network should not do: it writes into its input and into a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x += 1
        self.calls.add_(1)
        return super().forward(x)


@pytest.mark.parametrize("make", [samples.Net, Counting])
def test_the_live_model_and_the_inputs_are_left_alone(make):
    model, x = make().train(), samples.example_inputs()
    model.norm.eval()
    before = copy.deepcopy(model)
    modes = [part.training for part in model.modules()]
    quarter(model, x)
    assert [part.training for part in model.modules()] == modes
    torch.testing.assert_close(model.state_dict(), before.state_dict(), rtol=0, atol=0)
    assert all(one.grad is None and one.requires_grad for one in model.parameters())
    assert torch.equal(x, samples.example_inputs())


def test_the_small_module_shares_no_memory_with_the_live_model():
    model = samples.net()
    small = quarter(model, samples.example_inputs()).module
    theirs = {one.data_ptr() for one in model.state_dict().values()}
    assert not theirs & {one.data_ptr() for one in small.state_dict().values()}


# ---------------------------------------------------------------------------- what comes back


@pytest.mark.parametrize("inputs", [two(), [*two()], {"x": two()[0], "gate": two()[1]}])
def test_inputs_are_a_tuple_a_list_or_a_dict_by_name(inputs):
    built = quarter(Gated(), inputs)
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    found = built.module(*args, **kwargs)
    assert found.keys() == {"logits", "gate"}
    assert found["logits"].shape == (3, 4)


def test_inputs_by_name_may_come_in_any_order():
    x, gate = two()
    built = quarter(Gated(), {"gate": gate, "x": x})
    other = quarter(Gated(), {"x": x, "gate": gate})
    other.module.load_state_dict(built.module.state_dict())
    wanted = built.module(x=x, gate=gate)["logits"]
    torch.testing.assert_close(other.module(gate=gate, x=x)["logits"], wanted)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_small_module_runs_at_any_batch(batch, built):
    assert built.module(torch.randn(batch, 3, 8, 8)).shape == (batch, 10)


class Fixed(samples.Net):
    """The batch size is a number in the user's code."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(2, 3, 8, 8))


def test_a_model_that_fixes_its_batch_is_built_with_it(fast):
    built = quarter(Fixed(), samples.example_inputs())
    assert built.original.batch is None
    assert {one.batch for one in built.onnx.parity} == {1}
    assert "fixes its batch size" in " ".join(built.report["warnings"])


def test_the_small_module_is_in_eval_mode_as_the_original_was_captured(built):
    x = torch.randn(4, 3, 8, 8)
    assert not built.module.training
    torch.testing.assert_close(built.module(x)[:1], built.module(x[:1]))


def test_the_small_module_can_be_trained():
    built = quarter(samples.net(), samples.example_inputs())
    module, x = built.module.train(), torch.randn(16, 3, 8, 8)
    labels = torch.arange(16) % 10
    optimiser = torch.optim.SGD(module.parameters(), 0.1)
    mean = module.state_dict()["norm.running_mean"].clone()
    losses = []
    for _ in range(10):
        optimiser.zero_grad()
        losses.append(F.cross_entropy(module(x), labels))
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < losses[0]
    assert not torch.equal(module.state_dict()["norm.running_mean"], mean)
    module.eval()
    torch.testing.assert_close(module(x)[:1], module(x[:1]))


def test_the_budget_is_met_from_below(built):
    cost = built.report["cost"]["macs"]
    assert 0.48 <= cost["small"] / cost["original"] <= 0.5
    assert built.plan.reached == cost["small"]


def test_the_proof_holds_far_below_its_limit(built):
    assert built.proof.holds
    assert built.proof.max_rel <= 1e-12
    assert built.proof.dtype == "float64"


def cut(tensor: Tensor, dims: list[Any]) -> Tensor:
    """The small tensor, by the format of kept indices."""
    for axis, kept in reversed(list(enumerate(dims))):
        if kept is None:
            continue
        if isinstance(kept[0], list):  # other entries in each kept row of axis 0
            rows = tensor if dims[0] is None else tensor[dims[0]]
            cells = zip(rows, map(torch.tensor, kept), strict=True)
            return torch.stack([row.index_select(axis - 1, one) for row, one in cells])
        tensor = tensor.index_select(axis, torch.tensor(kept))
    return tensor


@pytest.mark.parametrize(
    ("make", "inputs"),
    [(samples.net, samples.example_inputs), (grouped.grouped, grouped.example_inputs)],
    ids=["chain", "grouped"],
)
def test_the_plan_rebuilds_the_small_weights_from_the_users_own(make, inputs):
    model = make()
    built = compress(model, inputs(), budget=Budget(channels=0.5), uniform=True)
    state, small = model.state_dict(), built.module.state_dict()
    assert built.plan.kept.keys() <= small.keys() <= state.keys()
    for name, tensor in small.items():
        dims = built.plan.kept.get(name, [None] * tensor.dim())
        torch.testing.assert_close(tensor, cut(state[name], dims), rtol=0, atol=0)
    assert any(small[name].shape != state[name].shape for name in small)


def test_an_ignored_parameter_keeps_its_size():
    built = quarter(samples.net(), samples.example_inputs(), ignore=["head.*"])
    assert "head.weight" not in built.plan.kept
    assert "last.weight" not in {
        name for name, dims in built.plan.kept.items() if dims[0] is not None
    }
    frozen = {one["axis"]: one["why"] for one in built.report["frozen"]}
    assert frozen["head.weight[1]"] == "ignored by the user"


def test_one_pattern_may_be_given_as_a_string():
    one = quarter(samples.net(), samples.example_inputs(), ignore="mid.*")
    assert one.options.ignore == ("mid.*",)
    assert one.plan.kept.keys() <= {"last.weight", "last.bias", "head.weight"}


def test_the_criterion_decides_what_goes():
    plans = {
        criterion: quarter(samples.net(), samples.example_inputs(), criterion=criterion).plan.kept
        for criterion in ("l2", "random")
    }
    assert plans["l2"] != plans["random"]


def test_widths_are_multiples_of_what_is_asked_for():
    budget = Budget(channels=0.78)
    built = compress(
        samples.net(), samples.example_inputs(), budget=budget, round_to=8, min_channels=16
    )
    assert sum(kept for _, kept in built.plan.widths) == 56
    assert {kept for _, kept in built.plan.widths} <= {16, 24, 32}


# ---------------------------------------------------------------------------- saving


def test_what_was_not_measured_is_not_in_the_report():
    report = quarter(samples.net(), samples.example_inputs(), name="mine").report
    assert report["model"] == "mine"
    assert not {"parity", "accuracy", "latency", "file_bytes"} & report.keys()
    json.dumps(report, allow_nan=False)


def test_a_release_has_the_weights_the_plan_and_the_model(built, tmp_path):
    folder = built.save(tmp_path / "deep" / "net")
    assert folder == tmp_path / "deep" / "net"
    assert (folder / "model.onnx").read_bytes() == built.onnx.data
    log = json.loads((folder / "passes.json").read_text())
    assert log["passes"][1]["metadata"]["kept"] == built.plan.kept
    state = load_file(folder / "model.safetensors")
    torch.testing.assert_close(state, dict(built.module.state_dict()), rtol=0, atol=0)
    assert "Net" in (folder / "report.html").read_text()


def test_saving_twice_needs_force(built, tmp_path):
    built.save(tmp_path / "net")
    (tmp_path / "net" / "passes.json").write_text("an earlier one")
    with pytest.raises(UsageError, match="exists already"):
        built.save(tmp_path / "net")
    assert (tmp_path / "net" / "passes.json").read_text() == "an earlier one"
    built.save(str(tmp_path / "net"), force=True)
    assert (tmp_path / "net" / "passes.json").read_text() != "an earlier one"
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


class Tied(nn.Module):
    """One tensor under two names, and two that overlap in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(6, 16)
        self.second.weight = self.first.weight
        self.head = nn.Linear(16, 4)
        whole = torch.arange(5.0)
        self.register_buffer("low", whole[:4])
        self.register_buffer("high", whole[1:])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.first(x)) + self.second(x)) * self.low + self.high


def test_tensors_that_share_memory_can_be_saved(monkeypatch, tmp_path):
    monkeypatch.setattr(built_parts, "simplify", lambda data: Simplified(None, "left out"))
    built = quarter(Tied(), torch.randn(3, 6), race=False)
    state = load_file(built.save(tmp_path / "net") / "model.safetensors")
    torch.testing.assert_close(state, dict(built.module.state_dict()), rtol=0, atol=0)
    assert {"low", "high"} <= state.keys()


# ---------------------------------------------------------------------------- onnxsim


def noted(built: Built) -> str:
    """The note on onnxsim in the report, after a look at what was kept instead."""
    small = replace(built)  # not exported yet
    assert not small.onnx.simplified
    assert small.report["simplified"] is False
    assert len(small.onnx.parity) == 4
    (note,) = [line for line in small.report["warnings"] if "onnxsim" in line]
    return note


def test_what_onnxsim_cannot_simplify_is_kept_and_noted(built, fast, monkeypatch):
    monkeypatch.setattr(
        built_parts, "simplify", lambda data: Simplified(None, "onnxsim failed: no")
    )
    assert noted(built) == "The model is kept unsimplified, because onnxsim failed: no."


def test_where_onnxsim_exceeds_a_limit_the_report_says_so(built, fast, monkeypatch):
    monkeypatch.setattr(exporter, "SIMPLIFY_SECONDS", 0.01)
    monkeypatch.setattr(built_parts, "simplify", exporter.simplify)
    why = "onnxsim took longer than 0.01 s"
    assert noted(built) == f"The model is kept unsimplified, because {why}."


def test_what_onnxsim_breaks_is_discarded_and_noted(built, fast, monkeypatch):
    other = compress(samples.net(), samples.example_inputs(), budget=Budget(macs=0.4))
    broken = built_parts.export(other.small)  # type: ignore[attr-defined]
    monkeypatch.setattr(built_parts, "simplify", lambda data: Simplified(broken))
    assert "onnxsim's result was discarded: ONNX Runtime and torch differ" in noted(built)


def test_what_the_runtime_refuses_is_discarded_and_noted(built, fast, monkeypatch):
    monkeypatch.setattr(built_parts, "simplify", lambda data: Simplified(b"no model"))
    assert "onnxsim's result was discarded: ONNX Runtime refuses" in noted(built)


def test_a_simplified_model_is_noted_as_such(built):
    assert built.onnx.simplified
    assert built.onnx.note == ""
    assert built.report["simplified"] is True


# ---------------------------------------------------------------------------- the package


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    import compressor

    assert sorted(compressor.__all__) == [
        *(
            "Budget",
            "Built",
            "SparseGroups",
            "Training",
            "__version__",
            "compress",
            "load",
            "sealing",
        ),
    ]
    assert Path(compressor.__file__).name == "__init__.py"
    with pytest.raises(AttributeError, match="squeeze"):
        compressor.squeeze  # noqa: B018


class Squeezing(nn.Module):
    """Takes no batch of one: `squeeze` would take the batch away too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3), keepdim=True).squeeze().flatten(1))


def test_a_model_that_takes_no_batch_of_one_is_compared_at_others():
    built = compress(Squeezing(), torch.randn(4, 3, 8, 8), budget=Budget(channels=0.5))
    assert built.batches == (5,)
    assert {one.batch for one in built.onnx.parity} == {5}
    assert any("does not run at a batch of 1" in line for line in built.report["warnings"])
