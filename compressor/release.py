"""The release directory: written beside its final name, renamed when complete.

model.onnx          the deployable model; model.onnx.data beside it where it has more than 2 GB
model.safetensors   the small weights
model.pt2           the small network as torch.export has it: it runs code when it is loaded
plan.json           kept indices of every parameter, by the user's own names
recipe.toml         what to run to get it again: every option, given or by default
parity/             inputs and what torch gives for them
report.json         everything that was found out
report.html         the same as a page; summary.md the headline
manifest.json       SHA-256 and size of every file, versions, seeds, device, source

What is in them is made in `compressor.writing`.
"""

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.load.words import listed
from compressor.passes.errors import UsageError
from compressor.swap import exchange, locked, parents, unwritable

FILES = (
    *("model.onnx", "model.safetensors", "plan.json", "recipe.toml", "parity"),
    *("report.json", "report.html", "summary.md", "manifest.json"),
)
SOMETIMES = ("model.onnx.data", "model.pt2", "manifest.sig")


@contextmanager
def prepared(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A folder to write into, which becomes `target` when the block ends without an error.

    Raises UsageError at once where `target` exists (unless `force`) or cannot be written.
    """
    check(target, force=force)
    try:
        recover(target)
        with parents(target), _beside(target, ".partial") as folder:
            yield folder
            os.chmod(folder, 0o755)  # mkdtemp makes it private
            _publish(folder, target, force)
    except OSError as error:
        raise unwritable(target, error) from error


@contextmanager
def _beside(target: Path, suffix: str) -> Iterator[Path]:
    """A hidden folder on the same disk as `target`; what is in it at the end is deleted."""
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=suffix, dir=target.parent))
    lock = locked(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def recover(target: Path) -> None:
    """Clear what a build that was killed left beside `target`; put back what it had moved away."""
    for suffix in (".old", ".partial"):
        for folder in target.parent.glob(f".{glob.escape(target.name)}.*{suffix}"):
            lock = locked(folder)
            if lock is None:
                continue  # its build is running
            earlier = folder / target.name
            if suffix == ".old" and earlier.is_dir() and not target.exists():
                os.rename(earlier, target)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _publish(folder: Path, target: Path, force: bool) -> None:
    """Rename. An earlier release changes places with it; both are whole at every moment.

    Where the system cannot do that at once, the earlier one makes room first. It comes back if
    the second rename fails, and in the next build where a kill came between (see `recover`).
    """
    if not force or not target.exists():
        try:
            os.rename(folder, target)  # an empty folder may be there
        except OSError as error:
            if not target.exists():
                raise
            raise UsageError(
                f"{target} exists already",
                why="another build was faster",
                hint="name another directory with -o, or replace this one with --force",
            ) from error
        return
    if not target.is_symlink() and exchange(folder, target):
        return  # what is in `folder` now is deleted
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
        raise unwritable(target, error) from error


def _check_replaceable(target: Path, force: bool) -> None:
    if not force:
        raise UsageError(
            f"{target} exists already",
            hint="name another directory with -o, or replace this one with --force",
        )
    names = {entry.name for entry in target.iterdir()}
    plain = {name.removesuffix(".enc") for name in names}
    foreign = sorted(plain.difference(FILES, SOMETIMES))
    if foreign or not plain.issuperset(("model.onnx", "report.json")):
        raise UsageError(
            f"{target} holds something that is not ours, so --force does not replace it",
            why=f"there is {listed(foreign)}" if foreign else "it is not a release",
            hint="name another directory with -o",
        )
