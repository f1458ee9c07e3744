"""Builds that several tests look at, made once a session: exporting takes seconds."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from compressor.passes import Budget, Program
from typer.testing import CliRunner, Result

from compressor import Built, compress
from compressor.cli.app import app
from compressor.onnx.export import Simplified, export
from compressor.result import built as built_parts
from tests.compressor import samples

ROOT = Path(__file__).resolve().parents[2]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell script
    # what tests start would ignore it as well, and tests interrupt some of it
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Release(NamedTuple):
    """What `compressor build` wrote and said, as a process of its own."""

    folder: Path
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's folder, with the sample network in `net.py`."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(samples.__file__, folder / "net.py")
    return folder


@pytest.fixture(scope="session")
def process(project: Path) -> Callable[[str], "subprocess.Popen[str]"]:
    """Start `python -m compressor` in the user's folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(line: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "compressor", *shlex.split(line)],
            cwd=project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def release(process, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Half of the MACs of the sample network, by the command line."""
    folder = tmp_path_factory.mktemp("release") / "out"
    started = process(
        f"build net.py:net --macs 0.5 --evaluate net.py:agreement --bench-seconds 1 "
        f"--allow-slower -o {folder}"
    )
    stdout, stderr = started.communicate()
    assert started.returncode == 0, stderr
    return Release(folder, stdout, stderr)


@pytest.fixture(scope="session")
def built() -> Built:
    """The same by the library, without the race; it is exported when that is first asked for."""
    return compress(samples.net(), samples.example_inputs(), budget=Budget(macs=0.5), race=False)


@pytest.fixture
def command(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Result]:
    """Run a command line in this process, in the user's folder."""
    monkeypatch.chdir(project)
    return lambda line: CliRunner().invoke(app, shlex.split(line))


_exported: dict[object, bytes] = {}


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds without onnxsim, which export each network once a session.

    Nor are other forms of the model raced: which is the fastest may differ from build to build.
    """

    def once(program: Program) -> bytes:
        tensors = {name: one.detach() for name, one in program.tensors().items()}
        key = tuple((name, one.shape, float(one.double().sum())) for name, one in tensors.items())
        if key not in _exported:
            _exported[key] = export(program)
        return _exported[key]

    monkeypatch.setattr(built_parts, "export", once)
    monkeypatch.setattr(
        built_parts, "simplify", lambda data: Simplified(None, "onnxsim was left out")
    )
    monkeypatch.setattr("compressor.pipeline.variant_race.forms", lambda onnx: {})
