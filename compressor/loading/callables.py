"""From a name to the callable it stands for, and around the user's code while it runs.

    package.module:callable     looked up from the current folder, then among what is installed
    path/file.py:callable       that file; it may import from the current folder and from its own
    folder/./module:callable    either, looked up from another folder: names in a recipe there

A file of code is Python source, `.py`, and is compiled anew: neither bytecode nor a native module
is taken in its place. The folders are importable only while the user's code runs: an installed
`compressor` must never meet the user's `models/`. A generator's body runs later, so imports in it
belong above it.
"""

import functools
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader, all_suffixes
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from compressor.base.messages import existing_file, file_of, kind_of, listed, near, reason, shown
from compressor.passes.base.errors import CompressError, ContractError, UsageError

_BUILD = "name the Python callable that builds the model: path/file.py:callable"

_TRUSTED = "or, where you trust this file, let it run by --trust"

_NOT_CODE = {
    ".onnx": ("it is an ONNX file, and pruning starts from the PyTorch model", _BUILD),
    ".pt2": (
        "it is an exported program, which runs code when it is loaded",
        f"{_BUILD}; {_TRUSTED}",
    ),
    ".pt": ("it is a file of weights", f"{_BUILD}, and give this file by --weights"),
    ".pth": ("it is a file of weights", f"{_BUILD}, and give this file by --weights"),
    ".safetensors": ("it is a file of weights", f"{_BUILD}, and give this file by --weights"),
}

_COMPILED = frozenset({*all_suffixes(), ".pyo", ".pyw", ".pyd", ".so", ".dll", ".dylib"}) - {".py"}
"""Endings of code that is not source, here or on other systems."""


HOME = "/./"
"""Ends the folder that a name is looked up from."""


def apart(source: str) -> tuple[Path | None, str, str]:
    """The folder that a source is looked up from, if it names one; its file, or else its module."""
    home, mark, rest = source.rpartition(HOME)
    ending = Path(rest).suffix.lower()
    is_file = ending in {".py", *_COMPILED, *_NOT_CODE} or "/" in rest or "\\" in rest
    return Path(home) if mark else None, rest if is_file else "", "" if is_file else rest


@dataclass(frozen=True)
class Found:
    """What a name stands for, where it was defined, and what its code may import from."""

    spec: str
    value: Any
    namespace: ModuleType
    folders: tuple[Path, ...]

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Its imports work meanwhile, and what it raises names the line."""
        with running(f"{self.spec} raised an exception", self.folders):
            return self.value(*args, **kwargs)

    def call_without_arguments(self) -> Any:
        if needed := _needed_arguments(self.value):
            raise UsageError(
                f"{self.spec} needs arguments: {', '.join(needed)}",
                why="it is called without any",
                hint="write a function without arguments that calls it, and name that",
            )
        return self.call()


def load_callable(spec: str) -> Callable[..., Any]:
    """The callable that `module:callable` or `path/file.py:callable` stands for."""
    found = find(spec)

    @functools.wraps(found.value)
    def call(*args: Any, **kwargs: Any) -> Any:
        return found.call(*args, **kwargs)

    return call


def find(spec: str) -> Found:
    """Import what `spec` names; `value` is callable."""
    source, _, name = spec.rpartition(":")
    if Path(source or spec).suffix in _NOT_CODE:
        why, hint = _NOT_CODE[Path(source or spec).suffix]
        raise UsageError(f"{source or spec} does not say how to build a model", why=why, hint=hint)
    if not source or not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(
            f"{spec!r} does not say which callable to use",
            why="expected module:callable or path/file.py:callable",
            hint=f"for example {spec if spec.endswith('.py') else 'models/net.py'}:resnet",
        )
    home, file, module = apart(source)
    if file:
        path = _source(Path(source))
        folders = _folders(path, home)
        namespace = _import_file(path, folders)
    else:
        folders = (Path.cwd(),) if home is None else (home.resolve(), Path.cwd())
        namespace = _import_module(module, folders)
    return Found(spec, _attribute(namespace, name, source), namespace, folders)


def find_file(source: str) -> ModuleType:
    """Import a Python file of the user's, for what is in it."""
    path = _source(Path(source))
    return _import_file(path, _folders(path, apart(source)[0]))


