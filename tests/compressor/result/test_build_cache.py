"""A build that was killed goes on; what it kept is what would be computed again, or is not used."""

import hashlib
import itertools
import json
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from compressor.passes.base.errors import UsageError, WrongError
from safetensors.torch import load, save

from compressor.config import Recipe
from compressor.pipeline.variant_race import raced
from compressor.result import built as built_parts
from compressor.result.build_cache import STAGES, BuildCache, digest, recalled, stages_of
from compressor.result.built import Onnx
from compressor.result.kept_results import look_at_operators
from compressor.storage import durable, manifest, owned_folders

posix = pytest.mark.skipif(os.name == "nt", reason="made of what POSIX has")
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
    work, counted = BuildCache(tmp_path / "w"), itertools.count()
    parts = ({"a": 1}, {"a": 1}, {"a": 2})
    assert [work.once_json("race", one, lambda: next(counted)) for one in parts] == [0, 0, 1]
    assert BuildCache(tmp_path / "w", "race").once_json("race", {"a": 1}, lambda: "anew") == "anew"
    assert (
        BuildCache(tmp_path / "w", "write").once_json("race", {"a": 1}, lambda: "never") == "anew"
    )


def test_a_torn_result_is_made_again(tmp_path):
    work = BuildCache(tmp_path / "w")
    work.once("race", {}, lambda: b"whole")
    (path,) = (tmp_path / "w").glob("race.*")
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

    monkeypatch.setattr("compressor.pipeline.finishing.raced", interrupted)
    assert command(LINE.format(tmp_path)).exit_code == 130
    assert not (tmp_path / "out").exists()
    found = json.loads(command(f"status {tmp_path}/out --json").stdout)
    assert found["complete"] is False
    assert list(found["kept"]) == ["plan", "repair", "export"]
    monkeypatch.setattr("compressor.pipeline.finishing.raced", raced)
    monkeypatch.setattr(built_parts, "export", interrupted)  # nothing of it is done again
    monkeypatch.setattr("compressor.passes.mend", interrupted)
    monkeypatch.setattr("compressor.passes.contest", interrupted)
    monkeypatch.setattr("compressor.criteria.choice.measured", interrupted)
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


# ---------------------------------------------------------------------------- what is not ours


def kept(work: BuildCache, stage: str = "race") -> Path:
    (path,) = work.folder.glob(f"{stage}.*")
    return path


@posix
def test_results_are_private_under_any_umask(tmp_path):
    before = os.umask(0)
    try:
        work = BuildCache(tmp_path / "new" / "w")
        work.once("race", {}, lambda: b"whole")
    finally:
        os.umask(before)
    assert work.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in work.folder.iterdir()} == {0o600}


@posix
@pytest.mark.parametrize("kind", ["folder", "copy", "open", "link", "file"])
def test_a_work_folder_of_somebody_else_is_neither_used_nor_deleted(kind, tmp_path):
    BuildCache(tmp_path / "w").once("race", {}, lambda: b"planted")
    folder, there = tmp_path / "w", tmp_path / "there"
    folder.rename(there)
    if kind == "folder":
        folder.mkdir(mode=0o700)
    elif kind == "copy":
        shutil.copytree(there, folder)
    elif kind == "open":
        there.rename(folder)
        folder.chmod(0o770)
    elif kind == "link":
        folder.symlink_to(there)
    else:
        folder.write_text("")
    before = folder.lstat()
    with pytest.raises(UsageError, match="was not made by a build here") as caught:
        BuildCache(folder).once("race", {}, lambda: b"ours")
    assert "delete it or move it away" in caught.value.hint
    BuildCache(folder).forget()
    assert os.path.samestat(folder.lstat(), before)
    assert BuildCache(folder).there() == {}


@posix
@pytest.mark.parametrize("kind", ["open", "names", "link", "pipe"])
def test_a_result_that_others_may_have_written_is_refused(kind, tmp_path):
    work = BuildCache(tmp_path / "w")
    work.once("race", {}, lambda: b"planted")
    path = kept(work)
    if kind == "open":
        path.chmod(0o620)
    elif kind == "names":
        os.link(path, tmp_path / "another name")
    else:
        path.rename(tmp_path / "moved")
        os.mkfifo(path) if kind == "pipe" else path.symlink_to(tmp_path / "moved")
    with pytest.raises(UsageError, match="was not made by a build here"):
        work.once("race", {}, lambda: b"ours")


