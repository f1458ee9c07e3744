"""Signatures and encryption, by `cryptography`: `pip install 'compressor[sign]'`.

    signature(manifest, key)         Ed25519 over manifest.json; the key is PEM
    check_signature(...)             with the public key, or the private one
    encrypted(file, key, name)       AES-256-GCM in blocks of 1 MiB; the key is 32 bytes
    decrypted(file, key, name)

An encrypted file is a head and blocks. The head has a magic, 16 bytes that all files of a release
share, and a random salt of 32 bytes. The file's own key is HKDF-SHA256 of the release key with that
salt, for that release and the file's name; so no two files have the same, and the nonce of a block
is its number. Its additional data are the head, the name, and whether it is the last block: blocks
that are moved, dropped or added are found as surely as changed ones, and so are files that changed
places. One block is in memory at a time.

The first format had a nonce of 4 random bytes and the block's number under the release key itself,
which repeats after some ten thousand files. It is read, and no longer written.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from compressor.base.optional import needed
from compressor.passes.base.errors import UsageError, WrongError
from compressor.storage import durable
from compressor.storage.files import read_file
from compressor.storage.manifest import NAME, SIGNATURE

MAGIC, FIRST_MAGIC = b"compressor-aesgcm-2\n", b"compressor-aesgcm-1\n"
BLOCK = 1 << 20
SUFFIX = ".enc"
_TAG, _RELEASE, _SALT, _PREFIX = 16, 16, 32, 4


def cryptography() -> ModuleType:
    """The package. Raises UsageError where it is not installed."""
    return needed("cryptography", "signing and encryption", "sign")


# ---------------------------------------------------------------------------- signatures


def signature(manifest: bytes, key: Path) -> bytes:
    """Of the bytes of a manifest, by a private key."""
    found: bytes = _private(key).sign(manifest)
    return found


def sign(folder: Path, key: Path) -> None:
    """Write the signature of a release's manifest."""
    durable.write(folder / SIGNATURE, [signature((folder / NAME).read_bytes(), key)])


def check_key(key: Path) -> None:
    """Raise UsageError where a file is no private key: before a build, not after it."""
    _private(key)


def check_signature(manifest: bytes, given: bytes | None, key: Path, where: Path) -> None:
    """Raises WrongError where `given`, what is in manifest.sig, is not by this key."""
    cryptography()
    from cryptography.exceptions import InvalidSignature

    if given is None:
        raise WrongError(f"{where} is not signed", why=f"there is no {SIGNATURE}")
    try:
        _public(key).verify(given, manifest)
    except InvalidSignature as error:
        raise WrongError(
            f"{SIGNATURE} is not by this key", where=str(key), why="or the manifest was changed"
        ) from error


def _private(path: Path) -> Any:
    cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = _pem(path, lambda data: load_pem_private_key(data, None))
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path, "it is of another kind")
    return key


def _public(path: Path) -> Any:
    cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE" in read_file(path)[:100]:
        return _private(path).public_key()
    key = _pem(path, load_pem_public_key)
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(path, "it is of another kind")
    return key


def _pem(path: Path, load: Any) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return load(read_file(path))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key(path, str(error).partition(".")[0]) from error


def _no_key(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path} is not an Ed25519 key",
        why=why,
        hint="openssl genpkey -algorithm ed25519 -out key.pem makes one; "
        "openssl pkey -in key.pem -pubout its public half",
    )


# ---------------------------------------------------------------------------- encryption


def read_key(path: Path) -> bytes:
    """32 bytes. Raises UsageError for any other number of them."""
    key = read_file(path) if path.is_file() and path.stat().st_size <= 64 else b""
    return _sized(key, str(path))


def as_key(given: bytes | str | Path) -> bytes:
    """A key that is given as it is, or by the name of its file. Raises as `read_key` does."""
    return _sized(given, "what is given") if isinstance(given, bytes) else read_key(Path(given))


def _sized(key: bytes, what: str) -> bytes:
    if len(key) != 32:
        raise UsageError(
            f"{what} is not a key of 32 bytes", hint="head -c 32 /dev/urandom > FILE makes one"
        )
    cryptography()
    return key


