"""A release changes places with an earlier one at once, and two builds do not write to one name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from compressor.passes.base.errors import UsageError

from compressor.release import layout
from compressor.storage import atomic_replace, durable
from tests.compressor.conftest import ROOT
from tests.tools.reliability.disks import on_disk, possible

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="made of what Linux has")
mounts = pytest.mark.skipif(not possible(), reason="no disk can be mounted: unshare -rm mount")

KILLED = """
import os, pathlib, signal, sys
from compressor.release import layout
target, moment = pathlib.Path(sys.argv[1]), sys.argv[2]
exchange = layout.exchange
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def dying(one, other):
    if moment == "before":
        die()
    done = exchange(one, other)
    assert done
    if moment == "after":
        die()
    return done
layout.exchange = dying
if moment == "deleting":
    import shutil
    shutil.rmtree = lambda *args, **kwargs: die()
with layout.prepared(target, force=True) as folder:
    for name in layout.FILES:
        (folder / name).write_text("new")
"""

WRITER = """
import pathlib, sys
from compressor.process import exit_codes
from compressor.release import layout
@exit_codes.exits
def main():
    with layout.prepared(pathlib.Path("out"), force=True) as folder:
        for name in layout.FILES:
            (folder / name).write_bytes(b"n" * 50_000)
try:
    main()
except exit_codes.typer.Exit as error:
    sys.exit(error.exit_code)
"""

BUILDER = """
import pathlib, sys, time
from compressor.storage import atomic_replace
with atomic_replace.alone(pathlib.Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""


def earlier(folder: Path) -> Path:
    folder.mkdir()
    for name in layout.FILES:
        (folder / name).write_text("earlier")
    return folder


def words(folder: Path) -> set[str]:
    return {path.read_bytes()[:7].decode() for path in folder.iterdir()}


def start(code: str, *given: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, given)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


# ---------------------------------------------------------------------------- changing places


def test_two_folders_change_places(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    if not durable.exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this disk cannot")
    assert [(tmp_path / name / "file").read_text() for name in "ab"] == ["b", "a"]


def test_what_is_not_there_does_not_change_places(tmp_path):
    (tmp_path / "a").mkdir()
    assert not durable.exchange(tmp_path / "a", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("moment", "there"), [("before", "earlier"), ("after", "new"), ("deleting", "new")]
)
def test_a_killed_swap_leaves_one_whole_release_and_the_next_build_clears_the_other(
    moment, there, tmp_path
):
    target = earlier(tmp_path / "out")
    killed = start(KILLED, target, moment)
    _, error = killed.communicate()
    assert killed.returncode == -9, error
    assert words(target) == {there}
    assert {path.name for path in target.iterdir()} == set(layout.FILES)
    assert len(list(tmp_path.iterdir())) == 2
    layout.recover(target)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert words(target) == {there}


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path):
    kept = earlier(tmp_path / "kept")
    (tmp_path / "out").symlink_to(kept)
    with layout.prepared(tmp_path / "out", force=True) as folder:
        for name in layout.FILES:
            (folder / name).write_text("new")
    assert not (tmp_path / "out").is_symlink()
    assert words(tmp_path / "out") == {"new"}
    assert words(kept) == {"earlier"}
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "out"}


# ---------------------------------------------------------------------------- alone


def test_another_build_of_the_same_output_is_refused_while_one_runs(tmp_path):
    builder = start(BUILDER, tmp_path / "deep" / "out")
    try:
        assert builder.stdout.readline() == "mine\n"
        with (
            pytest.raises(UsageError, match="another build is writing to") as caught,
            atomic_replace.alone(tmp_path / "deep" / "out"),
        ):
            pass
        assert caught.value.why == f"it is process {builder.pid}"
        with atomic_replace.alone(tmp_path / "deep" / "other"):
            pass
    finally:
        builder.kill()
        builder.communicate()
    assert (tmp_path / "deep" / ".out.lock").exists()
    with atomic_replace.alone(tmp_path / "deep" / "out"):  # a dead process locks nobody out
        pass
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_lock_that_was_deleted_while_it_was_waited_for_is_taken_again(tmp_path, monkeypatch):
    flock, path = atomic_replace.fcntl.flock, tmp_path / ".out.lock"

    def late(file, how):
        flock(file, how)
        monkeypatch.setattr(atomic_replace.fcntl, "flock", flock)
        path.unlink()
        path.write_text("1\n")

    monkeypatch.setattr(atomic_replace.fcntl, "flock", late)
    with atomic_replace.alone(tmp_path / "out"):
        assert path.read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_written_is_not_left(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UsageError, match="cannot write to"), atomic_replace.alone(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_a_build_takes_its_lock_and_its_folders_away(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_replace.alone(tmp_path / "new" / "out"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_finds_another_one_says_so_and_does_nothing(command, tmp_path):
    with atomic_replace.alone(tmp_path / "out"):
        done = command(f"build net.py:net --macs 0.5 -o {tmp_path}/out")
    assert done.exit_code == 2
    assert "another build is writing to" in done.stderr
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------- disks


@mounts
@pytest.mark.parametrize(
    ("options", "why"),
    [("size=256k", "No space left on device"), ("ro", "Read-only file system")],
)
def test_a_disk_that_takes_no_more_is_an_error_and_the_earlier_release_stays(
    options, why, tmp_path
):
    folder = tmp_path / "disk"
    folder.mkdir()
    earlier(folder / "out")
    done = on_disk([sys.executable, "-c", WRITER], folder, options)
    assert done.returncode == 2, done.stderr
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in folder.iterdir()] == ["out"]
    assert words(folder / "out") == {"earlier"}


@mounts
def test_the_same_writer_writes_where_there_is_room(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    earlier(folder / "out")
    done = on_disk([sys.executable, "-c", WRITER], folder, "size=4m")
    assert done.returncode == 0, done.stderr
    assert words(folder / "out") == {"nnnnnnn"}


def test_a_disk_that_is_full_wherever_it_is_met_is_no_bug_of_ours(command, monkeypatch):
    def full(*_, **__):
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise RuntimeError("writer failed") from error

    monkeypatch.setattr("compressor.pipeline.build.build", full)
    done = command("build net.py:net --macs 0.5 -o out")
    assert done.exit_code == 2
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
