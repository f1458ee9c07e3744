"""A release that arrived: each of its files is read once, and is checked before it is used.

    arrived = Arrived(Path("build/net"), key)      its manifest is read, nothing else
    arrived.must_be(public, content)               signed by this key, and no older one
    arrived.blocks("model.onnx")                   as it was made, decrypted, or WrongError
    arrived.all(keep)                              every file, those that are wanted in memory

What is checked is what is used: a file that is changed after it was looked at changes nothing.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from compressor.passes.base.errors import UsageError, WrongError
from compressor.storage import manifest, sealing
from compressor.storage.files import blocks, open_file
from compressor.storage.manifest import NAME, SIGNATURE
from compressor.storage.sealing import SUFFIX

_SIGNATURE_BYTES = 64


class Arrived:
    """A release, encrypted by `key` or not. Raises as `manifest.read` does.

    Raises UsageError where there is a key and no encryption, or the other way round.
    """

    def __init__(self, folder: Path, key: bytes | None = None) -> None:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a release", why="there is no such folder")
        self.folder, self._key = folder, key
        self._kind: tuple[bytes, bytes] | None = None
        encrypted = (folder / (NAME + SUFFIX)).exists()
        if key is None and encrypted:
            raise UsageError(f"{folder} is encrypted", hint="give the key with --encrypt-key FILE")
        if key is not None and not encrypted:
            raise UsageError(f"{folder} is not encrypted", hint="leave out --encrypt-key")
        if key is not None:
            sealing.cryptography()
        self._names = manifest.walk(folder)
        if key is not None:
            self._names = [_unsealed(name) for name in self._names]
        if NAME not in self._names:
            raise UsageError(
                f"{folder} is not a release", why=f"there is no {NAME}", hint="name its folder"
            )
        self._raw = manifest.limited(self._plain(NAME))
        self.manifest: dict[str, Any] = manifest.parsed(self._raw, folder / NAME)

    def must_be(self, public: Path | None, content: str | None) -> None:
        """Raises WrongError where it is not signed by this key, or is another release than this.

        A signature fits every older release as well; `content` is that of one. None asks nothing.
        """
        if content is not None and not re.fullmatch("[0-9a-f]{64}", content):
            raise UsageError(
                f"{content!r} is not the content of a release",
                hint="it is the `content` in manifest.json: 64 digits of 0-9a-f",
            )
        if public is not None:
            given = dict(self.extras()).get(SIGNATURE)
            sealing.check_signature(self._raw, given, public, self.folder)
        if content not in (None, self.manifest["content"]):
            raise WrongError(
                f"{self.folder} is another release than the one that is expected",
                why=f"its content is {self.manifest['content']}",
                hint="an older one, or one of another model, may have been put in its place",
            )

    def check_names(self) -> None:
        """Raises WrongError unless all files are there, and none besides."""
        extra = (NAME, SIGNATURE)
        there = [name for name in self._names if name not in extra]
        manifest.complete(there, self.manifest, self.folder)

    def blocks(self, name: str) -> Iterator[bytes]:
        """A file, in the clear. Raises WrongError at its end where it is not as it was made."""
        if name not in self.manifest["files"] or name not in self._names:
            raise WrongError(f"{self.folder} is not complete", why=f"there is no {name}")
        return manifest.checked(name, self.manifest["files"][name], self._plain(name))

    def read(self, name: str) -> bytes:
        """The same in memory."""
        return b"".join(self.blocks(name))

    def all(self, keep: Callable[[str], bool]) -> dict[str, bytes]:
        """Check every file; those that are to be kept, by name. Raises WrongError."""
        self.check_names()
        found: dict[str, bytes] = {}
        for name in self.manifest["files"]:
            if keep(name):
                found[name] = self.read(name)
            else:
                for _ in self.blocks(name):
                    pass
        return found

    def extras(self) -> Iterator[tuple[str, bytes]]:
        """The manifest, and its signature where there is one, as they are."""
        yield NAME, self._raw
        if SIGNATURE in self._names:
            yield SIGNATURE, manifest.limited(self._plain(SIGNATURE), _SIGNATURE_BYTES)

    def _plain(self, name: str) -> Iterator[bytes]:
        try:
            if self._key is None:
                yield from blocks(self.folder / name)
                return
            with open_file(self.folder / (name + SUFFIX)) as file:
                if self._kind is None:  # of the manifest, which is read first
                    self._kind = sealing.read_head(file, name).kind
                    file.seek(0)
                yield from sealing.decrypted(file, self._key, name, self._kind)
        except OSError as error:
            raise UsageError(
                f"cannot read {self.folder / name}", why=error.strerror or str(error)
            ) from error


def _unsealed(name: str) -> str:
    if not name.endswith(SUFFIX):
        raise WrongError(f"{name} is not encrypted, and the others are")
    return name.removesuffix(SUFFIX)
