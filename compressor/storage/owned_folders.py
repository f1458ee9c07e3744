"""Hidden folders that a build makes beside its output, told from those that somebody else made.

    build/.net.0123456789abcdef.partial/    a release that is being written (see `release`)
    build/.net.work/                        results that a killed build goes on from (see `work`)

Each has a file in it that names the folder's own number on the disk, is private, and belongs to the
user. A folder that came with a repository or an archive, was copied, or merely is called like ours
has no such file: it is neither deleted nor used.
"""

import os
import stat
from pathlib import Path

from compressor.storage import durable
from compressor.storage.files import open_file

MARK = ".compressor"
_LARGEST = 200


def make(folder: Path) -> None:
    """A new private folder of ours, marked and on the disk."""
    os.mkdir(folder, 0o700)
    durable.write(folder / MARK, [_mark(folder.lstat())], 0o600)
    durable.flush_all(folder)
    durable.flush(folder.parent)


def is_ours(folder: Path) -> bool:
    """Whether `make` made this very folder, and nobody else can write to it."""
    return why_not(folder) == ""


def is_begun(folder: Path) -> bool:
    """Whether `make` was killed over a folder: it is private, and has an empty mark or nothing."""
    found, mark = folder.lstat(), folder / MARK
    if not stat.S_ISDIR(found.st_mode) or why_open(found):
        return False
    inside = list(folder.iterdir())
    return not inside or (inside == [mark] and mark.lstat().st_size == 0)


def why_not(folder: Path) -> str:
    """Why a folder is not one of ours; nothing where it is."""
    try:
        here = folder.lstat()
        if not stat.S_ISDIR(here.st_mode):
            return "it is a link" if stat.S_ISLNK(here.st_mode) else "it is no folder"
        if why := why_open(here):
            return why
        with open_file(folder / MARK) as file:
            found = file.read(_LARGEST)
    except OSError as error:
        return error.strerror or str(error)
    return "" if found == _mark(here) else f"its {MARK} is not of this folder"


def why_open(found: os.stat_result) -> str:
    """Why others may have written to a file or a folder, or may read it; nothing if they cannot."""
    if os.name == "nt":  # no such permissions there
        return ""
    if found.st_uid != os.geteuid():
        return f"it belongs to user {found.st_uid}"
    if found.st_mode & 0o077:
        return f"its mode is {stat.S_IMODE(found.st_mode):o}: others may use it"
    if stat.S_ISREG(found.st_mode) and found.st_nlink != 1:
        return f"it has {found.st_nlink} names"
    return ""


def _mark(folder: os.stat_result) -> bytes:
    return f"made by compressor, which deletes it again\nfolder {folder.st_ino}\n".encode()
