"""This machine's own table is kept where that is possible; nothing depends on it."""

import os
import pwd
from pathlib import Path

import pytest

from compressor.timing import device as devices
from compressor.timing.caches import Caches
from compressor.timing.device import device, kept_at
from compressor.timing.measure_kernels import Setting
from compressor.timing.profiling import Wanted
from compressor.timing.table import Table

NOTHING = Wanted({})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and a machine that is measured at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    now = {"processor": "x", "flags": [], "packages": {"onnxruntime": "1"}}
    monkeypatch.setattr(devices, "environment", lambda: now)
    monkeypatch.setattr(devices, "begun", lambda setting: Table(setting, now, 1e-4))
    monkeypatch.setattr("compressor.timing.profiling.environment", lambda: now)
    monkeypatch.setattr("compressor.timing.profiling.stairs", lambda setting: {})
    monkeypatch.setattr("compressor.timing.caches.measured", lambda setting: Caches())
    return tmp_path / "cache"


def test_a_table_is_kept_and_read_again(cache, monkeypatch):
    assert device(None, NOTHING, Setting()).note == ""
    assert kept_at(Setting()).is_file()
    monkeypatch.setattr(devices, "begun", lambda setting: pytest.fail("it is there already"))
    assert device(None, NOTHING, Setting()).table.reference == 1e-4


def test_a_user_without_a_home_goes_on_without_a_cache(monkeypatch):
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("XDG_CACHE_HOME", "HOME", "USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert kept_at(Setting()) is None
    found = device(None, NOTHING, Setting())
    assert found.here
    assert "you have no home folder" in found.note


def blocked_by_a_file(folder: Path) -> None:
    folder.write_text("a file")


def of_a_kernel(folder: Path) -> None:
    os.symlink("/proc/none", folder)


def full_of_something_else(folder: Path) -> None:
    kept_at(Setting()).mkdir(parents=True)


@pytest.mark.parametrize("make", [blocked_by_a_file, of_a_kernel, full_of_something_else])
def test_a_cache_that_cannot_be_written_is_a_note(make, cache):
    make(cache)
    found = device(None, NOTHING, Setting())
    assert found.here
    assert found.table.reference == 1e-4
    assert "is not kept" in found.note
    assert str(cache) in found.note


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 10_000, b'{"format": 1}', b"\xff"])
def test_a_cache_that_cannot_be_read_is_made_anew(data, cache):
    path = kept_at(Setting())
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    found = device(None, NOTHING, Setting())
    assert "is not read" in found.note
    assert device(None, NOTHING, Setting()).note == ""
