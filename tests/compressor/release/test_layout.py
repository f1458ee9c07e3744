"""A release is complete or absent; what was there before is replaced or left as it was."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from compressor.passes.base.errors import UsageError

from compressor.release import layout
from tests.compressor.conftest import ROOT


def earlier(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names or layout.FILES:
        (folder / name).write_text("earlier")
    return folder


def write(folder: Path) -> None:
    for name in layout.FILES:
        (folder / name).write_text("new")


def fail(target: Path, error: type[BaseException] | BaseException, force: bool = False) -> None:
    """Write a release, almost."""
    with layout.prepared(target, force=force) as folder:
        write(folder)
        raise error


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


# ---------------------------------------------------------------------------- refusals


def test_checking_makes_nothing(tmp_path):
    layout.check(tmp_path / "new" / "deep" / "out")
    assert everything(tmp_path) == set()


def test_a_folder_with_something_in_it_needs_force(tmp_path):
    earlier(tmp_path / "out")
    with pytest.raises(UsageError, match="exists already") as caught:
        layout.check(tmp_path / "out")
    assert "--force" in caught.value.hint
    layout.check(tmp_path / "out", force=True)


def test_an_empty_folder_does_not_need_force(tmp_path):
    (tmp_path / "out").mkdir()
    with layout.prepared(tmp_path / "out") as folder:
        write(folder)
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(layout.FILES)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["report.json"], "it is not a release"),
        (["report.html", "passes.json"], "it is not a release"),
        (["main.py"], "there is main.py"),
        ([*layout.FILES, "notes.txt", ".git"], "there is .git, notes.txt"),
    ],
)
def test_what_is_not_a_release_is_not_replaced(names, why, tmp_path):
    earlier(tmp_path / "out", *names)
    with pytest.raises(UsageError, match="something that is not ours") as caught:
        layout.check(tmp_path / "out", force=True)
    assert caught.value.why == why


@pytest.mark.parametrize("target", ["file", "file/out", "file/deep/out"])
def test_a_file_in_the_way_is_named(target, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file is a file\n"):
        layout.check(tmp_path / target, force=True)


@pytest.mark.parametrize("target", [".", "..", "../out"])
@pytest.mark.parametrize("force", [False, True])
def test_the_folder_where_the_user_stands_is_not_replaced(target, force, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    with pytest.raises(UsageError, match="is where you stand"):
        layout.check(Path(target), force=force)


def test_a_folder_that_takes_no_files_is_refused(tmp_path, monkeypatch):
    def closed(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", closed)
    with pytest.raises(UsageError, match="cannot write to") as caught:
        layout.check(tmp_path / "new" / "out")
    assert caught.value.why == "Permission denied"


# ---------------------------------------------------------------------------- complete or absent


def test_a_release_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "new" / "deep" / "out"
    with layout.prepared(target) as folder:
        write(folder)
        assert not target.exists()
        assert folder.parent.parent == target.parent
    assert everything(tmp_path) == {
        "new",
        "new/deep",
        "new/deep/out",
        *(f"new/deep/out/{name}" for name in layout.FILES),
    }


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_others_may_read_a_release(tmp_path):
    with layout.prepared(tmp_path / "out") as folder:
        write(folder)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_nothing(error, tmp_path):
    with pytest.raises(error):
        fail(tmp_path / "new" / "deep" / "out", error)
    assert everything(tmp_path) == set()


def test_an_error_leaves_folders_that_were_there(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path / "mine" / "new" / "out", KeyboardInterrupt)
    assert everything(tmp_path) == {"mine"}


def test_an_error_leaves_the_earlier_release(tmp_path):
    target = earlier(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        fail(target, KeyboardInterrupt, force=True)
    assert everything(tmp_path) == {"out", *(f"out/{name}" for name in layout.FILES)}
    assert (target / "passes.json").read_text() == "earlier"


def test_force_replaces_an_earlier_release(tmp_path):
    target = earlier(tmp_path / "out")
    with layout.prepared(target, force=True) as folder:
        write(folder)
        assert (target / "passes.json").read_text() == "earlier"
    assert everything(tmp_path) == {"out", *(f"out/{name}" for name in layout.FILES)}
    assert (target / "passes.json").read_text() == "new"


def test_an_earlier_release_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    target, rename = earlier(tmp_path / "out"), os.rename

    def failing(source, destination):
        if Path(source).name == "new":
            raise OSError(28, "No space left on device")
        rename(source, destination)

    monkeypatch.setattr(os, "rename", failing)
    monkeypatch.setattr(layout, "exchange", lambda one, other: False)
    with pytest.raises(UsageError, match="cannot write to"), layout.prepared(target, force=True):
        pass
    assert everything(tmp_path) == {"out", *(f"out/{name}" for name in layout.FILES)}
    assert (target / "passes.json").read_text() == "earlier"


def test_a_full_disk_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(UsageError, match="cannot write to") as caught:
        fail(tmp_path / "new" / "out", OSError(28, "No space left on device"))
    assert caught.value.why == "No space left on device"
    assert everything(tmp_path) == set()


def test_two_releases_of_one_name_do_not_meet(tmp_path):
    with layout.prepared(tmp_path / "out") as first:
        write(first)
        with pytest.raises(KeyboardInterrupt):
            fail(tmp_path / "out", KeyboardInterrupt)
    assert everything(tmp_path) == {"out", *(f"out/{name}" for name in layout.FILES)}


def test_the_build_that_is_faster_wins_and_the_other_says_so(tmp_path):
    def slow() -> None:
        with layout.prepared(tmp_path / "out") as folder:
            with layout.prepared(tmp_path / "out") as faster:
                write(faster)
            (folder / "passes.json").write_text("slow")

    with pytest.raises(UsageError, match="exists already") as caught:
        slow()
    assert caught.value.why == "another build was faster"
    assert (tmp_path / "out" / "passes.json").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


KILLED = """
import os, pathlib, signal, sys
from compressor.release import layout
target = pathlib.Path(sys.argv[1])
if sys.argv[2] == "moving":
    layout.exchange = lambda one, other: False
    rename = os.rename
    def once(source, to):
        if pathlib.Path(source).name == "new":
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, to)
    os.rename = once
with layout.prepared(target, force=True) as folder:
    for name in layout.FILES:
        (folder / name).write_text("half")
    if sys.argv[2] == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("moment", ["writing", "moving"])
def test_what_a_killed_build_left_is_cleared_and_what_it_moved_comes_back(moment, tmp_path):
    target = earlier(tmp_path / "out")
    done = subprocess.run([sys.executable, "-c", KILLED, target, moment], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert target.exists() is (moment == "writing")
    with layout.prepared(tmp_path / "other"):  # another output has nothing to do with it
        pass
    assert any(path.name.endswith(".partial") for path in tmp_path.iterdir())
    layout.recover(target)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "other"}
    assert (target / "passes.json").read_text() == "earlier"


def test_the_folder_of_a_build_that_runs_is_left_alone(tmp_path):
    with layout.prepared(tmp_path / "out") as folder:
        write(folder)
        layout.recover(tmp_path / "out")
        assert folder.exists()
