"""Slower, not slower, or too noisy to say; and never a false alarm."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from compressor.passes.errors import UsageError
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from compressor.bench import Ratio
from compressor.cli import app
from compressor.gate import INCONCLUSIVE, PASSED, REGRESSED, check, percentage
from compressor.gate.formats import history, junit, markdown
from compressor.gate.verdict import _latency

pytest_plugins = ["pytester"]

QUIET = Ratio(1.0, 0.99, 1.01)


def model(path: Path, layers: int) -> Path:
    """So many multiplications by a matrix of 96 x 96."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 96])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 96])
    weight = numpy_helper.from_array(np.eye(96, dtype=np.float32), "w")
    names = ["x", *(f"t{i}" for i in range(layers - 1)), "y"]
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in pairwise(names)]
    graph = helper.make_graph(nodes, "net", [x], [y], [weight])
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {layers: model(folder / f"{layers}.onnx", layers) for layers in (20, 40)}


@pytest.mark.parametrize(
    ("ratio", "noise", "answer"),
    [
        (Ratio(1.00, 0.99, 1.01), QUIET, PASSED),
        (Ratio(0.50, 0.49, 0.51), QUIET, PASSED),
        (Ratio(1.04, 1.03, 1.05), QUIET, PASSED),
        (Ratio(1.045, 1.03, 1.06), QUIET, PASSED),  # a narrow interval around an allowed value
        (Ratio(1.10, 1.08, 1.12), QUIET, REGRESSED),
        (Ratio(1.06, 1.02, 1.10), QUIET, REGRESSED),
        (Ratio(1.06, 0.99, 1.13), QUIET, INCONCLUSIVE),  # the margin without the statistics
        (Ratio(1.02, 0.90, 1.20), QUIET, INCONCLUSIVE),
        (Ratio(1.10, 1.08, 1.12), Ratio(1.05, 1.03, 1.07), INCONCLUSIVE),  # so has the baseline
    ],
)
def test_both_the_margin_and_the_statistics_must_hold(ratio, noise, answer):
    found, why, hint = _latency(ratio, noise, 0.05)
    assert found == answer
    assert why
    assert bool(hint) == (answer == INCONCLUSIVE)


def test_twice_the_work_is_a_regression_and_half_of_it_is_not(files):
    slower = check(files[40], files[20], max_seconds=4)
    assert (slower.answer, slower.exit_code) == (REGRESSED, 1)
    assert slower.ratio.median > 1.3
    assert check(files[20], files[40], max_seconds=4).answer == PASSED


def test_more_arithmetic_than_is_allowed_is_a_regression_whatever_its_speed(files):
    found = check(files[40], files[20], max_regression=9.0, max_macs_growth=0.5, max_seconds=2)
    assert found.answer == REGRESSED
    assert found.macs == {"baseline": 20 * 64 * 96 * 96, "new": 40 * 64 * 96 * 96}
    assert "it multiplies 100.0% more (limit 50.0%)" in found.why
    fine = check(files[40], files[20], max_regression=9.0, max_macs_growth=1.0, max_seconds=2)
    assert fine.answer == PASSED


def test_a_metric_that_drops_is_a_regression_whatever_its_speed(files, tmp_path):
    judge = tmp_path / "judge.py"
    judge.write_text(
        "import torch\n"
        "def first(predict):\n"
        "    return {'kept': float(predict(torch.ones(64, 96))[0, 0])}\n"
    )
    whole = onnx.load(files[20])
    whole.graph.initializer[0].CopyFrom(numpy_helper.from_array(
        0.99 * np.eye(96, dtype=np.float32), "w"))  # fmt: skip
    onnx.save(whole, tmp_path / "worse.onnx")
    options = {"evaluate": [f"{judge}:first"], "max_regression": 9.0, "max_seconds": 2}
    found = check(tmp_path / "worse.onnx", files[20], max_drop=0.1, **options)
    assert found.answer == REGRESSED
    assert "kept is worse by 0.18" in found.why  # 1 - 0.99 ** 20
    assert check(tmp_path / "worse.onnx", files[20], max_drop=0.2, **options).answer == PASSED


