"""Models of libraries, by a short name: what is installed, with an example input of its own.

    timm:resnet18            weights by --weights, else the library's, which it may download
    torchvision:resnet18     the same
    hf:folder                a transformers checkpoint: a folder, or a name on the hub

Nothing of a checkpoint is run: safetensors only, and no code of the hub's. Models of words are
called with their attention mask where they take one, and their sequences are to be free.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from compressor.base.messages import near, reason
from compressor.base.optional import loadable_torchvision
from compressor.passes.base.errors import UsageError

if TYPE_CHECKING:  # importing torch takes seconds: only the functions that need it do
    from torch import Tensor, nn


@dataclass(frozen=True)
class NamedModel:
    """A model, and how it is called."""

    model: "nn.Module"
    example: Any
    axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """Which axes of the example are to be free, where the model allows it."""
    remarks: tuple[str, ...] = ()
    """What a user should know of the inputs."""


WISHES = "__compressor_wishes__"
"""Of a namespace: the axes and the remarks."""


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
            made = make(name, trained)
    except UsageError:
        raise
    except Exception as error:  # whatever a library raises over a name, a file or the network
        raise UsageError(
            f"{package} does not make {name}",
            why=reason(error)[:300],
            hint="without a network, give the weights by --weights" if trained else "",
        ) from error
    namespace = ModuleType(spec)
    namespace.__dict__["example_inputs"] = made.example
    namespace.__dict__[WISHES] = made.axes, made.remarks
    return made.model, namespace


def wishes(namespace: ModuleType) -> tuple[Mapping[str, Mapping[int, str]], tuple[str, ...]]:
    """Axes of the library's example inputs that are to be free, and what there is to say."""
    found: tuple[Any, Any] = vars(namespace).get(WISHES, ({}, ()))
    return found


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


def _timm(name: str, trained: bool) -> NamedModel:
    import timm
    import torch

    if not timm.is_model(name.partition(".")[0]):
        raise UsageError(f"timm has no model {name!r}", hint=near(name, timm.list_models()))
    model = timm.create_model(name, pretrained=trained)
    config: Any = model.pretrained_cfg
    size = config.get("input_size", (3, 224, 224))
    return NamedModel(model, torch.randn(1, *size, generator=torch.Generator().manual_seed(0)))


def _torchvision(name: str, trained: bool) -> NamedModel:
    import torch

    from compressor.base.optional import torchvision

    models = torchvision().models
    if name not in models.list_models():
        raise UsageError(
            f"torchvision has no model {name!r}", hint=near(name, models.list_models())
        )
    model = models.get_model(name, weights="DEFAULT" if trained else None)
    side = 299 if name == "inception_v3" else 224
    return NamedModel(
        model, torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    )


def _transformers(name: str, trained: bool) -> NamedModel:
    import transformers

    safe: dict[str, Any] = {"trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(name, **safe)
    kind = getattr(transformers, (config.architectures or [""])[0], None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise UsageError(
            f"{name} does not say which model it is", hint="name a callable that builds it"
        )
    model: Any = kind.from_pretrained(name, use_safetensors=True) if trained else kind(config)
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False  # a cache is an output that nobody asked for
    return _called(model.eval())


BATCH, SEQUENCE = 2, 16
"""Sizes of the example inputs of models of words, unless the model is for fewer."""


def _called(model: Any) -> NamedModel:
    """With the first of some example inputs that the model runs on."""
    import torch

    takes = inspect.signature(model.forward).parameters
    for example in _examples(model, takes):
        try:
            with torch.no_grad():
                model(**example)
        except Exception:  # another one is tried; the last is told as the user's are
            continue
        break
    axes = {name: {1: one} for name, one in _SEQUENCES.items() if name in example}
    left = [name for name in _TOLD if name in takes and name not in example]
    if getattr(model.config, "type_vocab_size", 0) < 2:
        left = [name for name in left if name != "token_type_ids"]
    remarks = [_TOLD[name] for name in left if "input_ids" in example]
    return NamedModel(model, example, axes, tuple(remarks))


_SEQUENCES = {
    "input_ids": "sequence",
    "attention_mask": "sequence",
    "decoder_input_ids": "decoder_sequence",
}
_TOLD = {
    "attention_mask": "The model takes an attention mask, but does not run with one here: the "
    "exported model has none, and attends to padding. Give inputs with one by --inputs.",
    "token_type_ids": "The exported model takes no token_type_ids: all are 0, as the model has it "
    "by default. For pairs of texts, give inputs with them by --inputs.",
}


def _examples(model: Any, takes: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What the model may be called with: words with their mask and without, then as it says."""
    dummy = dict(model.dummy_inputs)
    if model.main_input_name == "pixel_values" and hasattr(model.config, "image_size"):
        yield {"pixel_values": _pixels(model.config)}
    elif "input_ids" in dummy and "input_ids" in takes and "pixel_values" not in dummy:
        words = _words(model.config)
        decoder = {"decoder_input_ids": words["input_ids"].flip(1)[:, 1:]}
        more = decoder if getattr(model.config, "is_encoder_decoder", False) else {}
        if "attention_mask" in takes:
            yield words | more
        yield {"input_ids": words["input_ids"]} | more
    wanted = {key: dummy[key] for key in ("input_ids", "pixel_values") if key in dummy}
    yield wanted or dummy


def _pixels(config: Any) -> "Tensor":
    """One picture of random numbers."""
    import torch

    size = config.image_size
    sides = (size, size) if isinstance(size, int) else tuple(size)
    shape = (1, getattr(config, "num_channels", 3), *sides)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _words(config: Any) -> dict[str, Any]:
    """Random words, the last sample padded; none of them a special one, as far as that is said."""
    import torch

    most = min(getattr(config, "max_position_embeddings", None) or SEQUENCE, SEQUENCE)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, config.vocab_size, (BATCH, most), generator=generator)
    mask = torch.ones_like(ids)
    padding = getattr(config, "pad_token_id", None)
    if padding is not None:
        ids[ids == padding] = (padding + 1) % config.vocab_size
        ids[-1, most - most // 4 :] = padding
    mask[-1, most - most // 4 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


LIBRARIES: Mapping[str, tuple[str, Callable[[str, bool], NamedModel]]] = {
    "timm": ("timm", _timm),
    "torchvision": ("torchvision", _torchvision),
    "hf": ("transformers", _transformers),
}
