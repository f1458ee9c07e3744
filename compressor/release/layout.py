"""The release directory: written beside its final name, renamed when complete.

model.onnx          the deployable model; model.onnx.data beside it where it has more than 2 GB
model.safetensors   the small weights
model.pt2           the small network as torch.export has it: it runs code when it is loaded
passes.json         every pass that ran, in order: options, kept indices, evidence
recipe.toml         what to run to get it again: every option, given or by default
parity/             inputs and what torch gives for them
report.json         everything that was found out
report.html         the same as a page; summary.md the headline
manifest.json       SHA-256 and size of every file, versions, seeds, device, source

What is in them is made in `compressor.release.writing`. Until all of it is on the disk, it lies in
a private folder beside the output:

    build/.net.0123456789abcdef.partial/new        the release, renamed to build/net at the end
                                        earlier    what was there before, on its way out
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.base.messages import listed
from compressor.passes.base.errors import UsageError
from compressor.storage import durable
from compressor.storage.atomic_replace import aside, left_behind, parents, unwritable
from compressor.storage.durable import exchange

_NEW, _EARLIER = "new", "earlier"
FILES = (
    *("model.onnx", "model.safetensors", "passes.json", "recipe.toml", "parity"),
    *("report.json", "report.html", "summary.md", "manifest.json"),
)
SOMETIMES = ("model.onnx.data", "model.pt2", "manifest.sig", "plan.json")
"""The last in earlier releases, which had no log."""


@contextmanager
def prepared(target: Path, *, force: bool = False, private: bool = False) -> Iterator[Path]:
    """A folder to write into, which becomes `target` when the block ends without an error.

    It is on the disk before it is there by name. `private`: nobody else may look into it. Raises
    UsageError at once where `target` exists (unless `force`) or cannot be written.
    """
    check(target, force=force)
    try:
        recover(target)
        with parents(target), aside(target) as place:
            folder = place / _NEW
            os.mkdir(folder, 0o700)
            yield folder
            os.chmod(folder, 0o700 if private else 0o755)
            durable.flush_all(place)
            _publish(place, target, force)
    except OSError as error:
        raise unwritable(target, error) from error


def recover(target: Path) -> None:
    """Clear what a build that was killed left beside `target`; put back what it had moved away.

    Only folders that `aside` made here are touched: what is merely called like them is left alone.
    """
    for place in left_behind(target):
        earlier = place / _EARLIER
        if earlier.is_dir() and not os.path.lexists(target):
            durable.move(earlier, target)


def _publish(place: Path, target: Path, force: bool) -> None:
    """Rename. An earlier release changes places with it; both are whole at every moment.

    Where the system cannot do that at once, the earlier one makes room first. It comes back if
    the second rename fails, and in the next build where a kill came between (see `recover`).
    """
    folder, earlier = place / _NEW, place / _EARLIER
    if not force or not target.exists():
        try:
            durable.move(folder, target)  # an empty folder may be there
        except OSError as error:
            if not target.exists() or not folder.exists():
                raise
            raise UsageError(
                f"{target} exists already",
                why="another build was faster",
                hint="name another directory with -o, or replace this one with --force",
            ) from error
        return
    if not target.is_symlink() and exchange(folder, target):
        return  # what is in `folder` now is deleted
    durable.move(target, earlier)
    try:
        durable.move(folder, target)
    except BaseException:
        if folder.exists():
            durable.move(earlier, target)
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
    foreign = sorted(plain.difference(FILES, SOMETIMES)) or _foreign_below(target)
    if foreign or not plain.issuperset(("model.onnx", "report.json")):
        raise UsageError(
            f"{target} holds something that is not ours, so --force does not replace it",
            why=f"there is {listed(foreign)}" if foreign else "it is not a release",
            hint="name another directory with -o",
        )


def _foreign_below(target: Path) -> list[str]:
    """What a release has not in its folders: there is one, `parity`, with tensors in it."""
    return sorted(
        inner.relative_to(target).as_posix()
        for entry in target.iterdir()
        if entry.is_dir() and not entry.is_symlink()
        for inner in entry.iterdir()
        if not (inner.is_file() and inner.name.removesuffix(".enc").endswith(".safetensors"))
    )
