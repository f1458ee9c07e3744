"""Criteria of Torch-Pruning, `torch-pruning:NAME`, applied to our groups.

    our group     channels 0 ... n - 1, and the places on parameters where each of them lies
    its group     items (layer, how it is pruned, indices) with the channel of every index

NAME is a class of `torch_pruning.importance` that can be made without arguments. Layers are made
for its eyes alone: they hold the parameters of the program, and their gradients.
"""

from collections.abc import Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from compressor import passes
from compressor.base.messages import near
from compressor.base.optional import needed
from compressor.passes.base.errors import UsageError
from compressor.passes.calibration.activation_statistics import column_classes
from compressor.passes.calibration.regression_views import view
from compressor.passes.importance.gradient import Evidence, gradients
from compressor.passes.importance.measure import Scored
from compressor.passes.ir.program import shape_of, tensor_name
from compressor.passes.operators.regressions import Contraction, Convolution, View

PREFIX = "torch-pruning:"


def scored(criterion: str) -> Scored | None:
    """What scores channels by a criterion of that package; None for one of ours.

    Raises UsageError where there is no such criterion, or no such package.
    """
    if not criterion.startswith(PREFIX):
        return None
    package = needed("torch_pruning", f"the criterion '{criterion}'", "bench")
    name = criterion.removeprefix(PREFIX)
    kind = getattr(package.importance, name, None)
    base = package.importance.Importance
    if not isinstance(kind, type) or not issubclass(kind, base) or kind is base:
        kinds = [own for own in vars(package.importance).values() if isinstance(own, type)]
        known = {own.__name__ for own in kinds if issubclass(own, base) and own is not base}
        raise UsageError(f"Torch-Pruning has no criterion '{name}'", hint=near(name, known))
    return _Foreign(package, kind, criterion)


class _Foreign:
    """Scores of all channels by one importance object."""

    def __init__(self, package: ModuleType, kind: type, criterion: str) -> None:
        self._functions, self._criterion = package.pruner.function, criterion
        self._importance: Any = kind()

    def __call__(self, coupling: passes.Coupling, evidence: Evidence, seed: int) -> Tensor:
        """float64 [channels]"""
        layers = list(_layers(coupling))
        self._learn(coupling, layers, evidence, seed)
        total = torch.zeros(coupling.channel_count, dtype=torch.float64)
        for group in coupling.groups:
            units = torch.cat(group.cells)
            items = self._items(coupling, layers, units)
            if not items:
                continue  # no layer of a kind that it knows: all alike
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                found = self._asked(items)
            if found is not None:
                total[units] = found.detach().double()[: len(units)]
        return total

    def _asked(self, items: "Sequence[_Item]") -> Tensor | None:
        try:
            found: Tensor | None = self._importance(items)
        except (AttributeError, KeyError, TypeError, ZeroDivisionError) as error:
            raise UsageError(
                f"the criterion '{self._criterion}' cannot be asked about a single group",
                why=f"{type(error).__name__}: {error}",
                hint="take one that needs weights and gradients alone",
            ) from error
        return found

    def _learn(
        self, coupling: passes.Coupling, layers: "list[_Layer]", evidence: Evidence, seed: int
    ) -> None:
        """Gradients of all chunks, summed; told one after another to those that square them."""
        gather = getattr(self._importance, "accumulate_grad", None)
        module = nn.ModuleList([layer.module for layer in layers])
        total: dict[str, Tensor] = {}
        for _, found in gradients(coupling, evidence[0], seed):
            for name, grad in found.items():
                total[name] = total.get(name, torch.zeros_like(grad)) + grad
            if gather is not None:
                _tell(layers, found)
                gather(module)
        _tell(layers, total)

    def _items(
        self, coupling: passes.Coupling, layers: "list[_Layer]", units: Tensor
    ) -> "list[_Item]":
        """Every layer that holds channels of a group, those first that hold each of them once."""
        classes, owner = coupling.members
        number = torch.full((coupling.channel_count,), -1)
        number[units] = torch.arange(len(units))
        mine = number[owner] >= 0
        unit_of = torch.full((coupling.class_count,), -1)
        unit_of[classes[mine]] = number[owner[mine]]
        unit_of[0] = -1
        found = []
        for layer in layers:
            for function, places in layer.places:
                roots = unit_of[places]
                held = torch.nonzero(roots >= 0)[:, 0]
                if len(held):
                    function_of = getattr(self._functions, function)
                    found.append(_Item(layer.module, function_of, held.tolist(), roots[held]))
        whole = [item for item in found if len(set(item.root_idxs)) == len(units)]
        rest = [item for item in found if len(set(item.root_idxs)) != len(units)]
        return [*sorted(whole, key=lambda item: len(item.root_idxs)), *rest] if whole else []


