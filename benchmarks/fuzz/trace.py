"""A quick way from a module to a Program: the calls it makes on its example inputs, as they come.

torch.export takes most of the time of a random network, and what is looked for here comes after it.
Sizes are those of the example; what torch.export makes of the same module is looked at in part of
the networks (see `check.EXPORTED`).
"""

from typing import Any

import torch
from compressor.passes.quiet import quiet
from compressor.passes.state import attach
from compressor.passes.tracing import clean
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from compressor import passes


def traced(model: nn.Module, args: tuple[Tensor, ...]) -> passes.Program:
    """The module as a Program of a fixed batch size."""
    weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}

    def call(tensors: dict[str, Tensor], *inputs: Tensor) -> Any:
        return torch.func.functional_call(model, tensors, inputs)

    with quiet("torch.fx"), torch.no_grad():
        graph = make_fx(call, pre_dispatch=True)(weights, *args)
    state = [node for node in graph.graph.nodes if node.op == "placeholder"][: len(weights)]
    for node, (name, tensor) in zip(state, weights.items(), strict=True):
        attach(graph, name, tensor)
        with graph.graph.inserting_before(node):
            read = graph.graph.get_attr(name)
        read.meta = dict(node.meta)
        node.replace_all_uses_with(read)
        graph.graph.erase_node(node)
    graph.graph.set_codegen(torch.fx.graph.CodeGen())
    clean(graph)
    return passes.Program(graph, args, {}, "traced, fixed batch", None)
