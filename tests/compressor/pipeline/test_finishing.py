"""From Python and from the command line, a build ends in the same way, with the same release."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from compressor.passes.base.errors import GateError, UsageError

from compressor import Budget, Built, compress
from compressor.pipeline import variant_race
from compressor.storage import manifest
from compressor.timing.timing import Timing
from tests.compressor import samples
from tests.compressor.pipeline.test_variant_race import told

pytestmark = pytest.mark.usefixtures("fast")
NAME = f"{samples.__file__}:net"  # the very file that is imported here: reports have its lines
forms = variant_race.forms


@pytest.fixture
def by_command(command, tmp_path: Path) -> Callable[[str], Path]:
    """The release that the command line writes."""

    def build(options: str) -> Path:
        done = command(f"build {NAME} --macs 0.45 --round-to 1 {options} -o {tmp_path}/by-command")
        assert done.exit_code == 0, done.stderr
        return tmp_path / "by-command"

    return build


def compressed(**options) -> Built:
    budget = Budget(macs=0.45)
    given = {"round_to": 1, "name": NAME, "bench_seconds": 0.1} | options
    if not given.get("race", True):
        del given["bench_seconds"]
    return compress(samples.net(), samples.example_inputs(), budget=budget, **given)


def read(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def contents(folder: Path) -> dict[str, str]:
    """Digests of what says no time, and does not name the model's code."""
    files = manifest.read(folder)["files"]
    return {
        name: one["sha256"]
        for name, one in files.items()
        if not one["measured"] and name != "recipe.toml"
    }


def without_times(report: dict) -> dict:
    return {key: value for key, value in report.items() if key not in ("stages", "environment")}


# ---------------------------------------------------------------------------- the same release


def test_both_write_the_same_release(by_command, tmp_path):
    theirs = by_command(f"--no-race --evaluate {samples.__file__}:agreement")
    ours = compressed(race=False, evaluate=samples.agreement).save(tmp_path / "by-python")
    assert contents(ours) == contents(theirs)
    assert "model.onnx" in contents(ours)
    assert without_times(read(ours)) == without_times(read(theirs))


def test_both_deploy_the_form_that_races_fastest(by_command, monkeypatch, tmp_path):
    monkeypatch.setattr(variant_race, "forms", forms)
    told(monkeypatch, {"small": 0.9, "multiples of 8": 0.5})
    theirs = by_command("--bench-seconds 0.1")
    built = compressed()
    before = built.onnx.data
    ours = built.save(tmp_path / "by-python")
    assert contents(ours) == contents(theirs)
    assert (ours / "model.onnx").read_bytes() == built.onnx.data != before
    found, other = read(ours), read(theirs)
    assert found.keys() == other.keys() >= {"latency", "operators", "parity"}
    for one in (found, other):
        assert one["latency"]["form"] == other["latency"]["form"]
        assert one["latency"]["form"]["name"] == "multiples of 8"
        assert one["latency"]["ratio"] == 0.5
    assert found["warnings"] == other["warnings"]


def test_both_refuse_a_slower_model(command, monkeypatch, tmp_path):
    told(monkeypatch, {"small": 1.2})
    with pytest.raises(GateError, match=r"takes 1\.200 of the original's time") as caught:
        compressed().save(tmp_path / "out")
    assert "allow_slower=True" in caught.value.hint
    done = command(f"build {NAME} --macs 0.5 --bench-seconds 0.1 -o {tmp_path}/out")
    assert done.exit_code == caught.value.exit_code == 1
    assert caught.value.what in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_slower_model_is_written_where_that_is_allowed(monkeypatch, tmp_path):
    told(monkeypatch, {"small": 1.2})
    found = read(compressed(allow_slower=True).save(tmp_path / "out"))
    assert found["latency"]["ratio"] == 1.2
    assert any("SLOWER" in line for line in found["warnings"])
    assert not any("race against the original" in line for line in found["warnings"])


# ---------------------------------------------------------------------------- without a race


def test_a_release_without_a_race_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(Timing, "race", lambda *_: pytest.fail("it raced"))
    folder = compressed(race=False).save(tmp_path / "out")
    assert not {"latency", "operators"} & read(folder).keys()
    for name in ("report.json", "report.html", "summary.md"):
        text = (folder / name).read_text()
        assert text.count("The race against the original was left out") == 1, name
    assert "race = false\n" in (folder / "recipe.toml").read_text()


