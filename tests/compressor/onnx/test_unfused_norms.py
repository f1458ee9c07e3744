"""Additions before layer norms that ONNX Runtime does not fuse."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from compressor import Budget, Built, compress
from compressor.bench import Race, TimeRatio
from compressor.onnx import unfused_norms
from compressor.onnx.export import operators
from compressor.onnx.unfused_norms import with_sums
from compressor.pipeline import variant_race
from compressor.timing.timing import Timing


class PostNorm(nn.Module):
    """Norms after the additions, as in BERT; where `kept`, the sum is read once more."""

    def __init__(self, kept: bool = False) -> None:
        super().__init__()
        self.first, self.last, self.norm = nn.Linear(16, 32), nn.Linear(32, 16), nn.LayerNorm(16)
        self.kept = kept

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.last(torch.relu(self.first(x)))
        return self.norm(y) + y if self.kept else self.norm(y)


def half(model: nn.Module) -> Built:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 16)
    return compress(model.eval(), x, budget=Budget(macs=0.5), round_to=1, bench_seconds=0.1)


@pytest.fixture(scope="module")
def built() -> Built:
    return half(PostNorm())


def outputs(data: bytes, x: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def fused(data: bytes, folder) -> bool:
    """Whether the runtime makes one kernel of the addition and the norm."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return "SkipLayerNormalization" in operators((folder / "optimized.onnx").read_bytes())


def test_sums_are_the_same_function_and_stay_apart(built, tmp_path):
    data = built.onnx.data
    other = with_sums(data)
    assert other is not None
    onnx.checker.check_model(onnx.load_model_from_string(other), full_check=True)
    x = np.random.default_rng(0).standard_normal((2, 5, 16)).astype(np.float32)
    assert np.abs(outputs(data, x) - outputs(other, x)).max() < 1e-5
    assert fused(data, tmp_path)
    assert not fused(other, tmp_path)


def test_a_model_without_such_a_pair_has_no_other_form():
    kept = half(PostNorm(kept=True))
    assert with_sums(kept.onnx.data) is None
    assert "sums before norms" not in variant_race.forms(kept.onnx)


def test_an_addition_of_a_bias_stays_in_its_product():
    stem = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16), nn.LayerNorm(16))
    assert with_sums(half(stem).onnx.data) is None


def test_a_model_that_is_too_large_is_left_alone(built, monkeypatch):
    monkeypatch.setattr(unfused_norms, "LARGEST", 10)
    assert with_sums(built.onnx.data) is None


def test_the_form_is_raced_at_the_end_of_a_build(built):
    assert variant_race.forms(built.onnx)["sums before norms"] == with_sums(built.onnx.data)


@pytest.mark.parametrize(("ratio", "op"), [(0.9, "Sum"), (1.1, "Add")])
def test_plans_are_raced_in_the_form_that_will_be_deployed(ratio, op, built, monkeypatch):
    race, models = Timing.race, {}

    def made_up(self: Timing, given: dict[str, bytes]) -> Race:
        models.update(given)
        found = race(self, given)
        own = TimeRatio(ratio, ratio - 0.01, ratio + 0.01)
        rows = tuple(replace(row, wall_ratio=own, cpu_ratio=own) for row in found.rows)
        return replace(found, rows=rows)

    monkeypatch.setattr(Timing, "race", made_up)
    timing = Timing(built.plan.coupling, built.recipe, built.watch, built.batches[0])
    timing.against_original(built.plan)
    assert operators(models["small"])[op] == 1
    assert operators(models["original"])["Add"] == 1
