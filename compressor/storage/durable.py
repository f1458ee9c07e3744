"""The steps that every writer is made of, each one or two calls of the system's.

write(path, chunks)       a new file, never one that is there
flush(path)               a file or a folder is on the disk when this returns
flush_all(folder)         so is everything in it
move(source, target)      a rename that a power failure afterwards does not undo
exchange(a, b)            two paths change places in one step of the kernel's, and stay there
made(folder)              a folder with those above it

Without a flush a power failure keeps any part of what was written, in any order: a new name may be
there, and its content not. So a writer flushes what it wrote, then renames, then the renamed names
are flushed, and only then what they replaced is deleted.
"""

import ctypes
import errno
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_BINARY = getattr(os, "O_BINARY", 0)
_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of Linux."""
_NO_FLUSH = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EPERM})
"""Of a folder: on a disk that flushes none, or where one may write to it and not look into it."""

Bytes = bytes | bytearray | memoryview


def beside(target: Path, suffix: str = "") -> Path:
    """A hidden name next to `target` that nobody has."""
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}{suffix}")


def write(path: Path, chunks: Iterable[Bytes], mode: int = 0o644) -> None:
    """A new file of these bytes, not yet flushed. An error leaves what was written so far."""
    file = os.open(path, _NEW | _BINARY, mode)
    try:
        for chunk in chunks:
            rest = memoryview(chunk)
            rest = rest.cast("B") if rest.nbytes else rest
            while rest.nbytes:
                rest = rest[os.write(file, rest) :]
    finally:
        os.close(file)


def flush(path: Path) -> None:
    """Return when a file or a folder is on the disk."""
    folder = path.is_dir()
    if folder and os.name == "nt":  # Windows opens no folders
        return
    try:
        file = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        if not folder or error.errno not in _NO_FLUSH:
            raise


def flush_all(folder: Path) -> None:
    """Every file below a folder, every folder, and the folder itself; links are left alone."""
    for entry in sorted(folder.iterdir()):
        kind = entry.lstat().st_mode
        if stat.S_ISDIR(kind):
            flush_all(entry)
        elif stat.S_ISREG(kind):
            flush(entry)
    flush(folder)


def move(source: Path, target: Path) -> None:
    """Rename, and flush the names. A folder takes the place of an empty one."""
    os.rename(source, target)
    _flush_names(target, source)


def replace(source: Path, target: Path) -> None:
    """Rename a file over another, and flush the name."""
    os.replace(source, target)
    _flush_names(target, source)


def exchange(one: Path, other: Path) -> bool:
    """Let two paths change places at once; False where the system or the disk cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, TypeError, AttributeError):  # Windows, macOS, an old libc
        return False
    paths = (os.fsencode(one), os.fsencode(other))
    if rename(_HERE, paths[0], _HERE, paths[1], _EXCHANGE) != 0:
        return False
    _flush_names(other, one)
    return True


def _flush_names(*paths: Path) -> None:
    for folder in dict.fromkeys(path.parent for path in paths):
        flush(folder)


def made(folder: Path) -> None:
    """Make a folder and those above it, as far as they are not there."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in reversed(new):
        flush(one.parent)
