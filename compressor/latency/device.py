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

from compressor.environment import environment
from compressor.latency.probe import Setting
from compressor.latency.profiling import Wanted, differences, profile
from compressor.latency.table import FORMAT, Table, load
from compressor.passes.errors import UsageError

Progress = Callable[[int, int], None]

SECONDS = 600.0
"""For what a table lacks, at most."""


@dataclass(frozen=True)
class Device:
    """A table, and whether models can be raced on the device that it is of."""

    table: Table
    here: bool


def kept_at(setting: Setting) -> Path:
    """Where this machine's own table is kept."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
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
    table, complete = profile(
        path or kept_at(setting), needed, setting, seconds=SECONDS, progress=progress
    )
    if not complete:
        raise UsageError(
            f"measuring this model's kernels takes longer than {SECONDS:g} s",
            hint="run `compressor profile` until it is complete, and name its table by --device",
        )
    return Device(table, True)
