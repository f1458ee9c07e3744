"""A build that is asked for time, from the command to the release."""

import json

import pytest
from typer.testing import CliRunner

from compressor.cli.app import app

NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(),
        nn.Conv2d(128, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 8, 1),
    )

def example_inputs():
    return torch.randn(2, 3, 24, 24)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a network, and no table of this machine yet."""
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def run(line: str):
    return CliRunner().invoke(app, line.split())


@pytest.mark.slow
def test_half_the_time_is_met_and_measured(project):
    done = run("build net.py:net --latency 0.5 --macs 0.9 --bench-seconds 4 -o out --json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["budget"]["kind"] == "latency"
    best = found["budget_rounds"]["rounds"][found["budget_rounds"]["best"]]
    assert best["measured"] <= 0.5
    assert found["cost"]["macs"]["small"] <= 0.9 * found["cost"]["macs"]["original"]
    assert all(0 < group["kept"] <= group["size"] for group in found["groups"])
    assert any(group["kept"] < group["size"] for group in found["groups"])
    assert (project / "out" / "model.onnx").exists()
    assert list((project / "cache" / "compressor").glob("device-*.json"))
    # the table is there now: the plan alone takes no measuring
    dry = run("build net.py:net --latency 0.4 --dry-run --json")
    assert json.loads(dry.stdout)["budget"] == {"kind": "latency", "amount": 0.4, "unit": "share"}
    slow = run("build net.py:net --latency 100s --bench-seconds 1 -o other")
    assert slow.exit_code == 2
    assert "is met already" in slow.stderr
    assert not (project / "other").exists()


def test_a_plan_by_latency_needs_a_table(project):
    done = run("plan net.py:net --latency 0.5 -o plan.json")
    assert done.exit_code == 2
    assert "needs a device's times" in done.stderr
    assert not (project / "plan.json").exists()
