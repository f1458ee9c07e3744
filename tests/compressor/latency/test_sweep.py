"""A front of builds: what was made is not made again, what cannot be is said."""

import json
import re

import pytest
from compressor.passes.base.errors import GateError, UsageError
from typer.testing import CliRunner

from compressor.cli.app import app
from compressor.config import Recipe
from compressor.latency import sweep as sweeps
from compressor.pipeline import build as builds
from compressor.storage.atomic_replace import alone

RESULTS = {"0.8": (0.79, 0.98), "0.65": (0.64, 0.90), "0.5": (0.49, 0.95)}


class Builder:
    """Writes reports as a build does."""

    def __init__(self, refused=()):
        self.made, self.refused = [], refused

    def __call__(self, recipe):
        self.made.append(recipe.latency)
        if recipe.latency in self.refused:
            raise GateError(f"the budget of {recipe.latency} is not met")
        ratio, accuracy = RESULTS[recipe.latency]
        recipe.output.mkdir()
        report = {
            "latency": {"ratio": ratio, "low": ratio - 0.01, "high": ratio + 0.01},
            "cost": {"macs": {"original": 100, "small": 60}, "params": {"original": 9, "small": 6}},
            "file_bytes": {"original": 4000, "small": round(4000 * ratio)},
            "accuracy": {"accuracy": {"original": 0.99, "small": accuracy}},
        }
        (recipe.output / "report.json").write_text(json.dumps(report))


def recipe(folder, latency="0.8,0.65,0.5"):
    return Recipe.of(model="net.py:net", latency=latency, output=folder)


def swept(asked, builder):
    return sweeps.sweep(asked, sweeps.one_by_one(builder))


def test_a_front_is_what_nothing_beats(tmp_path):
    front = swept(recipe(tmp_path / "s"), Builder())
    assert [(one.asked, one.best) for one in front.points] == [
        ("0.8", True), ("0.65", False), ("0.5", True),
    ]  # fmt: skip
    assert json.loads((tmp_path / "s/front.json").read_text()) == json.loads(
        json.dumps(front.to_json())
    )
    shown = (tmp_path / "s/front.html").read_text()
    assert shown.count("<circle") == 4  # the original, and three builds
    across = 1.06 * max(1, *(one.high for one in front.points))
    for one in front.points:
        assert f'cx="{round(100 * one.ratio / across, 2)}%"' in shown
    assert shown.count('class="joined"') == 1  # from the one point on the front to the other


def measuring(metric, original, small):
    """A builder whose reports have a metric: of the original, and by what was asked for."""

    def build(one):
        Builder()(one)
        path = one.output / "report.json"
        pair = {"original": original, "small": small[one.latency]}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"accuracy": {metric: pair}}))

    return build


def test_of_an_error_less_is_better(tmp_path):
    front = swept(recipe(tmp_path), measuring("mse", 0.0, {"0.8": 0.1, "0.65": 0.5, "0.5": 0.3}))
    assert [one.best for one in front.points] == [True, False, True]


@pytest.mark.parametrize("metric", ["rmse", "ev:min"])
def test_the_direction_of_a_front_is_known_by_the_name_or_said(metric, tmp_path):
    name = metric.partition(":")[0]
    asked = recipe(tmp_path).model_copy(update={"metric": metric})
    front = swept(asked, measuring(name, 0.0, {"0.8": 0.1, "0.65": 0.5, "0.5": 0.3}))
    assert [one.best for one in front.points] == [True, False, True]


def test_a_front_whose_direction_is_not_known_says_what_to_add_and_keeps_what_is_built(tmp_path):
    build = measuring("ev", 0.0, {"0.8": 0.1, "0.65": 0.5, "0.5": 0.3})
    with pytest.raises(UsageError, match="not known whether 'ev' is better") as refused:
        swept(recipe(tmp_path), build)
    assert "--metric ev:max" in refused.value.hint
    assert (tmp_path / "0.8" / "report.json").exists()
    with pytest.raises(UsageError, match="no metric is called 'f1'"):
        swept(recipe(tmp_path).model_copy(update={"metric": "f1"}), build)
    front = swept(recipe(tmp_path).model_copy(update={"metric": "ev:max"}), build)
    assert [one.best for one in front.points] == [False, True, True]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_what_is_not_finite_is_on_no_front_and_in_no_picture(value, tmp_path):
    front = swept(recipe(tmp_path), measuring("f1", value, {"0.8": 0.9, "0.65": 0.8, "0.5": value}))
    assert [one.best for one in front.points] == [True, True, False]
    shown = (tmp_path / "front.html").read_text()
    assert shown.count("<circle") == 2
    assert 'cy="nan' not in shown
    known = json.loads((tmp_path / "front.json").read_text())
    assert known["points"][2]["metrics"] == {"f1": value}


