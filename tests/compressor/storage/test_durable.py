"""What is renamed was flushed before; what is called like ours and is not is left alone."""

import ctypes
import os
import shutil
import socket
import sys
from pathlib import Path

import pytest
from compressor.passes.base.errors import UsageError

from compressor.release import layout
from compressor.storage import atomic_replace, durable, owned_folders
from compressor.storage.files import write_file

posix = pytest.mark.skipif(os.name == "nt", reason="made of what POSIX has")


@pytest.fixture
def steps(monkeypatch, tmp_path) -> list[tuple[str, str]]:
    """Writes, flushes and renames in their order, by the names of files as they were then."""
    found: list[tuple[str, str]] = []
    open_, write, fsync = os.open, os.write, os.fsync
    names: dict[int, Path] = {}

    def opened(path, flags, *more, **named):
        file = open_(path, flags, *more, **named)
        names[file] = Path(os.fsdecode(path))
        return file

    def written(file, data):
        found.append(("write", names[file].name))
        return write(file, data)

    def flushed(file):
        found.append(("flush", names[file].name))
        fsync(file)

    def renamed(source, target, _rename):
        found.append(("rename", Path(target).name))
        _rename(source, target)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "write", written)
    monkeypatch.setattr(os, "fsync", flushed)
    for name in ("rename", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda a, b, f=original: renamed(a, b, f))
    return found


def order(steps: list[tuple[str, str]], *wanted: tuple[str, str]) -> None:
    """Each of these comes after the one before."""
    at = -1
    for step in wanted:
        at = steps.index(step, at + 1)


# ---------------------------------------------------------------------------- flushes


@posix
def test_a_file_is_flushed_before_it_has_its_name_and_its_folder_afterwards(steps, tmp_path):
    write_file(tmp_path / "new" / "file", b"data")
    kinds = [kind for kind, _ in steps]
    renamed = kinds.index("rename")
    assert kinds[kinds.index("write") :] == ["write", "flush", "rename", "flush"]
    assert steps[renamed - 1][1] == steps[renamed - 2][1] != "file"
    assert steps[-1] == ("flush", "new")
    assert ("flush", tmp_path.name) in steps[:renamed]  # where the new folder is named


@posix
@pytest.mark.parametrize("force", [False, True])
def test_all_of_a_release_is_flushed_before_it_has_its_name(force, steps, tmp_path):
    target = tmp_path / "out"
    if force:
        target.mkdir()
        for name in layout.FILES:
            (target / name).write_text("earlier")
    with layout.prepared(target, force=force) as folder:
        (folder / "parity").mkdir()
        for name in ("model.onnx", "report.json", "parity/random.safetensors"):
            (folder / name).write_text("new")
        steps.clear()
    flushed = [name for kind, name in steps if kind == "flush"]
    assert {"model.onnx", "report.json", "random.safetensors", "parity", "new"} <= set(flushed)
    order(steps, ("flush", "random.safetensors"), ("flush", "parity"), ("flush", "new"))
    if not force:
        order(steps, ("flush", "new"), ("rename", "out"), ("flush", tmp_path.name))
    assert steps[-1][0] == "flush"


@posix
def test_what_was_replaced_is_deleted_after_the_new_names_are_on_the_disk(
    steps, tmp_path, monkeypatch
):
    target, deleted = tmp_path / "out", shutil.rmtree
    target.mkdir()
    for name in layout.FILES:
        (target / name).write_text("earlier")

    def rmtree(folder, **more):
        steps.append(("delete", Path(folder).name))
        deleted(folder, **more)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    monkeypatch.setattr(layout, "exchange", lambda one, other: False)
    with layout.prepared(target, force=True) as folder:
        for name in layout.FILES:
            (folder / name).write_text("new")
        (place,) = tmp_path.glob(".out.*.partial")
        steps.clear()
    order(
        steps,
        ("flush", owned_folders.MARK),
        ("rename", "earlier"),
        ("flush", place.name),
        ("rename", "out"),
        ("flush", tmp_path.name),
        ("delete", place.name),
    )


