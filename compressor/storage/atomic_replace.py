"""Who may write to an output, and the hidden folders that they write into meanwhile.

alone(target)         the only build of `target`; another one is told at once that it is not
aside(target)         a private folder on the same disk, gone at the end
left_behind(target)   those of processes that were killed, to be looked at and deleted
locked(folder)        a lock that ends with its process, however it ends
"""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from compressor.passes.base.errors import UsageError
from compressor.storage import durable, owned_folders

fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None
"""None on Windows: there, two builds are not kept apart, and the one that ends first wins."""

_HOLDER = re.compile(rb"([0-9]{1,20}\n)?")
"""What is in a lock file: the number of a process, or nothing yet."""


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Nobody else builds `target` meanwhile. Raises UsageError where somebody does.

    The lock is the kernel's, on a file beside `target` that is gone afterwards: what a killed
    build leaves of it locks nobody out. On disks that know no locks there is none.
    """
    if fcntl is None:
        yield
        return
    path = target.parent / f".{target.name}.lock"
    with parents(target):
        try:
            file = _taken(path, target)
        except OSError as error:
            raise unwritable(target, error) from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(file)


def _taken(path: Path, target: Path) -> int:
    """The open lock file. The holder before may have deleted it while we waited for it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        try:
            _check_lock(file, path)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(file, 20, 0).decode(errors="replace").strip()
            os.close(file)
            raise UsageError(
                f"another build is writing to {target}",
                why=f"it is process {holder}" if holder else "",
                hint="wait for it, or name another directory with -o",
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
                os.close(file)
                raise
        except UsageError:
            os.close(file)
            raise
        if _is(file, path):
            try:
                os.ftruncate(file, 0)
                os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
            except OSError:  # a full disk
                path.unlink()
                os.close(file)
                raise
            return file
        os.close(file)


def _check_lock(file: int, path: Path) -> None:
    """Raise UsageError where a file is called like our lock and is none."""
    found = os.fstat(file)
    plain = stat.S_ISREG(found.st_mode) and found.st_nlink < 2
    if plain and _HOLDER.fullmatch(os.pread(file, 100, 0)):
        return
    raise UsageError(
        f"{path} is in the way",
        why="a lock of ours would be there, and this is something else",
        hint="move it away, or name another directory with -o",
    )


def _is(file: int, path: Path) -> bool:
    """Whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def parents(target: Path) -> Iterator[None]:
    """The folders above `target`; those made here go again on an error."""
    new = [folder for folder in target.parents if not folder.exists()]
    try:
        durable.made(target.parent)
        yield
    except BaseException:
        for folder in new:
            with suppress(OSError):  # another process writes there too
                folder.rmdir()
        raise


@contextmanager
def aside(target: Path) -> Iterator[Path]:
    """A hidden folder on the same disk as `target`; what is in it at the end is deleted."""
    place = durable.beside(target, ".partial")
    owned_folders.make(place)
    lock = locked(place)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def left_behind(target: Path) -> Iterator[Path]:
    """Folders that `aside` made here for `target`, whose processes have ended; deleted one by one.

    What is merely called like them is left alone.
    """
    if not target.parent.is_dir():
        return
    called = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.partial")
    for place in sorted(one for one in target.parent.iterdir() if called.fullmatch(one.name)):
        if not (owned_folders.is_ours(place) or owned_folders.is_begun(place)):
            continue
        lock = locked(place)
        if lock is None:
            continue  # its build is running
        yield place
        shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


def locked(folder: Path) -> int | None:
    """A lock that ends with this process, however it ends. None where another one has it."""
    if fcntl is None:
        return None
    try:
        found: int = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:  # another one was faster
        return None
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(found)
        return None
    return found


def unwritable(target: Path, error: OSError) -> UsageError:
    """What the disk says, as an error of the user's."""
    return UsageError(
        f"cannot write to {target.parent}",
        why=error.strerror or str(error),
        hint="name a directory you may write to with -o",
    )
