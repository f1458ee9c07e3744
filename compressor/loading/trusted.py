"""Files that execute when they are loaded: exported programs and whole pickles.

They are opened only where the command line says `--trust`; a recipe and the environment cannot.
"""

from pathlib import Path
from types import MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from compressor.base.messages import existing_file, kind_of, reason
from compressor.passes.base.errors import UsageError

from .callables import running

if TYPE_CHECKING:  # importing torch takes seconds: only the functions that need it do
    from torch import nn

SUFFIXES = (".pt2", ".pt", ".pth")


def load_trusted(path: Path) -> tuple["nn.Module", ModuleType]:
    """The model in a file, and a namespace with the example inputs that were exported with it."""
    path = existing_file(path)
    namespace = ModuleType(path.name)
    if path.suffix == ".pt2":
        model, example = _exported(path)
        if example is not None:
            namespace.__dict__["example_inputs"] = example
        return model, namespace
    return _module(unpickled(path), path), namespace


def _exported(path: Path) -> tuple["nn.Module", Any]:
    import torch

    try:
        program = torch.export.load(path)
    except Exception as error:  # torch raises classes of every kind for a file that is none
        raise UsageError(f"{path} is not an exported program", why=reason(error)[:300]) from error
    module: Any = program.module()
    for name in ("train", "eval"):  # what was exported has one mode, and refuses to be asked
        module.__dict__[name] = MethodType(getattr(torch.nn.Module, name), module)
    args, kwargs = program.example_inputs or ((), {})
    return module, (dict(kwargs) if kwargs and not args else tuple(args)) or None


def _module(found: object, path: Path) -> "nn.Module":
    from torch import nn

    if isinstance(found, nn.Module):
        return found
    raise UsageError(
        f"{path} is {kind_of(found)}, not a whole model",
        hint="name the callable that builds the model, and give this file by --weights",
    )


def unpickled(path: Path) -> object:
    """What a file holds, whatever that runs; its classes may be beside it."""
    import torch

    with running(f"loading {path} raised an exception", (Path.cwd(), path.parent)):
        return torch.load(path, map_location="cpu", weights_only=False)
