"""A release is of the module as it is when it is saved, or is refused in words."""

import copy
import json

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.utils.parametrize as parametrize
from compressor.passes import Budget
from compressor.passes.base.errors import GateError, UsageError
from safetensors.torch import load_file
from torch import nn

from compressor import Built, compress
from compressor.release.verify import verify
from tests.compressor import samples

pytestmark = pytest.mark.usefixtures("fast")


class Dropping(samples.Net):
    """With dropout, which only training mode has."""

    def forward(self, x):
        x = torch.relu(self.norm(self.body(x)))
        x = torch.relu(
            self.last(nn.functional.dropout(torch.relu(self.mid(x)), 0.5, self.training))
        )
        return self.head(x.mean((2, 3)))


def half(model=None, **options) -> Built:
    """Without the race: what that does with other weights is in `test_finishing`."""
    x, budget = samples.example_inputs(), Budget(macs=0.5)
    return compress(model or samples.net(), x, budget=budget, race=False, **options)


def moved(built: Built) -> None:
    """The user's own training, in place."""
    with torch.no_grad():
        for parameter in built.module.parameters():
            parameter.add_(0.05)


def deployed(folder, x) -> np.ndarray:
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


def read(folder) -> dict:
    return json.loads((folder / "report.json").read_text())


# ---------------------------------------------------------------------------- made anew


def in_place(built):
    moved(built)


def by_load_state_dict(built):
    state = {name: one + 0.05 for name, one in built.module.state_dict().items()}
    built.module.load_state_dict(state)


def past_autograd(built):
    built.module.get_parameter("head.weight").data.numpy()[:] += 1.0


def running_statistics(built):
    built.module.train()
    built.module(3 * samples.example_inputs())
    built.module.eval()


def another_parameter(built):
    head = built.module.get_submodule("head")
    head.weight = nn.Parameter(head.weight.detach() * 2)


@pytest.mark.parametrize(
    ("change", "looked"),
    [
        (in_place, "save"),
        (in_place, "onnx"),
        (by_load_state_dict, "report"),
        (past_autograd, "onnx"),
        (running_statistics, "onnx"),
        (another_parameter, "onnx"),
    ],
)
def test_what_is_saved_is_the_module_as_it_is(change, looked, tmp_path):
    built = half()
    before = built.save(tmp_path / "before") if looked == "save" else getattr(built, looked)
    assert before
    change(built)
    x = samples.example_inputs()
    folder = built.save(tmp_path / "after")
    with torch.no_grad():
        wanted = built.module(x).numpy()
    np.testing.assert_allclose(deployed(folder, x), wanted, atol=1e-5)
    stored = load_file(folder / "model.safetensors")
    torch.testing.assert_close(stored, dict(built.module.state_dict()), rtol=0, atol=0)
    assert max(verify(folder).parity.values()) < 1e-5
    found = read(folder)
    assert found["changed"] is True
    assert any("changed after the build" in line for line in found["warnings"])
    assert not any("sliced, not repaired" in line for line in found["warnings"])
    assert "changed after the build" in (folder / "summary.md").read_text()


def test_what_was_not_changed_is_exported_once(monkeypatch, tmp_path):
    built = half()
    first = built.onnx
    built.save(tmp_path / "one")
    built.save(tmp_path / "two")
    assert built.onnx is first
    assert read(tmp_path / "two")["changed"] is False


