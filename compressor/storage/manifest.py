"""manifest.json: what a release consists of, and what made it. Neither torch nor ONNX here.

    files       SHA-256 and size of every file; `measured` ones hold times, never the same
    content     SHA-256 over the others: equal for equal inputs and versions
    versions, seed, threads, device, source

Two builds of the same inputs have the same `content`. A latency cannot be the same twice, so the
files that show one (the reports, and this file, which has their hashes) are marked, not doctored.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from compressor.base.messages import listed, reason
from compressor.base.untrusted import inside, read_json
from compressor.passes.base.errors import UsageError, WrongError
from compressor.storage.files import blocks

NAME, SIGNATURE = "manifest.json", "manifest.sig"
MEASURED = frozenset({"report.json", "report.html", "summary.md"})
LARGEST = 10_000_000
"""Bytes of a manifest that are read."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


def entry(name: str, data: Iterable[bytes]) -> dict[str, Any]:
    """What a manifest says of a file with these bytes."""
    found, size = hashlib.sha256(), 0
    for block in data:
        found.update(block)
        size += len(block)
    return {"sha256": found.hexdigest(), "bytes": size, "measured": name in MEASURED}


def source_digest() -> str:
    """SHA-256 over the compressor's own code."""
    import compressor

    places = [(Path(__file__).parents[1], "")]
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


def stated(files: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of files, by what is said of each (see `entry`)."""
    files = {name: files[name] for name in sorted(files)}
    return {"format": 1, "content": content(files), "files": files, **facts}


def make(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of the files that are in `folder` now."""
    return stated({name: entry(name, blocks(folder / name)) for name in names_in(folder)}, facts)


def content(files: Mapping[str, Mapping[str, Any]]) -> str:
    """One digest of all that is not measured."""
    lines = [f"{one['sha256']} {name}" for name, one in files.items() if not one["measured"]]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def walk(folder: Path) -> list[str]:
    """Every file below a folder, by its name there.

    Raises UsageError for a link, which could lead anywhere, WrongError for a folder without a file
    and for what is neither: no manifest can name them.
    """
    try:
        return list(_walk(folder))
    except OSError as error:
        raise UsageError(f"cannot read {folder}", why=error.strerror or str(error)) from error


def _walk(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise UsageError(f"{path} is a link", why="a release consists of files")
        if path.is_file():
            yield name
        elif not path.is_dir():
            raise WrongError(f"{path} is not a file", why="a release consists of files")
        elif not any(path.iterdir()):
            raise WrongError(f"{folder} holds what its manifest does not name",
                             where=name, why="it is an empty folder")  # fmt: skip


def names_in(folder: Path) -> list[str]:
    """Every file of a release but the manifest and its signature; raises as `walk` does."""
    return [name for name in walk(folder) if name not in (NAME, SIGNATURE)]


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a release. Raises UsageError where there is none that can be read."""
    path = folder / NAME
    if path.is_symlink():
        raise WrongError(f"{path} is not a manifest", why="it is a link")
    try:
        return parsed(limited(blocks(path)), path)
    except OSError as error:
        raise UsageError(
            f"{folder} is not a release", why=error.strerror or str(error), hint="name its folder"
        ) from error


def limited(data: Iterable[bytes], most: int = LARGEST) -> bytes:
    """All of it, and a byte more than `most` at the most: what is too large is not read."""
    found = bytearray()
    for block in data:
        found += block[: most + 1 - len(found)]
        if len(found) > most:
            break
    return bytes(found)


def parsed(data: bytes, path: Path) -> dict[str, Any]:
    """A manifest from its bytes. Raises WrongError for what is none."""
    try:
        if len(data) > LARGEST:
            raise ValueError("it is too large")
        found = read_json(data)
        if found["format"] != 1:
            raise ValueError(f"format {found['format']} is not known")
        for name, one in found["files"].items():
            _check_entry(name, one)
        if content(found["files"]) != found["content"]:
            raise ValueError("its content is not the digest of its files")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WrongError(f"{path} is not a manifest", why=reason(error)) from error
    assert isinstance(found, dict)
    return found


def _check_entry(name: str, one: Mapping[str, Any]) -> None:
    """Raise ValueError for what no build says of a file."""
    size = one["bytes"]
    if not (isinstance(one["sha256"], str) and _DIGEST.fullmatch(one["sha256"])):
        raise ValueError(f"{name} has no digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f"{name} has no size")
    if one["measured"] is not (name in MEASURED):
        raise ValueError(f"{name} is{' not' * (not one['measured'])} said to hold measurements")
    if inside(name).as_posix() != name or name in (NAME, SIGNATURE):
        raise ValueError(f"{name!r} is no file of a release")


def complete(there: Iterable[str], manifest: Mapping[str, Any], folder: Path) -> None:
    """Raise WrongError unless the files of a folder are those that its manifest names."""
    names, files = set(there), manifest["files"]
    if foreign := sorted(names - files.keys()):
        raise WrongError(f"{folder} holds what its manifest does not name", where=listed(foreign))
    if missing := sorted(files.keys() - names):
        raise WrongError(f"{folder} is not complete", why=f"there is no {listed(missing)}")


def checked(name: str, one: Mapping[str, Any], data: Iterable[bytes]) -> Iterator[bytes]:
    """The blocks of a file as they are read. Raises WrongError after the last, or when there are
    too many, where they are not what the manifest says: nothing may be made of them before."""
    found, size = hashlib.sha256(), 0
    for block in data:
        found.update(block)
        size += len(block)
        if size > one["bytes"]:
            raise WrongError(f"{name} was changed", why=f"it has more than {one['bytes']} bytes")
        yield block
    if size != one["bytes"]:
        raise WrongError(f"{name} was changed", why=f"{size} bytes, not {one['bytes']}")
    if found.hexdigest() != one["sha256"]:
        raise WrongError(f"{name} was changed", why="its SHA-256 is another one")


def check(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Every file as the manifest says, and none besides. Raises WrongError."""
    complete(names_in(folder), manifest, folder)
    for name, one in manifest["files"].items():
        try:
            for _ in checked(name, one, blocks(folder / name)):
                pass
        except OSError as error:
            raise UsageError(
                f"cannot read {folder / name}", why=error.strerror or str(error)
            ) from error
