"""The release directory: written beside its final name, renamed when complete.

model.onnx          the deployable model
model.safetensors   the small weights
plan.json           kept indices of every parameter, by the user's own names
recipe.toml         what to run to get it again: every option, given or by default
report.json         everything that was found out
report.html         the same as a page
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.load.words import listed
from compressor.passes.errors import UsageError

if TYPE_CHECKING:
    from compressor.built import Built

FILES = (
    "model.onnx",
    "model.safetensors",
    "plan.json",
    "recipe.toml",
    "report.json",
    "report.html",
)


@contextmanager
def prepared(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A folder to write into, which becomes `target` when the block ends without an error.

    Raises UsageError at once where `target` exists (unless `force`) or cannot be written.
    """
    check(target, force=force)
    try:
        with _parents(target), _beside(target, ".partial") as folder:
            yield folder
            os.chmod(folder, 0o755)  # mkdtemp makes it private
            _publish(folder, target)
    except OSError as error:
        raise _unwritable(target, error) from error


@contextmanager
def _parents(target: Path) -> Iterator[None]:
    """The folders above `target`; those made here go again on an error."""
    new = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in new:
            with suppress(OSError):  # another process writes there too
                folder.rmdir()
        raise


@contextmanager
def _beside(target: Path, suffix: str) -> Iterator[Path]:
    """A hidden folder on the same disk as `target`; what is in it at the end is deleted."""
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=suffix, dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, target: Path) -> None:
    """Rename; an earlier release makes room first, and comes back if that fails."""
    if not target.exists():
        os.rename(folder, target)
        return
    with _beside(target, ".old") as aside:
        os.rename(target, aside / target.name)
        try:
            os.rename(folder, target)
        except BaseException:
            os.rename(aside / target.name, target)
            raise


def check(target: Path, *, force: bool = False) -> None:
    """Raise UsageError unless a release can be written to `target`. Nothing is made yet."""
    try:
        there = next(folder for folder in (target, *target.parents) if folder.exists())
        if not there.is_dir():
            raise UsageError(f"{there} is a file", hint="name a directory with -o")
        if Path.cwd().is_relative_to(target.resolve()):
            raise UsageError(
                f"{target} is where you stand, and would be replaced as a whole",
                hint="name a new directory with -o, such as build/model",
            )
        if there == target and any(target.iterdir()):
            _check_replaceable(target, force)
        with tempfile.TemporaryFile(dir=target.parent if there == target else there):
            pass
    except OSError as error:
        raise _unwritable(target, error) from error


def _check_replaceable(target: Path, force: bool) -> None:
    if not force:
        raise UsageError(
            f"{target} exists already",
            hint="name another directory with -o, or replace this one with --force",
        )
    names = {entry.name for entry in target.iterdir()}
    foreign = sorted(names.difference(FILES))
    if foreign or not names.issuperset(("model.onnx", "report.json")):
        raise UsageError(
            f"{target} holds something that is not ours, so --force does not replace it",
            why=f"there is {listed(foreign)}" if foreign else "it is not a release",
            hint="name another directory with -o",
        )


def _unwritable(target: Path, error: OSError) -> UsageError:
    return UsageError(
        f"cannot write to {target.parent}",
        why=error.strerror or str(error),
        hint="name a directory you may write to with -o",
    )


def write(built: "Built", folder: Path) -> None:
    """All files of a release into `folder`."""
    from safetensors.torch import save_file

    from compressor import page
    from compressor.recipe.toml import resolved
    from compressor.shards import cut_of

    onnx = built.onnx
    (folder / "model.onnx").write_bytes(onnx.data)
    save_file(_stored(built), folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)  # safetensors keeps it private
    _write_json(folder / "plan.json", cut_of(built.plan).to_json())
    (folder / "recipe.toml").write_text(resolved(built.recipe), encoding="utf-8")
    found = built.report
    _write_json(folder / "report.json", found)
    (folder / "report.html").write_text(page.render(found), encoding="utf-8")


def _stored(built: "Built") -> dict[str, Any]:
    """Contiguous tensors, each stored once: safetensors refuses two names for one memory."""
    state: dict[str, Any] = {}
    seen: set[int] = set()
    for name, tensor in built.module.state_dict().items():
        key = tensor.data_ptr()
        state[name] = tensor.detach().clone() if key in seen else tensor.detach().contiguous()
        seen.add(key)
    return state


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
