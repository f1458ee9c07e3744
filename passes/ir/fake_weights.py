"""Models without values: built on the meta device, or fake, because they do not fit in memory.

    with torch.device("meta"): model = Llama70B()        shapes and types, no numbers
    capture(model, args, {})                             every tensor is fake, on the CPU

Couplings and costs depend on shapes alone. What computes numbers refuses such a program.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

from ..base.errors import UsageError


def has_values(tensor: Tensor) -> bool:
    """Whether there are numbers in the tensor: it is not on the meta device, and not fake."""
    return not (tensor.is_meta or isinstance(tensor, FakeTensor))


def require_values(tensors: Iterable[Tensor], what: str) -> None:
    """Raise UsageError unless all of these have values; `what` says what needs them."""
    if not all(map(has_values, tensors)):
        raise UsageError(
            f"{what} needs weights, and this model has none: it is on the meta device, or fake",
            hint="give its checkpoint by --weights; without one it can be inspected, and planned "
            "with --criterion random",
        )


def place(tensor: Tensor) -> tuple[int, int]:
    """Where the elements of a tensor begin: equal for two that share their memory.

    Without values every address is 0, but each storage is a thing of its own.
    """
    if has_values(tensor):
        return tensor.data_ptr(), 0
    return tensor.untyped_storage()._cdata, int(tensor.storage_offset())


@contextmanager
def imagined(model: nn.Module, inputs: Any) -> Iterator[Any]:
    """Give a model without values fake tensors on the CPU here; yields fake inputs for it.

    So it does not matter on which device a part of the model, or a constant in its forward, is.
    A model with values, and its inputs, are left alone.
    """
    own = [*model.parameters(), *model.buffers()]
    if all(map(has_values, own)):
        yield inputs
        return
    given = [leaf for leaf in [*own, *pytree.tree_leaves(inputs)] if isinstance(leaf, FakeTensor)]
    mode = given[0].fake_mode if given else FakeTensorMode()
    tables: list[dict[str, Any]] = [
        t for part in model.modules() for t in (part._parameters, part._buffers)
    ]
    before = [dict(table) for table in tables]
    twins: dict[Any, Tensor] = {}
    for table in tables:
        for name, tensor in table.items():
            if tensor is not None:
                key = (*place(tensor), tensor.shape, tensor.stride(), type(tensor))
                table[name] = twins.setdefault(key, _twin(mode, tensor))
    try:
        yield pytree.tree_map_only(Tensor, lambda leaf: _twin(mode, leaf), inputs)
    finally:
        for table, tensors in zip(tables, before, strict=True):
            table.update(tensors)


def _twin(mode: FakeTensorMode, tensor: Tensor) -> Any:
    """A fake tensor on the CPU with the sizes, the strides and the type of this one."""
    with mode:
        twin = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
    return nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin
