"""Run the graph on labels: ask the rule of every call, in order, and keep what it answers.

parameter      one fresh label for each index of each axis
input          no labels: its axes are the user's
call           the operator's rule
output         whatever arrives is frozen
"""

import fnmatch
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from ..ir.call import Call
from ..ir.fake_weights import place
from ..ir.labels import Ledger, Value, varying
from ..ir.program import Program, by_name, hint, operator_name, shape_of
from ..operators import row_of
from ..operators.contraction import convolution


@dataclass(frozen=True, eq=False)
class Trace:
    """The labels of everything, before they are closed into channels."""

    program: Program
    state: dict[str, Value]
    """Of every parameter, buffer and constant, by name."""
    results: dict[Node, Any]
    """Of every node: a Value, a list of them, or a number."""
    calls: dict[Node, Call]
    ledger: Ledger


def interpret(program: Program, ignore: Sequence[str] = ()) -> Trace:
    """Label the whole program. `ignore` holds name patterns of parameters never to touch."""
    ledger = Ledger()
    state = _label_state(program, ledger, ignore)
    results: dict[Node, Any] = {}
    calls: dict[Node, Call] = {}
    for node in program.module.graph.nodes:
        ledger.node = node
        if node.op == "get_attr":
            results[node] = state.get(str(node.target))
        elif node.op == "placeholder":
            results[node] = _unlabelled(node)
        elif node.op == "output":
            for value in results_of(_look_up(node.args, results)):
                for array in value.arrays:
                    ledger.freeze(array, "program output")
        elif node.target is operator.getitem:
            results[node] = results[node.args[0]][node.args[1]]
        elif isinstance(node.target, torch._ops.OpOverload) and _gives_tensors(node):
            call = Call(node, _bind(node, results))
            calls[node] = call
            results[node] = row_of(node).label(ledger, call)
            _note_grids(ledger, results[node])
        elif node.op == "call_function" and _gives_tensors(node):
            results[node] = _opaque(ledger, node, results)
        else:
            results[node] = _number(node)
    return Trace(program, state, results, calls, ledger)


def _label_state(program: Program, ledger: Ledger, ignore: Sequence[str]) -> dict[str, Value]:
    """Labels of every tensor the graph reads; a tensor with two names is labelled once."""
    layout = _convolution_weights(program)
    state: dict[str, Value] = {}
    seen: dict[tuple[Any, ...], Value] = {}
    for name, tensor in program.tensors().items():
        key = (*place(tensor), tuple(tensor.shape), tensor.stride())
        if key not in seen or not tensor.numel():
            seen[key] = _label_tensor(ledger, tensor, layout.get(name))
        state[name] = seen[key]
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore):
            for array in state[name].arrays:
                ledger.freeze(array, "ignored by the user")
    return state


def _label_tensor(ledger: Ledger, tensor: Tensor, groups: int | None) -> Value:
    """`groups` is set for the weight of a convolution: its kernel axes carry no channels, and
    axis 1 of a grouped one has labels of its own in every group (they may differ)."""
    shape = tuple(tensor.shape)
    if not tensor.is_floating_point():  # indices and flags: their values are positions
        return Value(shape)
    arrays = []
    for axis, size in enumerate(shape):
        if size < 2 or (groups is not None and axis > 1):
            continue
        if groups is not None and groups > 1 and axis == 1:
            block = ledger.fresh([groups, size]).repeat_interleave(shape[0] // groups, 0)
            arrays.append(block.reshape([*block.shape, *[1] * (len(shape) - 2)]))
        else:
            arrays.append(ledger.fresh([size if a == axis else 1 for a in range(len(shape))]))
    return Value(shape, tuple(arrays))


def _convolution_weights(program: Program) -> dict[str, int]:
    """Weights that only convolutions read, with their number of groups."""
    found: dict[str, int] = {}
    for node in program.module.graph.nodes:
        if node.op != "get_attr" or not node.users:
            continue
        groups = {_groups(user, node) for user in node.users}
        if len(groups) == 1 and (count := groups.pop()) is not None:
            found[str(node.target)] = count
    return found


def _groups(user: Node, weight: Node) -> int | None:
    if row_of(user).label is not convolution or user.args[1] is not weight:
        return None
    given = by_name(user).get("groups", 1)
    return given if isinstance(given, int) else None


def _bind(node: Node, results: dict[Node, Any]) -> dict[str, Any]:
    """Arguments by schema name, with tensors as Values and symbolic sizes as numbers."""
    assert isinstance(node.target, torch._ops.OpOverload)
    given: dict[str, Any] = {}
    for index, argument in enumerate(node.target._schema.arguments):
        if index < len(node.args):
            raw = node.args[index]
        elif argument.name in node.kwargs:
            raw = node.kwargs[argument.name]
        else:
            raw = argument.default_value
        given[argument.name] = _look_up(raw, results)
    return given


def _look_up(raw: Any, results: dict[Node, Any]) -> Any:
    if isinstance(raw, Node):
        return results[raw]
    if isinstance(raw, list | tuple):
        return [_look_up(member, results) for member in raw]
    if isinstance(raw, dict):
        return {key: _look_up(member, results) for key, member in raw.items()}
    return raw


def results_of(found: Any) -> list[Value]:
    """The Values in whatever a node gives or takes."""
    if isinstance(found, Value):
        return [found]
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list | tuple):
        return [value for member in found for value in results_of(member)]
    return []


def _unlabelled(node: Node) -> Any:
    val = node.meta.get("val")
    return Value(shape_of(node)) if isinstance(val, Tensor) else _number(node)


def _opaque(ledger: Ledger, node: Node, results: dict[Node, Any]) -> Any:
    """What runs a graph of its own (`torch.cond`): all that goes in keeps its size."""
    for value in results_of(_look_up(node.args, results)):
        for array in value.arrays:
            ledger.freeze(array, f"no coupling rule for {operator_name(node)}")
    val = node.meta["val"]
    shapes = [tuple(hint(size) for size in one.shape) for one in pytree.tree_leaves(val)]
    values = [Value(shape) for shape in shapes]
    return values if isinstance(val, list | tuple) else values[0]


def _gives_tensors(node: Node) -> bool:
    val = node.meta.get("val")
    members = val if isinstance(val, list | tuple) else [val]
    return any(isinstance(member, Tensor) for member in members)


def _number(node: Node) -> Any:
    val = node.meta.get("val")
    if isinstance(val, torch.SymInt):
        return hint(val)
    if isinstance(val, torch.SymFloat | torch.SymBool):
        return val.node.hint
    return val


def _note_grids(ledger: Ledger, result: Any) -> None:
    for value in results_of(result):
        for array in value.arrays:
            if len(varying(array)) > 1:
                ledger.grids.append((array, ledger.node))
