"""A demo build, disturbed: killed at random moments, on a disk that fills, two at once.

Afterwards the output is absent or complete and verified, and what is built in the end has the bytes
of an undisturbed build (the manifest's `content`). Which form of a model wins a race is a matter of
measured time: so contents are compared of builds without one, and every second build that is killed
has one, for the moments in it.
"""

import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from compressor.release import layout
from compressor.release.verify import verify
from compressor.storage import manifest
from tests.tools.reliability.disks import ROOT, on_disk, possible
from tests.tools.reliability.forked import Started

NET = """
import torch
from torch import nn

def load_model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    ).eval()

def example_inputs():
    return torch.ones(2, 3, 12, 12)

def calibration_data():
    return torch.randn(128, 3, 12, 12, generator=torch.Generator().manual_seed(1)).split(32)
"""
_BUILD = ["build", "net.py", "--macs", "0.5", "-o", "out", "--quiet"]
RACED = [*_BUILD, "--bench-seconds", "0.1"]
LINE = [*_BUILD, "--no-race"]


@dataclass(frozen=True)
class Trial:
    """One build that was disturbed, and what was there afterwards."""

    kind: str
    at: float
    """Seconds after the start of a kill; bytes that a file may have, on a full disk."""
    code: int
    there: str
    """`absent`, `complete`, or what is wrong."""
    content: str = ""
    left: tuple[str, ...] = ()
    """Names beside the output."""
    error: str = ""


def start(folder: Path, *more: str, limit: int | None = None) -> "subprocess.Popen[str]":
    """A build of the demo into `folder`/out, in a process group of its own."""
    (folder / "net.py").write_text(NET)

    def limited() -> None:
        os.setpgrp()
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-m", "compressor", *LINE, *more],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limited,
    )


def undisturbed(folder: Path) -> tuple[str, float]:
    """The content of a build, and its seconds."""
    began = time.monotonic()
    _, error = start(folder).communicate()
    took = time.monotonic() - began
    if not (folder / "out").is_dir():
        raise RuntimeError(error)
    return verify(folder / "out").content, took


def kills(folder: Path, count: int, seed: int, minutes: float) -> Iterator[Trial]:
    """SIGKILL to the whole group at random moments; then the build is run to its end.

    Builds are forked from a process that has imported all. Every fifth begins with a release that
    is there, and is told to replace it. The first, which nobody kills, says how long one takes.
    After `minutes` no more are begun.
    """
    rng, last = random.Random(seed), time.monotonic() + 60 * minutes
    whole = folder / "forked"
    whole.mkdir()
    (whole / "net.py").write_text(NET)
    seconds = {}
    for line in (RACED, RACED, LINE):  # the first one waits for the imports
        began = time.monotonic()
        build = Started(whole, [*line, "--force"])
        build.ended()
        seconds["--no-race" in line] = time.monotonic() - began
    yield _looked_at("rerun", seconds[True], build.code, whole, build.errors)
    for index in range(count):
        if time.monotonic() > last:
            return
        place = folder / f"kill{index}"
        place.mkdir()
        (place / "net.py").write_text(NET)
        line, raced = (RACED, True) if index % 2 else (LINE, False)
        force = ["--force"] if index % 10 in (4, 9) else []
        if force:
            shutil.copytree(whole / "out", place / "out")
        at = rng.uniform(0, seconds[not raced])
        build = Started(place, [*line, *force])
        if not build.ended(at):
            build.kill()
        killed = _looked_at("kill", at, build.code, place)
        yield replace(killed, content="") if raced else killed
        build = Started(place, line if killed.there == "absent" else [*line, "--force"])
        build.ended()
        again = _looked_at("rerun", at, build.code, place, build.errors)
        yield replace(again, content="") if raced else again
        shutil.rmtree(place)


WRITER = """
import pathlib, shutil, sys
from compressor.release import layout
from compressor.storage import manifest
source, target = map(pathlib.Path, sys.argv[1:3])
for name in range(1000):
    with layout.prepared(target, force=True) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        (folder / "model.onnx").write_bytes(bytes([name % 256]) * 300_000)
        (folder / "manifest.json").write_text(__import__("json").dumps(manifest.make(folder, {})))
    print(name, flush=True)
"""


