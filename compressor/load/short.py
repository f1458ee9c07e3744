"""Models of libraries, by a short name: what is installed, with an example input of its own.

    timm:resnet18            weights by --weights, else the library's, which it may download
    torchvision:resnet18     the same
    hf:folder                a transformers checkpoint: a folder, or a name on the hub

Nothing of a checkpoint is run: safetensors only, and no code of the hub's.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from compressor.optional import loadable_torchvision
from compressor.passes.errors import UsageError

from .words import near, reason

if TYPE_CHECKING:  # importing torch takes seconds: only the functions that need it do
    from torch import nn

Made = tuple["nn.Module", Any]
"""A model, and its example inputs."""


def is_short(spec: str) -> bool:
    """Whether a name is one of these; a module of the user's may be called timm too."""
    library, colon, name = spec.partition(":")
    return bool(colon and name) and library in LIBRARIES


def load_short(spec: str, *, trained: bool) -> tuple["nn.Module", ModuleType]:
    """The model, and a namespace with its `example_inputs`. `trained`: with its weights.

    Raises UsageError where the library is not installed, or has no such model.
    """
    short, _, name = spec.partition(":")
    package, make = LIBRARIES[short]
    try:
        with installed_only():
            if find_spec(package) is None:
                raise UsageError(
                    f"{spec} needs {package}, which is not installed", hint=_install(package)
                )
            loadable_torchvision()
            model, inputs = make(name, trained)
    except UsageError:
        raise
    except Exception as error:  # whatever a library raises over a name, a file or the network
        raise UsageError(
            f"{package} does not make {name}",
            why=reason(error)[:300],
            hint="without a network, give the weights by --weights" if trained else "",
        ) from error
    namespace = ModuleType(spec)
    namespace.__dict__["example_inputs"] = inputs
    return model, namespace


@contextmanager
def installed_only() -> Iterator[None]:
    """Imports come from what is installed: a `timm.py` in the current folder is somebody's."""
    here, before = Path.cwd().resolve(), list(sys.path)
    sys.path[:] = [one for one in before if Path(one or ".").resolve() != here]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _install(package: str) -> str:
    return f"pip install {package}"


def _timm(name: str, trained: bool) -> Made:
    import timm
    import torch

    if not timm.is_model(name.partition(".")[0]):
        raise UsageError(f"timm has no model {name!r}", hint=near(name, timm.list_models()))
    model = timm.create_model(name, pretrained=trained)
    config: Any = model.pretrained_cfg
    size = config.get("input_size", (3, 224, 224))
    return model, torch.randn(1, *size, generator=torch.Generator().manual_seed(0))


def _torchvision(name: str, trained: bool) -> Made:
    import torch

    from compressor.optional import torchvision

    models = torchvision().models
    if name not in models.list_models():
        raise UsageError(
            f"torchvision has no model {name!r}", hint=near(name, models.list_models())
        )
    model = models.get_model(name, weights="DEFAULT" if trained else None)
    side = 299 if name == "inception_v3" else 224
    return model, torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))


def _transformers(name: str, trained: bool) -> Made:
    import transformers

    safe: dict[str, Any] = {"trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(name, **safe)
    kind = getattr(transformers, (config.architectures or [""])[0], None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise UsageError(
            f"{name} does not say which model it is", hint="name a callable that builds it"
        )
    model = kind.from_pretrained(name, use_safetensors=True) if trained else kind(config)
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False  # a cache is an output that nobody asked for
    example = model.dummy_inputs
    wanted = {key: example[key] for key in ("input_ids", "pixel_values") if key in example}
    return model, wanted or dict(example)


LIBRARIES: Mapping[str, tuple[str, Callable[[str, bool], Made]]] = {
    "timm": ("timm", _timm),
    "torchvision": ("torchvision", _torchvision),
    "hf": ("transformers", _transformers),
}
