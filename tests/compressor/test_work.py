"""A build that was killed goes on; what it kept is what would be computed again, or is not used."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from compressor import built as built_parts
from compressor import manifest
from compressor.latency.final import raced
from compressor.recipe import Recipe
from compressor.work import STAGES, Work, digest, stages_of

LINE = (
    "build net.py:net --macs 0.5 --data samples.py:calibration_data --bench-seconds 0.1 "
    "--allow-slower -o {}/out"
)


@pytest.fixture
def data(project: Path) -> None:
    (project / "samples.py").write_text(
        "import torch\n\n\ndef calibration_data():\n"
        "    return list(torch.randn(64, 3, 8, 8, generator="
        "torch.Generator().manual_seed(1)).split(16))\n"
    )


def test_a_result_is_made_once_for_its_parts(tmp_path):
    work, counted = Work(tmp_path / "w"), itertools.count()
    parts = ({"a": 1}, {"a": 1}, {"a": 2})
    assert [work.once_json("race", one, lambda: next(counted)) for one in parts] == [0, 0, 1]
    assert Work(tmp_path / "w", "race").once_json("race", {"a": 1}, lambda: "anew") == "anew"
    assert Work(tmp_path / "w", "write").once_json("race", {"a": 1}, lambda: "never") == "anew"


def test_a_torn_result_is_made_again(tmp_path):
    work = Work(tmp_path / "w")
    work.once("race", {}, lambda: b"whole")
    (path,) = (tmp_path / "w").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert work.once("race", {}, lambda: b"again") == b"again"


def test_digests_tell_values_types_and_shapes_apart():
    one = torch.zeros(2, 3)
    others = (torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.int32), torch.full((2, 3), -0.0))
    assert len({digest(one), *map(digest, others)}) == 4
    assert digest({"a": one}) == digest({"a": one.clone()})


def test_a_build_that_was_interrupted_goes_on_and_ends_the_same(
    command, fast, data, monkeypatch, tmp_path
):
    (tmp_path / "a").mkdir()
    assert command(LINE.format(tmp_path / "a")).exit_code == 0
    wanted = manifest.read(tmp_path / "a" / "out")["content"]

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("compressor.build.raced", interrupted)
    assert command(LINE.format(tmp_path)).exit_code == 130
    assert not (tmp_path / "out").exists()
    found = json.loads(command(f"status {tmp_path}/out --json").stdout)
    assert found["complete"] is False
    assert list(found["kept"]) == ["plan", "repair", "export"]
    monkeypatch.setattr("compressor.build.raced", raced)
    monkeypatch.setattr(built_parts, "export", interrupted)  # nothing of it is done again
    monkeypatch.setattr("compressor.passes.mend", interrupted)
    monkeypatch.setattr("compressor.passes.contest", interrupted)
    monkeypatch.setattr("compressor.criteria.measured", interrupted)
    done = command(LINE.format(tmp_path))
    assert done.exit_code == 0, done.stderr
    assert manifest.read(tmp_path / "out")["content"] == wanted
    assert {path.name for path in tmp_path.iterdir()} == {"a", "out"}
    assert command(f"status {tmp_path}/out").stdout == f"{tmp_path}/out is complete: {wanted}\n"


def test_a_build_ends_after_a_stage(command, fast, data, tmp_path):
    done = command(f"{LINE.format(tmp_path)} --until repair")
    assert done.exit_code == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".out.work"]
    assert command(f"{LINE.format(tmp_path)} --until repairs").exit_code == 2
    assert command(f"{LINE.format(tmp_path)} --until prove --from repair").exit_code == 0


@pytest.mark.parametrize("option", ["--until", "--from"])
@pytest.mark.parametrize(
    "stage", ["measure", "repair", "evaluate", "distill", "finetune", "sparse", "profile"]
)
def test_a_stage_that_a_build_does_not_have_is_an_error(option, stage, command, fast, tmp_path):
    done = command(f"build net.py:net --macs 0.5 -o {tmp_path}/out {option} {stage}")
    assert done.exit_code == 2, done.stderr
    assert f"this build has no stage '{stage}'" in done.stderr
    assert "it has load, capture, couple, plan, shrink, prove, export" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_stages_follow_what_is_asked_for():
    bare = stages_of(Recipe.of(macs=0.5))
    every = stages_of(Recipe.of(
        latency="0.5", data="a:b", evaluate="accuracy", sparse_train=1, distill=1, train_with="a:b"
    ))  # fmt: skip
    assert set(STAGES) - set(bare) == {
        *("sparse", "measure", "profile", "repair", "distill", "finetune", "evaluate")
    }
    assert every == STAGES


@pytest.mark.parametrize("stage", ["measure", "plan", "export", "parity", "simplify"])
def test_a_build_ends_after_a_stage_whose_result_was_kept(
    stage, command, fast, data, monkeypatch, tmp_path
):
    assert command(f"{LINE.format(tmp_path)} --until simplify").exit_code == 0
    monkeypatch.setattr("compressor.build.raced", lambda built: pytest.fail("it went on"))
    done = command(f"{LINE.format(tmp_path)} --until {stage}")
    assert done.exit_code == 0, done.stderr
    assert not (tmp_path / "out").exists()


def test_a_search_ends_when_all_sizes_were_tried(command, fast, data, tmp_path):
    line = LINE.format(tmp_path).replace("--macs 0.5", "--macs 0.7 --search --max-drop 1")
    done = command(f"{line} --evaluate net.py:agreement --until repair")
    assert done.exit_code == 0, done.stderr
    assert "evaluate ..." in done.stderr
    assert not (tmp_path / "out").exists()
