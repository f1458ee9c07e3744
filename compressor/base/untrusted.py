"""What comes from outside, looked at once for every reader: names of files, and JSON.

    inside(name)          a file's name in a manifest, an index, an archive, an answer of a node
    read_json(data)       a document without an end to its depth, numbers that are none, two values

Both raise ValueError with the reason; what the file is, and what to do, is known to the reader.
"""

import json
import math
import re
from pathlib import PurePosixPath
from typing import Any, NoReturn

from compressor.passes.base.safe_text import showable

LONGEST = 255
"""Bytes of one step of a path, on most disks."""
LARGEST = 1 << 28
"""Bytes of a document: indexes and plans of the largest models have some tens of megabytes."""
DEEPEST = 64
"""Lists within lists."""
_RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE
)
"""Devices on Windows, in every folder and with every ending."""


def inside(name: object) -> PurePosixPath:
    """`name` as a path that stays in the folder it is joined to, on every system.

    Raises ValueError for one that is absolute, goes up, has a drive or another system's separator,
    cannot be shown, or is the name of a device.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"{name!r} is no name of a file")
    path, shown = PurePosixPath(name), showable(name[:200])
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{shown!r} leads out of its folder")
    if not name.isprintable():
        raise ValueError(f"'{shown}' has characters that cannot be seen")
    if set(name) & set('\\:*?"<>|') or name.startswith("~"):
        raise ValueError(f"{shown!r} has a character that means something else than itself")
    for step in path.parts:
        if _RESERVED.fullmatch(step) or step != step.rstrip(". "):
            raise ValueError(f"{shown!r} is no name of a file on every system")
        if len(step.encode()) > LONGEST:
            raise ValueError(f"{shown!r} is too long")
    return path


def read_json(data: bytes | str) -> Any:
    """The document in `data`. Raises ValueError for what is none, or has what JSON has not."""
    if len(data) > LARGEST:
        raise ValueError(f"it has {len(data):,} bytes, and {LARGEST:,} are read at most")
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        found = json.loads(
            text,
            parse_constant=_no_number,
            parse_float=_finite,
            object_pairs_hook=_once,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_depth(found)
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:40]} is too large for a number")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ in which of two values they take."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"'{showable(twice[:80])}' is there twice")
    return found


def _check_depth(found: Any) -> None:
    """What goes through a document may call itself for each level."""
    level = [found]
    for _ in range(DEEPEST + 1):
        holders = [one for one in level if isinstance(one, dict | list)]
        if not holders:
            return
        level = [
            inner for one in holders for inner in (one.values() if isinstance(one, dict) else one)
        ]
    raise ValueError("it is nested too deeply")
