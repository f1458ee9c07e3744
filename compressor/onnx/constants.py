"""What depends on no input is computed once: weight norms, masks, tables of positions.

The exporter has no words for some of it, and the deployed model need not compute it each time.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from compressor.passes.ir.aliases import is_written_later
from compressor.passes.ir.dtypes import copied, tree
from compressor.passes.ir.program import Program, fetch

LARGEST_TABLE = 1 << 16
"""A constant with more elements is stored only where the tensors it is made of are not smaller."""


def folded(program: Program) -> Program:
    """The same network with its constants computed; the program itself stays as it is."""
    constants = _constants(program)
    if not constants:
        return program
    graph = copied(program.module.graph)
    twins = dict(zip(program.module.graph.nodes, graph.nodes, strict=True))
    state = dict(program.tensors())
    for index, (node, value) in enumerate(constants.items()):
        state[f"constant_{index}"] = value
        with graph.inserting_before(twins[node]):
            twins[node].replace_all_uses_with(graph.get_attr(f"constant_{index}"))
        graph.erase_node(twins[node])
    graph.eliminate_dead_code()
    return replace(program, module=GraphModule(tree(state, program.parts()), graph))


def _constants(program: Program) -> dict[Node, Tensor]:
    """Results that depend on tensors of the network alone and are worth storing instead of them."""
    read = {id(tensor.untyped_storage()) for tensor in program.tensors().values()}
    values: dict[Node, Any] = {}
    sources: dict[Node, set[Node]] = {}
    with torch.no_grad():
        for node in program.module.graph.nodes:
            if is_written_later(node):
                continue
            if node.op == "get_attr":
                values[node], sources[node] = fetch(program.module, str(node.target)), {node}
            elif _is_pure(node) and all(given in values for given in node.all_input_nodes):
                args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = node.target(*args, **kwargs)
                sources[node] = set().union(*(sources[given] for given in node.all_input_nodes))
    found = {}
    for node, value in values.items():
        last = node.op == "call_function" and any(user not in values for user in node.users)
        if not last or not isinstance(value, Tensor) or id(value.untyped_storage()) in read:
            continue  # a view of a weight is no tensor of its own
        own = sum(values[source].numel() for source in sources[node])
        if value.numel() <= max(LARGEST_TABLE, own):
            found[node] = value.contiguous()
    return found


def _is_pure(node: Node) -> bool:
    """A call that gives the same each time."""
    op = node.target
    chance = torch.Tag.nondeterministic_seeded
    return (
        node.op == "call_function"
        and isinstance(op, OpOverload)
        and not _writes(node)
        and chance not in op.tags
        and "empty" not in op._schema.name
    )


def _writes(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable
