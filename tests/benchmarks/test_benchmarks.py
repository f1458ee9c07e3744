"""The experiments run: a benchmark that is not run rots. The whole suites are marked `slow`."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import benchmarks
from benchmarks import halves
from benchmarks.__main__ import RESULTS, app
from benchmarks.cases import SUITES, Case
from compressor.base import optional

FOLDER = Path(benchmarks.__file__).parent


@pytest.fixture
def torchvision():
    """The package, however it has to be imported."""
    try:
        return optional.torchvision()
    except ImportError as error:
        pytest.skip(f"torchvision is not installed: {error}")


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_every_module_can_be_imported(name):
    importlib.import_module("benchmarks" if name == "__init__" else f"benchmarks.{name}")


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["halves", "imagenet"], "unknown suite 'imagenet'; one of: reference, torchvision"),
        (["halves", "reference", "--only", "nothing"], "no model of reference matches 'nothing'"),
    ],
)
def test_what_there_is_not_is_refused(line, message):
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 1
    assert message in str(done.exception)


def test_a_model_that_breaks_is_a_row_of_its_own(monkeypatch, capsys):
    def broken():
        raise ValueError("no such\nnetwork")

    row = halves.run(Case("broken", broken))
    assert not row.passed
    assert row.error == "ValueError: no such"
    assert "Traceback" in capsys.readouterr().err
    assert row.to_json()["passed"] is False
    halves.table([row])


def test_a_failure_is_the_exit_code(monkeypatch):
    monkeypatch.setattr(halves, "run", lambda case: halves.Row(case.name, error="ValueError: no"))
    done = CliRunner().invoke(app, ["halves", "--only", "digits"])
    assert done.exit_code == 1
    assert "digits: FAILED" in done.stderr
    assert "ValueError: no" in done.stdout


# ---------------------------------------------------------------------------- runs


def test_one_model_runs_and_is_not_recorded():
    before = {path: path.read_bytes() for path in RESULTS.glob("*")}
    done = CliRunner().invoke(app, ["halves", "reference", "--only", "digits", "--no-record"])
    assert done.exit_code == 0, done.stderr
    assert "digits: passed" in done.stderr
    assert "half of the channels" in done.stdout
    assert {path: path.read_bytes() for path in RESULTS.glob("*")} == before


def test_a_benchmark_has_one_small_record():
    assert {path.suffix for path in RESULTS.iterdir()} == {".json"}
    assert max(path.stat().st_size for path in RESULTS.iterdir()) < 50_000


@pytest.mark.parametrize("path", sorted(RESULTS.glob("halves-*.json")), ids=lambda path: path.stem)
def test_what_was_recorded_has_every_model_and_its_circumstances(path):
    found = json.loads(path.read_text())
    suite = path.stem.removeprefix("halves-")
    assert {row["name"] for row in found["rows"]} == {case.name for case in SUITES[suite]}
    assert found["environment"]["packages"]["torch"]


def test_torchvision_loads_beside_any_build_of_torch_and_twice_is_once(torchvision):
    declared = list(optional._declared)
    assert optional.torchvision() is torchvision is sys.modules["torchvision"]
    assert optional._declared == declared
    assert callable(torchvision.models.resnet18)


@pytest.mark.slow
@pytest.mark.parametrize("case", SUITES["reference"], ids=lambda case: case.name)
def test_half_of_a_reference_model_is_right_and_small(case):
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", SUITES["torchvision"], ids=lambda case: case.name)
def test_half_of_a_torchvision_model_is_right_and_small(case, torchvision):
    check(case)


def check(case: Case) -> None:
    row = halves.run(case)
    assert row.passed, row.error or {
        name: value for name, value in row.to_json().items() if name != "seconds"
    }
