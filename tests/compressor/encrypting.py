"""Files and releases that tests encrypt and decrypt, with what the product has for their bytes."""

from pathlib import Path

from compressor.storage import sealing
from compressor.storage.manifest import walk


def decrypted(source: Path, key: bytes) -> bytes:
    """The inverse. Raises WrongError for another key, or where anything was changed."""
    with source.open("rb") as file:
        return b"".join(sealing.decrypted(file, key, source.name.removesuffix(sealing.SUFFIX)))


def seal(folder: Path, key: bytes) -> None:
    """Encrypt a release that is there, in place; names and sizes stay visible."""
    release = sealing.new_release()
    for name in walk(folder):
        path = folder / name
        sealing.encrypt(path, path.with_name(path.name + sealing.SUFFIX), key, name, release)
        path.unlink()
