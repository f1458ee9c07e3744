"""A captured network that trains: run node by node, so that batch norms and features are ours.

batch norm    by the statistics of the batch, of all processes together; running ones follow
              (those that the user froze stay as they are)
dropout       stays off, as it was captured
features      results on the way, handed out beside the outputs
"""

import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from compressor.passes.ir.leaves import tensors
from compressor.passes.ir.program import tensor_name
from compressor.passes.operators import row_of
from compressor.passes.operators.kernels import NORM


class Trainee(nn.Module):
    """Flat inputs in, flat outputs and the results of `taps` (names of nodes) out."""

    def __init__(
        self, net: GraphModule, taps: Sequence[str] = (), frozen: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.net = net
        self.taps = tuple(taps)
        self.frozen = frozenset(frozen)
        """Names of modules whose batch norm keeps its statistics."""

    def train(self, mode: bool = True) -> "Trainee":
        """Batch norms learn; the graph itself stays as captured, so dropout stays off."""
        self.training = mode
        return self

    def forward(self, *leaves: Any) -> tuple[list[Tensor], list[Tensor]]:
        """Run the graph once."""
        runner = _Runner(self)
        outputs = runner.run(*leaves, enable_io_processing=False)
        return tensors(outputs), [runner.found[name] for name in self.taps]


class _Runner(Interpreter):
    def __init__(self, trainee: Trainee) -> None:
        super().__init__(trainee.net)
        self._trainee = trainee
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        norm = row_of(n).fusion == NORM
        if norm and self._trainee.training and learns(n, self._trainee.frozen):
            result: Any = normalised(*self._batch_norm(n))
        else:
            result = super().run_node(n)
        if n.name in self._trainee.taps:
            self.found[n.name] = result
        return result

    def _batch_norm(self, node: Node) -> tuple[Any, ...]:
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        assert isinstance(node.target, torch._ops.OpOverload)
        names = [one.name for one in node.target._schema.arguments]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        keys = ("input", "weight", "bias", "running_mean", "running_var", "momentum", "eps")
        return tuple(given[key] for key in keys)


def learns(node: Node, frozen: frozenset[str]) -> bool:
    """Whether a batch norm follows the data in training: its user has not frozen it."""
    name = tensor_name(node, "running_mean")
    if not name or name.rpartition(".")[0] in frozen:
        return False
    weight = next((arg for arg in node.args[1:2] if isinstance(arg, Node)), None)
    if weight is None:
        return True
    own: Any = node.graph.owning_module
    for part in str(weight.target).split("."):
        own = getattr(own, part)
    return bool(own.requires_grad)


def normalised(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    momentum: float,
    eps: float,
) -> Tensor:
    """Batch norm by the statistics of the whole batch, of which every process has a part.

    A momentum of 0 (a cumulative average that was captured in eval mode) counts as 0.1.
    """
    momentum = momentum or 0.1
    if processes() == 1:
        return F.batch_norm(x, mean, var, weight, bias, True, momentum, eps)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    wide = x.float()
    count = total(torch.tensor(float(x.numel() // x.shape[1]), device=x.device))
    own_mean = total(wide.sum(axes)) / count
    view = [1, -1, *[1] * (x.dim() - 2)]
    centred = wide - own_mean.view(view)
    own_var = total(centred.square().sum(axes)) / count
    with torch.no_grad():
        mean.lerp_(own_mean.to(mean.dtype), momentum)
        var.lerp_((own_var * count / (count - 1).clamp(min=1)).to(var.dtype), momentum)
    y = centred * torch.rsqrt(own_var + eps).view(view)
    if weight is not None:
        y = y * weight.view(view)
    if bias is not None:
        y = y + bias.view(view)
    return y.to(x.dtype)


def helper() -> bool:
    """Whether this process only trains: another one writes, measures and talks."""
    return int(os.environ.get("RANK", "0")) > 0


def processes_started() -> int:
    """How many processes a launcher started, before they know of each other."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes() -> int:
    """How many processes train together."""
    group = torch.distributed
    return group.get_world_size() if group.is_available() and group.is_initialized() else 1


def total(value: Tensor) -> Tensor:
    """The sum over all processes; gradients are summed over them too."""
    summed: Tensor = _Total.apply(value)  # type: ignore[no-untyped-call]
    return summed


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.clone()
        torch.distributed.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        grad: Tensor = grads[0].contiguous().clone()
        torch.distributed.all_reduce(grad)
        return grad
