"""Which form of the small model is deployed, by a race whose readings are made up."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from compressor.passes.base.errors import WrongError
from torch import Tensor, nn

from compressor import Budget, Built, align, compress
from compressor.bench import Race, Samples, TimeRatio
from compressor.onnx.unfused_norms import SUMS
from compressor.pipeline import variant_race
from compressor.release import replay
from compressor.result import pass_log
from compressor.timing.timing import Timing, faster


class Named(NamedTuple):
    name: str
    ratio: TimeRatio


class Net(nn.Module):
    """onnxsim makes other operators of the reshapes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 10, 3), nn.Linear(10 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.last(x.reshape(x.shape[0], -1).reshape(x.shape[0], 10, 16).flatten(1))


@pytest.fixture(scope="module")
def exported() -> Built:
    """A build that has an unsimplified form; both models are exported."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6)
    built = compress(Net().eval(), x, budget=Budget(channels=0.5), round_to=1, bench_seconds=0.1)
    assert built.original_onnx.data
    built.deploy(replace(built.onnx, exported=bytes(bytearray(built.onnx.data))))
    return built


@pytest.fixture
def built(exported) -> Built:
    return copy.copy(exported)


def told(monkeypatch, times: Mapping[str, float]) -> None:
    """What the race says: a ratio for each form by the first letters of its name."""
    race = Timing.race

    def made_up(self: Timing, models: Mapping[str, bytes]) -> Race:
        found = race(self, dict.fromkeys(models, models["small"]))
        rows = []
        for row in found.rows:
            ratio = next((t for name, t in times.items() if row.name.startswith(name)), 1.0)
            own = TimeRatio(ratio, ratio - 0.01, ratio + 0.01)
            taken = tuple(int(1e6 * (ratio + off)) for off in (-0.01, 0.0, 0.01))
            samples = Samples(1, taken, taken)
            rows.append(replace(row, wall_ratio=own, cpu_ratio=own, samples=samples))
        return replace(found, rows=tuple(rows))

    monkeypatch.setattr(Timing, "race", made_up)


def deployed(built):
    found = variant_race.raced(built)
    variant_race.keep_fastest(built, found)
    return found


def test_the_model_as_it_is_stays_where_nothing_is_faster_for_sure(built, monkeypatch):
    before = built.onnx.data
    told(monkeypatch, {"small": 0.8, "unsimplified": 0.8, "multiples": 0.79})
    found = deployed(built)
    assert "form" not in found
    assert found["ratio"] == 0.8
    assert built.onnx.data is before


def test_the_exporters_graph_is_deployed_where_onnxsims_is_slower(built, monkeypatch):
    told(monkeypatch, {"small": 0.8, "unsimplified": 0.77})
    found = deployed(built)
    assert found["form"]["name"] == "unsimplified"
    assert found["ratio"] == 0.77
    assert not built.onnx.simplified
    assert built.report["passes"]["spec"] == "capture prune{round_to=1} export"
    assert "onnxsim's measured slower" in found["form"]["note"]


@pytest.mark.parametrize(("time", "kept"), [(0.79, False), (0.7, True)])
def test_padded_channels_have_to_be_faster_by_more(time, kept, built, monkeypatch):
    before = built.onnx.data
    name, *_ = align.candidates(before)
    told(monkeypatch, {"small": 0.8, "unsimplified": 0.9, name: time})
    assert ("form" in deployed(built)) is kept
    assert (built.onnx.data is before) is not kept
    unit = name.removeprefix("multiples of ")
    assert built.report["passes"]["spec"].endswith(f" align{{to={unit}}}" if kept else " simplify")
    replay.check_known(pass_log.whole(built), Path("passes.json"))


@pytest.mark.parametrize(
    ("form", "sums", "made"),
    [
        (variant_race.UNSIMPLIFIED, True, []),
        (SUMS, True, ["sums-before-norms"]),
        ("multiples of 16", True, ["sums-before-norms", "align{to=16}"]),
        ("multiples of 16", False, ["align{to=16}"]),
    ],
)
def test_a_form_is_logged_as_the_passes_that_make_it(form, sums, made):
    found = variant_race._passes(form, sums)
    assert list(map(str, found)) == made
    assert {one.name for one in found} <= replay.known().keys()


def test_a_form_that_disagrees_with_torch_is_not_deployed(built, monkeypatch):
    before = built.onnx.data
    told(monkeypatch, {"small": 0.8, "unsimplified": 0.5})

    def differs(*given):
        raise WrongError("it differs")

    monkeypatch.setattr(built, "parity_of", differs)
    found = deployed(built)
    assert not found["form"]["kept"]
    assert "it differs" in found["form"]["note"]
    assert found["ratio"] == 0.8
    assert built.onnx.data is before


def test_a_graph_that_onnxsim_left_alone_is_not_raced_twice(built):
    onnx = built.onnx
    assert "unsimplified" in variant_race.forms(onnx)
    assert "unsimplified" not in variant_race.forms(replace(onnx, exported=b""))
    assert type(onnx).unpacked(onnx.packed()).__dict__ == onnx.__dict__


def test_a_form_that_costs_nothing_is_deployed_by_its_median_where_rounds_are_few():
    """The range of five rounds of a large model on a busy machine reaches over 1."""
    assert faster(TimeRatio(0.92, 0.89, 1.01))
    assert faster(TimeRatio(0.995, 0.992, 0.998))
    assert not faster(TimeRatio(0.99, 0.97, 1.01))


@pytest.mark.parametrize(
    ("padded", "best"), [(0.549, "sums before norms"), (0.5, "multiples of 8")]
)
def test_padded_channels_have_to_be_faster_than_the_best_that_costs_nothing(padded, best):
    medians = {"original": 1.0, "small": 0.6, "sums before norms": 0.55, "multiples of 8": padded}

    class Made:
        rows = tuple(Named(name, TimeRatio(time, time, time)) for name, time in medians.items())

        def between(self, name: str, other: str) -> TimeRatio:
            found = medians[name] / medians[other]
            return TimeRatio(found, found - 0.005, found + 0.005)

    assert variant_race._best(Made(), ["sums before norms", "multiples of 8"]) == best
