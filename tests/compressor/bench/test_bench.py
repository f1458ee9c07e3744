"""The instrument for latency: ratios in generous bounds, never seconds."""

import getpass
import json
import platform
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compressor.passes.base.errors import CompressError, UsageError
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from compressor.bench import Race, Samples, TimeRatio, offered_providers, race, render
from compressor.bench.sessions import Field, Runner
from compressor.bench.statistics import paired_ratio
from compressor.process.environment import environment
from compressor.process.time_limit import Limit

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
QUICK: dict[str, Any] = {"rounds": 6, "max_seconds": 0.2}


def proto(nodes, inputs, weights=None) -> onnx.ModelProto:
    """A model from nodes, `{name: (type, shape)}` and `{name: array}`; its output is `y`."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op, taken, [made]) for op, taken, made in nodes],
        "test",
        [value(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def stack(depth: int = 1, width: int = 64, name: str = "x", batch: int | str = "batch") -> bytes:
    """`depth` square matrix products in a row."""
    values = [name, *(f"v{step}" for step in range(1, depth)), "y"]
    nodes = [("MatMul", [values[step], "w"], values[step + 1]) for step in range(depth)]
    weight = np.eye(width, dtype=np.float32)
    inputs = {name: (TensorProto.FLOAT, [batch, width])}
    return proto(nodes, inputs, {"w": weight}).SerializeToString()


def gather(rows: int) -> bytes:
    """Rows of a table, by the eight integers of `x`."""
    table = np.zeros((rows, 4), np.float32)
    inputs = {"x": (TensorProto.INT64, [8])}
    return proto([("Gather", ["table", "x"], "y")], inputs, {"table": table}).SerializeToString()


def picture() -> bytes:
    """A model whose second and third dimension are dynamic too."""
    return proto(
        [("Relu", ["x"], "y")], {"x": (TensorProto.FLOAT, ["n", "height", "width"])}
    ).SerializeToString()


@pytest.fixture(scope="module")
def raced() -> Race:
    models = {"dense": stack(8, 128), "twin": stack(8, 128), "small": stack(1, 128)}
    return race(models, rounds=12, max_seconds=3, batch=8)


def test_identical_models_take_the_same_time(raced):
    twin = raced.rows[1].ratio
    assert 0.8 < twin.median < 1.25
    assert twin.low < 1.25
    assert twin.high > 0.8


def test_the_control_measures_the_noise(raced):
    assert raced.noise == raced.control.ratio
    assert 0.8 < raced.noise.median < 1.25


def test_a_bigger_model_is_slower_by_a_wide_margin(raced):
    assert raced.rows[2].ratio.high < 0.6
    turned = race({"small": stack(1, 128), "big": stack(16, 128)}, batch=8, **QUICK)
    assert turned.rows[1].ratio.median > 2


def test_the_baseline_is_one_by_definition(raced):
    assert raced.rows[0].ratio == TimeRatio(1, 1, 1)


def test_every_round_draws_a_new_order(raced):
    assert all(sorted(order) == [0, 1, 2, 3] for order in raced.order)
    assert len(set(raced.order)) > 1


def test_a_seed_fixes_the_order():
    first, again, other = (race({"m": stack()}, seed=seed, **QUICK) for seed in (1, 1, 2))
    assert first.order[:3] == again.order[:3]
    assert first.order[:3] != other.order[:3]


def test_loadings_come_in_mirrored_pairs(monkeypatch):
    seen = []
    load = Field.load

    def spy(self, order, limit):
        seen.append(order)
        return load(self, order, limit)

    monkeypatch.setattr(Field, "load", spy)
    race({"a": stack(), "b": stack()}, rounds=6, max_seconds=5)
    assert len(seen) >= 6
    assert [order[::-1] for order in seen[:6:2]] == seen[1:6:2]


def test_raw_samples_are_kept_and_give_the_ratio_again(raced):
    dense, small = raced.rows[0].samples, raced.rows[2].samples
    for samples in (dense, small, raced.control.samples):
        assert len(samples.wall_ns) == len(samples.cpu_ns) == raced.rounds
        assert min(samples.wall_ns) > 0
        assert samples.runs >= 1
    ratios = np.divide(small.cpu_ns, dense.cpu_ns) * dense.runs / small.runs
    assert raced.rows[2].cpu_ratio.median == pytest.approx(np.median(ratios))


def test_a_sample_has_more_runs_of_a_faster_model(raced):
    assert raced.rows[2].samples.runs > raced.rows[0].samples.runs


def test_percentiles_are_in_order(raced):
    for row in raced.rows:
        assert 0 < row.p90_ms <= row.p99_ms


def test_a_race_survives_json(raced):
    plain: Any = raced.to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["rows"][2]["samples"]["cpu_ns"] == list(raced.rows[2].samples.cpu_ns)
    assert plain["environment"]["packages"]["onnxruntime"]
    assert plain["noise"]["median"] == raced.noise.median


def test_one_thread_is_judged_by_cpu_time_and_several_by_wall_time(raced):
    several = race({"m": stack()}, threads=2, **QUICK)
    assert (raced.primary, several.primary) == ("cpu", "wall")
    assert several.noise == several.control.wall_ratio
    assert "several threads" in several.why


def test_a_race_ends_when_the_time_is_up_but_not_before_three_rounds():
    short = race({"m": stack()}, rounds=10**6, max_seconds=1e-9)
    assert short.rounds == 3
    ratios = np.divide(short.control.samples.cpu_ns, short.rows[0].samples.cpu_ns)
    ratios *= short.rows[0].samples.runs / short.control.samples.runs
    assert short.noise.low == pytest.approx(ratios.min())
    assert short.noise.high == pytest.approx(ratios.max())


def test_progress_counts_the_rounds_and_ends_complete():
    calls = []
    done = race({"m": stack()}, progress=lambda *call: calls.append(call), **QUICK)
    assert [call[0] for call in calls] == list(range(1, done.rounds + 1))
    assert all(count < expected for count, expected in calls[:-1])
    assert calls[-1] == (done.rounds, done.rounds)


def test_a_dynamic_batch_takes_the_batch_size(raced):
    assert raced.shapes == {"x": (8, 128)}


def test_a_fixed_batch_fills_the_dynamic_one_of_another_model():
    assert race({"a": stack(), "b": stack(batch=3)}, **QUICK).shapes == {"x": (3, 64)}


def test_a_batch_size_for_a_fixed_batch_is_refused():
    with pytest.raises(UsageError, match="batch of these models is fixed"):
        race({"m": stack(batch=1)}, batch=4, **QUICK)


def test_integers_and_truth_values_are_made_up():
    nodes = [("Gather", ["table", "x"], "g"), ("Where", ["mask", "g", "g"], "y")]
    inputs = {"x": (TensorProto.INT32, [8]), "mask": (TensorProto.BOOL, [8, 1])}
    model = proto(nodes, inputs, {"table": np.zeros((2, 4), np.float32)})
    done = race({"m": model.SerializeToString()}, **QUICK)
    assert done.shapes == {"mask": (8, 1), "x": (8,)}


def test_a_dynamic_size_is_not_guessed_but_taken_from_the_inputs():
    with pytest.raises(UsageError, match=r"x: tensor\(float\)\[n, height, width\]") as refused:
        race({"m": picture()}, **QUICK)
    assert "inputs={'x': array}" in refused.value.hint
    given = {"x": np.zeros((2, 5, 7), np.float32)}
    assert race({"m": picture()}, inputs=given, **QUICK).shapes == {"x": (2, 5, 7)}


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        ({"z": np.zeros((1, 64), np.float32)}, "z"),
        ({}, "none"),
        ({"x": np.zeros((1, 64))}, "float64[1, 64]"),
        ({"x": np.zeros((1, 65), np.float32)}, "float32[1, 65]"),
        ({"x": np.zeros(64, np.float32)}, "float32[64]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, why):
    with pytest.raises(UsageError) as refused:
        race({"m": stack()}, inputs=inputs, **QUICK)
    assert why in refused.value.why


def test_inputs_that_the_model_cannot_digest_are_refused():
    with pytest.raises(UsageError, match="'m' does not run on these inputs"):
        race({"m": gather(rows=1)}, **QUICK)


def test_a_model_that_fails_in_a_later_run_is_refused():
    class Session:
        def run_with_iobinding(self, binding):
            raise RuntimeError("invalid dimensions for an output")

    runner = Runner("m", Session(), None, Limit(1.0))
    with pytest.raises(UsageError, match="'m' does not run on these inputs") as refused:
        runner.run()
    assert "invalid dimensions" in refused.value.why


@pytest.mark.parametrize("other", [stack(name="z"), stack(width=32), gather(2)])
def test_models_with_different_inputs_are_refused_by_name(other):
    with pytest.raises(UsageError, match="'a' and 'b' do not take the same inputs") as refused:
        race({"a": stack(), "b": other}, **QUICK)
    assert "x: tensor(float)[batch, 64]" in refused.value.why


@pytest.mark.parametrize("name", ["rounds", "threads", "batch", "warmup", "max_seconds"])
def test_a_count_of_zero_is_refused(name):
    zero: dict[str, Any] = {name: 0}
    with pytest.raises(UsageError, match=f"{name} = 0"):
        race({"m": stack()}, **zero)


def test_a_race_without_models_is_refused():
    with pytest.raises(UsageError, match="no model"):
        race({})


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="'m' is not there") as refused:
        race({"m": tmp_path / "none.onnx"})
    assert refused.value.where == str(tmp_path / "none.onnx")
    assert refused.value.hint


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="'m' is a folder"):
        race({"m": tmp_path})


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00\x01\x02"])
def test_what_is_not_onnx_is_refused(content, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    for model in (content, path):
        with pytest.raises(UsageError, match=r"cannot load the model 'm'|is not an ONNX file"):
            race({"m": model})


def test_an_unknown_provider_is_refused_with_those_on_offer():
    with pytest.raises(UsageError, match="unknown execution provider 'Abacus'") as refused:
        race({"m": stack()}, providers=["Abacus"])
    assert CPU in refused.value.why
    with pytest.raises(UsageError, match="no execution provider"):
        race({"m": stack()}, providers=[])


@pytest.mark.skipif(CUDA in offered_providers(), reason="needs a machine without CUDA")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_falls_back_is_an_error(monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [CUDA, CPU])
    assert offered_providers() == (CPU,)
    with pytest.raises(CompressError, match=f"{CUDA} cannot run the model 'm'") as refused:
        race({"m": stack()}, providers=[CUDA])
    assert not isinstance(refused.value, UsageError)


def test_a_file_is_raced_and_its_external_data_counted(tmp_path):
    inside, outside = tmp_path / "inside.onnx", tmp_path / "outside.onnx"
    inside.write_bytes(stack())
    onnx.save(
        onnx.load_from_string(stack()),
        outside,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    sizes = [row.file_bytes for row in race({"i": inside, "o": outside}, **QUICK).rows]
    assert sizes[0] == inside.stat().st_size
    assert sizes[1] == outside.stat().st_size + (tmp_path / "weights.bin").stat().st_size


def test_denormals_are_as_before_after_a_race(raced):
    tiny = np.full(4, 1e-37, np.float32) * np.float32(1e-3)
    assert tiny.all()
    if (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        assert raced.denormals_flushed


def printed(done: Race) -> str:
    page = StringIO()
    Console(width=160, file=page).print(render(done))
    return page.getvalue()


def test_the_table_says_what_the_ratio_is(raced):
    text = printed(raced)
    assert "Time of one run as a ratio to dense (CPU time; below 1x is faster)" in text
    assert str(raced.rows[2].ratio) in text
    assert f"noise: dense against itself {raced.noise}" in text
    assert "1 thread" in text


def test_a_name_in_brackets_is_printed_as_it_is():
    done = race({"[bold]": stack()}, **QUICK)
    assert "[bold]" in printed(done)


def test_a_ratio_prints_with_its_interval():
    assert str(TimeRatio(0.52, 0.51, 0.53)) == "0.52x (0.51-0.53)"
    assert str(TimeRatio(0.083, 0.082, 0.084)) == "0.083x (0.082-0.084)"


def test_a_slow_round_cancels_out_of_the_ratio():
    baseline = np.random.default_rng(0).uniform(1, 10, 60)
    ratio = paired_ratio(baseline / 2, baseline, heat=5)
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((0.5, 0.5, 0.5))


def test_fewer_than_six_heats_give_the_range():
    ratio = paired_ratio([1.0, 2.0, 9.0], [1.0, 1.0, 1.0], heat=5)
    assert ratio == TimeRatio(2.0, 1.0, 9.0)


def test_the_interval_holds_the_truth_about_95_times_in_100():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        heats = generator.normal(0, 0.01, (12, 1)) + generator.normal(0, 0.01, (12, 5))
        ratio = paired_ratio(np.exp(heats).ravel(), np.ones(60), heat=5)
        hits += ratio.low <= 1 <= ratio.high
    assert 88 <= hits <= 100


def test_luck_that_a_heat_shares_widens_the_interval():
    shared = np.repeat(np.random.default_rng(0).normal(1, 0.01, 12), 5)
    as_heats, as_rounds = (paired_ratio(shared, np.ones(60), heat=heat) for heat in (5, 1))
    assert as_heats.half_width > 1.5 * as_rounds.half_width


def test_the_environment_is_plain_and_private():
    here: Any = environment()
    text = json.dumps(here)
    assert json.loads(text) == here
    assert here["packages"]["numpy"] == np.__version__
    assert CPU in here["providers"]
    assert here["cores"]["logical"] >= 1
    assert platform.node() not in text
    assert str(Path.home()) not in text
    assert "/home" not in text
    assert f'"{getpass.getuser()}"' not in text


def test_the_environment_is_fresh_each_time():
    environment()["processor"] = "another"
    assert environment()["processor"] != "another"


def test_importing_the_instrument_is_cheap():
    heavy = "{'torch', 'onnx', 'onnxruntime', 'rich'} & set(sys.modules)"
    code = f"import sys, compressor.bench; print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_two_models_of_a_race_are_compared_round_by_round():
    samples = {"a": (100, 300, 200), "b": (220, 600, 400), "c": (100, 900, 200)}
    found = race(dict.fromkeys(samples, stack()), **QUICK)
    rows = [replace(row, samples=Samples(2, samples[row.name], samples[row.name]))
            for row in found.rows]  # fmt: skip
    found = replace(found, rows=tuple(rows))
    assert found.between("b", "a").median == 2
    assert found.between("a", "c").low == pytest.approx(1 / 3)
    with pytest.raises(KeyError):
        found.between("a", "d")