def test_a_drop_of_nothing_that_is_measured_is_refused(files):
    with pytest.raises(UsageError, match="nothing is evaluated"):
        check(files[20], files[20], max_drop=0.1)
    with pytest.raises(UsageError, match="on files alone"):
        check(files[20], files[20], evaluate=["accuracy"], max_drop=0.1)


def test_a_file_that_is_too_large_is_a_regression_whatever_its_speed(files):
    grown = check(files[20], files[40], max_growth=0.0, max_seconds=2)
    assert grown.answer == PASSED
    shrunk = check(files[40], files[20], max_regression=9.0, max_growth=0.0, max_seconds=2)
    assert shrunk.answer == REGRESSED
    assert "the file is" in shrunk.why


@pytest.mark.parametrize(("text", "value"), [("5%", 0.05), ("0.05", 0.05), (" 10 % ", 0.1)])
def test_shares_are_written_in_two_ways(text, value):
    assert percentage(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "-5%", "five", "5%%", "nan"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(UsageError, match="no share"):
        percentage(text)


def test_a_limit_below_zero_is_refused(files):
    with pytest.raises(UsageError, match="max_regression"):
        check(files[20], files[20], max_regression=-0.1)


def test_other_tools_can_read_the_verdict(files):
    verdict = check(files[40], files[20], max_seconds=2)
    verdict = replace(verdict, answer=REGRESSED)
    suite = ElementTree.fromstring(junit(verdict, "net <1>"))
    assert (suite.get("failures"), suite.get("errors")) == ("1", "0")
    assert suite.find("testcase/failure").get("message") == verdict.why
    unsure = ElementTree.fromstring(junit(replace(verdict, answer=INCONCLUSIVE), "net"))
    assert (unsure.get("failures"), unsure.get("errors")) == ("0", "1")
    passed = ElementTree.fromstring(junit(replace(verdict, answer=PASSED), "net"))
    assert [one.tag for one in passed.find("testcase")] == ["system-out"]
    (entry,) = json.loads(history(verdict, "net"))
    assert entry["value"] == pytest.approx(verdict.ratio.median, abs=1e-4)
    assert set(entry) == {"name", "unit", "value", "range", "extra"}
    assert "| baseline |" in markdown(verdict, "net")


def test_the_command_ends_with_the_answers_code_and_writes_what_is_asked(files, tmp_path):
    out = {name: tmp_path / name for name in ("junit", "markdown", "history")}
    options = [text for name, path in out.items() for text in (f"--{name}", str(path))]
    command = ["check", str(files[40]), "--baseline", str(files[20]), "--seconds", "3", *options]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1, done.output
    assert "regressed" in done.output
    assert all(path.stat().st_size for path in out.values())
    assert CliRunner().invoke(app, [*command, "--max-regression", "lots"]).exit_code == 2
    missing = ["check", str(tmp_path / "no.onnx"), "--baseline", str(files[20])]
    assert CliRunner().invoke(app, missing).exit_code == 2


def test_a_latency_test_in_pytest(files, pytester):
    for layers, path in files.items():
        (pytester.path / f"{layers}.onnx").write_bytes(path.read_bytes())
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.latency(baseline="40.onnx", max_regression="5%", max_seconds=3)
        def test_faster(latency_gate):
            assert latency_gate("20.onnx").answer == "passed"

        @pytest.mark.latency(baseline="20.onnx", max_seconds=3)
        def test_slower(latency_gate):
            latency_gate("40.onnx")

        def test_without(latency_gate):
            latency_gate("40.onnx")
        """
    )
    plugin = () if _installed(pytester) else ("-p", "compressor.pytest_plugin")
    done = pytester.runpytest_subprocess(*plugin, "--strict-markers")
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.fnmatch_lines(["*40.onnx regressed: *"])
    done.stdout.fnmatch_lines(["*needs a baseline*"])


def _installed(pytester: pytest.Pytester) -> bool:
    """Whether the installed package brings the plugin by itself."""
    return "latency-strict" in pytester.runpytest_subprocess("--help").stdout.str()