# ---------------------------------------------------------------------------- once, and anew


def test_what_was_raced_is_not_raced_again_until_it_has_other_weights(monkeypatch, tmp_path):
    told(monkeypatch, {"small": 0.9})
    built = compressed()
    assert "latency" not in built.report
    first = read(built.save(tmp_path / "first"))
    told(monkeypatch, {"small": 0.7})
    assert read(built.save(tmp_path / "second"))["latency"] == first["latency"]
    with torch.no_grad():
        built.module.get_parameter("head.bias").add_(1.0)
    assert any("Latency is left out" in line for line in built.report["warnings"])
    third = read(built.save(tmp_path / "third"))
    assert third["latency"]["ratio"] == 0.7
    assert third["changed"] is True
    assert "operators" in third
    assert not any("Latency is left out" in line for line in third["warnings"])


def test_a_folder_that_is_taken_is_refused_before_the_race(monkeypatch, tmp_path):
    monkeypatch.setattr(Timing, "race", lambda *_: pytest.fail("it raced"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(UsageError, match="exists already"):
        compressed().save(tmp_path / "out")


def test_an_original_that_was_trained_meanwhile_is_not_raced_against(tmp_path):
    model = samples.net()
    built = compress(model, samples.example_inputs(), budget=Budget(macs=0.45))
    with torch.no_grad():
        model.head.weight.add_(1.0)
    with pytest.raises(UsageError, match="original model was changed") as caught:
        built.save(tmp_path / "out")
    assert "race=False" in caught.value.hint


# ---------------------------------------------------------------------------- a repair that lost


def hopeless(**options) -> Built:
    """A tenth of the network, and two inputs to refit it with."""
    torch.manual_seed(0)
    data = [(torch.randn(4, 3, 8, 8),)]
    return compress(samples.net(), samples.example_inputs(), budget=Budget(macs=0.03), data=data,
                    race=False, **options)  # fmt: skip


def test_what_is_no_nearer_to_the_original_than_a_constant_is_refused(tmp_path):
    built = hopeless()
    assert built.repaired.divergences[built.repaired.chosen] > 1
    with pytest.raises(GateError, match="no nearer to it than a constant") as caught:
        built.save(tmp_path / "out")
    assert "on 2 inputs that nothing was fitted to" in caught.value.why
    assert "--distill" in caught.value.hint
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_it_is_written_where_that_is_allowed_and_says_so_first(tmp_path):
    folder = hopeless(allow_worse=True).save(tmp_path / "out")
    first = next(line for line in (folder / "summary.md").read_text().splitlines() if "**" in line)
    assert "Much is lost" in first


def test_training_may_bring_back_what_a_repair_lost(tmp_path):
    def train(module):
        with torch.no_grad():
            module.head.bias += 1

    assert (hopeless(finetune=train).save(tmp_path / "out") / "model.onnx").exists()


def pictures(folder: Path, count: int) -> str:
    """A file with so many pictures to repair with."""
    (folder / "pictures.py").write_text(
        "import torch\ndef calibration():\n    torch.manual_seed(0)\n"
        f"    return torch.randn({count}, 3, 8, 8)\n"
    )
    return f"{folder}/pictures.py:calibration"


def test_the_command_line_warns_before_anything_else_where_much_is_lost(command, tmp_path):
    given = f"--data {pictures(tmp_path, 4)} --no-race -o {tmp_path}/out"
    refused = command(f"build {NAME} --macs 0.03 {given}")
    assert refused.exit_code == 1
    assert "no nearer to it than a constant" in refused.stderr
    assert not (tmp_path / "out").exists()
    done = command(f"build {NAME} --macs 0.03 --allow-worse {given}")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("warning: Much is lost: an error of ")


def test_the_command_line_says_what_a_repair_leaves(command, tmp_path):
    data = pictures(tmp_path, 256)
    done = command(f"build {NAME} --macs 0.9 --data {data} --no-race -o {tmp_path}/out")
    assert done.exit_code == 0, done.stderr
    assert "note: The repair leaves an error of " in done.stdout
    assert "256 inputs were given, 256 used, and " in done.stdout
    assert "warning:" not in done.stdout
