"""Readers of what a build made: releases, signatures, keys, work folders, checkpoints, reports."""

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compressor.storage import manifest, owned_folders
from tests.tools.reliability import writers
from tests.tools.reliability.readers import FILES, Fault, Reader, command

_BUILD = ["build", "net.py", "--macs=0.5", "--bench-seconds=0.1", "--allow-slower", "--quiet"]
_SEALED = ["--encrypt-key=secret", "--sign=key.pem"]


@functools.cache
def _made(root: Path) -> Path:
    """A folder with a signed release `open`, an encrypted one `sealed`, and the keys."""
    place = root / "made"
    place.mkdir()
    with _in(place):
        writers.keys()
        _run("-o", "open", "--sign=key.pem")
        _run("-o", "sealed", *_SEALED)
    return place


@contextmanager
def _in(folder: Path) -> Iterator[None]:
    from tests.tools.reliability.builds import NET

    before = Path.cwd()
    os.chdir(folder)
    Path("net.py").write_text(NET)
    try:
        yield
    finally:
        os.chdir(before)


def _run(*words: str) -> None:
    command(*_BUILD, *words)


def _files_in(folder: Path) -> dict[str, bytes]:
    """By name, of a folder and those in it, with `+` for `/`."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix().replace("/", "+"): path.read_bytes() for path in files
    }


def _with(path: Path, whole: Path) -> Path:
    """A copy of the folder `whole`, with the spoilt file in its place."""
    target = path.parent / "whole"
    shutil.copytree(whole, target)
    shutil.copy(path, target / path.name.replace("+", "/"))
    return target


# ---------------------------------------------------------------------------- releases


def _changed(folder: Path) -> Reader:
    """Any file of a release is another one; the manifest is as it was, or spoilt itself."""
    whole = _made(folder.parent) / "open"
    key = f"--key={_made(folder.parent) / 'key.pub'}"

    def read(path: Path) -> None:
        release = str(_with(path, whole))
        command("status", release)
        command("verify", release, key)

    return Reader(_files_in(whole), read)


def _remade(path: Path, whole: Path) -> Path:
    """The same, with a manifest that is made for it."""
    release = _with(path, whole)
    found = json.loads((release / manifest.NAME).read_bytes())
    facts = {key: found[key] for key in found.keys() - {"format", "files", "content"}}
    (release / manifest.NAME).write_text(json.dumps(manifest.make(release, facts)))
    return release


def _crafted(folder: Path) -> Reader:
    """A release that was made by somebody else: the manifest fits what is wrong."""
    whole = _made(folder.parent) / "open"
    names = ("model.onnx", "parity", "passes.json")
    files = {n: d for n, d in _files_in(whole).items() if n.startswith(names)}
    return Reader(files, lambda path: command("verify", str(_remade(path, whole))))


def _manifest(folder: Path) -> Reader:
    """The manifest alone, and read by all that read it."""
    whole = _made(folder.parent) / "open"

    def read(path: Path) -> None:
        release = _with(path, whole)
        found = manifest.read(release)
        manifest.check(release, found)
        command("verify", str(release))

    return Reader({manifest.NAME: (whole / manifest.NAME).read_bytes()}, read)


def _loaded(folder: Path) -> Reader:
    """Back into torch."""
    import compressor

    whole = _made(folder.parent) / "open"
    names = ("passes.json", "model.safetensors")

    def read(path: Path) -> object:
        scope: dict[str, Any] = {}
        exec((whole.parent / "net.py").read_text(), scope)
        return compressor.load(_remade(path, whole), scope["load_model"]())

    return Reader({name: (whole / name).read_bytes() for name in names}, read)


# ---------------------------------------------------------------------------- keys


def _sealed(folder: Path) -> Reader:
    whole, secret = _made(folder.parent) / "sealed", _made(folder.parent) / "secret"
    return Reader(
        _files_in(whole),
        lambda path: command("verify", str(_with(path, whole)), f"--encrypt-key={secret}"),
    )


def _sealed_before(folder: Path) -> Reader:
    """In the first format: a random prefix of 4 bytes, and blocks numbered from 0."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    made = _made(folder.parent)
    secret = (made / "secret").read_bytes()
    whole = folder / "sealed"
    for name, data in _files_in(made / "open").items():
        path = whole / f"{name.replace('+', '/')}.enc"
        path.parent.mkdir(parents=True, exist_ok=True)
        block = AESGCM(secret).encrypt(b"\1\2\3\4" + bytes(8), data, b"last")
        path.write_bytes(b"compressor-aesgcm-1\n" + b"\1\2\3\4" + block)

    def read(path: Path) -> None:
        command("verify", str(_with(path, whole)), f"--encrypt-key={made / 'secret'}")

    return Reader(_files_in(whole), read)


