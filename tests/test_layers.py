"""Imports point one way: passes <- compressor <- benchmarks, and nothing heavy is loaded early.

Nothing here needs torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MAY_IMPORT = {  # folder: what it may import of this repository by absolute name
    "passes": set(),  # relative imports only: it has another name in a wheel
    "models": {"compressor", "models"},
    "compressor": {"compressor"},  # `from compressor import passes`, never `import passes`
    "benchmarks": {"benchmarks", "compressor", "models"},
    "tests": {"benchmarks", "compressor", "models", "tests"},
}
FORBIDDEN = {  # pure: no files, no clock, no runtime, no command line
    "passes": {
        *("onnx", "onnx_ir", "onnxruntime", "onnxscript", "onnxsim"),
        *("argparse", "rich", "subprocess", "time", "typer"),
    },
}
EXCEPT = {
    ("compressor/__init__.py", "passes"),  # what type checkers see, see its comment
    ("benchmarks/__main__.py", "tests"),  # its commands for the fuzzer and the like, imported late
}

HEAVY = {"torch", "torch_pruning", "onnxruntime", "onnxsim"}  # seconds each


def violations(root: Path) -> Iterator[str]:
    for folder, allowed in MAY_IMPORT.items():
        refused = (MAY_IMPORT.keys() - allowed) | FORBIDDEN.get(folder, set())
        for file in sorted((root / folder).rglob("*.py")):
            path = file.relative_to(root).as_posix()
            for line, name in imported(file, depth=len(file.relative_to(root).parts) - 1):
                top = name.partition(".")[0]
                if top in refused and (path, top) not in EXCEPT:
                    yield f"{path}:{line} {name}"


def imported(file: Path, depth: int) -> Iterator[tuple[int, str]]:
    """Absolute names only; a relative one that leaves the folder counts as what it reaches."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level > depth:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from ((node.lineno, name) for name in names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module or ""


def test_imports_point_one_way():
    assert list(violations(ROOT)) == []


@pytest.mark.parametrize(
    ("path", "line", "name"),
    [
        ("passes/bad.py", "import passes.base.errors", "passes.base.errors"),
        ("passes/bad.py", "from compressor import bench", "compressor"),
        ("passes/rules/bad.py", "from ...compressor import bench", "compressor"),
        ("passes/bad.py", "from .. import models", "models"),
        ("passes/bad.py", "def late():\n    import onnxruntime.tools", "onnxruntime.tools"),
        ("passes/bad.py", "from time import perf_counter", "time"),
        ("compressor/bad.py", "import passes", "passes"),
        (
            "compressor/bench/bad.py",
            "from passes.base.errors import UsageError",
            "passes.base.errors",
        ),
        ("compressor/bad.py", "from models import digits", "models"),
        ("compressor/__init__.py", "from tests import helper", "tests"),
        ("models/bad.py", "import benchmarks", "benchmarks"),
        ("benchmarks/bad.py", "import tests.helper", "tests.helper"),
        ("tests/bad.py", "from passes import errors", "passes"),
    ],
)
def test_a_bad_import_is_found(tmp_path, path, line, name):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(f'"""Planted."""\n{line}\n')
    row = 2 + line.count("\n")
    assert list(violations(tmp_path)) == [f"{path}:{row} {name}"]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("passes/good.py", "from .errors import UsageError"),
        ("passes/rules/good.py", "from ..errors import UsageError\nimport torch"),
        ("compressor/good.py", "from compressor.passes.base.errors import UsageError\nimport onnx"),
        ("compressor/__init__.py", "import passes as passes"),
        ("benchmarks/good.py", "import compressor, models.digits, time"),
    ],
)
def test_a_good_import_is_left_alone(tmp_path, path, line):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(f"{line}\n")
    assert list(violations(tmp_path)) == []


@pytest.mark.parametrize(
    "run",
    [
        "import compressor",
        "import compressor.loading",
        "import runpy; sys.argv = ['compressor', '--help']\n"
        "try: runpy.run_module('compressor', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code, end.code",
    ],
    ids=["import compressor", "import compressor.loading", "python -m compressor --help"],
)
def test_what_must_start_at_once_imports_nothing_heavy(run):
    code = f"import sys\n{run}\nprint('heavy:', *sorted({HEAVY} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "heavy:"
