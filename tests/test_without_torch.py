"""What needs no torch runs without it: commands on files, and every file of ours is read.

These are the tests that a Python without a build of torch for CPUs can run (`.ci/pythons`).
"""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import compressor

ROOT = Path(__file__).resolve().parent.parent
RELEASE = ROOT / "tests" / "compressor" / "format1" / "signed"
MODEL = str(RELEASE / "model.onnx")
CODE = """\
import sys
sys.modules["torch"] = None
from compressor.__main__ import main
main()
"""


def said(*words: str) -> str:
    """What the command prints where `import torch` fails."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("folder", ["passes", "compressor", "models", "benchmarks", "tests"])
def test_every_file_compiles_without_a_warning(folder):
    for file in sorted((ROOT / folder).rglob("*.py")):
        with warnings.catch_warnings(action="error"):
            compile(file.read_text(encoding="utf-8"), str(file), "exec")


@pytest.mark.parametrize("command", ["build", "plan", "bench", "check", "verify", "sweep"])
def test_every_command_explains_itself(command):
    assert "--help" in said(command, "--help")


def test_the_version_is_printed():
    assert said("--version") == f"compressor {compressor.__version__}\n"


def test_the_schema_of_a_recipe_is_printed():
    assert '"properties"' in said("schema")


def test_a_release_is_verified():
    found = said("verify", str(RELEASE), "--key", str(RELEASE.parent / "key.pub"))
    assert "parity of example.safetensors" in found


def test_models_are_raced():
    race = said("bench", MODEL, MODEL, "--seconds", "0.5")
    assert "model.onnx" in race
