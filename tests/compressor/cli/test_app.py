"""The command line: refusals first, then what a good build leaves behind and says.

A refusal ends with 2 and without a traceback, says what is wrong, and leaves nothing: no release,
no folder half written, no parent folder.
"""

import json
import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from compressor.passes.base.errors import ContractError, WrongError
from safetensors.torch import load_file, save_file

from compressor import passes
from compressor.cli import app
from compressor.onnx.export import export
from compressor.pipeline import variant_race
from compressor.process import endings, exit_codes
from compressor.release import layout as releases
from compressor.release import writing
from compressor.result import built as built_parts
from tests.compressor import samples

FILES = {*releases.FILES, "model.pt2"}
HALF = "build net.py:net --macs 0.5"


class _RunsCode:
    """A pickle that makes a folder when it is loaded."""

    def __reduce__(self):
        return os.mkdir, (".ran",)


@pytest.fixture(scope="module")
def files(project: Path) -> Path:
    """Files that are not what they are given as, beside the sample network."""
    state = samples.net().state_dict()
    save_file({k: v for k, v in state.items() if k != "mid.bias"}, project / "less.safetensors")
    torch.save({"mid.bias": _RunsCode()}, project / "evil.pt")
    (project / "net.onnx").write_bytes(b"not needed")
    (project / "plain").write_text("a file")
    return project


