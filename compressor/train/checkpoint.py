"""Where a killed run goes on: a folder with everything that decides what comes next.

    distill/step-000120/    model.safetensors, optimizer.bin, ...   accelerate's
                            best.safetensors, progress.json         ours

Written beside its name, flushed and renamed, so it is complete or absent; the one before goes
afterwards. Nothing else in the folder is touched.
"""

import hashlib
import json
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from compressor.base.messages import reason
from compressor.base.untrusted import read_json
from compressor.config.training import Training
from compressor.passes.base.errors import UsageError
from compressor.storage import durable

_NAME = re.compile(r"epoch-[0-9]{4,}-batch-[0-9]{6,}|\.epoch-[0-9]{4,}-batch-[0-9]{6,}\.partial")
"""Of a checkpoint, and of one that is not complete."""


@dataclass
class History:
    """What happened: one entry a step, and one an epoch."""

    name: str
    losses: list[float] = field(default_factory=list)
    """Mean loss over all processes, of every step."""
    scores: list[float] = field(default_factory=list)
    """Before training, and after each epoch; higher is better."""
    best: int = 0
    """Which of `scores` is the exported one."""
    stopped: str = ""


@dataclass
class Progress:
    """How far a phase is."""

    history: History
    epoch: int = 0
    """The epoch to go on with."""
    batch: int = 0
    """Its batches that are done."""


@dataclass
class Checkpoint:
    """The checkpoints of one phase; nothing is kept where the settings name no folder."""

    phase: str
    settings: Training
    accelerator: Any
    state: dict[str, Tensor]
    """The weights before training: their sizes tell this run from others."""

    @property
    def _folder(self) -> Path | None:
        root = self.settings.checkpoints
        return None if root is None else root / self.phase

    def save(self, progress: Progress, best: dict[str, Tensor]) -> None:
        """Write what is needed to go on from here; every process takes part."""
        folder = self._folder
        if folder is None:
            return
        from safetensors.torch import save

        name = f"epoch-{progress.epoch:04d}-batch-{progress.batch:06d}"
        partial, final = folder / f".{name}.partial", folder / name
        if self.accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            durable.made(partial)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(partial), safe_serialization=True)
        if self.accelerator.is_main_process:
            tensors = save({key: one.contiguous() for key, one in best.items()})
            durable.write(partial / "best.safetensors", [tensors])
            record = {"run": self._run(), "epoch": progress.epoch, "batch": progress.batch,
                      "history": asdict(progress.history),
                      "files": _digests(partial)}  # fmt: skip
            durable.write(partial / "progress.json", [f"{json.dumps(record)}\n".encode()])
            durable.flush_all(partial)
            if not (final.exists() and durable.exchange(partial, final)):
                _remove(final)
                durable.move(partial, final)
            for old in [one for one in folder.iterdir() if one != final]:
                if _NAME.fullmatch(old.name):
                    _remove(old)
        self.accelerator.wait_for_everyone()

    def load(self) -> tuple[Progress, dict[str, Tensor]] | None:
        """The last checkpoint, put into the model and the optimiser.

        Raises UsageError where it is one of another run.
        """
        found = self._last()
        if found is None:
            return None
        from safetensors.torch import load_file

        try:
            record = read_json((found / "progress.json").read_bytes())
            if record["files"] != _digests(found):  # some of its readers go on without a file
                raise ValueError("its files are not those that were written")
            best = load_file(found / "best.safetensors")
            history, known = History(**record["history"]), record["run"]
            progress = Progress(history, int(record["epoch"]), int(record["batch"]))
        except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
            raise _not_ours(found, error) from error
        if known != self._run():
            raise UsageError(
                f"{found.parent} holds checkpoints of another run",
                why="its options or its widths were other ones",
                hint="name another folder with --checkpoints, or delete this one",
            )
        try:
            self.accelerator.load_state(str(found))
        except Exception as error:  # each of its files has a reader with errors of its own
            raise _not_ours(found, error) from error
        return progress, best

    def _last(self) -> Path | None:
        folder = self._folder
        if folder is None or not folder.is_dir():
            return None
        found = (one for one in folder.iterdir() if _NAME.fullmatch(one.name))
        whole = [one for one in found if not one.name.startswith(".")]
        return max(whole, key=lambda one: one.name, default=None)

    def _run(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        options = asdict(self.settings)
        for name in ("checkpoints", "checkpoint_steps", "loss"):
            del options[name]
        return {"options": options, "shapes": _shapes(self.state)}


def _remove(old: Path) -> None:
    """Delete a checkpoint; until it is gone it has a name that is not one of a complete one."""
    gone = old
    if old.is_dir() and not old.name.startswith("."):
        gone = old.with_name(f".{old.name}.partial")
        shutil.rmtree(gone, ignore_errors=True)
        durable.move(old, gone)
    shutil.rmtree(gone, ignore_errors=True)


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file but the record, by name."""
    found = {}
    for path in sorted(one for one in folder.iterdir() if one.name != "progress.json"):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _not_ours(found: Path, error: Exception) -> UsageError:
    return UsageError(
        f"{found} is not a checkpoint of ours",
        why=reason(error),
        hint="name another folder with --checkpoints, or delete this one",
    )


def _shapes(state: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(one.shape) for name, one in sorted(state.items())}
