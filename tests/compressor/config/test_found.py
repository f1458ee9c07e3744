"""A recipe that lies in the current folder runs nothing that it names, whatever that is."""

import os
import py_compile
import subprocess
import sys
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from compressor.passes.base.errors import UsageError
from typer.testing import CliRunner

from compressor.cli.app import app
from compressor.config import Recipe
from compressor.config.model import option_name
from compressor.config.sources import _RUN_NOTHING, resolve
from compressor.config.user_file import with_code
from compressor.loading import load_callable, short_names

ROOT = Path(__file__).resolve().parents[3]
HARM = "from pathlib import Path\nPath('RAN').touch()\ndef evaluate(predict):\n    return 1.0\n"

watched: list[Path] = []
seen: list[str] = []


def hook(event: str, given: tuple) -> None:
    """What Python imports, compiles, runs or opens of a watched folder; it cannot be removed."""
    if not watched:
        return
    if event == "import":
        found = [given[1]] if given[1] else []
        if given[0].partition(".")[0] in ("glue", "native", "package", "namespace", "evaluation"):
            seen.append(f"import {given[0]}")
    elif event == "exec":
        found = [given[0].co_filename]
    elif event in ("open", "compile", "ctypes.dlopen"):
        found = list(given[1:2] if event == "compile" else given[:1])
    else:
        return
    for one in found:
        if isinstance(one, str) and not one.startswith("<"):
            path = Path(os.path.abspath(one))
            if path.is_relative_to(watched[0]) and path.suffix != ".toml":
                seen.append(f"{event} {path.name}")