@posix
def test_a_disk_that_fails_to_flush_is_an_error_and_the_earlier_file_stays(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("earlier")

    def failing(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(UsageError, match="cannot write"):
        write_file(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "earlier"


@posix
def test_a_folder_that_may_not_be_looked_into_is_written_to(tmp_path, monkeypatch):
    open_ = os.open

    def closed(path, flags, *more):
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied")
        return open_(path, flags, *more)

    monkeypatch.setattr(os, "open", closed)
    write_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_new_file_takes_no_others_place(tmp_path):
    (tmp_path / "file").write_text("there")
    with pytest.raises(FileExistsError):
        durable.write(tmp_path / "file", [b"new"])
    durable.write(tmp_path / "pieces", [b"a", b"", bytearray(b"b"), memoryview(b"cd")])
    assert (tmp_path / "pieces").read_bytes() == b"abcd"


def test_a_system_that_cannot_exchange_says_so(tmp_path, monkeypatch):
    def none(*_, **__):
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", none)
    assert not durable.exchange(tmp_path / "a", tmp_path / "b")


# ---------------------------------------------------------------------------- what is not ours


def planted(folder: Path, kind: str) -> Path:
    """A hidden folder beside an output, called like one of ours."""
    place = (
        folder
        / {
            "old": ".net.mine.old",
            "partial": ".net.mine.partial",
            "token": ".net.0123456789abcdef.partial",
            "marked": ".net.0123456789abcdef.partial",
            "open": ".net.0123456789abcdef.partial",
        }[kind]
    )
    if kind in ("marked", "open"):
        made = folder / "made"
        owned_folders.make(made)
        if kind == "marked":
            shutil.copytree(made, place)
            place.chmod(0o700)
            shutil.rmtree(made)
        else:
            made.rename(place)
            place.chmod(0o755)
    for name in ("earlier", "net", "new"):
        (place / name).mkdir(parents=True)
        (place / name / "model.onnx").write_text("planted")
    return place


@posix
@pytest.mark.parametrize("kind", ["old", "partial", "token", "marked", "open"])
def test_a_folder_that_is_only_called_like_ours_is_neither_deleted_nor_put_in_place(kind, tmp_path):
    place = planted(tmp_path, kind)
    layout.recover(tmp_path / "net")
    assert not (tmp_path / "net").exists()
    with layout.prepared(tmp_path / "net") as folder:
        (folder / "model.onnx").write_text("ours")
    assert (tmp_path / "net" / "model.onnx").read_text() == "ours"
    assert (place / "earlier" / "model.onnx").read_text() == "planted"


@posix
def test_an_empty_folder_of_somebody_else_is_left_alone(tmp_path):
    for name in (".net.mine.old", ".net.0123456789abcdef.partial", ".net.partial"):
        (tmp_path / name).mkdir(mode=0o755)
    layout.recover(tmp_path / "net")
    assert len(list(tmp_path.iterdir())) == 3


@posix
def test_what_another_output_left_is_its_own(tmp_path):
    place = tmp_path / ".net.x.0123456789abcdef.partial"
    owned_folders.make(place)
    layout.recover(tmp_path / "net")
    assert place.exists()
    layout.recover(tmp_path / "net.x")
    assert not place.exists()


@posix
def test_a_folder_whose_mark_was_not_yet_written_is_cleared(tmp_path):
    places = [tmp_path / f".net.{n}123456789abcdef.partial" for n in range(2)]
    for place in places:
        place.mkdir(mode=0o700)
    (places[1] / owned_folders.MARK).touch(mode=0o600)
    layout.recover(tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_link_is_no_folder_of_ours(tmp_path):
    owned_folders.make(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert owned_folders.is_ours(tmp_path / "elsewhere")
    assert owned_folders.why_not(tmp_path / "link") == "it is a link"


@posix
@pytest.mark.skipif(sys.platform != "linux", reason="root may give folders away there")
def test_a_folder_of_another_user_is_not_ours(tmp_path, monkeypatch):
    owned_folders.make(tmp_path / "folder")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "it belongs to user" in owned_folders.why_not(tmp_path / "folder")


@posix
@pytest.mark.parametrize("kind", ["text", "names", "link", "pipe", "socket"])
def test_a_file_that_is_called_like_our_lock_is_left_alone(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = Path(".net.lock")
    if kind == "text":
        path.write_text("12\nmine")
    elif kind == "names":
        Path("mine").write_text("")
        os.link("mine", path)
    elif kind == "link":
        Path("mine").write_text("")
        path.symlink_to("mine")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    before = path.lstat()
    with pytest.raises(UsageError), atomic_replace.alone(Path("net")):
        pass
    assert os.path.samestat(path.lstat(), before)
    assert path.lstat().st_size == before.st_size


@posix
def test_force_replaces_no_release_with_files_of_the_user_in_its_folder(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    for name in layout.FILES:
        if name != "parity":
            (target / name).write_text("earlier")
    (target / "parity").mkdir()
    (target / "parity" / "random.safetensors.enc").write_text("")
    layout.check(target, force=True)
    (target / "parity" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="something that is not ours") as caught:
        layout.check(target, force=True)
    assert caught.value.why == "there is parity/notes.txt"
