"""Operators without a rule, written in operators that have one.

    tensordot(x, w, dims)   ->   reshape, permute, mm, view

torch knows how to take many of its operators apart; an extension can register the same for its
own. A call is replaced only where every part has a rule: otherwise it stays as the user wrote it,
is frozen under its own name, and is exported as it is.
"""

import operator
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch._decomp import decomposition_table
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_aggregate

from ..operators import known

Decomposition = Callable[..., Any]


def decompose(module: GraphModule) -> None:
    """Replace calls of unknown operators by their parts, in place; parts keep the user's line."""
    changed = False
    for node in list(module.graph.nodes):
        if node.op == "call_function" and _unknown(node.target):
            parts = _parts(node)
            if parts is not None:
                _put_in_place(module, node, parts)
                changed = True
    if changed:
        module.recompile()


def _unknown(target: Any) -> bool:
    return isinstance(target, OpOverload) and not known(target) and not target._schema.is_mutable


def _parts(node: Node) -> GraphModule | None:
    """The graph of one call's decomposition; None where there is none that has rules throughout."""
    whole = _decomposition(node.target)
    if whole is None or any(user.target is not operator.getitem for user in node.users
                            if isinstance(node.meta["val"], list | tuple)):  # fmt: skip
        return None
    values = [given.meta.get("val") for given in node.all_input_nodes]
    if any(value is None for value in values):
        return None

    def call(*values: Any) -> Any:
        given = dict(zip(node.all_input_nodes, values, strict=True))
        args, kwargs = map_aggregate(
            (node.args, node.kwargs), lambda a: given[a] if isinstance(a, Node) else a
        )
        return whole(*args, **kwargs)

    table: Any = {op: one for op, one in decomposition_table.items() if _unknown(op)}
    try:
        traced = make_fx(call, decomposition_table=table)(*values)
    except Exception:  # it needs numbers that only the data has
        return None
    nodes = [one for one in traced.graph.nodes if one.op not in ("placeholder", "output")]
    simple = all(one.op == "call_function" and _has_rule(one) for one in nodes)
    return traced if simple else None


def _decomposition(op: Any) -> Decomposition | None:
    if op._can_decompose():
        return op.decompose  # type: ignore[no-any-return]
    return decomposition_table.get(op)


def _has_rule(node: Node) -> bool:
    if not isinstance(node.target, OpOverload):
        return True  # arithmetic of sizes
    return known(node.target) or not isinstance(node.meta.get("val"), Tensor | list | tuple)


def _put_in_place(module: GraphModule, node: Node, parts: GraphModule) -> None:
    inputs = [one for one in parts.graph.nodes if one.op == "placeholder"]
    twins = dict(zip(inputs, node.all_input_nodes, strict=True))
    for one in parts.graph.nodes:
        one.meta |= {k: v for k, v in node.meta.items() if k in ("nn_module_stack", "stack_trace")}
    with module.graph.inserting_before(node):
        results: Any = module.graph.graph_copy(parts.graph, twins)
    if isinstance(results, Node):
        node.replace_all_uses_with(results)
    for user in list(node.users):
        user.replace_all_uses_with(results[user.args[1]])
        module.graph.erase_node(user)
    module.graph.erase_node(node)
