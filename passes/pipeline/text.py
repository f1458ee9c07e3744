"""Groups, plans and programs as text, in the names of the user's own model."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from ..coupling.groups import Coupling, Group
from ..ir.program import Program, fetch, module_path, operator_name
from ..planning.choice import Plan


def to_text(coupling: Coupling) -> str:
    """One line a group, then one a frozen axis with its reason.

    8        conv.weight[0] ~ norm.weight[0] ~ next.weight[1]
    4 x 16   q.weight[0] ~ k.weight[0]                            entries of 4 rows
    4 rows   q.weight[0] ~ ...                                    whole rows
    frozen   head.weight[0] (10): program output
    """
    lines = [f"{width(group):8} {' ~ '.join(map(str, group.axes))}" for group in coupling.groups]
    lines += [f"{'frozen':8} {f.axis} ({f.size}): {f.why}" for f in coupling.frozen]
    return "\n".join(lines) + "\n"


def width(group: Group) -> str:
    """``64``, ``4 x 16`` (entries of rows) or ``4 rows``."""
    if group.rows:
        return f"{group.size} rows"
    return f"{len(group.cells)} x {group.size}" if len(group.cells) > 1 else str(group.size)


def plan_to_text(plan: Plan) -> str:
    """One line a group: its width before and after."""
    lines = [f"{width(group):8} -> {kept:4} {group.name}" for group, kept in plan.widths]
    return "\n".join(lines) + "\n"


# --- programs ------------------------------------------------------------------------------------


def program_to_text(program: Program) -> str:
    """One line a value: its number, its type and sizes, the call that makes it, and the module that
    it is of. Tensors of the network have their own names; sizes that are free are symbols.

    %0 = float32[n0, 3, 8, 8]  input x
    %1 = float32[n0, 8, 6, 6]  conv2d(%0, conv.weight, conv.bias)    # conv
    return [%1]
    """
    return "\n".join(_lines(program.module)) + "\n"


def _lines(module: GraphModule) -> Iterator[str]:
    names: dict[Node, str] = {}
    symbols: dict[str, str] = {}
    count = 0
    for node in module.graph.nodes:
        if node.op == "get_attr":
            names[node] = str(node.target)
        elif node.op == "output":
            yield f"return {_plain(node.args[0], names)}"
        else:
            names[node] = f"%{count}"
            count += 1
            path = f"    # {found}" if (found := module_path(node)) else ""
            typed = f"{names[node]} = {_sizes(node.meta.get('val'), symbols)}"
            yield f"{typed:28} {_call(node, names)}{path}"
    for name, part in _parts(module, names):
        yield f"graph {name}:"
        yield from (f"    {line}" for line in _lines(part))


def _parts(module: GraphModule, names: dict[Node, str]) -> Iterator[tuple[str, GraphModule]]:
    for node, name in names.items():
        part = fetch(module, name) if node.op == "get_attr" else None
        if isinstance(part, GraphModule):
            yield name, part


def _call(node: Node, names: dict[Node, str]) -> str:
    if node.op == "placeholder":
        return f"input {node.target}"
    given = [_plain(one, names) for one in node.args]
    given += [f"{name}={_plain(one, names)}" for name, one in node.kwargs.items()]
    return f"{operator_name(node)}({', '.join(given)})"


def _plain(value: Any, names: dict[Node, str]) -> str:
    if isinstance(value, Node):
        return names[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(_plain(one, names) for one in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_plain(one, names)}' for key, one in value.items())}}}"
    if isinstance(value, torch.dtype | torch.device):
        return str(value).removeprefix("torch.")
    return repr(value)


def _sizes(value: Any, symbols: dict[str, str]) -> str:
    """Types and sizes of all tensors; the symbols are numbered as they come up."""
    found = []
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, torch.SymInt):
            found.append(f"size {_size(leaf, symbols)}")
        elif isinstance(leaf, Tensor):
            sizes = ", ".join(_size(size, symbols) for size in leaf.shape)
            found.append(f"{str(leaf.dtype).removeprefix('torch.')}[{sizes}]")
    return ", ".join(found)


def _size(size: int | torch.SymInt, symbols: dict[str, str]) -> str:
    text = str(size)
    if isinstance(size, int):
        return text
    for symbol in sorted(map(str, size.node.expr.free_symbols)):
        symbols.setdefault(symbol, f"n{len(symbols)}")
    for symbol, name in symbols.items():
        text = text.replace(symbol, name)
    return text
