"""Single files: read with a message, written as a whole or not at all."""

import os
import tempfile
from pathlib import Path

from compressor.passes.errors import UsageError


def read_file(path: Path) -> bytes:
    """The bytes of a file. Raises UsageError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}", why=error.strerror or str(error)) from error


def check_writable(path: Path, *, force: bool = True) -> None:
    """Raise UsageError where `path` cannot become a file, or is one already (unless `force`)."""
    if path.is_dir() or not path.parent.is_dir():
        why = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise UsageError(f"cannot write {path}", why=why, hint="name a file with -o")
    if path.exists() and not force:
        raise UsageError(f"{path} exists", hint="name another file with -o, or add --force")


def write_file(path: Path, data: bytes) -> None:
    """Beside its name first, then renamed: the file is there as a whole, or as it was.

    Folders above it are made. Raises UsageError where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            try:
                file.write(data)
                file.close()
                os.chmod(file.name, 0o644)
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise UsageError(
            f"cannot write {path}",
            why=error.strerror or str(error),
            hint="name a file with -o",
        ) from error
