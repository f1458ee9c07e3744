"""`compressor open`: an encrypted release in the clear, for where it is deployed. No torch here."""

from pathlib import Path

from compressor.release import layout
from compressor.release.reader import Arrived
from compressor.storage import durable
from compressor.storage.atomic_replace import alone


def decrypt(
    source: Path,
    target: Path,
    key: bytes,
    public: Path | None = None,
    content: str | None = None,
    *,
    force: bool = False,
) -> int:
    """Write what is in an encrypted release to `target`, readable by the user alone.

    Every file is checked while it is decrypted, so `target` is there as a whole or not at all.
    Returns the number of files. Raises UsageError where `target` exists (unless `force`),
    WrongError where anything is not as it was made, is not signed by `public`, or is not the
    release of this `content`.
    """
    arrived = Arrived(source, key)
    arrived.must_be(public, content)
    arrived.check_names()
    files = arrived.manifest["files"]
    layout.check(target, force=force)
    with alone(target), layout.prepared(target, force=force, private=True) as folder:
        for name in files:
            path = folder / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            durable.write(path, arrived.blocks(name), 0o600)
        for name, data in arrived.extras():
            durable.write(folder / name, [data], 0o600)
    return len(files)
