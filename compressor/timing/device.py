"""The table that a build plans by: the user's, or one of this machine that is kept and added to.

A table that the user names is another device's, or this one's; one of this machine is completed
with what a model needs, any other is taken as it is.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from compressor.passes.base.errors import UsageError
from compressor.process.environment import environment
from compressor.timing.measure_kernels import Setting
from compressor.timing.profiling import Wanted, begun, completed, differences, profile, resumed
from compressor.timing.table import FORMAT, Table, load

Progress = Callable[[int, int], None]

SECONDS = 600.0
"""For what a table lacks, at most."""


@dataclass(frozen=True)
class Device:
    """A table, and whether models can be raced on the device that it is of."""

    table: Table
    here: bool
    note: str = ""
    """What the user should know of how the table came about."""


@dataclass
class Kept:
    """This machine's own table in the user's cache, without which everything works, but slower."""

    path: Path | None
    note: str = ""
    """Why it is not read or not written."""

    def read(self, setting: Setting) -> Table | None:
        """The table, if there is one that can be used."""
        try:
            if self.path is None or not self.path.exists():
                return None
            return resumed(self.path, setting)
        except (OSError, UsageError) as error:
            self._tell("read", error)
            return None

    def save(self, table: Table) -> None:
        """Keep it. A cache that cannot be written is no reason to end."""
        if self.path is None:
            self.note = "this machine's table of times is not kept: you have no home folder"
            return
        try:
            table.save(self.path)
        except (OSError, UsageError) as error:
            self._tell("kept", error)

    def _tell(self, what: str, error: Exception) -> None:
        why = error.why if isinstance(error, UsageError) else str(error)
        self.note = f"this machine's table of times is not {what}: {self.path}: {why}"


def kept_at(setting: Setting) -> Path | None:
    """Where this machine's own table is kept; None for a user without a home."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except (RuntimeError, KeyError):  # an arbitrary user of a container
        return None
    now = environment()
    packages = now["packages"]
    version = packages.get("onnxruntime") if isinstance(packages, dict) else None
    mark = json.dumps([FORMAT, now["processor"], now["flags"], version, setting.provider,
                       setting.threads])  # fmt: skip
    return home / "compressor" / f"device-{hashlib.sha256(mark.encode()).hexdigest()[:16]}.json"


def device(
    path: Path | None, needed: Wanted, setting: Setting, progress: Progress | None = None
) -> Device:
    """The device to plan for, with all kernels that are needed if they can be measured here.

    Raises UsageError for a table that is none, or of another provider or number of threads.
    """
    note = ""
    if path is not None:
        table = load(path)
        if table.setting != setting:
            raise UsageError(
                f"{path} was measured by {table.setting.provider} with {table.setting.threads} "
                f"threads, not by {setting.provider} with {setting.threads}",
                hint="give the same --threads, or profile again",
            )
        if differences(table.environment, environment()):
            return Device(table, False)
        found, complete = profile(path, needed, setting, seconds=SECONDS, progress=progress)
    else:
        kept = Kept(kept_at(setting))
        found = kept.read(setting) or begun(setting)
        complete = completed(found, needed, setting, kept.save, seconds=SECONDS, progress=progress)
        note = kept.note
    if not complete:
        raise UsageError(
            f"measuring this model's kernels takes longer than {SECONDS:g} s",
            hint="run `compressor profile` until it is complete, and name its table by --device",
        )
    return Device(found, True, note)
