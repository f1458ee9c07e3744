"""Where the files of a release go: into a folder, as they are or encrypted on the way."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compressor.storage import durable, sealing
from compressor.storage.manifest import entry


@dataclass
class Place:
    """A folder that a release is written into. With a `key` nothing is in it in the clear."""

    folder: Path
    key: bytes | None = None
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the manifest says of each file that was written."""
    _release: bytes = field(default_factory=sealing.new_release)

    def write(self, name: str, data: bytes) -> None:
        """A new file. Raises OSError where the disk does."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        if self.key is None:
            durable.write(path, [data])
        else:
            path = path.with_name(path.name + sealing.SUFFIX)
            durable.write(path, sealing.sealed(data, self.key, name, self._release))
        self.entries[name] = entry(name, [data])

    def write_text(self, name: str, text: str) -> None:
        """The same for words."""
        self.write(name, text.encode())
