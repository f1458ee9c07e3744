"""Tensors by name, and copies of whole graphs in double precision."""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule
from torch.fx.node import map_aggregate

from .program import Program

_NARROW = (torch.float16, torch.bfloat16, torch.float32)


def tree(state: Mapping[str, Tensor], parts: Mapping[str, GraphModule]) -> nn.Module:
    """A module that holds tensors, and graphs inside the graph, under their dotted names."""
    root = nn.Module()
    members: dict[str, Tensor | nn.Module] = {**state, **parts}
    for name, member in members.items():
        attach(root, name, member)
    return root


def attach(root: nn.Module, name: str, member: Tensor | nn.Module) -> None:
    """Give the module a parameter, buffer or child of a dotted name."""
    *path, last = name.split(".")
    at = root
    for step in path:
        if step not in at._modules:
            at.add_module(step, nn.Module())
        at = at.get_submodule(step)
    if isinstance(member, nn.Parameter):
        at.register_parameter(last, member)
    elif isinstance(member, nn.Module):
        at.add_module(last, member)
    else:
        at.register_buffer(last, member)


def forget(module: nn.Module) -> None:
    """Let go of all tensors of a copy: the graph inside it is part of a cycle, which the garbage
    collector may find when the memory is long needed for the next copy."""
    for part in module.modules():
        part._parameters.clear()
        part._buffers.clear()


def copied(graph: Graph) -> Graph:
    """A copy of the graph, node for node, with its own way of packing inputs and outputs."""
    with warnings.catch_warnings():  # torch copies a deprecated class of its own
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        return copy.deepcopy(graph)


def widened(tensor: Any) -> Any:
    """Floating-point tensors in float64; anything else as it is."""
    floating = isinstance(tensor, Tensor) and tensor.is_floating_point()
    return tensor.detach().double() if floating else tensor


def array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The values, in a form that numpy has: it knows none of the short formats."""
    tensor = tensor.detach().cpu()
    short = tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64)
    found: np.ndarray[Any, Any] = (tensor.float() if short else tensor).resolve_conj().numpy()
    return found


def in_float64(program: Program, state: Mapping[str, Tensor] | None = None) -> GraphModule:
    """The program's graph in double precision, with `state` (by default its own tensors).

    Casts written in the graph (``x.float()`` around a norm) become casts to float64; run it inside
    `float64_by_default`, for the constants that the graph makes.
    """
    return _copy(program, state, widened, _widened_graph)


def as_it_is(program: Program, state: Mapping[str, Tensor] | None = None) -> GraphModule:
    """The program's graph in its own precision, with `state` (by default its own tensors)."""
    return _copy(program, state, _detached, copied)


def _copy(
    program: Program,
    state: Mapping[str, Tensor] | None,
    convert: Callable[[Any], Any],
    graph: Callable[[Graph], Graph],
) -> GraphModule:
    def made(state: Mapping[str, Tensor], own: Graph, **parts: GraphModule) -> GraphModule:
        root = tree({name: convert(tensor) for name, tensor in state.items()}, parts)
        return GraphModule(root, graph(own))

    parts = {
        name: made({**dict(part.named_parameters()), **dict(part.named_buffers())}, part.graph)
        for name, part in program.parts().items()
    }
    return made(program.tensors() if state is None else state, program.module.graph, **parts)


def _detached(tensor: Tensor) -> Tensor:
    return tensor.detach()


def _widened_graph(graph: Graph) -> Graph:
    graph = copied(graph)
    for node in graph.nodes:
        node.args = map_aggregate(node.args, _wide_dtype)
        node.kwargs = map_aggregate(node.kwargs, _wide_dtype)
    return graph


@contextmanager
def float64_by_default() -> Iterator[None]:
    """`torch.zeros(3)` is in double precision here."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _wide_dtype(argument: Any) -> Any:
    return torch.float64 if argument in _NARROW and isinstance(argument, torch.dtype) else argument
