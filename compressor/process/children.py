"""Processes that we start, and folders that they and we work in: none outlives its owner.

    script(path, *words, given=b"")    a Python script; bytes in, bytes out, no files
    command(*words)                    a program of the system, for a line that it prints
    scratch()                          a folder for a while

A child ends with us (`child_start`), whether we return, raise, are interrupted or killed. What a
killed process left of its folders is cleared by the next one that needs one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from compressor.storage.atomic_replace import locked

PREFIX = "compressor-work-"
_TRIES = 10


def script(
    path: Path, *words: str, given: bytes, seconds: float, env: Mapping[str, str]
) -> "subprocess.CompletedProcess[bytes]":
    """Run a script of ours with `given` on its standard input.

    Raises subprocess.TimeoutExpired where it takes longer; it is gone then.
    """
    start = Path(__file__).with_name("child_start.py")
    return subprocess.run(
        [sys.executable, "-P", str(start), str(os.getpid()), str(path), *words],
        input=given,
        capture_output=True,
        timeout=seconds,
        env={**os.environ, **env},
        check=False,
    )


def command(*words: str, seconds: float = 10.0) -> str:
    """What a program prints; empty where it fails, is missing or takes longer."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=True)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


@contextmanager
def scratch() -> Iterator[Path]:
    """A private folder that is gone afterwards."""
    place = Path(tempfile.gettempdir())
    _clear(place)
    folder, lock = _made(place)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _made(place: Path) -> tuple[Path, int | None]:
    """A new folder, and its lock where the disk knows locks."""
    for _ in range(_TRIES):
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        with suppress(OSError):  # cleared by another process before it was locked
            lock = locked(folder)
            if lock is not None and folder.exists():
                return folder, lock
    return Path(tempfile.mkdtemp(dir=place)), None


def _clear(place: Path) -> None:
    """Folders of processes of this user that were killed: nobody has their lock."""
    if not hasattr(os, "getuid"):
        return
    for folder in place.glob(f"{PREFIX}*"):
        try:
            found = folder.lstat()
            ours = found.st_uid == os.getuid() and found.st_mode & 0o7777 == 0o700
            if not ours or not folder.is_dir() or folder.is_symlink():
                continue
            lock = locked(folder)
        except OSError:  # somebody else was faster
            continue
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
