"""The captured network: one flat ATen graph, its tensors, and how it may be called.

    nn.Module ── torch.export ──> Program(module, args, kwargs, batch, engine)

`module` keeps the user's parameter names, the structure of inputs and outputs, and for every
node the shape it had (`meta["val"]`) and where it came from (`meta["stack_trace"]`). A Program is
never changed in place: every pass returns a new one that shares what it did not touch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from . import shapes
from .nodes import by_name, fetch, hint, module_path, operator_name, shape_of, tensor_name, where

__all__ = [
    "FreeAxes",
    "Nested",
    "Program",
    "by_name",
    "fetch",
    "hint",
    "module_path",
    "operator_name",
    "shape_of",
    "shares_batch",
    "tensor_name",
    "variances",
    "where",
]

FreeAxes = Mapping[int, Mapping[int, str]]
"""Free axes by the position of their input among all leaves: position -> axis -> name."""

Nested = Any
"""A tensor, or tuples, lists and dicts of them: whatever the user's `forward` takes and gives."""


@dataclass(frozen=True, eq=False)
class Program:
    """A network as a flat graph of ATen calls. Its tensors live in `module`."""

    module: GraphModule
    args: tuple[Nested, ...]
    kwargs: Mapping[str, Nested] = field(default_factory=dict)
    engine: str = "torch.export, dynamic batch"
    batch: int | None = None
    """Size of dimension 0 in the example inputs, or None where the batch size is fixed."""
    axes: FreeAxes = field(default_factory=dict)
    """Further axes of the inputs whose sizes are free, by name."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Further `state_dict` names of tied tensors: the name that the graph reads, by other name."""

    @property
    def free(self) -> dict[str, int]:
        """The names of the free sizes, and the size of each in the example inputs."""
        leaves = pytree.tree_leaves((self.args, dict(self.kwargs)))
        return {
            symbol: int(leaves[position].shape[axis])
            for position, own in self.axes.items()
            for axis, symbol in own.items()
        }

    def tensors(self) -> dict[str, Tensor]:
        """Every parameter, buffer and constant that the graph reads, by its `state_dict` name."""
        return {
            str(node.target): fetch(self.module, str(node.target))
            for node in self.module.graph.nodes
            if node.op == "get_attr" and isinstance(fetch(self.module, str(node.target)), Tensor)
        }

    def parts(self) -> dict[str, GraphModule]:
        """Graphs inside the graph: the branches of a condition, by name."""
        named = {str(n.target): n for n in self.module.graph.nodes if n.op == "get_attr"}
        found = {name: fetch(self.module, name) for name in named}
        return {name: part for name, part in found.items() if isinstance(part, GraphModule)}

    def calls(self) -> Iterator[Node]:
        """The operator calls, in the order in which they run."""
        return (node for node in self.module.graph.nodes if node.op == "call_function")

    def check(self) -> None:
        """Raise ContractError, which names the node, unless the program is closed (`shapes.check`).

        A value without a shape, a tensor that is not there, a shape that is not what the call
        gives, and a literal that does not fit what it is applied to.
        """
        shapes.check(self.module)


def shares_batch(leaf: Nested, batch: int | None) -> bool:
    """Whether dimension 0 of an input is the batch."""
    return isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == batch


def variances(program: Program) -> set[str]:
    """Names of the running variances: they are divided by, and never negative."""
    return {tensor_name(node, "running_var") for node in program.calls()} - {""}
