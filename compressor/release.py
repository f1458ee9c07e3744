"""The release directory: written beside its final name, renamed when complete.

model.onnx          the deployable model
model.safetensors   the small weights
plan.json           kept indices of every parameter, by the user's own names
report.json         everything that was found out
report.html         the same as a page
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.passes.errors import UsageError

if TYPE_CHECKING:
    from compressor.api import Built


@contextmanager
def prepared(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A folder to write into, which becomes `target` when the block ends without an error.

    Raises UsageError at once where `target` exists (unless `force`) or cannot be written.
    """
    check(target, force=force)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        yield folder
        os.chmod(folder, 0o755)  # mkdtemp makes it private
        _publish(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, target: Path) -> None:
    old = None
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
        os.replace(target, old / "old")
    os.rename(folder, target)
    if old is not None:
        shutil.rmtree(old)


def check(target: Path, *, force: bool = False) -> None:
    """Raise UsageError unless a release can be written to `target`: before any work is done."""
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file", hint="name a directory with -o")
    if target.exists() and any(target.iterdir()):
        if not force:
            raise UsageError(
                f"{target} exists already",
                hint="name another directory with -o, or replace this one with --force",
            )
        if not (target / "report.json").exists():
            raise UsageError(
                f"{target} holds something that is not ours, so --force does not replace it",
                hint="name another directory with -o",
            )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise UsageError(
            f"cannot write to {target.parent}",
            why=error.strerror or str(error),
            hint="name a directory you may write to with -o",
        ) from error


def write(built: "Built", folder: Path) -> None:
    """All files of a release into `folder`."""
    from safetensors.torch import save_file

    from compressor import page

    onnx = built.onnx
    (folder / "model.onnx").write_bytes(onnx.data)
    save_file(_stored(built), folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)  # safetensors keeps it private
    _write_json(folder / "plan.json", {"format": 1, "kept": built.plan.kept})
    found = built.report
    _write_json(folder / "report.json", found)
    (folder / "report.html").write_text(page.render(found), encoding="utf-8")


def _stored(built: "Built") -> dict[str, Any]:
    """Contiguous tensors, each stored once: safetensors refuses two names for one memory."""
    state: dict[str, Any] = {}
    seen: set[int] = set()
    for name, tensor in built.small.tensors().items():
        key = tensor.data_ptr()
        state[name] = tensor.detach().clone() if key in seen else tensor.detach().contiguous()
        seen.add(key)
    return state


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
