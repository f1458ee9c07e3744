"""Single files: read with a message, written as a whole or not at all."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from compressor.passes.base.errors import UsageError
from compressor.storage import durable

BLOCK = 1 << 20
_NO_WAIT = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""A link is not followed, and a pipe not waited for."""


def read_file(path: Path) -> bytes:
    """The bytes of a file. Raises UsageError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}", why=error.strerror or str(error)) from error


def open_file(path: Path) -> BinaryIO:
    """A file of somebody else's, to be read once: all that is read is of one file.

    Raises OSError where it cannot be read, or is a link, a pipe, a device.
    """
    number = os.open(path, os.O_RDONLY | _NO_WAIT)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(f"{path} is not a file")
    return os.fdopen(number, "rb")


def blocks(path: Path, size: int = BLOCK) -> Iterator[bytes]:
    """The same, block by block."""
    with open_file(path) as file:
        while block := file.read(size):
            yield block


def check_writable(path: Path, *, force: bool = True) -> None:
    """Raise UsageError where `path` cannot become a file, or is one already (unless `force`)."""
    if path.is_dir() or not path.parent.is_dir():
        why = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise UsageError(f"cannot write {path}", why=why, hint="name a file with -o")
    if path.exists() and not force:
        raise UsageError(f"{path} exists", hint="name another file with -o, or add --force")


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Beside its name first, then renamed: the file is there as a whole, or as it was.

    Folders above it are made. Raises UsageError where it cannot be written.
    """
    try:
        durable.made(path.parent)
        partial = durable.beside(path)
        try:
            durable.write(partial, [data], mode)
            durable.flush(partial)
            durable.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(
            f"cannot write {path}",
            why=error.strerror or str(error),
            hint="name a file with -o",
        ) from error
