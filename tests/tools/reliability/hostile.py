"""Folders of strangers: whoever stands in one and uses the program runs none of their code.

    python -m benchmarks reliability --only hostile

Each folder has code in all places from which something might take it; that code leaves a mark. The
command is the installed one (`python -P -m compressor`), and an audit hook in it and in its
children tells what was compiled, executed, loaded or started from the folder (`audit`). What the
command names is the user's own, and lies elsewhere.
"""

import json
import os
import pickle
import py_compile
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from tests.tools.reliability import audit, writers
from tests.tools.reliability.builds import NET
from tests.tools.reliability.disks import ROOT
from tests.tools.reliability.readers import two_products

SECONDS = 120
MINE = "{mine}/net.py"
"""In a command: the user's own model, outside of the folder."""
LOAD = "load"
"""In the place of a command: `compressor.load("out", module)` from Python."""
_LOAD = """
import sys, runpy, compressor
compressor.load("out", runpy.run_path(sys.argv[1])["load_model"]())
"""
BUILD = f"build {MINE} --macs 0.5 --bench-seconds 0.1 --allow-slower --quiet -o out"


@dataclass(frozen=True)
class Place:
    """Where the files of a folder are made, and what its code does."""

    folder: Path
    mark: Path
    """A file outside; whatever runs writes a line there."""

    @property
    def code(self) -> str:
        """Python that leaves the mark."""
        return f"open({str(self.mark)!r}, 'a').write(__name__ + '\\n')\n"

    @property
    def runs(self) -> "Runs":
        """A pickle that leaves the mark."""
        return Runs(str(self.mark))

    def python(self, *names: str) -> None:
        """Modules that leave the mark, with functions that a recipe may name."""
        for name in names:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{self.code}def net(*args): {self.code}")

    def script(self, *names: str) -> None:
        """Programs that leave the mark."""
        for name in names:
            (self.folder / name).write_text(f"#!/bin/sh\necho program >> {self.mark}\n")
            (self.folder / name).chmod(0o755)

    def recipe(self, *lines: str, name: str = "compressor.toml") -> None:
        head = "[tool.compressor]\n" if name == "pyproject.toml" else ""
        (self.folder / name).write_text(head + "\n".join(lines) + "\n")


class Runs:
    """Its pickle runs a line of Python."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return exec, (f"open({self._mark!r}, 'a').write('pickle\\n')",)


Make = Callable[[Place], list[str]]
"""Makes the files, and gives the commands that are run there."""

_ALL = ["inspect", "plan -o plan.json", "build --macs 0.5 -o out", "sensitivity", "profile"]


def _names_code(place: Place) -> list[str]:
    place.python("evil.py")
    place.recipe('model = "evil.py:net"', "macs = 0.5")
    return _ALL


def _names_module(place: Place) -> list[str]:
    place.python("evil.py", "package/__init__.py")
    place.recipe('model = "evil:net"', "macs = 0.5", name="pyproject.toml")
    return ["inspect", "build --macs 0.5 -o out"]


def _bytecode(place: Place) -> list[str]:
    place.python("evil.py")
    py_compile.compile(str(place.folder / "evil.py"), cfile=str(place.folder / "glue.pyc"))
    (place.folder / "evil.py").unlink()
    place.recipe('model = "timm:resnet18"', 'code = "glue.pyc"', "macs = 0.5")
    return ["inspect", f"inspect {MINE}"]


def _native(place: Place) -> list[str]:
    for name in ("glue.so", "glue.abi3.so", "evil.cpython-311-x86_64-linux-gnu.so"):
        (place.folder / name).write_bytes(b"\x7fELF" + bytes(60))
    place.recipe('code = "glue.so"', 'model = "timm:resnet18"', "macs = 0.5")
    return ["inspect"]


def _other_suffixes(place: Place) -> list[str]:
    place.python("evil.PY", "evil.pyw", "evil.txt", "evil")
    place.recipe('code = "evil.pyw"', 'model = "timm:resnet18"', "macs = 0.5")
    return ["inspect", "plan -o plan.json"]


def _every_key(place: Place) -> list[str]:
    """Each key that may name code, from the environment's side of the command."""
    place.python("evil.py")
    keys = ("inputs", "data", "eval-data", "train-data", "train-with", "loss", "criterion-loss")
    place.recipe('model = "timm:resnet18"', *(f'{key} = "evil:net"' for key in keys), "macs = 0.5")
    return ["inspect", "plan -o plan.json"]