def test_a_build_beside_a_folder_that_is_called_like_its_work_folder_leaves_it(
    command, fast, tmp_path
):
    (tmp_path / ".out.work").mkdir()
    (tmp_path / ".out.work" / "mine").write_text("mine")
    done = command(f"build net.py:net --macs 0.5 --bench-seconds 0.1 -o {tmp_path}/out")
    assert done.exit_code == 2
    assert "was not made by a build here" in done.stderr
    assert (tmp_path / ".out.work" / "mine").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [".out.work"]


@posix
def test_on_a_disk_without_private_folders_nothing_is_kept_and_it_is_said(tmp_path, monkeypatch):
    make = owned_folders.make

    def opened(folder):
        make(folder)
        folder.chmod(0o777)

    monkeypatch.setattr(owned_folders, "make", opened)
    work = BuildCache(tmp_path / "w")
    assert work.once("race", {}, lambda: b"one") == b"one"
    assert work.once("race", {}, lambda: b"two") == b"two"
    assert "its mode is 777: others may use it" in work.note
    assert list(tmp_path.iterdir()) == []


def test_several_processes_make_one_folder(tmp_path, monkeypatch):
    work, move = BuildCache(tmp_path / "w"), durable.move

    def later(source, target):
        monkeypatch.setattr(durable, "move", move)
        BuildCache(tmp_path / "w").once("race", {"of": "another"}, lambda: b"theirs")
        move(source, target)

    monkeypatch.setattr(durable, "move", later)
    assert work.once("race", {}, lambda: b"ours") == b"ours"
    assert len(list((tmp_path / "w").glob("race.*"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


# ---------------------------------------------------------------------------- with a key


def test_with_a_key_what_is_kept_is_encrypted_and_found_again(tmp_path):
    secret, key = b"the weights" * 9, bytes(range(32))
    work = BuildCache(tmp_path / "w", key=key)
    work.once("export", {}, lambda: secret)
    assert secret[:11] not in kept(work, "export").read_bytes()
    assert BuildCache(tmp_path / "w", key=key).once("export", {}, lambda: b"anew") == secret
    for other in (None, bytes(32)):
        assert BuildCache(tmp_path / "w", key=other).once("export", {}, lambda: b"anew") == b"anew"
        work.once("export", {}, lambda: secret)


def test_an_encrypted_result_does_not_stand_for_another(tmp_path):
    work = BuildCache(tmp_path / "w", key=bytes(32))
    work.once("race", {"a": 1}, lambda: b"one")
    first = kept(work)
    work.once("race", {"a": 2}, lambda: b"two")
    (second,) = set((tmp_path / "w").glob("race.*")) - {first}
    second.write_bytes(first.read_bytes())
    assert work.once("race", {"a": 2}, lambda: b"two again") == b"two again"


def in_the_clear(folder: Path) -> list[str]:
    """Files that hold tensors, a graph or a plan that can be read."""
    words = (b"body.weight", b"channels", b"ir_version", b"onnx", b"ratio", b"Conv")
    return [
        path.as_posix()
        for path in folder.rglob("*")
        if path.is_file() and any(word in path.read_bytes() for word in words)
    ]


def test_without_a_key_what_is_kept_can_be_read(command, data, fast, tmp_path):
    """So the test below looks for the right words."""
    assert command(f"{LINE.format(tmp_path)} --until race").exit_code == 0
    stages = {Path(one).name.partition(".")[0] for one in in_the_clear(tmp_path)}
    assert stages == {"plan", "repair", "export", "race"}


@posix
@pytest.mark.parametrize("end", ["until", "interrupt", "error", "writing", "done"])
def test_with_a_key_nothing_in_the_clear_is_left(end, command, data, fast, monkeypatch, tmp_path):
    """Nor is there at any moment: every file that is written is looked at."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "secret").write_bytes(bytes(range(32)))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    seen: list[str] = []
    flush = durable.flush

    def looking(path):
        flush(path)
        seen.extend(in_the_clear(tmp_path))
        if end == "writing" and path.name == "report.json.enc":
            raise KeyboardInterrupt

    def ending(*_):
        raise KeyboardInterrupt if end == "interrupt" else UsageError("it ends")

    monkeypatch.setattr(durable, "flush", looking)
    if end in ("interrupt", "error"):
        monkeypatch.setattr("compressor.pipeline.finishing.refuse_slower", ending)
        monkeypatch.setattr("compressor.pipeline.finishing.operators", ending)
    more = "--until race" if end == "until" else ""
    command(f"{LINE.format(tmp_path)} --encrypt-key {tmp_path}/secret {more}")
    assert (seen, in_the_clear(tmp_path)) == ([], [])
    kept_there = (tmp_path / ".out.work").exists()
    assert kept_there is (end in ("until", "interrupt", "writing"))
    assert (tmp_path / "out").exists() is (end == "done")


def test_with_a_key_a_build_goes_on_from_what_was_encrypted(
    command, fast, data, monkeypatch, tmp_path
):
    (tmp_path / "secret").write_bytes(bytes(range(32)))
    line = f"{LINE.format(tmp_path)} --encrypt-key {tmp_path}/secret"
    assert command(f"{line} --until race").exit_code == 0
    assert in_the_clear(tmp_path) == []

    def again(*_):
        raise AssertionError("it is done again")

    monkeypatch.setattr(built_parts, "export", again)
    monkeypatch.setattr("compressor.passes.mend", again)
    done = command(line)
    assert done.exit_code == 0, done.stderr
    assert command(f"verify {tmp_path}/out --encrypt-key {tmp_path}/secret").exit_code == 0


def test_checkpoints_in_the_clear_and_a_key_do_not_go_together(command, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(range(32)))
    done = command(
        f"build net.py:net --macs 0.5 --distill 1 --checkpoints {tmp_path}/c -o {tmp_path}/out "
        f"--encrypt-key {tmp_path}/secret"
    )
    assert done.exit_code == 2
    assert "checkpoints are not encrypted" in done.stderr


# ---------------------------------------------------------------------------- planted results


def replaced(tmp_path: Path, stage: str, change, which: int = 0) -> None:
    """A result with another content, and the checksum that goes with it."""
    paths = sorted((tmp_path / ".out.work").glob(f"{stage}.*"), key=lambda one: one.stat().st_size)
    data = change(paths[which].read_bytes()[32:])
    paths[which].write_bytes(hashlib.sha256(data).digest() + data)


def of_json(change):
    def changed(data: bytes) -> bytes:
        facts = json.loads(data)
        change(facts)
        return json.dumps(facts).encode()

    return changed


def another_model(packed: bytes) -> bytes:
    """The same graph with one activation changed."""
    found = Onnx.unpacked(packed)
    model = onnx.load_model_from_string(found.data)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Sigmoid"
    return replace(found, data=model.SerializeToString()).packed()


def data_elsewhere(packed: bytes) -> bytes:
    found = Onnx.unpacked(packed)
    model = onnx.load_model_from_string(found.data)
    tensor = next(one for one in model.graph.initializer if one.raw_data)
    onnx.external_data_helper.set_external_data(tensor, "secret", 0, len(tensor.raw_data))
    tensor.ClearField("raw_data")
    return replace(found, data=model.SerializeToString()).packed()


def other_weights(data: bytes) -> bytes:
    tensors = load(data)
    tensors["body.weight"] = -tensors["body.weight"]
    return save(tensors, safetensors_facts(data))


def wider(data: bytes) -> bytes:
    tensors = load(data)
    tensors["body.weight"] = torch.cat([tensors["body.weight"]] * 2)
    return save(tensors, safetensors_facts(data))


def not_finite(data: bytes) -> bytes:
    tensors = load(data)
    tensors["body.weight"].view(-1)[0] = float("nan")
    return save(tensors, safetensors_facts(data))


def safetensors_facts(data: bytes) -> dict[str, str]:
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


def fewer(facts) -> None:
    """A plan that removes less than was asked for, and says so."""
    del facts["channels"][: len(facts["channels"]) // 2]


def narrower(facts) -> None:
    facts["widths"][0][1] -= 1


PLANTED = {
    "another model": ("export", another_model, -1),
    "a model with data elsewhere": ("export", data_elsewhere, 0),
    "no model": ("export", lambda data: data.partition(b"\n")[0] + b"\nnothing", 0),
    "no line of facts": ("export", lambda data: b"nothing", 0),
    "other weights": ("repair", other_weights, 0),
    "wider weights": ("repair", wider, 0),
    "weights that are not finite": ("repair", not_finite, 0),
    "no weights": ("repair", lambda data: b"nothing at all", 0),
    "a plan of less": ("plan", of_json(fewer), 0),
    "a plan that counts otherwise": ("plan", of_json(narrower), 0),
    "a plan at another cost": ("plan", of_json(lambda facts: facts.update(reached=1.0)), 0),
    "another budget": ("plan", of_json(lambda facts: facts["budget"].update(macs=0.9)), 0),
    "unknown channels": ("plan", of_json(lambda facts: facts["channels"].append(10**9)), 0),
    "no plan": ("plan", lambda data: b"[]", 0),
    "a faster race": ("race", of_json(lambda facts: facts.update(ratio=0.1, low=0.1)), -1),
    "no race": ("race", lambda data: b"{}", -1),
    "another form": (
        "race",
        of_json(lambda f: f.update(form={"name": "none", "from": 1.0, "kept": True})),
        -1,
    ),
    "no times of operators": (
        "race",
        of_json(lambda facts: facts["small"][0].update(ms=-1.0)),
        0,
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_somebody_put_into_the_work_folder_is_not_released(
    name, command, fast, data, tmp_path
):
    stage, change, which = PLANTED[name]
    assert command(f"{LINE.format(tmp_path)} --until race").exit_code == 0
    replaced(tmp_path, stage, change, which)
    done = command(LINE.format(tmp_path))
    assert done.exit_code == 5, (done.stdout, done.stderr)
    assert f"what was kept of '{stage}' is not what this build makes" in done.stderr
    assert list(tmp_path.iterdir()) == []  # the folder is gone as well: the next build is anew


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


def test_without_a_race_there_is_no_stage_of_it(command, tmp_path):
    done = command(f"build net.py:net --macs 0.5 -o {tmp_path}/out --no-race --until race")
    assert done.exit_code == 2, done.stderr
    assert "--no-race leaves it out" in done.stderr


def test_stages_follow_what_is_asked_for():
    bare = stages_of(Recipe.of(macs=0.5))
    assert set(bare) - set(stages_of(Recipe.of(macs=0.5, race=False))) == {"race"}
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
    monkeypatch.setattr(
        "compressor.pipeline.finishing.raced", lambda built: pytest.fail("it went on")
    )
    done = command(f"{LINE.format(tmp_path)} --until {stage}")
    assert done.exit_code == 0, done.stderr
    assert not (tmp_path / "out").exists()


def test_a_search_ends_when_all_sizes_were_tried(command, fast, data, tmp_path):
    line = LINE.format(tmp_path).replace("--macs 0.5", "--macs 0.7 --search --max-drop 1")
    done = command(f"{line} --evaluate net.py:agreement --until repair")
    assert done.exit_code == 0, done.stderr
    assert "evaluate ..." in done.stderr
    assert not (tmp_path / "out").exists()


def test_operators_without_a_name_and_numbers_that_no_tensor_holds_are_no_results():
    rows = {"original": [{"kind": "Conv", "ms": 1.0, "count": 1}], "small": []}
    look_at_operators(rows)
    for kind in (None, 3, ["Conv"]):
        rows["small"] = [{"kind": kind, "ms": 1.0, "count": 1}]
        with pytest.raises(WrongError, match="no kind"):
            look_at_operators(rows)
    with pytest.raises(WrongError, match="is not what this build makes"):
        recalled("plan", lambda: torch.tensor([1 << 70], dtype=torch.int64))
