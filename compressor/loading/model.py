"""The model that the user's callable builds, with the weights that belong in it."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from compressor.base.messages import kind_of, listed
from compressor.passes.base.errors import UsageError

from .callables import find
from .short_names import is_short, load_short
from .trusted import SUFFIXES, load_trusted
from .weights import load_weights

if TYPE_CHECKING:  # importing torch takes seconds: only the functions that need it do
    from torch import Tensor, nn


def load_model(
    spec: str, weights: Path | None = None, *, values: bool = True, trust: bool = False
) -> tuple["nn.Module", ModuleType]:
    """The model that `spec` builds, in eval mode, and the module that defines it.

    `spec` names a callable without arguments, a model itself, or a model of a library (see
    `short`). `weights` replaces every parameter and buffer. Without `values` the model may be on
    the meta device, or fake. With `trust`, files are loaded that run code meanwhile.
    """
    if is_short(spec):
        model, namespace = load_short(spec, trained=values and weights is None)
    elif trust and Path(spec).suffix in SUFFIXES:
        model, namespace = load_trusted(Path(spec))
    else:
        model, namespace = _found(spec)
    if weights is not None:
        load_weights(model, weights, trust)
    check_finite(model, values=values)
    return model.eval(), namespace


def _found(spec: str) -> tuple["nn.Module", ModuleType]:
    from torch import nn

    found = find(spec)
    if isinstance(found.value, nn.Module):
        return _as_model(found.value, spec), found.namespace
    return _as_model(found.call_without_arguments(), f"what {spec} returned"), found.namespace


def _as_model(value: Any, name: str) -> "nn.Module":
    import torch
    from torch import nn

    if isinstance(value, torch.jit.ScriptModule):
        raise UsageError(
            f"{name} is TorchScript, which cannot be pruned",
            hint="return the Python module that the script was made from",
        )
    if isinstance(value, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise UsageError(f"{name} is {kind_of(value)}", hint="return the model in it: `.module`")
    if isinstance(value, nn.Module):
        return value
    hint = "the callable must return the model"
    if isinstance(value, Mapping):
        hint = "if these are weights: return the model, and give them by --weights"
    raise UsageError(f"{name} is {kind_of(value)}, not a torch.nn.Module", hint=hint)


def check_finite(module: "nn.Module", *, values: bool = True) -> None:
    """Refuse weights that hold no numbers: not initialised, on the meta device, NaN or infinite.

    Buffers may be infinite, as attention masks are, but not NaN. Without `values` a tensor may be
    on the meta device, or fake.
    """
    parameters = dict(module.named_parameters())
    everything = {**parameters, **dict(module.named_buffers())}
    broken = {
        name: trouble
        for name, tensor in everything.items()
        if (trouble := _trouble(tensor, infinity_allowed=name not in parameters, values=values))
    }
    if broken:
        first, *more = (f"{name} {trouble}" for name, trouble in broken.items())
        raise UsageError(
            first,
            where=f"and {len(more)} others: {listed(more, '; ')}" if more else "",
            why="what does not compute numbers cannot be compared with something smaller",
            hint="look at how it was made, or give a checkpoint by --weights; without values a "
            "model can be inspected and planned",
        )


def _trouble(tensor: "Tensor", *, infinity_allowed: bool, values: bool) -> str:
    """`has 3 NaN among its 64 values`, or the empty string."""
    from torch.nn.parameter import is_lazy

    from compressor.passes.ir.fake_weights import has_values

    if is_lazy(tensor):
        return "has no shape: a lazy layer that never saw an input"
    if not has_values(tensor):
        kind = "on the meta device" if tensor.is_meta else "fake"
        return f"has no values: it is {kind}" if values else ""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return ""
    numbers = tensor.detach()
    if numbers.element_size() == 1:  # the eight-bit formats do not implement these questions
        numbers = numbers.float()
    if bool(numbers.isfinite().all()):
        return ""
    nan, infinite = int(numbers.isnan().sum()), int(numbers.isinf().sum())
    counts = [f"{nan:,} NaN"] if nan else []
    counts += [f"{infinite:,} infinite"] if infinite and not infinity_allowed else []
    return f"has {' and '.join(counts)} among its {numbers.numel():,} values" if counts else ""