def _evaluates(place: Place) -> list[str]:
    place.python("evil.py", "accuracy.py")
    place.recipe('model = "timm:resnet18"', 'evaluate = ["accuracy", "evil:net"]', "macs = 0.5")
    return ["build --macs 0.5 -o out", "inspect"]


def _trusts(place: Place) -> list[str]:
    place.python("evil.py")
    (place.folder / "model.pt").write_bytes(pickle.dumps(place.runs))
    place.recipe('model = "model.pt"', "trust = true", "macs = 0.5")
    return ["inspect"]


def _weights(place: Place) -> list[str]:
    import torch

    torch.save({"0.weight": place.runs}, place.folder / "w.pt")
    place.recipe('model = "torchvision:resnet18"', 'weights = "w.pt"', "macs = 0.5")
    return ["inspect", f"inspect {MINE} --weights w.pt"]


def _hub(place: Place) -> list[str]:
    """A transformers folder that brings its own classes."""
    place.python("hub/modeling_evil.py", "hub/configuration_evil.py", "modeling_evil.py")
    (place.folder / "hub/config.json").write_text(
        '{"model_type": "evil", "architectures": ["Evil"], "auto_map": {"AutoConfig": '
        '"configuration_evil.net", "AutoModel": "modeling_evil.net"}}'
    )
    (place.folder / "hub/pytorch_model.bin").write_bytes(pickle.dumps(place.runs))
    place.recipe('model = "hf:hub"', "macs = 0.5")
    return ["inspect", "inspect hf:hub"]


_LIBRARIES = (
    *("torch", "numpy", "timm", "torchvision", "transformers", "onnx", "onnxruntime", "onnxsim"),
    *("safetensors", "typer", "click", "rich", "pydantic", "jinja2", "scipy", "sympy", "networkx"),
    *("accelerate", "cryptography", "onnxscript", "ml_dtypes", "torchmetrics", "optuna", "ray"),
    *("json", "os", "pickle", "tomllib", "ctypes", "resource", "models", "passes", "tests"),
)


def _like_libraries(place: Place) -> list[str]:
    place.python(*(f"{name}.py" for name in _LIBRARIES))
    (place.folder / "model.onnx").write_bytes(two_products())
    return ["bench model.onnx --seconds 0.1", "explain model.onnx --runs 2", "status out", BUILD]


def _like_library_folders(place: Place) -> list[str]:
    place.python(*(f"{name}/__init__.py" for name in _LIBRARIES))
    return ["inspect torchvision:resnet18", f"plan {MINE} --macs 0.5 -o plan.json"]


def _like_us(place: Place) -> list[str]:
    place.python("compressor/__init__.py", "compressor/__main__.py", "passes/__init__.py",
                 "compressor.py", "benchmarks/__init__.py", "simplify_child.py")  # fmt: skip
    return ["--help", "schema", "status out", f"inspect {MINE}"]


def _at_the_start(place: Place) -> list[str]:
    place.python("sitecustomize.py", "usercustomize.py", "conftest.py", "__init__.py", "setup.py",
                 "__main__.py", "noxfile.py", ".pythonrc.py")  # fmt: skip
    (place.folder / "evil.pth").write_text(f"import sys; {place.code}")
    (place.folder / "pyvenv.cfg").write_text("home = .\ninclude-system-site-packages = true\n")
    (place.folder / "python._pth").write_text(".\nimport site\n")
    return ["status out", "schema", f"inspect {MINE}"]


def _programs(place: Place) -> list[str]:
    place.script("nvidia-smi", "git", "gcc", "c++", "cc", "lscpu", "python", "python3", "uname",
                 "ldconfig", "sh", "ptxas", "objdump")  # fmt: skip
    return [BUILD]


