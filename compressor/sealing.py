"""Signatures and encryption, by `cryptography`: `pip install 'compressor[sign]'`.

    sign(folder, key)              manifest.sig: Ed25519 over manifest.json; the key is PEM
    check_signature(folder, key)   with the public key, or the private one
    encrypt(source, target, key)   AES-256-GCM in blocks of 1 MiB; the key is 32 bytes
    decrypt(source, target, key)

An encrypted file is a head (magic, a random prefix of 4 bytes) and blocks. Block i has the nonce
prefix + i and says in its additional data whether it is the last: blocks that are moved, dropped
or added are found as surely as changed ones. One block is in memory at a time.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from compressor.files import read_file
from compressor.manifest import NAME, SIGNATURE
from compressor.optional import needed
from compressor.passes.errors import UsageError, WrongError

MAGIC = b"compressor-aesgcm-1\n"
BLOCK = 1 << 20
_TAG = 16


def cryptography() -> ModuleType:
    """The package. Raises UsageError where it is not installed."""
    return needed("cryptography", "signing and encryption", "sign")


# ---------------------------------------------------------------------------- signatures


def sign(folder: Path, key: Path) -> None:
    """Write the signature of a release's manifest."""
    (folder / SIGNATURE).write_bytes(_private(key).sign((folder / NAME).read_bytes()))


def check_key(key: Path) -> None:
    """Raise UsageError where a file is no private key: before a build, not after it."""
    _private(key)


def check_signature(folder: Path, key: Path) -> None:
    """Raises WrongError where the manifest is not signed by this key."""
    cryptography()
    from cryptography.exceptions import InvalidSignature

    path = folder / SIGNATURE
    if not path.is_file():
        raise WrongError(f"{folder} is not signed", why=f"there is no {SIGNATURE}")
    with path.open("rb") as file:
        signature = file.read(65)
    try:
        _public(key).verify(signature, (folder / NAME).read_bytes())
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
    if len(key) != 32:
        raise UsageError(
            f"{path} is not a key of 32 bytes", hint="head -c 32 /dev/urandom > FILE makes one"
        )
    cryptography()
    return key


def encrypt(source: Path, target: Path, key: bytes) -> None:
    """A file into an encrypted one, block by block."""
    prefix = os.urandom(4)
    with source.open("rb") as file, target.open("xb") as out:
        out.write(MAGIC + prefix)
        for index, block, last in _blocks(file, BLOCK):
            out.write(_cipher(key).encrypt(_nonce(prefix, index), block, _tail(last)))


def decrypt(source: Path, target: Path, key: bytes) -> None:
    """The inverse. Raises WrongError for another key, or where anything was changed."""
    cryptography()
    from cryptography.exceptions import InvalidTag

    with source.open("rb") as file, target.open("xb") as out:
        head = file.read(len(MAGIC) + 4)
        if len(head) != len(MAGIC) + 4 or not head.startswith(MAGIC):
            raise WrongError(f"{source.name} is not an encrypted file of a release")
        prefix = head[len(MAGIC) :]
        for index, block, last in _blocks(file, BLOCK + _TAG):
            try:
                out.write(_cipher(key).decrypt(_nonce(prefix, index), block, _tail(last)))
            except InvalidTag as error:
                raise WrongError(
                    f"{source.name} cannot be decrypted",
                    why="the key is another one, or it was changed",
                ) from error


def is_encrypted(path: Path) -> bool:
    """Whether a file begins like ours."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _nonce(prefix: bytes, index: int) -> bytes:
    return prefix + index.to_bytes(8, "big")


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


SUFFIX = ".enc"


def seal(folder: Path, key: bytes) -> None:
    """Encrypt every file of a release, in place; names and sizes stay visible."""
    for path in [path for path in sorted(folder.rglob("*")) if path.is_file()]:
        encrypt(path, path.with_name(path.name + SUFFIX), key)
        path.unlink()


@contextmanager
def opened(folder: Path, key: bytes | None) -> Iterator[Path]:
    """The release itself, or its decrypted copy in a private folder that is deleted afterwards."""
    import tempfile

    if not (folder / (NAME + SUFFIX)).exists():
        if key is not None:
            raise UsageError(f"{folder} is not encrypted", hint="leave out --encrypt-key")
        yield folder
        return
    if key is None:
        raise UsageError(f"{folder} is encrypted", hint="give the key with --encrypt-key FILE")
    with tempfile.TemporaryDirectory(prefix="compressor-") as place:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink():
                raise UsageError(f"{path} is a link", why="a release consists of files")
            if not path.is_file():
                continue
            if path.suffix != SUFFIX:
                raise WrongError(f"{path.name} is not encrypted, and the others are")
            target = Path(place) / path.relative_to(folder).with_suffix("")
            target.parent.mkdir(parents=True, exist_ok=True)
            decrypt(path, target, key)
        yield Path(place)