# Everything after `build`; `-o` is added. Then what the message must say, in this order.
REFUSED = {
    "no such file": (
        "nett.py:net --macs 0.5",
        ("no such file: nett.py", "at:  looked from", "hint: did you mean net.py?"),
    ),
    "no such callable": (
        "net.py:nett --macs 0.5",
        ("no such callable: nett", "at:  net.py", "hint: did you mean net"),
    ),
    "no such module": ("nowhere.at_all:net --macs 0.5", ("no such module: nowhere.at_all",)),
    "a callable that raises": (
        "net.py:raises --macs 0.5",
        ("net.py:raises raised", "at:  net.py:", "in raises", "RuntimeError: no checkpoint"),
    ),
    "not a module": (
        "net.py:weights_only --macs 0.5",
        ("net.py:weights_only returned", "not a torch.nn.Module", "--weights"),
    ),
    "an ONNX file": (
        "net.onnx --macs 0.5",
        ("net.onnx does not say how to build a model", "an ONNX file", "path/file.py:callable"),
    ),
    "not a number among the weights": (
        "net.py:with_nan --macs 0.5",
        ("mid.weight has 1 NaN among its 4,608 values",),
    ),
    "a model that cannot be captured": (
        "net.py:Branches --macs 0.5",
        ("the model Branches cannot be captured", "why:", "hint: make its forward traceable"),
    ),
    "inputs of the wrong shape": (
        "net.py:net --macs 0.5 --input-shape 1,4,8,8",
        ("does not run on the example inputs", "at:  (1, 4, 8, 8) float32", "to have 3 channels"),
    ),
    "a shape that cannot be read": (
        "net.py:net --macs 0.5 --input-shape 1x3",
        ("cannot read the input shape '1x3'", "1,3,224,224"),
    ),
    "no such callable for the inputs": (
        "net.py:net --macs 0.5 --inputs net.py:exampel_inputs",
        ("no such callable: exampel_inputs", "did you mean example_inputs?"),
    ),
    "no such callable for the evaluation": (
        "net.py:net --macs 0.5 --evaluate net.py:agrement",
        ("no such callable: agrement", "did you mean agreement?"),
    ),
    "weights with a key missing": (
        "net.py:net --macs 0.5 --weights less.safetensors",
        ("the weights do not fit", "less.safetensors", "1 missing: mid.bias", "hint:"),
    ),
    "weights that would run code": (
        "net.py:net --macs 0.5 --weights evil.pt",
        ("evil.pt holds more than weights", "it asks for", "mkdir", "model.state_dict()"),
    ),
    "a budget that cannot be reached": (
        "net.py:net --macs 0.0001",
        (
            "the budget of 0.0001 of the macs (77) cannot be reached; the least is 2,890 (0.4%)",
            "3 groups can shrink, 3 axes are frozen",
            "head.weight[0] (10) program output",
            "hint: ask for a larger amount",
        ),
    ),
    "a budget that is met already": (
        "net.py:net --params 99999999",
        ("the budget of 99,999,999 params is met already: the model has 12,338",),
    ),
    "a budget of nothing": ("net.py:net --macs 0", ("a budget of 0 macs means", "0.5 is half")),
    "a negative budget": ("net.py:net --macs=-0.5", ("a budget of -0.5 macs means", "hint:")),
    "a budget of everything": ("net.py:net --macs 1", ("a budget of 1 macs means", "hint:")),
    "a budget of more than everything": ("net.py:net --macs 1.5", ("a budget of 1.5 macs",)),
    "two budgets of which one cannot be reached": (
        "net.py:net --macs 0.5 --params 1e-4",
        ("0.0001 of the params", "cannot be reached", "hint:"),
    ),
    "no budget": ("net.py:net", ("at least one of latency, channels, macs, params", "none")),
    "an unknown criterion": (
        "net.py:net --macs 0.5 --criterion l3",
        ("unknown criterion 'l3'; one of: activation, auto, bn-scale, fisher, fpgm",),
    ),
    "an unknown option": ("net.py:net --macs 0.5 --exact", ("No such option", "--exact")),
    "a pattern that matches nothing": (
        "net.py:net --macs 0.5 --ignore 'haed.*'",
        ("no parameter is called 'haed.*'", "why:", "hint:"),
    ),
    "widths in multiples of 0": ("net.py:net --macs 0.5 --round-to 0", ("--round-to",)),
    "no channels at least": ("net.py:net --macs 0.5 --min-channels 0", ("--min-channels",)),
    "no threads": ("net.py:net --macs 0.5 --threads 0", ("--threads",)),
    "no time for the race": ("net.py:net --macs 0.5 --bench-seconds 0", ("--bench-seconds",)),
    "a negative seed": ("net.py:net --macs 0.5 --seed -1", ("--seed",)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mistake_is_refused_and_nothing_is_left(name, files, command, tmp_path):
    line, expected = REFUSED[name]
    done = command(f"build {line} -o {tmp_path}/new/deep/out")
    assert_refused(done.exit_code, done.stdout, done.stderr, expected)
    assert list(tmp_path.iterdir()) == []


def test_a_budget_without_an_end_is_refused(command, tmp_path):
    done = command(f"build net.py:net --macs inf -o {tmp_path}/out")
    assert_refused(done.exit_code, done.stdout, done.stderr, ("a budget of inf macs", "hint:"))


@pytest.mark.parametrize("name", ["no such file", "weights that would run code"])
def test_a_mistake_ends_a_process_with_2(name, files, process, tmp_path):
    line, expected = REFUSED[name]
    started = process(f"build {line} -o {tmp_path}/new/deep/out")
    stdout, stderr = started.communicate()
    assert_refused(started.returncode, stdout, stderr, expected)
    assert list(tmp_path.iterdir()) == []


def assert_refused(code: int, stdout: str, stderr: str, expected: tuple[str, ...]) -> None:
    assert code == 2, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    message = stderr[stderr.lower().index("error: ") :]
    place = 0
    for words in expected:
        assert words in message[place:], message
        place = message.index(words, place)


def test_weights_that_would_run_code_do_not_run(files, command, tmp_path):
    command(f"{HALF} --weights evil.pt -o {tmp_path}/out")
    assert not (files / ".ran").exists()
    torch.load(files / "evil.pt", weights_only=False)  # what the refusal saved the user from
    (files / ".ran").rmdir()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("in_words", ("net.py:in_words returned a str", "hint: return a number")),
        ("dies", ("net.py:dies raised", "at:  net.py:", "in dies", "KeyError: 'top1'")),
        ("of_another_shape", ("net.py:of_another_shape raised", "in of_another_shape")),
        ("without_inputs", ("the ONNX model is called in another way", "x is missing", "hint:")),
        ("fickle", ("net.py:fickle returned other names", "metric 2 instead of metric 1")),
    ],
)
def test_an_evaluation_that_gives_no_numbers_is_refused(
    spec, expected, command, fast, project, tmp_path
):
    done = command(
        f"{HALF} --evaluate net.py:{spec} --bench-seconds 0.1 --allow-slower -o {tmp_path}/out"
    )
    assert_refused(done.exit_code, done.stdout, done.stderr, expected)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------- where to write


