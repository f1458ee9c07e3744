"""ONNX Runtime sends and writes nothing of its own in our processes, unless the user wants it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SWITCH = "ORT_DISABLE_TELEMETRY"
RACE = """
from onnx import helper
from compressor import bench
value = helper.make_tensor_value_info
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g",
                          [value("x", 1, [1, 4])], [value("y", 1, [1, 4])])
model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
bench.race({"a": model.SerializeToString()}, rounds=1, max_seconds=0.1)
"""


def run(code: str, home: Path, **more: str) -> str:
    """In a process that has a home of its own, and nobody's wishes."""
    given = {k: v for k, v in os.environ.items() if k not in (SWITCH, "XDG_CACHE_HOME")}
    own = {"HOME": str(home), "TMPDIR": str(home), "PYTHONPATH": str(ROOT), **more}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=given | own, cwd=home, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_nothing_is_written_into_the_users_folders(tmp_path):
    run(RACE, tmp_path)
    assert [str(one) for one in tmp_path.rglob("*") if one.is_file()] == []


@pytest.mark.parametrize(
    "module", ["compressor", "compressor.pytest_plugin", "benchmarks", "tests"]
)
def test_it_is_off_as_soon_as_anything_of_ours_is_imported(module, tmp_path):
    code = f"import {module}, os, sys; print(os.environ['{SWITCH}'], 'onnxruntime' in sys.modules)"
    assert run(code, tmp_path) == "1 False"


def test_what_the_user_has_set_stays(tmp_path):
    code = f"import compressor, os; print(repr(os.environ['{SWITCH}']))"
    assert run(code, tmp_path, **{SWITCH: "0"}) == "'0'"
    assert run(code, tmp_path, **{SWITCH: ""}) == "''"


def test_no_module_imports_onnx_runtime_without_it():
    """What a package imports first is its __init__: that of ours sets it, others import ours."""
    users = set()
    for file in ROOT.glob("*/**/*.py"):
        folder = file.relative_to(ROOT).parts[0]
        if folder.startswith("."):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if _imports(node, "onnxruntime"):
                users.add(folder)
    assert users == {"compressor", "benchmarks", "tests"}
    for folder in users - {"compressor"}:
        first = ast.parse((ROOT / folder / "__init__.py").read_text()).body
        assert any(_imports(node, "compressor") for node in first)
    lines = ast.parse((ROOT / "compressor/__init__.py").read_text()).body
    switched = [SWITCH in ast.unparse(node) for node in lines]
    assert switched.count(True) == 1
    before = {name for node in lines[: switched.index(True)] for name in _names(node)}
    assert before <= {"os", "sys", "importlib", "pathlib", "typing"}


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    return [(node.module or "").partition(".")[0]] if isinstance(node, ast.ImportFrom) else []


def _imports(node: ast.AST, name: str) -> bool:
    return name in _names(node)