def _loader(place: Place) -> list[str]:
    for name in (
        "libgomp.so.1",
        "libc10.so",
        "libonnxruntime.so",
        "libcuda.so.1",
        "libstdc++.so.6",
    ):
        (place.folder / name).write_bytes(b"\x7fELF" + bytes(60))
    (place.folder / "model.onnx").write_bytes(two_products())
    return ["bench model.onnx --seconds 0.1", f"inspect {MINE}"]


def _own_operators(place: Place) -> list[str]:
    """An ONNX model of a domain that a library beside it would serve."""
    import onnx

    model = onnx.load_model_from_string(two_products())
    model.graph.node[0].domain = "evil"
    model.opset_import.add(domain="evil", version=1)
    model.metadata_props.add(key="ort_config", value='{"session_options": {"custom_op": "x.so"}}')
    (place.folder / "model.onnx").write_bytes(model.SerializeToString())
    for name in ("evil.so", "libevil.so", "custom_op_library.so", "x.so"):
        (place.folder / name).write_bytes(b"\x7fELF" + bytes(60))
    place.python("evil.py")
    return ["bench model.onnx --seconds 0.1", "align model.onnx -o a.onnx --seconds 0.1"]


def _release(place: Place) -> list[str]:
    """A release whose pickles run, and whose manifest fits them."""
    from compressor.storage import manifest

    with chdir(place.folder):
        Path("net.py").write_text(NET)
        writers.command(BUILD.replace(MINE, "net.py"))
        Path("net.py").unlink()
        out = Path("out")
        (out / "model.pt2").write_bytes(pickle.dumps(place.runs))
        (out / "parity" / "more.pkl").write_bytes(pickle.dumps(place.runs))
        facts = {k: v for k, v in manifest.read(out).items() if k not in ("files", "content")}
        facts.pop("format")
        (out / "manifest.json").write_text(json.dumps(manifest.make(out, facts)))
    place.python("out.py")
    return ["verify out", "status out", LOAD, "inspect -c out/recipe.toml"]


def _work(place: Place) -> list[str]:
    """Results that a build is to go on with, as pickles."""
    work = place.folder / ".out.work"
    work.mkdir()
    for stage in ("plan", "repair", "export", "race", "distill"):
        (work / f"{stage}.{'0' * 40}").write_bytes(pickle.dumps(place.runs))
    place.python(".out.work/__init__.py")
    return ["status out", BUILD]


def _checkpoints(place: Place) -> list[str]:
    """Checkpoints of the very run that is asked for; what accelerate has in them are pickles."""
    line = f"{BUILD} --distill 2 --checkpoints kept"
    with chdir(place.folder):
        Path("net.py").write_text(NET)
        writers.command(line.replace(MINE, "net.py"))
        Path("net.py").unlink()
        shutil.rmtree("out")
        shutil.rmtree("__pycache__", ignore_errors=True)
    for path in place.folder.glob("kept/*/*/*"):
        if path.suffix in (".pkl", ".bin", ".pt"):
            path.write_bytes(pickle.dumps(place.runs))
    return [line]


def _pipes(place: Place) -> list[str]:
    """Files that never end."""
    names = ("compressor.toml", "model.onnx", "plan.json", "w.safetensors", "out/manifest.json")
    for name in names:
        path = place.folder / name
        path.parent.mkdir(exist_ok=True)
        os.mkfifo(path)
    return ["inspect", "bench model.onnx --seconds 0.1", "verify out", "status out",
            "shards plan.json w.safetensors -o small"]  # fmt: skip


def _links(place: Place) -> list[str]:
    place.python("evil.py")
    (place.folder / "compressor.toml").symlink_to("pyproject.toml")
    place.recipe('model = "evil.py:net"', "macs = 0.5", name="pyproject.toml")
    (place.folder / "out").symlink_to(".")
    (place.folder / "model.onnx").symlink_to("/dev/zero")
    return ["inspect", "verify out", "bench model.onnx --seconds 0.1"]


