"""Files and releases that tests encrypt and decrypt, with what the product has for their bytes."""

from pathlib import Path

from compressor.storage import sealing
from compressor.storage.manifest import walk


def encrypt(
    source: Path, target: Path, key: bytes, name: str | None = None, release: bytes | None = None
) -> None:
    """A file into an encrypted one; called as `target` is, if nothing is said."""
    named = target.name.removesuffix(sealing.SUFFIX) if name is None else name
    with source.open("rb") as file:
        target.write_bytes(b"".join(sealing.encrypted(file, key, named, release)))


def decrypted(source: Path, key: bytes) -> bytes:
    """The inverse. Raises WrongError for another key, or where anything was changed."""
    with source.open("rb") as file:
        return b"".join(sealing.decrypted(file, key, source.name.removesuffix(sealing.SUFFIX)))


def seal(folder: Path, key: bytes) -> None:
    """Encrypt a release that is there, in place; names and sizes stay visible."""
    release = sealing.new_release()
    for name in walk(folder):
        path = folder / name
        encrypt(path, path.with_name(path.name + sealing.SUFFIX), key, name, release)
        path.unlink()
