"""Tensors by name, and copies of whole graphs in double precision."""

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule
from torch.fx.node import map_aggregate

from .program import Program

_NARROW = (torch.float16, torch.bfloat16, torch.float32)


def tree(state: Mapping[str, Tensor]) -> nn.Module:
    """A module that holds the tensors under their dotted names."""
    root = nn.Module()
    for name, tensor in state.items():
        *path, last = name.split(".")
        at = root
        for part in path:
            if part not in at._modules:
                at.add_module(part, nn.Module())
            at = at.get_submodule(part)
        if isinstance(tensor, nn.Parameter):
            at.register_parameter(last, tensor)
        else:
            at.register_buffer(last, tensor)
    return root


def copied(graph: Graph) -> Graph:
    """A copy of the graph, node for node, with its own way of packing inputs and outputs."""
    with warnings.catch_warnings():  # torch copies a deprecated class of its own
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        return copy.deepcopy(graph)


def widened(tensor: Any) -> Any:
    """Floating-point tensors in float64; anything else as it is."""
    floating = isinstance(tensor, Tensor) and tensor.is_floating_point()
    return tensor.detach().double() if floating else tensor


def in_float64(program: Program, state: Mapping[str, Tensor] | None = None) -> GraphModule:
    """The program's graph in double precision, with `state` (by default its own tensors).

    Casts written in the graph (``x.float()`` around a norm) become casts to float64.
    """
    tensors = program.tensors() if state is None else state
    graph = copied(program.module.graph)
    for node in graph.nodes:
        node.args = map_aggregate(node.args, _wide_dtype)
        node.kwargs = map_aggregate(node.kwargs, _wide_dtype)
    return GraphModule(tree({name: widened(tensor) for name, tensor in tensors.items()}), graph)


def _wide_dtype(argument: Any) -> Any:
    return torch.float64 if argument in _NARROW and isinstance(argument, torch.dtype) else argument
