"""Slower, not slower, or too noisy to say; and never a false alarm."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from compressor.passes.base.errors import UsageError
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from compressor.bench import TimeRatio
from compressor.bench.sessions import file_bytes
from compressor.cli.app import app
from compressor.gate import INCONCLUSIVE, PASSED, REGRESSED, check, percentage
from compressor.gate.formats import history, junit, markdown
from compressor.gate.verdict import _grown, _latency
from compressor.onnx.model_files import _looked_at

pytest_plugins = ["pytester"]

QUIET = TimeRatio(1.0, 0.99, 1.01)


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
        (TimeRatio(1.00, 0.99, 1.01), QUIET, PASSED),
        (TimeRatio(0.50, 0.49, 0.51), QUIET, PASSED),
        (TimeRatio(1.04, 1.03, 1.05), QUIET, PASSED),
        (TimeRatio(1.045, 1.03, 1.06), QUIET, PASSED),  # a narrow interval around an allowed value
        (TimeRatio(1.10, 1.08, 1.12), QUIET, REGRESSED),
        (TimeRatio(1.06, 1.02, 1.10), QUIET, REGRESSED),
        (TimeRatio(1.06, 0.99, 1.13), QUIET, INCONCLUSIVE),  # the margin without the statistics
        (TimeRatio(1.02, 0.90, 1.20), QUIET, INCONCLUSIVE),
        (
            TimeRatio(1.10, 1.08, 1.12),
            TimeRatio(1.05, 1.03, 1.07),
            INCONCLUSIVE,
        ),  # so has the baseline
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
    with pytest.raises(UsageError, match="not known whether 'kept' is better"):
        check(tmp_path / "worse.onnx", files[20], max_drop=0.1, **options)
    options["metric"] = "kept:max"
    found = check(tmp_path / "worse.onnx", files[20], max_drop=0.1, **options)
    assert found.answer == REGRESSED
    assert "kept is worse by 0.18" in found.why  # 1 - 0.99 ** 20
    assert check(tmp_path / "worse.onnx", files[20], max_drop=0.2, **options).answer == PASSED
    options["metric"] = "kept:min"
    assert check(tmp_path / "worse.onnx", files[20], max_drop=0.0, **options).answer == PASSED


def test_what_is_not_finite_is_a_word_in_json(files, tmp_path):
    judge = tmp_path / "judge.py"
    judge.write_text("values = [0.5, float('nan')]\ndef f1(predict):\n    return values.pop(0)\n")
    found = check(files[20], files[20], evaluate=[f"{judge}:f1"], max_regression=9.0, max_seconds=1)
    assert found.answer == PASSED  # nothing is limited
    assert found.to_json()["accuracy"] == {"f1": {"original": 0.5, "small": "nan"}}


def test_a_drop_of_nothing_that_is_measured_is_refused(files):
    with pytest.raises(UsageError, match="nothing is evaluated"):
        check(files[20], files[20], max_drop=0.1)
    with pytest.raises(UsageError, match="--metric would be ignored"):
        check(files[20], files[20], metric="f1:max")
    with pytest.raises(UsageError, match="on files alone"):
        check(files[20], files[20], evaluate=["accuracy"], max_drop=0.1)


def test_a_file_that_is_too_large_is_a_regression_whatever_its_speed(files):
    grown = check(files[20], files[40], max_growth=0.0, max_seconds=2)
    assert grown.answer == PASSED
    shrunk = check(files[40], files[20], max_regression=9.0, max_growth=0.0, max_seconds=2)
    assert shrunk.answer == REGRESSED
    assert "the file is" in shrunk.why


def outside(name: str, size: int) -> onnx.TensorProto:
    """A tensor whose numbers are in a file of that name."""
    found = onnx.TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[size])
    found.data_location = TensorProto.EXTERNAL
    found.external_data.add(key="location", value=name)
    return found


def constant(name: str, size: int) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [f"{name} out"], value=outside(name, size))


def sparse(name: str, size: int) -> onnx.NodeProto:
    indices = numpy_helper.from_array(np.arange(size), f"{name} at")
    made = helper.make_sparse_tensor(outside(name, size), indices, [size])
    return helper.make_node("Constant", [], [f"{name} out"], sparse_value=made)


def in_branch(node: onnx.NodeProto) -> onnx.NodeProto:
    named = onnx.ValueInfoProto(name=node.output[0])
    graph = helper.make_graph([node], "branch", [], [named])
    return helper.make_node("If", ["c"], ["unused"], then_branch=graph, else_branch=graph)


PLACES = {
    "initialiser": lambda graph, size: graph.initializer.append(outside("data", size)),
    "constant": lambda graph, size: graph.node.append(constant("data", size)),
    "sparse constant": lambda graph, size: graph.node.append(sparse("data", size)),
    "branch": lambda graph, size: graph.node.append(in_branch(constant("data", size))),
}


@pytest.mark.parametrize("place", [*PLACES, "function", "default of a function"])
def test_the_size_of_a_model_is_that_of_every_file_that_it_names(place, files, tmp_path):
    new = onnx.load(files[20])
    if place in PLACES:
        PLACES[place](new.graph, 5000)
    else:
        opsets = [helper.make_opsetid("", 20)]
        nodes = [constant("data", 5000)] if place == "function" else []
        new.functions.append(helper.make_function("own", "F", [], [], nodes, opsets))
        if not nodes:
            default = helper.make_attribute("table", outside("data", 5000))
            new.functions[0].attribute_proto.append(default)
    path = tmp_path / "new.onnx"
    path.write_bytes(new.SerializeToString())
    (tmp_path / "data").write_bytes(bytes(20_000))
    assert file_bytes(path) == path.stat().st_size + 20_000
    _looked_at.cache_clear()  # it remembers files by their time
    (tmp_path / "data").unlink()
    with pytest.raises(UsageError, match="cannot be read safely") as refused:
        file_bytes(path)
    assert "no file 'data'" in refused.value.why


def test_data_outside_the_file_are_growth(files, tmp_path):
    new = onnx.load(files[20])
    new.graph.node.append(constant("data", 50_000))
    onnx.save(new, tmp_path / "new.onnx")
    (tmp_path / "data").write_bytes(bytes(200_000))
    found = check(tmp_path / "new.onnx", files[20], max_regression=9.0, max_growth=1.0,
                  max_seconds=1)  # fmt: skip
    assert found.answer == REGRESSED
    assert "the file is 5" in found.why


# ------------------------------------------------------------------------ builds and checks agree

NAN, INF = "float('nan')", "float('inf')"

JUDGED = {
    "kept": ("f1", "0.9", "0.895", "", 0),
    "worse": ("f1", "0.9", "0.5", "", 1),
    "just kept": ("f1", "0.93", "0.92", "", 0),
    "lower is better": ("rmse", "0.5", "0.1", "", 0),
    "higher is worse": ("rmse", "1e-7", "0.4", "", 1),
    "of nothing": ("rmse", "0.0", "0.0", "", 0),
    "below nothing": ("r2", "-1.0", "-1.5", "", 1),
    "said to be lower": ("ev", "0.5", "0.1", "--metric ev:min", 0),
    "said to be higher": ("ev", "0.5", "0.1", "--metric ev:max", 1),
    "not said": ("ev", "0.5", "0.5", "", 2),
    "named otherwise": ("f1", "0.9", "0.9", "--metric f2", 2),
    "nan": ("f1", "0.9", NAN, "", 1),
    "infinite": ("f1", "0.9", INF, "", 1),
    "infinitely small": ("rmse", "0.9", f"-{INF}", "", 1),
    "an original of nan": ("f1", NAN, "0.9", "", 2),
    "both nan": ("f1", NAN, NAN, "", 2),
    "both infinite": ("f1", INF, INF, "", 2),
    "numpy": ("f1", "np.float32(0.9)", "np.array(0.5)", "", 1),
    "tensors": ("f1", "torch.tensor(0.9)", "torch.tensor([0.9])", "", 0),
    "a tensor of nan": ("f1", "torch.tensor(0.9)", f"torch.tensor({NAN})", "", 1),
    "two numbers": ("f1", "torch.ones(2)", "torch.ones(2)", "", 2),
    "truth": ("f1", "True", "True", "", 2),
    "a complex number": ("f1", "0.9", "np.complex64(0.9)", "", 2),
    "text": ("f1", "'0.9'", "'0.9'", "", 2),
    "nothing": ("f1", "None", "None", "", 2),
    "no names": ("f1", "{}", "{}", "", 2),
    "other names": ("f1", "{'f1': 0.9}", "{'f2': 0.9}", "", 2),
    "by name": ("ev", "{'rmse': 0.1, 'f1': 0.9}", "{'rmse': 0.4, 'f1': 0.9}", "", 1),
    "another decides": (
        "ev", "{'rmse': 0.1, 'f1': 0.9}", "{'rmse': 0.4, 'f1': 0.9}", "--metric f1", 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", JUDGED)
def test_builds_and_checks_come_to_the_same_answer(name, command, fast, tmp_path):
    function, original, small, more, code = JUDGED[name]
    for which in ("build", "check"):  # each has values of its own to give
        (tmp_path / f"{which}.py").write_text(
            "import numpy as np, torch\n"
            f"values = [lambda: {original}, lambda: {small}]\n"
            f"def {function}(predict):\n    return values.pop(0)()\n"
        )
    onnx_file = model(tmp_path / "a.onnx", 1)
    asked = f"{function} --max-drop 0.01 {more} --quiet"
    built = command(
        f"build net.py:net --macs 0.5 --bench-seconds 0.1 --allow-slower -o {tmp_path}/out "
        f"--evaluate {tmp_path}/build.py:{asked}"
    )
    checked = command(
        f"check {onnx_file} --baseline {onnx_file} --max-regression 100000% --seconds 0.5 "
        f"--evaluate {tmp_path}/check.py:{asked}"
    )
    assert (built.exit_code, checked.exit_code) == (code, code), built.stderr + checked.stderr
    assert (tmp_path / "out").exists() == (code == 0)


@pytest.mark.parametrize(("text", "value"), [("5%", 0.05), ("0.05", 0.05), (" 10 % ", 0.1)])
def test_shares_are_written_in_two_ways(text, value):
    assert percentage(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "-5%", "five", "5%%", "nan"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(UsageError, match="no share"):
        percentage(text)


@pytest.mark.parametrize("limit", [-0.1, float("nan"), float("inf"), True, "5%"])
@pytest.mark.parametrize("name", ["max_regression", "max_growth", "max_macs_growth", "max_drop"])
def test_a_limit_that_is_no_number_of_zero_or_more_is_refused(name, limit, files):
    with pytest.raises(UsageError, match=f"{name} = "):
        check(files[20], files[20], **{name: limit})


def test_times_that_are_no_numbers_are_inconclusive():
    nothing = TimeRatio(float("nan"), float("nan"), float("nan"))
    assert _latency(nothing, QUIET, 0.05)[0] == INCONCLUSIVE
    assert _latency(QUIET, nothing, 0.05)[0] == INCONCLUSIVE


@pytest.mark.parametrize(
    ("old", "new", "limit", "said"),
    [
        (100, 129, 0.29, ""),  # no rounding of 1.29
        (100, 130, 0.29, "30.0% larger (limit 29.0%)"),
        (3, 10, 0.0, "233.3% larger"),
        (0, 0, 0.0, ""),
        (0, 7, 9.0, "7 larger than none"),
        (10**400, 10**401, 1.0, "900.0% larger"),
    ],
)
def test_growth_is_compared_exactly(old, new, limit, said):
    found = _grown("{} larger", {"baseline": old, "new": new}, limit)
    assert said in found
    assert bool(found) == bool(said)


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

        OTHERS = dict(max_regression="900%", max_seconds=1, max_growth="900%")

        @pytest.mark.latency(baseline="20.onnx", max_macs_growth="10%", **OTHERS)
        def test_more_arithmetic(latency_gate):
            latency_gate("40.onnx")

        @pytest.mark.latency(baseline="20.onnx", max_drop=0.1, evaluate=["judge.py:ev"], **OTHERS)
        def test_metric(latency_gate):
            assert latency_gate("40.onnx", metric="ev:min").answer == "passed"
            latency_gate("40.onnx", metric="ev:max")
        """
    )
    pytester.makepyfile(
        judge="""
        values = [1.0, 0.5, 1.0, 0.5]

        def ev(predict):
            return values.pop(0)
        """
    )
    plugin = () if _installed(pytester) else ("-p", "compressor.pytest_plugin")
    done = pytester.runpytest_subprocess(*plugin, "--strict-markers")
    done.assert_outcomes(passed=1, failed=4)
    done.stdout.fnmatch_lines(["*40.onnx regressed: *"])
    done.stdout.fnmatch_lines(["*needs a baseline*"])
    done.stdout.fnmatch_lines(["*it multiplies 100.0% more (limit 10.0%)*"])
    done.stdout.fnmatch_lines(["*ev is worse by 0.5 (limit 0.1)*"])


def _installed(pytester: pytest.Pytester) -> bool:
    """Whether the installed package brings the plugin by itself."""
    return "latency-strict" in pytester.runpytest_subprocess("--help").stdout.str()
