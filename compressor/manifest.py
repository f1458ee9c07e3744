"""manifest.json: what a release consists of, and what made it. Neither torch nor ONNX here.

    files       SHA-256 and size of every file; `measured` ones hold times, never the same
    content     SHA-256 over the others: equal for equal inputs and versions
    versions, seed, threads, device, source

Two builds of the same inputs have the same `content`. A latency cannot be the same twice, so the
files that show one (the reports, and this file, which has their hashes) are marked, not doctored.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from compressor.load.words import listed, reason
from compressor.outside import inside, read_json
from compressor.passes.errors import UsageError, WrongError

NAME, SIGNATURE = "manifest.json", "manifest.sig"
MEASURED = frozenset({"report.json", "report.html", "summary.md"})
LARGEST = 10_000_000
"""Bytes of a manifest that are read."""
_BLOCK = 1 << 20


def digest(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def source_digest() -> str:
    """SHA-256 over the compressor's own code."""
    import compressor

    places = [(Path(__file__).parent, "")]
    places += [(Path(one) / "passes", "passes/") for one in compressor.__path__]
    files = {
        above + file.relative_to(root).as_posix(): file  # the same in a checkout and in a wheel
        for root, above in places
        for file in root.rglob("*.py")
    }
    found = hashlib.sha256()
    for name in sorted(files):
        found.update(files[name].read_bytes())
    return found.hexdigest()


def make(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of the files that are in `folder` now."""
    files = {
        name: {
            "sha256": digest(folder / name),
            "bytes": (folder / name).stat().st_size,
            "measured": name in MEASURED,
        }
        for name in names_in(folder)
    }
    return {"format": 1, "content": content(files), "files": files, **facts}


def content(files: Mapping[str, Mapping[str, Any]]) -> str:
    """One digest of all that is not measured."""
    lines = [f"{one['sha256']} {name}" for name, one in files.items() if not one["measured"]]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def names_in(folder: Path) -> list[str]:
    """Every file of a release but the manifest and its signature.

    Raises UsageError for a link, which could lead anywhere.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise UsageError(f"{path} is a link", why="a release consists of files")
        if path.is_file() and name not in (NAME, SIGNATURE):
            found.append(name)
    return found


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a release. Raises UsageError where there is none that can be read."""
    path = folder / NAME
    try:
        if path.is_symlink() or path.stat().st_size > LARGEST:
            raise ValueError("it is a link" if path.is_symlink() else "it is too large")
        found = read_json(path.read_bytes())
        if found["format"] != 1:
            raise ValueError(f"format {found['format']} is not known")
        for name, one in found["files"].items():
            if not (isinstance(one["sha256"], str) and isinstance(one["bytes"], int)):
                raise ValueError(f"{name} has no digest or no size")
            if not isinstance(one["measured"], bool) or inside(name).as_posix() != name:
                raise ValueError(f"{name} is no file of a release")
        if content(found["files"]) != found["content"]:
            raise ValueError("its content is not the digest of its files")
    except OSError as error:
        raise UsageError(
            f"{folder} is not a release", why=error.strerror or str(error), hint="name its folder"
        ) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise WrongError(f"{path} is not a manifest", why=reason(error)) from error
    assert isinstance(found, dict)
    return found


def check(folder: Path, manifest: Mapping[str, Any], only: Iterable[str] | None = None) -> None:
    """Every file as the manifest says, and none besides. Raises WrongError."""
    files = manifest["files"]
    there = set(names_in(folder))
    if only is None and (foreign := sorted(there - files.keys())):
        raise WrongError(f"{folder} holds what its manifest does not name", where=listed(foreign))
    wanted = files if only is None else {name: files[name] for name in only if name in files}
    if missing := sorted(wanted.keys() - there):
        raise WrongError(f"{folder} is not complete", why=f"there is no {listed(missing)}")
    for name, one in wanted.items():
        size = (folder / name).stat().st_size
        if size != one["bytes"]:
            raise WrongError(f"{name} was changed", why=f"{size} bytes, not {one['bytes']}")
        if digest(folder / name) != one["sha256"]:
            raise WrongError(f"{name} was changed", why="its SHA-256 is another one")
