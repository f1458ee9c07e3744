"""The wheel works where its users stand: among their own `models/`, `passes/` and `tests/`."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import compressor

ROOT = Path(__file__).resolve().parent.parent

DECOYS = ("passes", "tests", "benchmarks", "typings")

NET = """\
from torch import nn

from models.blocks import block


def net():
    return nn.Sequential(
        block(3, 16), block(16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    )
"""
BLOCKS = """\
from torch import nn


def block(wide_in, wide_out):
    return nn.Sequential(nn.Conv2d(wide_in, wide_out, 3, padding=1), nn.ReLU())
"""


def run(*command: object, cwd: Path) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and a source distribution of what is here, made without the network."""
    out = tmp_path_factory.mktemp("built")
    kinds = ("--sdist", "--wheel")
    run(sys.executable, "-m", "build", *kinds, "--no-isolation", "--outdir", out, cwd=ROOT)
    return out


@pytest.fixture(scope="module")
def wheel(built):
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """An environment with only the wheel in it, which borrows torch and the rest from ours."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=home)

    # A .pth file adds folders as they are: an editable install's own .pth is not read there.
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(run(python, "-c", where, cwd=home).strip())
    borrowed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (own / "borrowed.pth").write_text("\n".join(borrowed))
    return python


@pytest.fixture
def project(tmp_path):
    """A user's project, where every name of our repository means something else."""
    for name in DECOYS:
        (tmp_path / name).mkdir()
        for decoy in (tmp_path / f"{name}.py", tmp_path / name / "__init__.py"):
            decoy.write_text("raise RuntimeError('this is the user\\'s own, not ours')\n")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.py").write_text(NET)
    (tmp_path / "models" / "blocks.py").write_text(BLOCKS)
    return tmp_path


def test_the_only_import_name_in_the_wheel_is_compressor(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.partition("/")[0] for name in names}
    assert {name for name in packages if not name.endswith(".dist-info")} == {"compressor"}


def test_the_wheel_has_every_pass_and_nothing_that_lies_about(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("compressor/")}
    passes = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("passes/**/*.py")}
    assert {f"compressor/{path}" for path in passes} <= names
    assert not [name for name in names if "__pycache__" in name]


def test_both_distributions_say_that_they_are_typed_and_which_version_they_are(built, wheel):
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    assert {"compressor/py.typed", "compressor/passes/py.typed"} <= in_wheel
    (source,) = built.glob("*.tar.gz")
    top = f"compressor-{compressor.__version__}"
    assert source.name == f"{top}.tar.gz"
    assert wheel.name.startswith(f"{top}-")
    with tarfile.open(source) as packed:
        in_source = set(packed.getnames())
    pages = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE")
    wanted = ("compressor/py.typed", "passes/py.typed", "constraints.txt", *pages)
    assert {f"{top}/{name}" for name in wanted} <= in_source


def test_the_installed_package_is_not_the_checkout(python, project):
    show = "import compressor, compressor.passes as p; print(compressor.__file__, p.__file__)"
    for file in run(python, "-c", show, cwd=project).split():
        assert Path(file).is_relative_to(python.parent.parent)


def test_the_installed_command_explains_itself(python, project):
    command = shutil.which("compressor", path=python.parent)
    assert command, "the wheel installs no `compressor` command"
    assert "build" in run(command, "--help", cwd=project)
    assert run(command, "--version", cwd=project) == f"compressor {compressor.__version__}\n"


def test_the_wheel_builds_a_users_model_among_the_users_own_folders(python, project):
    build = ("build", "models/mine.py:net", "--input-shape", "1,3,16,16", "--channels", "0.5")
    run(python, "-m", "compressor", *build, "-o", "out", cwd=project)
    for name in ("model.onnx", "report.json", "passes.json"):
        assert (project / "out" / name).stat().st_size > 0, name
