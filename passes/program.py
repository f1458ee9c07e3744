"""The captured network: one flat ATen graph, its tensors, and how it may be called.

    nn.Module ── torch.export ──> Program(module, args, kwargs, batch, engine)

`module` keeps the user's parameter names, the structure of inputs and outputs, and for every
node the shape it had (`meta["val"]`) and where it came from (`meta["stack_trace"]`). A Program is
never changed in place: every pass returns a new one that shares what it did not touch.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

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


def fetch(module: torch.nn.Module, name: str) -> Any:
    """The attribute `name` (dotted) of `module`."""
    at: Any = module
    for part in name.split("."):
        at = getattr(at, part)
    return at


_UNKNOWN = 7919


def hint(size: int | torch.SymInt) -> int:
    """The size as in the example inputs, also where it is symbolic.

    A size that depends on the data (the length of `nonzero`) has none: any number above one will
    do, since such an axis carries no channels.
    """
    if isinstance(size, int):
        return size
    known = size.node.hint
    return _UNKNOWN if known is None else int(known)


def shape_of(node: Node) -> tuple[int, ...]:
    """Sizes of the node's tensor at the example inputs."""
    return tuple(hint(size) for size in node.meta["val"].shape)


def shares_batch(leaf: Nested, batch: int | None) -> bool:
    """Whether dimension 0 of an input is the batch."""
    return isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == batch


def tensor_name(node: Node, argument: str) -> str:
    """The `state_dict` name of the tensor that a call reads as `argument`, or ""."""
    source = by_name(node).get(argument)
    return str(source.target) if isinstance(source, Node) and source.op == "get_attr" else ""


def by_name(node: Node) -> dict[str, Any]:
    """The arguments of a call by the names of the operator's schema."""
    assert isinstance(node.target, torch._ops.OpOverload)
    names = [argument.name for argument in node.target._schema.arguments]
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def variances(program: Program) -> set[str]:
    """Names of the running variances: they are divided by, and never negative."""
    norms = (torch.ops.aten.batch_norm.default, torch.ops.aten.instance_norm.default)
    return {tensor_name(node, "running_var") for node in program.calls() if node.target in norms}


def module_path(node: Node) -> str:
    """The user's module that a node is of: ``layer1.0.conv``; "" for the outermost one."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str(list(stack.values())[-1][0]) if stack else ""
    return "" if path == _NO_MODULE else re.sub(r"^L\['self'\]\.?", "", path)


_NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"
"""What torch.export writes for the sizes of inputs."""


def where(node: Node) -> str:
    """The user's module path and source line of a node: ``layer1.0.conv (models/net.py:41)``."""
    path = module_path(node)
    trace = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [(file, line) for file, line in trace if "/site-packages/" not in file]
    own = own if own or path else trace  # a line of a library says less than the module path
    line = f"{'/'.join(own[-1][0].split('/')[-2:])}:{own[-1][1]}" if own else ""
    return f"{path} ({line})" if path and line else path or line or str(node)


def operator_name(node: Node) -> str:
    """``conv2d`` for ``aten.conv2d.default``; other overloads keep their name."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return getattr(target, "__name__", str(target))
    name = target._schema.name.removeprefix("aten::")
    overload = target._overloadname
    return name if overload in ("default", "Tensor", "int", "dim") else f"{name}.{overload}"