class _Item(tuple[Any, list[int]]):
    """As `torch_pruning` has them: unpacks into what is pruned, and the indices."""

    root_idxs: list[int]

    def __new__(cls, module: nn.Module, function: Any, indices: list[int], roots: Tensor) -> Any:
        target = SimpleNamespace(module=module)
        dep = SimpleNamespace(layer=module, pruning_fn=function, handler=function, target=target)
        item = super().__new__(cls, (dep, indices))
        item.root_idxs = roots.tolist()
        return item


# ------------------------------------------------------------------------------------- layers


class _Layer:
    """A module that holds parameters of the program, and the classes along its axes."""

    def __init__(
        self, module: nn.Module, sources: dict[str, tuple[str, Any]], places: list[tuple[str, Any]]
    ) -> None:
        """`sources`: for each parameter its name in the program, and what makes it of that."""
        self.module, self.sources, self.places = module, sources, places


def _tell(layers: list[_Layer], found: dict[str, Tensor]) -> None:
    for layer in layers:
        for own, (name, made) in layer.sources.items():
            if name in found:
                getattr(layer.module, own).grad = made(found[name]).clone()


def _layers(coupling: passes.Coupling) -> Iterator[_Layer]:
    tensors = coupling.program.tensors()
    for node in coupling.program.calls():
        if not isinstance(node.meta.get("val"), Tensor):
            continue
        known = view(node, tensors, len(shape_of(node)))
        if isinstance(known, View):
            made = _weighted(coupling, known, tensors)
            if made is not None:
                yield made
        else:
            made = _norm(coupling, node, tensors)
            if made is not None:
                yield made


def _weighted(coupling: passes.Coupling, known: View, tensors: Any) -> _Layer | None:
    name = str(known.weight.target)
    weight = tensors[name].detach()
    inputs, outputs = column_classes(coupling, coupling.state[name], known)
    blocks, rows, columns = inputs.shape
    if isinstance(known, Convolution):
        taps = weight[0, 0].numel()
        into, out = columns // taps * blocks, blocks * rows
        kind = getattr(nn, f"Conv{'Transpose' * known.transposed}{known.rank}d")
        module = kind(into, out, 1, groups=known.groups, bias=False, device="meta")
        module.weight = nn.Parameter(weight.clone())
        reads = ("prune_conv_in_channels", inputs[:, 0, ::taps].reshape(-1))
        makes = ("prune_conv_out_channels", outputs[:, :, 0].reshape(-1))
        alone = known.groups > 1 and known.groups == into
        if alone:
            makes = ("prune_depthwise_conv_out_channels", makes[1])
        return _Layer(module, {"weight": (name, _same)}, [makes] if alone else [makes, reads])
    assert isinstance(known, Contraction)
    if blocks != 1:
        return None
    module = nn.Linear(columns, rows, bias=False, device="meta")
    module.weight = nn.Parameter(known.matrix(weight)[0].clone())
    return _Layer(
        module,
        {"weight": (name, lambda grad: known.matrix(grad)[0])},
        [
            ("prune_linear_out_channels", outputs[0, :, 0]),
            ("prune_linear_in_channels", inputs[0, 0]),
        ],
    )


def _same(grad: Tensor) -> Tensor:
    return grad


_NORMS = {
    "batch_norm": (nn.BatchNorm1d, "prune_batchnorm_out_channels"),
    "layer_norm": (nn.LayerNorm, "prune_layernorm_out_channels"),
}


def _norm(coupling: passes.Coupling, node: Node, tensors: Any) -> _Layer | None:
    kind = getattr(node.target, "_schema", None)
    found = _NORMS.get(kind.name.removeprefix("aten::")) if kind is not None else None
    name = "" if found is None else tensor_name(node, "weight")
    if found is None or not name or tensors[name].dim() != 1:
        return None
    values = coupling.state[name]
    array = values.on(0)
    if array is None:
        return None
    made, function = found
    module = made(values.shape[0], device="meta")
    module.weight = nn.Parameter(tensors[name].detach().clone())
    places = [(function, coupling.classes[array].reshape(-1))]
    return _Layer(module, {"weight": (name, _same)}, places)