def writer_kills(folder: Path, count: int, seed: int = 0) -> Iterator[Trial]:
    """SIGKILL while releases replace one another: no torch, so that many moments can be tried."""
    rng, source = random.Random(seed), folder / "source"
    source.mkdir()
    for name in layout.FILES:
        if name == "parity":
            (source / name).mkdir()
            (source / name / "random.safetensors").write_bytes(rng.randbytes(2000))
        else:
            (source / name).write_bytes(rng.randbytes(2000))
    for _ in range(count):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, source, folder / "out"],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert writer.stdout is not None
        if not writer.stdout.readline():
            raise RuntimeError("the writer wrote nothing")
        at = rng.uniform(0, 0.2)
        time.sleep(at)
        writer.kill()
        writer.communicate()
        layout.recover(folder / "out")
        there, content = _checked(lambda: _whole(folder / "out"))
        left = {path.name for path in folder.iterdir()} - {"source", "out"}
        yield Trial("kill while writing", round(at, 3), -9, there, content, tuple(sorted(left)))


def _whole(folder: Path) -> str:
    """The content of a release that is as its manifest says."""
    found = manifest.read(folder)
    manifest.check(folder, found)
    return str(found["content"])


def full_disks(folder: Path, limits: tuple[int, ...]) -> Iterator[Trial]:
    """No file may have more bytes than this; an earlier release is there, and stays."""
    start(folder).communicate()
    for limit in limits:
        build = start(folder, "--force", limit=limit)
        _, error = build.communicate()
        yield _looked_at("full disk", limit, build.returncode, folder, error)


def mounted(folder: Path, spare: tuple[int, ...]) -> Iterator[Trial]:
    """The same on disks of their own: ones with so many pages to spare, and a read-only one."""
    if not possible():
        return
    start(folder).communicate()
    page = resource.getpagesize()
    used = sum(1 + path.stat().st_size // page for path in folder.rglob("*"))  # and one a folder
    for options in ("ro", *(f"size={(used + pages) * page}" for pages in spare)):
        done = on_disk(
            [sys.executable, "-m", "compressor", *LINE, "--force"], folder, options,
            PYTHONDONTWRITEBYTECODE="1",
        )  # fmt: skip
        yield _looked_at(f"disk {options}", 0, done.returncode, folder, done.stderr)


def two_at_once(folder: Path) -> Iterator[Trial]:
    """Both end; one of them has won."""
    both = [start(folder) for _ in range(2)]
    errors = [one.communicate()[1] for one in both]
    for one, error in zip(both, errors, strict=True):
        yield _looked_at("two at once", 0, one.returncode, folder, error)


def _looked_at(kind: str, at: float, code: int, folder: Path, error: str = "") -> Trial:
    out, content = folder / "out", ""
    if not out.exists():
        there = "absent"
    else:
        there, content = _checked(lambda: verify(out).content)
    left = sorted(
        path.name.split(".")[-1]
        for path in folder.iterdir()
        if path.name not in ("out", "net.py", "__pycache__", "stderr")
    )
    first = error.strip().splitlines()[:1]
    return Trial(kind, round(at, 2), code, there, content, tuple(left), "".join(first)[:200])


def _checked(check: Callable[[], str]) -> tuple[str, str]:
    try:
        return "complete", check()
    except Exception as error:  # a row says whatever is wrong
        return f"wrong: {error}"[:200], ""


def bad(trials: list[Trial], content: str) -> list[Trial]:
    """Those that must not happen."""
    found = []
    for one in trials:
        if one.kind == "kill while writing":
            if one.there != "complete" or one.left:
                found.append(one)
            continue
        sound = one.there in ("absent", "complete") and one.content in ("", content)
        if one.kind == "rerun":
            sound = sound and one.code == 0 and one.there == "complete" and not one.left
        if one.kind == "full disk":
            sound = sound and one.there == "complete" and one.code in (0, 2)
        if one.kind.startswith("disk"):
            sound = sound and one.there == "complete" and one.code == 2 and not one.left
        if one.kind == "two at once":
            sound = sound and one.there == "complete" and one.code in (0, 2)
        if not sound or "Traceback" in one.error:
            found.append(one)
    return found
