"""What the README tells a newcomer to type is what works."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from compressor.cli.app import app
from compressor.release.verify import verify

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def section(title: str) -> list[tuple[str, str]]:
    """Its blocks of code, with their languages."""
    _, _, rest = README.partition(f"\n## {title}\n")
    return BLOCK.findall(re.split(r"\n##+ ", rest)[0])


def lines(block: str) -> list[str]:
    """Commands, those that go on in the next line as one."""
    return block.replace("\\\n", " ").strip().splitlines()


def newcomer() -> tuple[str, list[str]]:
    """The file and the commands that a newcomer writes."""
    (language, code), (shell, commands), *_ = section("Your own model")
    assert (language, shell) == ("python", "sh")
    return code, lines(commands)


def commands() -> list[list[str]]:
    """Every command of ours that the README shows whole."""
    every = [line for kind, block in BLOCK.findall(README) if kind in ("sh", "bash")
             for line in lines(block)]  # fmt: skip
    ours = [line for line in every if line.startswith("compressor ") and "..." not in line]
    return [shlex.split(line)[1:] for line in ours]


def test_a_newcomer_needs_at_most_five_commands():
    _, typed = newcomer()
    assert 2 <= len(typed) <= 5
    assert typed[0].startswith("pip install ")
    assert all(line.startswith("compressor ") for line in typed[1:])


def test_every_command_in_the_readme_can_be_read():
    group: Any = typer.main.get_command(app)
    assert len(commands()) > 10
    for name, *rest in commands():
        command = group.commands[name]
        command.make_context(name, rest)  # raises for an option that does not exist


@pytest.mark.slow
def test_the_newcomers_path_ends_with_a_small_model(tmp_path):
    code, (_, *typed) = newcomer()
    (tmp_path / "net.py").write_text(code)
    given = {
        "PYTHONPATH": str(ROOT),
        "COMPRESSOR_BENCH_SECONDS": "1",
        "COMPRESSOR_ALLOW_SLOWER": "1",
    }
    for line in typed:
        done = subprocess.run(
            [sys.executable, "-P", "-m", *shlex.split(line)],
            cwd=tmp_path, env={**os.environ, **given}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    small = verify(tmp_path / "build" / "net")
    assert small.parity.keys() == {"example.safetensors", "random.safetensors"}
