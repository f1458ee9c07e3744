"""What a phase of training wants to be small.

    Distillation   outputs and features of the original, on the same inputs; no labels
    Labelled       the user's loss, or the one that the targets suggest
    Sparse         the same, and a penalty on whole groups (see sparse.py)

Every error is relative to the size of what it is compared with, so that outputs and features, of
any network, weigh alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from compressor.base.messages import reason
from compressor.config.training import Loss
from compressor.loading.calibration_data import Batch
from compressor.passes import Plan, Program
from compressor.passes.base.errors import UsageError
from compressor.passes.ir.labels import Value
from compressor.passes.ir.rebuild import with_tensors

FEATURES = 4
"""How many results on the way are matched."""


class Objective(Protocol):
    """A number to make small."""

    @property
    def taps(self) -> tuple[str, ...]:
        """Names of the nodes whose results it looks at."""

    def __call__(self, outputs: list[Tensor], features: list[Tensor], batch: Batch) -> Tensor:
        """The mean over the rows of the batch."""


# --------------------------------------------------------------------------------- distillation


def features_of(small: Program, plan: Plan) -> tuple[str, ...]:
    """Names of nodes through which everything passes, evenly spread: the ends of blocks.

    A node is one where no result from before it, that depends on a parameter, is read after it.
    """
    graph = plan.coupling.program.module.graph
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    place = {node: index for index, node in enumerate(nodes)}
    carries: set[Node] = set()
    last = {}
    for node in nodes:
        inputs = list(node.all_input_nodes)
        if any(one.op == "get_attr" or one in carries for one in inputs):
            carries.add(node)
        for one in inputs:
            last[one] = place[node]
    reach, cuts = -1, []
    twins = {node.name for node in small.module.graph.nodes}
    for node in nodes:
        if node not in carries or node not in last:
            continue
        if reach <= place[node] and node.name in twins and _is_activation(node, plan):
            cuts.append(node.name)
        reach = max(reach, last[node])
    ends = cuts[:-1] if len(cuts) > 1 else cuts
    picked = (
        [ends[round((i + 1) * len(ends) / FEATURES) - 1] for i in range(FEATURES)] if ends else []
    )
    return tuple(dict.fromkeys(picked))


def _is_activation(node: Node, plan: Plan) -> bool:
    value = plan.coupling.trace.results.get(node)
    found = node.meta.get("val")
    return isinstance(value, Value) and isinstance(found, Tensor) and found.is_floating_point()


class Distillation:
    """The original's outputs, and the kept channels of its features."""

    def __init__(
        self, original: Program, small: Program, plan: Plan, weight: float, device: torch.device
    ) -> None:
        self.taps = features_of(small, plan) if weight else ()
        self._weight, self._device = weight, device
        self._sizes = plan.sizes
        results = {node.name: value for node, value in plan.coupling.trace.results.items()}
        self._values = [results[name] for name in self.taps]
        from .nets import Trainee

        net = with_tensors(original, original.tensors()).module
        self._teacher = Trainee(net, self.taps).to(device).eval()

    def __call__(self, outputs: list[Tensor], features: list[Tensor], batch: Batch) -> Tensor:
        """The relative errors of all outputs and features."""
        with torch.no_grad():
            leaves = [moved(leaf, self._device) for leaf in pytree.tree_leaves(batch.call)]
            wanted, kept = self._teacher(*leaves)
        found = sum(
            (relative(a, b) for a, b in zip(outputs, wanted, strict=True) if b.is_floating_point()),
            torch.zeros((), device=self._device),
        )
        for mine, whole, value in zip(features, kept, self._values, strict=True):
            target = self._sizes.cut(whole.cpu(), value).to(whole.device)
            found = found + self._weight * relative(mine, target) / len(features)
        return found


def relative(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error over the variance of what is wanted, row by row.

    The variance is one of the whole batch: a row that is nearly constant must not outweigh others.
    """
    wanted, found = wanted.float(), found.float()
    error: Tensor = (found - wanted).square().mean() / (wanted.var(correction=0) + 1e-12)
    return error


def moved(leaf: Any, device: torch.device) -> Any:
    """A tensor on the device of the network; anything else as it is."""
    return leaf.to(device) if isinstance(leaf, Tensor) else leaf


# ------------------------------------------------------------------------------------- labelled


@dataclass(frozen=True)
class Labelled:
    """The user's loss of the model's outputs and the target, or the usual one."""

    loss: Loss | None
    build: Callable[[list[Tensor]], Any]
    """From flat outputs to what the model returns."""
    taps: tuple[str, ...] = ()

    def __call__(self, outputs: list[Tensor], features: list[Tensor], batch: Batch) -> Tensor:
        """The loss of one batch."""
        if self.loss is None:
            return usual_loss(outputs, pytree.tree_leaves(batch.target))
        found = self.loss(self.build(outputs), batch.target)
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise UsageError(
                "the loss did not return a number", hint="return a tensor of one element"
            )
        return found.reshape(())


def returned(program: Program) -> Callable[[list[Tensor]], Any]:
    """From flat outputs to what the model returns."""
    spec = getattr(program.module, "_out_spec", None)

    def build(outputs: list[Tensor]) -> Any:
        if spec is None or spec.num_leaves != len(outputs):
            return outputs[0] if len(outputs) == 1 else tuple(outputs)
        return pytree.tree_unflatten(outputs, spec)

    return build


def usual_loss(outputs: Sequence[Tensor], targets: Sequence[Any]) -> Tensor:
    """Cross entropy for whole numbers, squared error for others, of the first output."""
    found = next((one for one in outputs if one.is_floating_point()), None)
    if found is None or len(targets) != 1:
        raise UsageError(
            f"no usual loss fits {len(outputs)} outputs and {len(targets)} targets",
            hint="name a callable(outputs, target) with --loss, or loss=",
        )
    target = torch.as_tensor(targets[0]).to(found.device)
    try:
        if target.is_floating_point():
            return F.mse_loss(found, target.to(found.dtype).reshape(found.shape))
        last = found.dim() > 2 and found.shape[:-1] == target.shape
        scores = found.movedim(-1, 1) if last else found
        return F.cross_entropy(scores, target.long())
    except (RuntimeError, ValueError, IndexError) as error:
        raise UsageError(
            f"no usual loss fits outputs {list(found.shape)} and targets {list(target.shape)}",
            why=reason(error),
            hint="name a callable(outputs, target) with --loss, or loss=",
        ) from error


@dataclass(frozen=True)
class Sparse:
    """A labelled loss, and a penalty on whole groups of channels."""

    labelled: Labelled
    penalty: Callable[[Mapping[str, Tensor]], Tensor]
    tensors: Mapping[str, Tensor]
    weight: float
    taps: tuple[str, ...] = ()

    def __call__(self, outputs: list[Tensor], features: list[Tensor], batch: Batch) -> Tensor:
        """The loss of one batch with the penalty of the present weights."""
        return self.labelled(outputs, features, batch) + self.weight * self.penalty(self.tensors)