class Counting(samples.Net):
    """Writes into a buffer of its own whenever it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1)
        return super().forward(x)


def test_a_network_that_counts_its_calls_is_not_changed_by_our_own(tmp_path):
    built = half(Counting().eval())
    built.save(tmp_path / "net")
    assert read(tmp_path / "net")["changed"] is False
    assert float(built.small.tensors()["calls"]) == 0


# ---------------------------------------------------------------------------- measured anew


def of_the_head(predict):
    return {"accuracy": float(predict(samples.example_inputs()).abs().mean())}


def test_metrics_are_measured_anew(tmp_path):
    built = half(evaluate=of_the_head)
    before = built.report["accuracy"]["accuracy"]
    moved(built)
    assert "accuracy" not in built.report
    assert any("Accuracy is left out" in line for line in built.report["warnings"])
    found = read(built.save(tmp_path / "net"))
    after = found["accuracy"]["accuracy"]
    assert after["original"] == before["original"]
    assert after["small"] == pytest.approx(
        of_the_head(lambda x: built.module(x).detach())["accuracy"], rel=1e-4
    )
    assert after["small"] != before["small"]
    assert not any("Accuracy is left out" in line for line in found["warnings"])


def test_a_limit_holds_for_what_is_saved(tmp_path):
    built = half(evaluate=of_the_head, max_drop=10.0)
    with torch.no_grad():
        built.module.get_parameter("head.bias").sub_(1000.0)
        built.module.get_parameter("head.bias").mul_(0.0)
        built.module.get_parameter("head.weight").mul_(0.01)
    built.recipe = built.recipe.model_copy(update={"max_drop": 1e-6})
    with pytest.raises(GateError, match="accuracy is worse by"):
        built.save(tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_that_is_not_there_any_more_is_dropped_with_a_sentence(tmp_path):
    there = [1.0]
    built = half(evaluate=lambda predict: there.pop() if len(there) == 2 else there[0])
    moved(built)
    there.clear()
    found = read(built.save(tmp_path / "net"))
    assert "accuracy" not in found
    (line,) = [line for line in found["warnings"] if "Accuracy is left out" in line]
    assert "IndexError" in line


def test_sizes_of_files_follow_what_is_exported():
    built = half(evaluate=of_the_head)
    assert built.report["file_bytes"] == built.file_bytes
    moved(built)
    assert "file_bytes" not in built.report
    assert built.onnx.data
    assert built.report["file_bytes"]["small"] == len(built.onnx.data)


def test_an_original_that_was_trained_meanwhile_is_not_compared_with():
    model = samples.net()
    built = half(model)
    with torch.no_grad():
        model.head.weight.add_(1.0)
    with pytest.raises(UsageError, match="original model was changed after the build"):
        built.original_onnx  # noqa: B018


def test_an_original_that_was_exported_before_stays_what_is_compared_with(tmp_path):
    model = samples.net()
    built = half(model, evaluate=of_the_head)
    before = built.report["accuracy"]["accuracy"]["original"]
    with torch.no_grad():
        model.head.weight.add_(1.0)
    model.to("meta")
    moved(built)
    assert read(built.save(tmp_path / "net"))["accuracy"]["accuracy"]["original"] == before


# ---------------------------------------------------------------------------- refused, in words


def trains(built):
    built.module.train()


def infinite(built):
    built.module.get_parameter("mid.weight").data[0] = float("inf")


def not_a_number(built):
    built.module.get_parameter("mid.weight").data[0, 0] = float("nan")


def halved(built):
    built.module.half()


def elsewhere(built):
    built.module.to("meta")


def other_sizes(built):
    head = built.module.get_submodule("head")
    head.weight = nn.Parameter(torch.zeros(11, head.weight.shape[1]))


def another_layer(built):
    built.module.add_module("extra", nn.Linear(2, 2))


def gone(built):
    del built.module.get_submodule("head").weight


def parametrised(built):
    parametrize.register_parametrization(
        built.module.get_submodule("head"), "weight", nn.Identity()
    )


def graph(built):
    relu = next(node for node in built.small.calls() if "relu" in str(node.target))
    relu.target = torch.ops.aten.sigmoid.default
    built.module.recompile()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (trains, ("is in training mode", "built.module.eval()")),
        (infinite, ("mid.weight has", "infinite")),
        (not_a_number, ("mid.weight has", "NaN")),
        (halved, ("another kind of tensor", "float16", "built.module.to(torch.float32)")),
        (elsewhere, ("another kind of tensor", "meta", "built.module.to('cpu')")),
        (other_sizes, ("head.weight", "[11, ", "build of its own")),
        (another_layer, ("extra.weight", "did not have")),
        (gone, ("no tensor head.weight", "merge")),
        (parametrised, ("head.parametrizations.weight.original", "merge")),
        (graph, ("graph of the built module was changed",)),
    ],
)
def test_what_is_no_longer_the_network_that_was_built_is_refused(change, words, tmp_path):
    built = half(Dropping().eval())
    change(built)
    with pytest.raises(UsageError) as caught:
        built.save(tmp_path / "net")
    assert all(word in str(caught.value) for word in words), caught.value
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_is_back_in_eval_mode_is_what_it_was():
    built = half(Dropping().eval())
    first = built.onnx
    built.module.train()
    with pytest.raises(UsageError, match="training mode"):
        built.onnx  # noqa: B018
    built.module.eval()
    assert built.onnx is first


class Tied(nn.Module):
    """One tensor under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(6, 16)
        self.second.weight = self.first.weight
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(torch.relu(self.first(x)) + self.second(x))


def test_tied_tensors_that_came_apart_are_refused(tmp_path):
    built = compress(Tied(), torch.randn(3, 6), budget=Budget(channels=0.75), race=False)
    (alias,) = built.small.aliases
    place = built.module.get_submodule(alias.rpartition(".")[0])
    place.weight = nn.Parameter(place.weight.detach() + 1)
    with pytest.raises(UsageError, match="were one tensor, and differ now"):
        built.save(tmp_path / "net")


# ---------------------------------------------------------------------------- the user's function


def test_a_function_that_trains_another_module_is_refused():
    def train(module):
        other = copy.deepcopy(module)
        with torch.no_grad():
            other.get_parameter("head.bias").add_(1.0)
        return other

    with pytest.raises(UsageError, match="left the module as it was") as caught:
        half(finetune=train)
    assert "in place" in caught.value.hint
    with pytest.raises(UsageError, match="left the module as it was"):
        half(finetune=lambda module: dict(module.state_dict()))


def test_a_function_that_trains_nothing_is_told():
    found = half(finetune=lambda module: 0.5).report
    assert "The function that trains changed no weight." in found["warnings"]


def test_a_function_that_leaves_another_network_is_refused():
    with pytest.raises(UsageError, match="another kind of tensor"):
        half(finetune=lambda module: module.double())