def _source(path: Path) -> Path:
    """`path` made absolute. Raises UsageError where it, or what it is a link to, is no source."""
    there = existing_file(path)
    for one in (path, there):
        if one.suffix != ".py":
            raise UsageError(
                f"{path} is not Python source",
                where="" if one == path else f"it is a link to {there}",
                why="code is read from files that end in .py, and from no compiled ones",
                hint="name the source, or a module that is installed: package.module:callable",
            )
    return there


def folders_of(namespace: ModuleType) -> tuple[Path, ...]:
    """What the code of a module may import from."""
    own = Path(file_of(namespace)).resolve().parent
    return _IMPORTED.get(namespace.__name__, (Path.cwd(), own))


_IMPORTED: dict[str, tuple[Path, ...]] = {}
"""What each module that was found here may import from, by its name, like `sys.modules`."""


def _folders(path: Path, home: Path | None) -> tuple[Path, ...]:
    first = Path.cwd() if home is None else home.resolve()
    return tuple(dict.fromkeys((first, path.parent, Path.cwd())))


# ---------------------------------------------------------------------------- finding


class _Source(SourceFileLoader):
    """Compiles what the file says: bytecode in `__pycache__` may say something else."""

    def get_code(self, fullname: str) -> CodeType:
        """The code of the source alone."""
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _import_file(path: Path, folders: Sequence[Path]) -> ModuleType:
    """Load `path` under a name of its own, once for each process."""
    stem = re.sub(r"\W", "_", path.stem)
    name = f"{stem}_{zlib.crc32(str(path).encode()):08x}"
    if name in sys.modules:
        return sys.modules[name]
    loader = _Source(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    _IMPORTED[name] = tuple(folders)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        with running(f"cannot import {shown(path)}", folders):
            loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(name: str, folders: Sequence[Path]) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(
            f"{name!r} is not the name of a module",
            hint="a module is named from the current folder: package.module:callable",
        )
    with running(f"cannot import {name}", folders):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if missing != name and not name.startswith(f"{missing}."):
                raise  # the module is there, something that it imports is not
            raise UsageError(
                f"no such module: {name}",
                where=f"looked in {listed(map(str, folders))} and among what is installed",
                why=str(error),
                hint=near(name, _modules_beside(name, folders[0]))
                or "a file is named path/file.py:callable",
            ) from error
    _check_from(name, module, folders[0])
    _IMPORTED[name] = tuple(folders)
    return module


def _check_from(name: str, module: ModuleType, folder: Path) -> None:
    """Raise UsageError for a module of this name from elsewhere, where `folder` has one too."""
    file = getattr(module, "__file__", None)
    stem = folder.joinpath(*name.split("."))
    forms = (stem.with_name(f"{stem.name}.py"), stem / "__init__.py")
    own = [one for one in forms if one.is_file()]
    if file is not None and own and not any(one.samefile(file) for one in own):
        raise UsageError(
            f"two modules are called {name}",
            why=f"{shown(Path(file))} was imported before {shown(own[0])} could be",
            hint="name the file: path/file.py:callable",
        )


def _modules_beside(name: str, home: Path) -> list[str]:
    """Modules and packages in the part of the folder where `name` would be."""
    package = name.rpartition(".")[0]
    folder = home.joinpath(*package.split("."))
    if not folder.is_dir():
        package, folder = "", home
    stems = {entry.stem for entry in folder.glob("*.py")}
    stems |= {entry.parent.name for entry in folder.glob("*/*.py")}
    return [f"{package}.{stem}".lstrip(".") for stem in sorted(stems) if stem.isidentifier()]


def _attribute(namespace: ModuleType, name: str, source: str) -> Any:
    value: Any = namespace
    for part in name.split("."):
        if not hasattr(value, part):
            raise UsageError(
                f"no such callable: {name}",
                where=source,
                hint=near(name, _public_callables(namespace)),
            )
        value = getattr(value, part)
    if not callable(value):
        raise UsageError(
            f"{source}:{name} is {kind_of(value)}, which cannot be called",
            hint=near(name, _public_callables(namespace)),
        )
    return value


def _public_callables(namespace: ModuleType) -> list[str]:
    """What the module itself defines, or everything callable in it if it defines nothing."""
    public = {
        name: value
        for name, value in vars(namespace).items()
        if callable(value) and not name.startswith("_")
    }
    own = [n for n, v in public.items() if getattr(v, "__module__", None) == namespace.__name__]
    return own or list(public)


def _needed_arguments(value: Callable[..., Any]) -> list[str]:
    try:
        signature = inspect.signature(value)
    except ValueError:  # a builtin that does not tell
        return []
    return [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


@functools.cache
def _offered(folders: tuple[Path, ...]) -> dict[str, Path]:
    """The modules and packages that an import finds there, by name."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in (*folder.glob("*.py"), *folder.glob("*/__init__.py")):
            found.setdefault(path.stem if path.parent == folder else path.parent.name, path)
    return found


# ---------------------------------------------------------------------------- running


@contextmanager
def running(what: str, folders: Sequence[Path]) -> Iterator[None]:
    """Around code that is not ours: it may import from `folders`, and what it raises is `what`."""
    with _blaming(what, folders), _importable(folders):
        yield


@contextmanager
def _importable(folders: Sequence[Path]) -> Iterator[None]:
    """Put `folders` first on the import path, for this long.

    Modules of the same names that came from the user's other folders make room meanwhile.
    """
    added = [str(folder) for folder in folders]
    others = _namesakes(folders)
    for name in others:
        del sys.modules[name]
    sys.modules.update(_OWN.get(folders[0], {}))
    sys.path[:0] = added
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for folder in added:
            with suppress(ValueError):  # the user's code may have taken it out
                sys.path.remove(folder)
        if others:
            own = {name: sys.modules[name] for name in others if name in sys.modules}
            _OWN.setdefault(folders[0], {}).update(own)
            sys.modules.update(others)


_OWN: dict[Path, dict[str, ModuleType]] = {}
"""Modules of a folder whose names others had before."""


def _namesakes(folders: Sequence[Path]) -> dict[str, ModuleType]:
    """Modules that came from other folders of the user's, where an import would find these."""
    known = {folder for own in _IMPORTED.values() for folder in own}
    found: dict[str, ModuleType] = {}
    if known <= set(folders):
        return found
    for top, path in _offered(tuple(folders)).items():
        file = getattr(sys.modules.get(top), "__file__", None)
        if file is None or Path(file) == path or not Path(file).is_file() or path.samefile(file):
            continue
        if known.intersection(Path(file).parents) and "site-packages" not in file:
            found |= {
                name: module
                for name, module in sys.modules.items()
                if name == top or name.startswith(f"{top}.")
            }
    return found


@contextmanager
def _blaming(what: str, folders: Sequence[Path]) -> Iterator[None]:
    """Turn whatever the user's code raises into a UsageError that names its line."""
    try:
        yield
    except (CompressError, ContractError):  # ours, passing through the user's code
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(
            what, where=_place(error, folders), why=reason(error), hint=_hint(error)
        ) from error


def _place(error: BaseException, folders: Sequence[Path]) -> str:
    """The innermost line of the user's own code, else the innermost line."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown(Path(error.filename))}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith("<frozen")
    ]
    if not frames:
        return ""
    own = [frame for frame in frames if _is_own(Path(frame.filename), folders)]
    frame = (own or frames)[-1]
    return f"{shown(Path(frame.filename))}:{frame.lineno} in {frame.name}"


def _is_own(path: Path, folders: Sequence[Path]) -> bool:
    if "site-packages" in path.parts:
        return False
    return any(path.is_relative_to(folder) for folder in folders)


def _hint(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install {error.name.partition('.')[0]}, or stand in the folder that has it"
    if isinstance(error, ImportError) and "relative import" in str(error):
        return (
            "a file by itself is in no package: stand in the folder above the package and write "
            "package.module:callable"
        )
    if isinstance(error, SystemExit):
        return 'keep what runs as a script below `if __name__ == "__main__":`'
    return ""