def test_a_metric_of_any_sign_stays_inside_its_picture(tmp_path):
    swept(recipe(tmp_path), measuring("r2", -3.5, {"0.8": -3.5, "0.65": -3.5, "0.5": 2.0}))
    shown = (tmp_path / "front.html").read_text()
    heights = [float(one) for one in re.findall(r'cy="([-\d.]+)"', shown)]
    assert len(heights) == 4
    assert all(0 < one < 280 for one in heights)


def test_what_was_built_is_not_built_again(tmp_path):
    swept(recipe(tmp_path, "0.8,0.5"), Builder())
    again = Builder()
    front = swept(recipe(tmp_path), again)
    assert again.made == ["0.65"]
    assert len(front.points) == 3


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda report: report.pop("file_bytes"),
        lambda report: report["file_bytes"].pop("small"),
        lambda report: report.update(latency="fast"),
        lambda report: report["latency"].update(ratio=None),
        lambda report: report.update(accuracy={"top1": {"original": 1.0}}),
        lambda report: report["cost"]["macs"].update(small="few"),
        lambda report: report.update(environment=[]),
    ],
)
def test_a_report_that_says_something_else_is_refused_with_what_to_do(tmp_path, spoilt):
    swept(recipe(tmp_path, "0.8,0.5"), Builder())
    path = tmp_path / "0.8" / "report.json"
    report = json.loads(path.read_text())
    spoilt(report)
    path.write_text(json.dumps(report))
    with pytest.raises(UsageError, match="is not a report") as refused:
        swept(recipe(tmp_path, "0.8,0.5"), Builder())
    assert "built anew" in refused.value.hint


def test_builds_that_measured_other_metrics_share_a_front(tmp_path):
    swept(recipe(tmp_path, "0.8,0.65"), measuring("r2", 0.5, {"0.8": 0.4, "0.65": 0.3}))
    front = swept(recipe(tmp_path), Builder())
    assert [set(one.metrics) for one in front.points[:2]] == [{"r2"}, {"r2"}]
    assert "r2" in (tmp_path / "front.html").read_text()


def test_a_time_that_no_build_meets_says_why(tmp_path):
    front = swept(recipe(tmp_path), Builder(refused=("0.65",)))
    assert front.points[1].ratio is None
    assert front.points[1].why == "the budget of 0.65 is not met"
    assert "is not met" in (tmp_path / "front.html").read_text()
    assert [one.best for one in front.points] == [True, False, True]


def test_a_command_that_is_wrong_builds_nothing(tmp_path):
    builder = Builder()
    for latency in ("0.5", "0.8,half", ""):
        with pytest.raises(UsageError):
            swept(recipe(tmp_path / "s", latency), builder)
    assert builder.made == []
    assert not (tmp_path / "s").exists()


def test_an_interrupt_says_what_is_kept(tmp_path, monkeypatch):
    def build(one, watch):
        if one.latency == "0.65":
            raise KeyboardInterrupt
        Builder()(one)

    monkeypatch.setattr(builds, "build", build)
    done = CliRunner().invoke(app, f"sweep net.py:net --latency 0.8,0.65 -o {tmp_path}/s".split())
    assert done.exit_code == 130
    assert "interrupted; what is built is kept, and the same command goes on" in done.stderr
    assert (tmp_path / "s/0.8/report.json").exists()


def test_two_sweeps_do_not_write_to_one_folder(tmp_path):
    with alone(tmp_path / "s"), pytest.raises(UsageError, match="another build is writing"):
        swept(recipe(tmp_path / "s"), Builder())


def test_reports_that_would_be_encrypted_are_refused_first(tmp_path):
    asked = recipe(tmp_path / "s").model_copy(update={"encrypt_key": tmp_path / "key"})
    with pytest.raises(UsageError, match="cannot read reports that are encrypted"):
        swept(asked, Builder())
    assert not (tmp_path / "s").exists()


def test_a_sweep_without_races_is_refused_first(tmp_path):
    asked = recipe(tmp_path / "s").model_copy(update={"race": False})
    with pytest.raises(UsageError, match="compares builds by their races"):
        swept(asked, Builder())
    assert not (tmp_path / "s").exists()


def test_points_of_different_processors_are_marked(tmp_path):
    def build(one):
        Builder()(one)
        path = one.output / "report.json"
        report = json.loads(path.read_text()) | {"environment": {"processor": f"cpu {one.latency}"}}
        path.write_text(json.dumps(report))

    front = swept(recipe(tmp_path / "s", "0.8,0.5"), build)
    assert front.note.endswith("on the same one: cpu 0.5, cpu 0.8.")
    assert front.note in (tmp_path / "s/front.html").read_text()
    assert swept(recipe(tmp_path / "t"), Builder()).note == ""