def test_an_output_that_exists_is_refused(command, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    done = command(f"{HALF} -o {tmp_path}/out")
    assert_refused(done.exit_code, done.stdout, done.stderr, ("out exists already", "--force"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("theirs", [["notes.txt"], ["report.json"], [*FILES, "notes.txt"]])
def test_force_does_not_replace_what_is_not_ours(theirs, command, tmp_path):
    (tmp_path / "out").mkdir()
    for name in theirs:
        (tmp_path / "out" / name).write_text("{}")
    done = command(f"{HALF} --force -o {tmp_path}/out")
    assert_refused(done.exit_code, done.stdout, done.stderr, ("something that is not ours", "-o"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(theirs)


@pytest.mark.parametrize("output", ["plain", "plain/out", "plain/deep/out"])
def test_a_file_in_the_way_is_named(output, files, command):
    done = command(f"{HALF} -o {output}")
    assert_refused(done.exit_code, done.stdout, done.stderr, ("plain is a file", "hint:"))
    assert (files / "plain").read_text() == "a file"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(command, tmp_path):
    tmp_path.chmod(0o500)
    done = command(f"{HALF} -o {tmp_path}/out")
    assert_refused(done.exit_code, done.stdout, done.stderr, ("cannot write to", "why:", "hint:"))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc, closed to root too")
def test_a_folder_that_takes_no_files_is_refused(command):
    done = command(f"{HALF} -o /proc/out")
    assert_refused(done.exit_code, done.stdout, done.stderr, ("cannot write to /proc", "hint:"))


def test_the_folder_where_the_user_stands_is_refused(command, tmp_path, monkeypatch):
    spec = f"{Path.cwd()}/net.py:net"
    monkeypatch.chdir(tmp_path)
    done = command(f"build {spec} --macs 0.5 -o .")
    assert_refused(done.exit_code, done.stdout, done.stderr, ("is where you stand", "-o"))


# ---------------------------------------------------------------------------- ends


def test_an_interrupt_ends_a_process_with_130_and_leaves_nothing(process, tmp_path):
    if os.name == "nt":
        pytest.skip("Windows has no SIGINT to send to a process")
    started = process(f"build net.py:endless --macs 0.5 -o {tmp_path}/new/out")
    while started.stderr.readline() != "ready\n":
        assert started.poll() is None
    started.send_signal(signal.SIGINT)
    stdout, stderr = started.communicate(timeout=60)
    assert started.returncode == endings.INTERRUPTED == 130
    assert stdout == ""
    assert "interrupted; nothing was written" in stderr
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_while_writing_leaves_only_what_it_goes_on_from(
    command, fast, monkeypatch, tmp_path
):
    def interrupted(built, place, sign):
        place.write("model.onnx", b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "write", interrupted)
    done = command(f"{HALF} --bench-seconds 0.1 --allow-slower -o {tmp_path}/new/out")
    assert done.exit_code == 130
    assert "interrupted; nothing was written" in done.stderr
    assert [path.name for path in (tmp_path / "new").iterdir()] == [".out.work"]


@pytest.mark.parametrize("error", [ZeroDivisionError("our mistake"), ContractError("our mistake")])
def test_our_own_mistake_ends_with_70_and_asks_for_a_report(error, command, monkeypatch, tmp_path):
    def broken(*_):
        raise error

    monkeypatch.setattr(passes, "couple", broken)
    done = command(f"{HALF} -o {tmp_path}/out")
    assert done.exit_code == exit_codes.BUG == 70
    assert "Traceback (most recent call last)" in done.stderr
    assert "our mistake" in done.stderr
    folder = Path(re.search(r"in (\S+compressor-bug-\w+)", done.stderr)[1])
    assert "our mistake" in (folder / "traceback.txt").read_text()
    assert (folder / "command.txt").read_text().startswith("compressor ")
    assert "packages" in json.loads((folder / "environment.json").read_text())
    shutil.rmtree(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_not_called_our_mistake(command, fast, monkeypatch, tmp_path):
    def full(built, place, sign):
        place.write("model.onnx", b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "write", full)
    done = command(f"{HALF} --bench-seconds 0.1 --allow-slower -o {tmp_path}/out")
    assert_refused(done.exit_code, done.stdout, done.stderr, ("cannot write", "No space left"))
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_is_not_called_our_mistake(command, monkeypatch):
    def gone(found):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(app, "print_json", gone)
    done = command("inspect net.py:net --json")
    assert done.exit_code != exit_codes.BUG
    assert "Traceback" not in done.stderr


def test_surgery_that_is_wrong_ends_with_5_and_writes_nothing(command, monkeypatch, tmp_path):
    def clumsy(step, program):
        result = passes.ir.pass_base.apply(step, program)
        with torch.no_grad():
            result.program.tensors()["head.bias"].add_(1e-6)
        return result

    monkeypatch.setattr(passes, "apply", clumsy)
    done = command(f"{HALF} -o {tmp_path}/out")
    assert done.exit_code == WrongError.exit_code == 5
    assert "error: the surgery is wrong: relative error" in done.stderr
    assert "(limit 1e-09)" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_differs_ends_with_5_and_writes_nothing(
    command, fast, monkeypatch, tmp_path
):
    def clumsy(program):
        model = onnx.load_model_from_string(export(program))
        bias = next(one for one in model.graph.initializer if one.dims == [10])
        bias.CopyFrom(onnx.numpy_helper.from_array(np.ones(10, np.float32), bias.name))
        return model.SerializeToString()

    monkeypatch.setattr(built_parts, "export", clumsy)
    done = command(f"{HALF} -o {tmp_path}/out")
    assert done.exit_code == 5
    assert "error: ONNX Runtime and torch differ by" in done.stderr
    assert "example inputs, batch" in done.stderr or "random inputs, batch" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------- a good build


def test_a_release_has_all_its_files_and_nothing_else(release):
    assert {path.name for path in release.folder.iterdir()} == FILES
    assert [path.name for path in release.folder.parent.iterdir()] == ["out"]
    assert release.folder.stat().st_mode & 0o777 == 0o755


def test_the_model_is_valid_and_its_batch_is_called_batch(release):
    model = onnx.load(release.folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_model_gives_what_the_library_gives(batch, release, built):
    session = onnxruntime.InferenceSession(release.folder / "model.onnx")
    x = torch.randn(batch, 3, 8, 8)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), built.module(x), rtol=1e-4, atol=1e-5)


def test_the_model_does_not_depend_on_the_process_that_made_it(release, built):
    """In the form that won its race: that of another process may end another way."""
    form = report_of(release)["latency"].get("form", {"name": "small"})
    models = {"small": built.onnx.data} | variant_race.forms(built.onnx)
    assert (release.folder / "model.onnx").read_bytes() == models[form["name"]]


def test_the_model_says_nothing_of_the_machine_it_was_made_on(release, project):
    data = (release.folder / "model.onnx").read_bytes()
    places = (Path(app.__file__).parents[2], project, release.folder.parent, sys.prefix)
    for place in (*places, Path.home(), "site-packages", "net.py", "forward"):
        assert str(place).encode() not in data, place


def test_the_model_is_smaller_than_the_original(release, built):
    size = (release.folder / "model.onnx").stat().st_size
    assert size < len(built.original_onnx.data)
    assert report_of(release)["file_bytes"] == {
        "original": len(built.original_onnx.data),
        "small": size,
    }


def test_the_weights_are_those_of_the_module(release, built):
    state = load_file(release.folder / "model.safetensors")
    torch.testing.assert_close(state, dict(built.module.state_dict()), rtol=0, atol=0)


def test_the_plan_names_what_was_kept(release, built):
    log = json.loads((release.folder / "passes.json").read_text())
    (plan,) = [one["metadata"] for one in log["passes"] if one["name"] == "prune"]
    assert plan["kept"] == built.plan.kept
    assert plan["shapes"]["head.weight"] == [10, 24]
    assert plan["buffers"] == sorted(name for name in plan["kept"] if "running_" in name)


def test_the_report_has_the_costs_before_and_after(release):
    cost = report_of(release)["cost"]
    weights = load_file(release.folder / "model.safetensors")
    small = sum(one.numel() for one in weights.values())
    assert cost["params"] == {"original": 12338, "small": small}
    assert cost["bytes"] == {"original": 4 * 12338, "small": 4 * small}
    assert cost["channels"]["original"] == 16 + 32 + 24
    assert cost["macs"]["original"] == 64 * 9 * (3 * 16 + 16 * 32 + 32 * 24) + 240
    assert 0.48 <= cost["macs"]["small"] / cost["macs"]["original"] <= 0.5


def test_the_report_has_the_evidence(release):
    report = report_of(release)
    assert report["proof"]["max_rel"] <= 1e-9
    assert report["proof"]["dtype"] == "float64"
    tried = {(one["inputs"], one["batch"]) for one in report["parity"]}
    assert tried == {(name, size) for name in ("example", "random") for size in (1, 5)}
    for one in report["parity"]:
        assert 0 <= one["max_abs"] < 1e-4
        assert 0 <= one["max_rel"] < 1e-4
        assert one["top1"] == 1


def test_the_report_has_the_race_and_the_accuracy(release):
    report = report_of(release)
    latency = report["latency"]
    assert 0 < latency["low"] <= latency["ratio"] <= latency["high"]
    assert 0 < latency["noise"]["low"] <= latency["noise"]["ratio"] <= latency["noise"]["high"]
    assert latency["original"]["ms"] > 0
    assert latency["threads"] == 1
    assert report["accuracy"]["agreement"]["original"] == 1
    assert 0 <= report["accuracy"]["agreement"]["small"] <= 1


def test_the_report_times_every_stage_and_names_the_versions(release):
    report = report_of(release)
    order = ["load", "capture", "couple", "plan", "shrink", "prove", "export", "parity", "simplify"]
    assert list(report["stages"])[: len(order)] == order
    assert {"export original", "evaluate", "race"} <= report["stages"].keys()
    assert report["environment"]["packages"]["torch"] == torch.__version__


def test_the_page_is_about_this_model(release):
    page = (release.folder / "report.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "net.py:net" in page


def test_the_table_has_the_headline_numbers(release):
    cost = report_of(release)["cost"]
    assert "net.py:net at 0.5 of the MACs" in release.stdout
    for name in ("parameters", "MACs", "file size", "agreement", "median latency"):
        assert re.search(rf"│ {name}", release.stdout), name
    assert f"{cost['params']['original']:,}" in release.stdout
    assert f"{cost['macs']['small']:,}" in release.stdout
    assert f"report: {release.folder / 'report.html'}" in release.stdout


def test_progress_goes_to_standard_error(release):
    stages = re.findall(r"^([a-z ]+) \.\.\. \d+\.\d s$", release.stderr, re.MULTILINE)
    assert stages == [*report_of(release)["stages"], "write"]
    assert " ... " not in release.stdout


def report_of(release) -> dict:
    return json.loads((release.folder / "report.json").read_text())


# ---------------------------------------------------------------------------- ways to say it


def test_json_is_one_document_even_if_the_model_talks(command, fast, tmp_path):
    race = "--bench-seconds 0.1 --allow-slower"
    done = command(f"build net.py:chatty --macs 0.5 {race} --json -o {tmp_path}/out")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "net.py:chatty"
    assert done.stderr == "the model says hello\n"
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert json.loads(done.stdout)["cost"] == written["cost"]


def test_quiet_prints_nothing(command, fast, tmp_path):
    done = command(f"{HALF} --bench-seconds 0.1 --allow-slower --quiet -o {tmp_path}/out")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_quiet_still_prints_what_is_wrong(command, tmp_path):
    done = command(f"{HALF} --quiet --macs 7.5 -o {tmp_path}/out")
    assert "error: a budget of 7.5 macs" in done.stderr


@pytest.mark.parametrize(
    "line", ["inspect net.py:net --quiet", "bench {} {} --quiet --seconds 0.1"]
)
def test_every_command_can_be_quiet(line, command, release):
    model = release.folder / "model.onnx"
    done = command(line.format(model, model))
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")


def test_force_replaces_an_earlier_release(command, fast, tmp_path):
    line = f"{HALF} --bench-seconds 0.1 --allow-slower -o {tmp_path}/out"
    assert command(line).exit_code == 0
    before = (tmp_path / "out" / "passes.json").read_text()
    assert command(line).exit_code == 2
    assert (tmp_path / "out" / "passes.json").read_text() == before
    assert command(f"{line} --force --uniform").exit_code == 0
    assert (tmp_path / "out" / "passes.json").read_text() != before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_several_numbers_of_an_evaluation_are_rows_by_name(command, fast, tmp_path):
    line = (
        f"{HALF} --evaluate net.py:two_numbers --bench-seconds 0.1 --allow-slower -o {tmp_path}/out"
    )
    done = command(line)
    assert done.exit_code == 0, done.stderr
    assert re.search(r"│ agreement +│ +1 │", done.stdout)
    assert re.search(r"│ ten +│ +10 │ +10 │ +1\.000 │", done.stdout)


def test_a_metric_that_is_no_number_is_shown_as_such(command, fast, tmp_path):
    race = "--bench-seconds 0.1 --allow-slower"
    done = command(f"{HALF} --evaluate net.py:not_a_number {race} -o {tmp_path}/out")
    assert done.exit_code == 0, done.stderr
    assert re.search(r"│ perplexity +│ +nan │ +nan │ +- │", done.stdout)
    assert re.search(r"│ loss +│ +inf │ +inf │ +- │", done.stdout)


# ---------------------------------------------------------------------------- the other commands


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("inspect nett.py:net", ("no such file: nett.py",)),
        ("inspect net.py:net --input-shape 1,4,8,8", ("does not run on the example inputs",)),
        ("inspect net.py:net --ignore 'haed.*'", ("no parameter is called 'haed.*'",)),
        ("bench nowhere.onnx", ("'nowhere.onnx' is not there", "hint:")),
        ("bench net.py", ("net.py is not an ONNX file", "hint:")),
        ("bench", ("Missing argument",)),
        ("bench net.py --rounds 0", ("rounds",)),
        ("bench net.py --seed -1", ("--seed",)),
        ("squeeze", ("No such command",)),
    ],
)
def test_a_mistake_in_another_command_is_refused(line, expected, command):
    done = command(line)
    assert_refused(done.exit_code, done.stdout, done.stderr, expected)


def test_inspect_prints_a_tree_of_what_can_shrink_and_what_cannot(command):
    done = command("inspect net.py:net")
    assert done.exit_code == 0, done.stderr
    assert "net.py:net: 12,338 parameters" in done.stdout
    assert "3 groups of channels that can shrink" in done.stdout
    assert re.search(r"mid\.weight\[0\]  32  93\.6% of parameters, 96\.4% of MACs", done.stdout)
    assert "last.weight[1]" in done.stdout
    assert "head.weight[0] (10): program output" in done.stdout
    assert re.search(r"^capture \.\.\. ", done.stderr, re.MULTILINE)


def test_inspect_prints_one_json_document(command):
    done = command("inspect net.py:chatty --json")
    found = json.loads(done.stdout)
    assert [group["name"] for group in found["groups"]] == [
        "body.weight[0]",
        "mid.weight[0]",
        "last.weight[0]",
    ]


def test_bench_races_two_files(command, release):
    model = shlex.quote(str(release.folder / "model.onnx"))
    done = command(f"bench {model} {model} --rounds 3 --seconds 0.1")
    assert done.exit_code == 0, done.stderr
    assert "model.onnx (1)" in done.stdout
    assert "model.onnx (2)" in done.stdout
    assert "race on CPUExecutionProvider ... " in done.stderr


def test_bench_prints_one_json_document(command, release):
    model = shlex.quote(str(release.folder / "model.onnx"))
    line = f"bench {model} {model} --rounds 3 --seconds 0.1 --provider CPUExecutionProvider --json"
    done = command(line)
    (race,) = json.loads(done.stdout)
    assert len(race["rows"]) == 2
    assert race["rounds"] >= 3
    assert done.stderr == ""


@pytest.mark.parametrize("command_name", ["build", "inspect", "bench"])
def test_every_command_explains_itself(command_name, command):
    done = command(f"{command_name} --help")
    assert done.exit_code == 0
    assert "--quiet" in done.stdout
