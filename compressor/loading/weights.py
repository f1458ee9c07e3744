"""Weights from a file into a model: all of them, in the model's shapes, and nothing that runs."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from compressor.base.messages import existing_file, kind_of, listed, reason
from compressor.passes.base.errors import UsageError

from .trusted import unpickled

if TYPE_CHECKING:  # importing torch takes seconds: only the functions that need it do
    from torch import Tensor, nn

    State = Mapping[str, Tensor]


def load_weights(model: "nn.Module", path: Path, trust: bool = False) -> None:
    """Replace every parameter and buffer of `model` by those in `path`."""
    state = read_weights(path, trust)
    _check_shapes(state, model.state_dict(), path)
    _give_memory(model, state)
    own = model.state_dict()
    answer = model.load_state_dict(state, strict=False)
    missing = [name for name in answer.missing_keys if not _has_a_twin(name, own, state)]
    lists = {"missing": missing, "unexpected": answer.unexpected_keys}
    if any(lists.values()):
        raise UsageError(
            "the weights do not fit the model",
            where=str(path),
            why="; ".join(f"{len(n)} {kind}: {listed(n)}" for kind, n in lists.items() if n),
            hint=_hint(state, own),
        )


def _give_memory(model: "nn.Module", state: "State") -> None:
    """Memory for the tensors on the meta device that the file fills; tied ones stay tied."""
    import torch

    from compressor.passes.ir.fake_weights import has_values, place

    named = dict(model.named_parameters(remove_duplicate=False))
    own: State = {**named, **dict(model.named_buffers(remove_duplicate=False))}
    empty = {name: (*place(one), one.shape) for name, one in own.items() if not has_values(one)}
    filled = {key for name, key in empty.items() if name in state}
    made: dict[Any, Tensor] = {}
    for name, key in empty.items():
        if key not in filled:
            continue
        if key not in made:
            made[key] = torch.empty(own[name].shape, dtype=own[name].dtype)
            if name in named:
                made[key] = torch.nn.Parameter(made[key], own[name].requires_grad)
        path, _, last = name.rpartition(".")
        part = model.get_submodule(path)
        table: dict[str, Any] = part._parameters if name in named else part._buffers
        table[last] = made[key]


def _check_shapes(state: "State", own: "State", path: Path) -> None:
    from torch.nn.parameter import is_lazy

    mismatched = [
        f"{name} is {tuple(state[name].shape)} in the file, {tuple(tensor.shape)} in the model"
        for name, tensor in own.items()
        if name in state and not is_lazy(tensor) and state[name].shape != tensor.shape
    ]
    if mismatched:
        raise UsageError(
            f"{len(mismatched)} of {len(own)} weights have another shape than the model's",
            where=str(path),
            why=listed(mismatched, "; "),
            hint="build the model with the sizes that it was trained with",
        )


def _has_a_twin(name: str, own: "State", state: "State") -> bool:
    """Tied weights are one tensor under two names, of which safetensors keeps one."""
    from compressor.passes.ir.fake_weights import has_values

    if not has_values(own[name]):
        return False
    address = own[name].data_ptr()
    return address != 0 and any(
        other in state and own[other].data_ptr() == address for other in own if other != name
    )


def _hint(state: "State", own: "State") -> str:
    for name in state:
        prefix, _, rest = name.partition(".")
        if rest in own and name not in own:
            return f"names in the file begin with `{prefix}.`, those of the model do not"
    return "save `model.state_dict()` of the model that the callable builds"


# ---------------------------------------------------------------------------- reading


def read_weights(path: Path, trust: bool = False) -> "State":
    """The tensors in a .safetensors, .pt or .pth file, by name. With `trust`, a pickle may run."""
    path = existing_file(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in (".pt", ".pth"):
        return _state_in(unpickled(path) if trust else _read_pickle(path), path)
    raise UsageError(
        f"cannot read weights from {path}", hint="the file must be .safetensors, .pt or .pth"
    )


def _read_safetensors(path: Path) -> "State":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def read_safetensors(data: bytes, path: Path) -> "State":
    """The same of a file that is in memory."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except SafetensorError as error:
        raise _unreadable(path, error) from error


def _read_pickle(path: Path) -> object:
    import torch

    _check_inflated(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's protocol
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked_for = re.search(r"GLOBAL (\S+)", str(error))
        if asked_for is None:
            raise _unreadable(path, error) from error
        raise UsageError(
            f"{path} holds more than weights, and loading it could run code",
            why=f"it asks for {asked_for[1]}",
            hint="save the weights alone: torch.save(model.state_dict(), path), or safetensors; "
            "or, where you trust this file, let it run by --trust",
        ) from error
    except Exception as error:  # whatever the bytes of a pickle make its reader do
        raise _unreadable(path, error) from error


def _check_inflated(path: Path) -> None:
    """Refuse an archive that says it holds more than it has bytes: torch never compresses."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            inside = sum(one.file_size for one in archive.infolist())
    except Exception as error:  # of headers that contradict each other, of many kinds
        raise _unreadable(path, error) from error
    if inside > path.stat().st_size:
        raise UsageError(
            f"{path} holds {inside:,} bytes in {path.stat().st_size:,}",
            why="torch writes checkpoints without compression",
            hint="save the weights again: torch.save(model.state_dict(), path), or safetensors",
        )


def _unreadable(path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"cannot read weights from {path}",
        why=reason(error).partition(". ")[0],
        hint="the file may be torn, or of another kind than its name says",
    )


def _state_in(loaded: object, path: Path) -> "State":
    """The state dict in a checkpoint: the whole of it, or the only one inside."""
    loaded = _tensors_of(loaded)
    if _is_state(loaded):
        return loaded
    given = loaded if isinstance(loaded, Mapping) else {}
    entries = {name: _tensors_of(entry) for name, entry in given.items()}
    inside = {str(name): entry for name, entry in entries.items() if _is_state(entry)}
    if len(inside) == 1:
        return next(iter(inside.values()))
    raise UsageError(
        f"{path} is not a dict of weights",
        why=f"it holds {len(inside)}: {listed(inside)}" if inside else f"it is {kind_of(loaded)}",
        hint="save the one to use: torch.save(model.state_dict(), path)",
    )


def _tensors_of(value: object) -> object:
    """Of a whole model, its state dict."""
    from torch import nn

    return value.state_dict() if isinstance(value, nn.Module) else value


def _is_state(value: object) -> "TypeGuard[State]":
    from torch import Tensor

    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