sys.addaudithook(hook)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A hostile folder: code that leaves a file, in every form that Python can run."""
    monkeypatch.chdir(tmp_path)
    for name in ("glue", "timm", "torchvision", "evaluation"):
        Path(f"{name}.py").write_text(HARM)
    py_compile.compile("glue.py", cfile="code.pyc")
    for suffix in (*EXTENSION_SUFFIXES, ".pyd", ".dll", ".dylib"):
        Path(f"native{suffix}").write_bytes(b"\x7fELF")
    Path("package").mkdir()
    for name in ("__init__", "__main__", "inner"):
        Path(f"package/{name}.py").write_text(HARM)
    Path("namespace").mkdir()
    Path("namespace/inner.py").write_text(HARM)
    with zipfile.ZipFile("archive.zip", "w") as archive:
        archive.writestr("__main__.py", HARM)
    watched.append(tmp_path)
    seen.clear()
    yield tmp_path
    watched.clear()
    assert not Path("RAN").exists()


NAMES = [
    *("glue.py", "code.pyc", "native.so", "native.pyd", "native.dll", "archive.zip", "glue"),
    *("package", "package/__init__.py", "package/__main__.py", "namespace", "./glue.py", "GLUE.PY"),
    *("glue.py:evaluate", "code.pyc:evaluate", "./code.pyc:evaluate", "native.so:evaluate"),
    *("glue:evaluate", "package:evaluate", "package.__main__:evaluate", "namespace.inner:evaluate"),
    *("package.inner:evaluate", "../{here}/glue.py:evaluate", "archive.zip:evaluate"),
    *("timm:evaluate", "torchvision:evaluate", "os:getcwd", "runpy:run_path", "glue.py:x:evaluate"),
]
KEYS = ["code", "inputs", "data", "evaluate", "eval-data", "train-data", "train-with", "loss",
        "criterion-loss"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", KEYS)
def test_no_key_of_a_found_recipe_names_code_that_runs(key, name, here):
    if key == "evaluate" and name.isidentifier():
        pytest.skip("that is the name of a ready-made metric, and is looked up in a table")
    name = name.format(here=here.name)
    Path("compressor.toml").write_text(f'model = "timm:resnet18"\nmacs = 0.5\n{key} = "{name}"\n')
    with pytest.raises(UsageError, match="names code that would run"):
        resolve({})
    assert seen == []


@pytest.mark.parametrize("name", NAMES)
def test_no_model_of_a_found_recipe_is_code_that_runs(name, here):
    if name.startswith(("timm:", "torchvision:")):
        pytest.skip("that is a model of a library, which is not taken from here")
    Path("pyproject.toml").write_text(f'[tool.compressor]\nmodel = "{name}"\n')
    done = CliRunner().invoke(app, ["inspect"])
    assert done.exit_code == 2, done.output
    assert seen == []


def test_what_the_environment_names_does_not_run_beside_a_found_recipe(here, monkeypatch):
    Path("compressor.toml").write_text('model = "timm:resnet18"\n')
    monkeypatch.setenv("COMPRESSOR_DATA", "glue.py:evaluate")
    with pytest.raises(UsageError, match="COMPRESSOR_DATA names code") as caught:
        resolve({})
    assert "-c compressor.toml" in caught.value.hint
    assert resolve({}, Path("compressor.toml")).data == "glue.py:evaluate"
    monkeypatch.delenv("COMPRESSOR_DATA")
    monkeypatch.setenv("COMPRESSOR_SEED", "3")
    assert resolve({}).seed == 3


def test_a_key_that_is_not_known_to_run_nothing_is_taken_for_code():
    words = {
        option_name(name)
        for name, field in Recipe.model_fields.items()
        if any(kind in str(field.annotation) for kind in ("str", "Path"))
    }
    assert words - _RUN_NOTHING == {"model", *KEYS}
    assert words >= _RUN_NOTHING


# ---------------------------------------------------------------------------- files of code


@pytest.mark.parametrize("name", ["code.pyc", "native.so", "native.pyd", "archive.zip"])
def test_a_file_of_code_is_source_also_where_the_command_names_it(name, here):
    with pytest.raises(UsageError):
        with_code(Recipe.of(model="timm:resnet18", code=Path(name)))
    with pytest.raises(UsageError):
        load_callable(f"./{name}:evaluate")
    with pytest.raises(UsageError):
        load_callable(f"{name}:evaluate")
    assert [one for one in seen if one.startswith(("exec", "import", "ctypes"))] == []


def test_a_link_to_bytecode_is_no_source(here):
    os.symlink("code.pyc", "linked.py")
    with pytest.raises(UsageError, match="is not Python source") as caught:
        load_callable("linked.py:evaluate")
    assert "code.pyc" in caught.value.where


def test_bytecode_in_a_cache_does_not_stand_in_for_the_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("other.py").write_text("def which():\n    return 'planted'\n")
    Path("own.py").write_text("def which():\n    return 'source'\n")
    Path("__pycache__").mkdir()
    planted = f"__pycache__/own.{sys.implementation.cache_tag}.pyc"
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile("other.py", cfile=planted, invalidation_mode=unchecked)
    assert load_callable("own.py:which")() == "source"
    assert sorted(os.listdir("__pycache__")) == [Path(planted).name]


# ---------------------------------------------------------------------------- libraries


@pytest.mark.parametrize("entry", ["", ".", "{here}"])
def test_a_library_is_never_taken_from_the_current_folder(entry, here, monkeypatch):
    Path("shadowed.py").write_text(HARM)
    monkeypatch.setattr(sys, "path", [entry.format(here=here), *sys.path])
    table = {"timm": ("shadowed", lambda name, trained: __import__("shadowed"))}
    monkeypatch.setattr(short_names, "LIBRARIES", table)
    with pytest.raises(UsageError, match="not installed"):
        short_names.load_short("timm:resnet18", trained=False)
    assert sys.path[0] == entry.format(here=here)


@pytest.mark.parametrize("name", ["typer", "rich", "pydantic", "numpy", "pathlib", "typing"])
def test_python_dash_m_takes_no_library_from_the_current_folder(name, tmp_path):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('mine')\n")
    done = subprocess.run(
        [sys.executable, "-m", "compressor", "schema"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_names_a_model_and_nothing_else(tmp_path):
    pytest.importorskip("transformers")
    for name in ("pipeline", "AutoTokenizer", "Trainer", "utils"):
        (tmp_path / "config.json").write_text(
            f'{{"model_type": "bert", "architectures": ["{name}"]}}'
        )
        with pytest.raises(UsageError, match="does not say which model it is"):
            short_names.load_short(f"hf:{tmp_path}", trained=True)


def test_the_watch_sees_what_runs(here):
    load_callable("./evaluation.py:evaluate")
    assert {"open evaluation.py", "compile evaluation.py", "exec evaluation.py"} <= set(seen)
    Path("RAN").unlink()