@dataclass(frozen=True)
class Head:
    """How an encrypted file begins."""

    magic: bytes
    salt: bytes
    release: bytes = b""
    """The same in every file of a release; the first format has none."""

    @property
    def kind(self) -> tuple[bytes, bytes]:
        """What is equal in all files of a release."""
        return self.magic, self.release


def new_release() -> bytes:
    """What tells the files of one release from those of another under the same key."""
    return os.urandom(_RELEASE)


def encrypted(
    file: BinaryIO, key: bytes, name: str = "", release: bytes | None = None
) -> Iterator[bytes]:
    """What is in an encrypted file, piece by piece. `name` is the file's in its release."""
    head = Head(MAGIC, os.urandom(_SALT), new_release() if release is None else release)
    if len(head.release) != _RELEASE:
        raise ValueError(f"a release is {_RELEASE} bytes, not {len(head.release)}")
    yield head.magic + head.release + head.salt
    cipher, data = _cipher(head, key, name), _additional(head, name)
    for index, block, last in _blocks(file, BLOCK):
        yield cipher.encrypt(_nonce(head, index), block, data + _tail(last))


def encrypt(
    source: Path, target: Path, key: bytes, name: str | None = None, release: bytes | None = None
) -> None:
    """A file into an encrypted one; it is called as `target` is, if no `name` is given."""
    named = target.name.removesuffix(SUFFIX) if name is None else name
    with source.open("rb") as file:
        target.write_bytes(b"".join(encrypted(file, key, named, release)))


def decrypted(
    file: BinaryIO, key: bytes, name: str = "", kind: tuple[bytes, bytes] | None = None
) -> Iterator[bytes]:
    """The inverse. `kind` is that of the release which the file has to belong to.

    Raises WrongError for another key or name, or where anything was changed; what came before is
    sound, and may lack its end.
    """
    cryptography()
    from cryptography.exceptions import InvalidTag

    head = read_head(file, name)
    if kind is not None and head.kind != kind:
        raise WrongError(
            f"{name} is of another release", why="it was not encrypted together with the manifest"
        )
    cipher, data = _cipher(head, key, name), _additional(head, name)
    for index, block, last in _blocks(file, BLOCK + _TAG):
        try:
            yield cipher.decrypt(_nonce(head, index), block, data + _tail(last))
        except InvalidTag as error:
            raise WrongError(
                f"{name or 'the file'} cannot be decrypted",
                why="the key is another one, or it was changed, or has another's place",
            ) from error


def read_head(file: BinaryIO, name: str) -> Head:
    """The head of a file that is read from its beginning. Raises WrongError where it has none."""
    magic = file.read(len(MAGIC))
    rest = {MAGIC: _RELEASE + _SALT, FIRST_MAGIC: _PREFIX}.get(magic, -1)
    more = file.read(max(rest, 0))
    if len(more) != rest:
        raise WrongError(f"{name or 'the file'} is not an encrypted file of a release")
    return Head(magic, more[-_SALT:], more[:-_SALT])


def _cipher(head: Head, key: bytes, name: str) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    if head.magic == FIRST_MAGIC:
        return AESGCM(key)
    about = head.magic + head.release + name.encode(errors="surrogateescape")
    return AESGCM(HKDF(SHA256(), 32, head.salt, about).derive(key))


def _nonce(head: Head, index: int) -> bytes:
    if head.magic == FIRST_MAGIC:
        return head.salt + index.to_bytes(8, "big")
    return index.to_bytes(12, "big")


def _additional(head: Head, name: str) -> bytes:
    if head.magic == FIRST_MAGIC:
        return b""
    return head.magic + head.release + head.salt + name.encode(errors="surrogateescape") + b"\0"


def _tail(last: bool) -> bytes:
    return b"last" if last else b"more"


def _blocks(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes, bool]]:
    """Blocks of a file, the last of them marked; an empty file is one empty block."""
    index, block = 0, file.read(size)
    while True:
        following = file.read(size)
        yield index, block, not following
        if not following:
            return
        index, block = index + 1, following


def sealed(data: bytes, key: bytes, name: str, release: bytes | None = None) -> Iterator[bytes]:
    """The same of bytes that are in memory: they are not on the disk in the clear at any moment."""
    return encrypted(BytesIO(data), key, name, release)