def _settings(place: Place) -> list[str]:
    """Settings of other programs, which name code or a way out."""
    settings = {
        ".netrc": "machine localhost login a password b\n",
        ".env": "PYTHONPATH=.\nLD_PRELOAD=./x.so\n",
        ".envrc": "./git\n",
        "setup.cfg": "[tool:pytest]\naddopts = -p evil\n",
        "pytest.ini": "[pytest]\naddopts = -p evil\n",
        "pip.conf": "[global]\nindex-url = .\n",
        "accelerate.yaml": "main_training_function: evil\n",
        "ort.json": '{"custom_ops": "x.so"}',
    }
    for name, text in settings.items():
        (place.folder / name).write_text(text)
    place.python("evil.py", "conftest.py", "hubconf.py", "default_config.py")
    place.script("git", "x.so")
    return ["status out", "schema", f"inspect {MINE}"]


FOLDERS: Mapping[str, Make] = {
    "a recipe that names a file": _names_code,
    "a pyproject that names a module": _names_module,
    "a recipe that names bytecode": _bytecode,
    "a recipe that names a native module": _native,
    "a recipe that names code by another suffix": _other_suffixes,
    "a recipe with every key that may name code": _every_key,
    "a recipe that evaluates": _evaluates,
    "a recipe that trusts itself": _trusts,
    "a recipe with weights that run": _weights,
    "a checkpoint with classes of its own": _hub,
    "modules like libraries": _like_libraries,
    "packages like libraries": _like_library_folders,
    "modules like ours": _like_us,
    "modules that Python runs at its start": _at_the_start,
    "programs like the system's": _programs,
    "libraries like the loader's": _loader,
    "operators of its own": _own_operators,
    "a release with pickles": _release,
    "a work folder with pickles": _work,
    "checkpoints with pickles": _checkpoints,
    "pipes": _pipes,
    "links": _links,
    "settings of other programs": _settings,
}


# ---------------------------------------------------------------------------- watched


def trial(name: str, folder: Path) -> list[str]:
    """What the commands in a hostile folder did that they must not; one line each."""
    here, mine = folder / "here", folder / "mine"
    for path in (here, mine, folder / "hook", folder / "home", folder / "tmp"):
        path.mkdir()
    (mine / "net.py").write_text(NET)
    shutil.copy(audit.__file__, folder / "hook" / "sitecustomize.py")
    place = Place(here, folder / "mark")
    lines = FOLDERS[name](place)
    place.mark.unlink(missing_ok=True)  # whoever made the files may have run them
    return [f"{line}: {what}" for line in lines for what in _watched(line, folder, place.mark)]


def _watched(line: str, folder: Path, mark: Path) -> Iterator[str]:
    log = folder / "log"
    mine = str(folder / "mine")
    words = ["-c", _LOAD, f"{mine}/net.py"] if line == LOAD else ["-m", "compressor"]
    if line != LOAD:
        words += line.replace("{mine}", mine).split()
    process = subprocess.Popen(
        [sys.executable, "-P", *words], cwd=folder / "here", text=True, errors="replace",
        env={**os.environ, "PYTHONPATH": f"{folder / 'hook'}{os.pathsep}{ROOT}",
             audit.FOLDER: str(folder / "here"), audit.LOG: str(log), "OMP_NUM_THREADS": "1",
             "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"),
             "XDG_CACHE_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        said = ""
        yield f"it took more than {SECONDS} s"
    if process.returncode not in (*range(6), -signal.SIGKILL):
        yield f"it ended with {process.returncode}: {said.strip()[-300:]}"
    if not log.exists():
        yield "it was not watched"
    else:
        events = dict.fromkeys(log.read_text(errors="replace").splitlines())
        log.unlink()
        yield from (event.replace(str(folder), "") for event in events)
    if mark.exists():
        yield f"code ran: {', '.join(dict.fromkeys(mark.read_text().split()))}"
        mark.unlink()


def trials(folder: Path, names: Mapping[str, Make] = FOLDERS) -> Iterator[tuple[str, list[str]]]:
    """Every folder, and what was done there that must not be."""
    for index, name in enumerate(names):
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{index}-") as place:
            yield name, trial(name, Path(place).resolve())
