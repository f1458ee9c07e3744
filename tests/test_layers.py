"""Imports point one way: passes <- compressor <- benchmarks, and room by room in each; nothing
heavy is loaded early.

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

ROOMS = {  # folder: its rooms, each of which may import those before it
    "passes": (
        *("base", "ir", "operators", "frontend", "coupling", "calibration", "cost", "importance"),
        *("planning", "transforms", "repair", "proof", "pipeline"),
    ),
    "compressor": (
        *("base", "storage", "process", "loading", "config", "onnx", "metrics", "bench", "align"),
        *("timing", "report", "explain", "gate", "train", "criteria", "result", "release"),
        *("pipeline", "analysis", "latency", "debug", "pytest_plugin", "cli", "__main__"),
    ),
}
LARGEST = 15
"""Modules in a folder, at most."""

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


# ---------------------------------------------------------------------------- rooms


def modules(root: Path, folder: str) -> dict[str, Path]:
    """By its name below `folder`, which is "" for the folder itself."""
    found = {}
    for file in (root / folder).rglob("*.py"):
        parts = file.relative_to(root / folder).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def arrows(root: Path, folder: str) -> dict[str, set[str]]:
    """What each module imports of its folder, early or late."""
    known = modules(root, folder)
    called = f"compressor.{folder}" if folder == "passes" else folder
    found: dict[str, set[str]] = {}
    for name in known.keys() - {""}:
        package = name.split(".") if known[name].name == "__init__.py" else name.split(".")[:-1]
        found[name] = set()
        for node in ast.walk(ast.parse(known[name].read_text(encoding="utf-8"))):
            for origin in origins(node, [*called.split("."), *package]):
                if not origin.startswith(f"{called}."):
                    continue
                inside = origin.removeprefix(f"{called}.")
                one = inside if inside in known else inside.rpartition(".")[0]
                found[name] |= {one} & (known.keys() - {name, ""})
    return found


def origins(node: ast.AST, package: list[str]) -> list[str]:
    """Full names of what a statement in a package imports: modules, or names in them."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    above = package[: len(package) + 1 - node.level] if node.level else []
    base = ".".join([*above, *([node.module] if node.module else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import themselves by way of others."""

    def reached(name: str) -> set[str]:
        seen: set[str] = set()
        left = [*graph[name]]
        while left:
            one = left.pop()
            if one not in seen:
                seen.add(one)
                left += graph.get(one, ())
        return seen

    return sorted(name for name in graph if name in reached(name))


def upward(graph: dict[str, set[str]], rooms: tuple[str, ...]) -> list[str]:
    """Imports of a room that comes later. Raises ValueError for a room that is not listed."""
    found = []
    for name, others in graph.items():
        at = rooms.index(name.partition(".")[0])
        found += [f"{name} -> {one}" for one in others if rooms.index(one.partition(".")[0]) > at]
    return sorted(found)


@pytest.mark.parametrize("folder", ROOMS)
def test_no_module_imports_itself_by_way_of_others(folder):
    assert circles(arrows(ROOT, folder)) == []


@pytest.mark.parametrize("folder", ROOMS)
def test_rooms_import_what_is_below_them(folder):
    assert upward(arrows(ROOT, folder), ROOMS[folder]) == []


def test_a_circle_and_an_arrow_upwards_are_found(tmp_path):
    for path, line in {
        "passes/__init__.py": "",
        "passes/ir/__init__.py": "",
        "passes/ir/one.py": "from . import two\n",
        "passes/ir/two.py": "def late():\n    from .one import name\n",
        "passes/base/errors.py": "from ..ir.one import name\n",
        "passes/base/fine.py": "from .errors import name\nimport ir, torch\n",
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(line)
    graph = arrows(tmp_path, "passes")
    assert circles(graph) == ["ir.one", "ir.two"]
    assert upward(graph, ("base", "ir")) == ["base.errors -> ir.one"]
    assert graph["base.fine"] == {"base.errors"}


@pytest.mark.parametrize("folder", ROOMS)
def test_a_folder_can_be_overlooked(folder):
    counts: dict[Path, int] = {}
    for file in modules(ROOT, folder).values():
        if file.name != "__init__.py":
            counts[file.parent] = counts.get(file.parent, 0) + 1
    assert {str(one): n for one, n in counts.items() if n > LARGEST} == {}


def test_a_class_has_its_name_for_itself():
    homes: dict[str, list[str]] = {}
    for folder in ROOMS:
        for file in modules(ROOT, folder).values():
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    homes.setdefault(node.name, []).append(file.relative_to(ROOT).as_posix())
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}
