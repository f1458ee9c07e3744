"""A quick way from a module to a Program: the calls it makes on its example inputs, as they come.

torch.export takes most of the time of a random network, and what is looked for here comes after it.
Sizes are those of the example; what torch.export makes of the same module is looked at in part of
the networks (see `check.EXPORTED`).
"""

from typing import Any

import torch
from compressor.passes.base.library_logs import quiet
from compressor.passes.frontend.torch_export import read_inside
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
    read_inside(graph, weights)
    return passes.Program(graph, args, {}, "traced, fixed batch", None)
