"""A model whose run never ends is stopped, in words."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from compressor.passes.base.errors import UsageError
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from compressor.bench.measure import race
from compressor.cli.app import app
from compressor.gate.limits import predictor
from compressor.process import exit_codes, time_limit
from compressor.process.time_limit import Limit, limit_of, run_within


def endless(path: Path, steps: int = 2**62) -> Path:
    """Adds one to x so many times, in a loop."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["c"], ["again"]),
            helper.make_node("Add", ["a", "one"], ["b"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("c", TensorProto.BOOL, []),
            value("a", 1, [1, 4]),
        ],
        [value("again", TensorProto.BOOL, []), value("b", 1, [1, 4])],
        [numpy_helper.from_array(np.ones((1, 4), np.float32), "one")],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["steps", "true", "x"], ["y"], body=body)],
        "g", [value("x", 1, [1, 4])], [value("y", 1, [1, 4])],
        [numpy_helper.from_array(np.array(steps, np.int64), "steps"),
         numpy_helper.from_array(np.array(True), "true")],
    )  # fmt: skip
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    endless(Path("endless.onnx"))
    endless(Path("short.onnx"), 3)
    return tmp_path


@pytest.mark.parametrize(
    "line",
    ["bench endless.onnx endless.onnx", "bench short.onnx endless.onnx",
     "check endless.onnx --baseline short.onnx", "explain endless.onnx"],
)  # fmt: skip
def test_a_command_does_not_wait_for_it(line, here):
    start = time.monotonic()
    done = CliRunner().invoke(app, [*line.split(), "--time-limit", "0.5"])
    assert time.monotonic() - start < 20
    assert done.exit_code == 2
    assert "did not end within 0.5 s" in done.stderr
    assert "--time-limit" in done.stderr


def test_a_race_of_what_ends_is_not_disturbed(here):
    assert race({"short": Path("short.onnx")}, rounds=1, max_seconds=0.2, time_limit=5).rows
    assert limit_of(1) == 60
    assert limit_of(60) == 120


def test_what_evaluates_a_file_does_not_wait_for_it(here):
    predict = predictor(Path("endless.onnx"), 0.3)
    with pytest.raises(UsageError, match=r"'endless.onnx' did not end"):
        predict(np.zeros((1, 4), np.float32))


def test_what_was_stopped_is_told_from_what_fails(here):
    import onnxruntime

    session = onnxruntime.InferenceSession("short.onnx", providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match="INVALID_ARGUMENT") as caught:
        run_within(session, {"x": np.zeros((2, 9), np.float32)}, 5, "short")
    assert not isinstance(caught.value, UsageError)
    (found,) = run_within(session, {"x": np.zeros((1, 4), np.float32)}, 5, "short")
    assert found.tolist() == [[3.0] * 4]


def test_a_watcher_ends_with_its_runs():
    before = threading.active_count()
    with Limit(3600) as watcher, watcher.on("x"):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    with pytest.raises(UsageError, match="more than 0"):
        Limit(float("nan"))


def test_each_run_has_the_whole_time():
    with Limit(0.4) as watcher:
        for _ in range(4):
            with watcher.on("x"):
                time.sleep(0.2)
        with watcher.on("x", runs=3):
            time.sleep(0.6)
        time.sleep(0.6)  # between two runs


def test_a_step_that_cannot_be_stopped_ends_the_command(monkeypatch, capsys):
    ended: list[int] = []
    monkeypatch.setattr(time_limit, "GRACE", 0.1)
    monkeypatch.setattr(time_limit, "stuck", exit_codes._abandon)
    monkeypatch.setattr(os, "_exit", ended.append)
    with pytest.raises(UsageError), Limit(0.1) as watcher, watcher.on("deaf"):
        time.sleep(0.6)
    assert ended == [2]
    assert "'deaf' did not end within 0.1 s" in capsys.readouterr().err


def test_commands_end_where_a_step_cannot_be_stopped(monkeypatch):
    monkeypatch.setattr(time_limit, "stuck", time_limit._nobody)
    CliRunner().invoke(app, ["schema"])
    assert time_limit.stuck is exit_codes._abandon