def _keys(folder: Path) -> Reader:
    """Of each kind, where it is used."""
    from compressor.storage import sealing

    made = _made(folder.parent)

    def read(path: Path) -> None:
        if path.name == "key.pem":
            sealing.check_key(path)
        elif path.name == "secret":
            command("verify", str(made / "sealed"), f"--encrypt-key={path}")
        else:
            command("verify", str(made / "open"), f"--key={path}")

    names = ("key.pem", "key.pub", "secret")
    return Reader({name: (made / name).read_bytes() for name in names}, read)


# ---------------------------------------------------------------------------- what is resumed


def _reports(folder: Path) -> Reader:
    """A sweep that goes on reads the reports of what is there."""
    from compressor.config import Recipe
    from compressor.latency.sweep import sweep

    report = (_made(folder.parent) / "open" / "report.json").read_bytes()

    def read(path: Path) -> object:
        front = path.parent / "front"
        for asked, data in {"0.7": path.read_bytes(), "0.5": report}.items():
            (front / asked).mkdir(parents=True)
            (front / asked / "report.json").write_bytes(data)
        return sweep(Recipe.of(model="net.py", latency="0.7,0.5", output=front), lambda _: iter(()))

    return Reader({"report.json": report}, read)


class _Node:
    """A cluster of one machine, which sends back what it is told to."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files

    def machines(self) -> Sequence[str]:
        return ("node",)

    def start(self, machine: str, order: Any) -> Any:
        return 1

    def ended(self, builds: Collection[Any]) -> tuple[Any, Any] | None:
        return 1, self.files


def _sent(folder: Path) -> Reader:
    """Files under names that a node of a cluster chose."""
    from compressor.config import Recipe
    from compressor.latency.remote import distributed

    whole = _made(folder.parent) / "open"
    files = {name.replace("+", "/"): data for name, data in _files_in(whole).items()}

    def read(path: Path) -> object:
        try:
            names = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return None
        if not isinstance(names, dict):
            return None
        sent = {name: files.get(str(one), b"") for name, one in names.items()}
        before = {one.name for one in path.parent.iterdir()}
        try:
            recipe = Recipe.of(model="net.py", macs=0.5, output=path.parent / "got")
            return list(distributed(_Node(sent))([recipe]))
        finally:
            if odd := {one.name for one in path.parent.iterdir()} - before - {"got"}:
                raise Fault(f"it wrote {sorted(odd)} beside the release")

    return Reader({"names.json": json.dumps({name: name for name in files}).encode()}, read)


def _kept(folder: Path) -> Reader:
    """Results of a build that was stopped, with checksums that are right."""
    with _in(folder):
        _run("-o", "out", "--until=race")
    work = folder / ".out.work"
    places: dict[str, str] = {}
    for path in sorted(one for one in work.iterdir() if one.name != owned_folders.MARK):
        data = path.read_bytes()
        sound = hashlib.sha256(data[32:]).digest() == data[:32]
        kind = "json" if data[32:33] in b"[{" and data.rstrip()[-1:] in b"]}" else "bin"
        places[f"{len(places)}.{kind}" if sound else path.name] = path.name

    def good(name: str) -> bytes:
        data = (work / places[name]).read_bytes()
        return data if name == places[name] else data[32:]

    def read(path: Path) -> None:
        there = path.parent / ".out.work"
        owned_folders.make(there)
        shutil.copytree(work, there, ignore=lambda *_: [owned_folders.MARK], dirs_exist_ok=True)
        data = path.read_bytes()
        sound = path.name == places[path.name]
        head = b"" if sound else hashlib.sha256(data).digest()
        (there / places[path.name]).write_bytes(head + data)
        with _in(path.parent):
            _run("-o", "out")

    return Reader({name: good(name) for name in places}, read)


def _checkpoint(folder: Path) -> Reader:
    """Training that goes on."""
    words = ("-o", "out", "--distill=2", "--checkpoints=kept")
    with _in(folder):
        _run(*words)
    whole = folder / "kept"

    def read(path: Path) -> None:
        _with(path, whole).rename(path.parent / "kept")
        with _in(path.parent):
            _run(*words)

    return Reader(_files_in(whole), read)


RELEASES: Mapping[str, Callable[[Path], Reader]] = {
    "release": _changed,
    "release, crafted": _crafted,
    "manifest": _manifest,
    "release, loaded": _loaded,
    "sealed release": _sealed,
    "sealed release, first format": _sealed_before,
    "keys": _keys,
    "reports of a sweep": _reports,
    "sent by a node": _sent,
    "work folder": _kept,
    "checkpoints of training": _checkpoint,
}

READERS: Mapping[str, Callable[[Path], Reader]] = {**FILES, **RELEASES}
"""By kind, what makes a reader in a new folder. The folders of one run are side by side."""

SLOW = frozenset({
    *("release, loaded", "work folder", "checkpoints of training", "transformers folder"),
})  # fmt: skip
"""They take seconds, and are given every tenth file only."""
