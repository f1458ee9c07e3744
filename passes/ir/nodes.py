"""Questions about one node of a captured graph: its sizes, its arguments, the user's line."""

import re
from typing import Any

import torch
from torch.fx import Node


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


def tensor_name(node: Node, argument: str) -> str:
    """The `state_dict` name of the tensor that a call reads as `argument`, or ""."""
    known = isinstance(node.target, torch._ops.OpOverload)
    source = by_name(node).get(argument) if known else None
    return str(source.target) if isinstance(source, Node) and source.op == "get_attr" else ""


def by_name(node: Node) -> dict[str, Any]:
    """The arguments of a call by the names of the operator's schema."""
    assert isinstance(node.target, torch._ops.OpOverload)
    names = [argument.name for argument in node.target._schema.arguments]
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


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
