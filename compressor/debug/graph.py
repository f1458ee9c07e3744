"""A captured network, cut down: fewer operators that still do what is looked for.

    net = Net.of(program)                 every operator, with the values it gave
    reduced(net, fails, most=60)          the smallest that was found

What is tried: an earlier result as the only output,
a later one as an input, calls replaced by one of their own inputs of the same shape; halves first.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from compressor.passes.base.minimise import runs, smallest
from compressor.passes.ir.dtypes import tree
from compressor.passes.ir.leaves import fresh
from compressor.passes.ir.program import Program


class _Recording(Interpreter):
    """Runs a graph, and keeps what every node gives."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, Any] = {}

    def run_node(self, n: Node) -> Any:
        found = super().run_node(n)
        self.values[n.name] = fresh(found)
        return found


@dataclass(frozen=True, eq=False)
class Net:
    """A part of a network: its results, what is given to it, and the calls that are left out."""

    program: Program
    values: dict[str, Any]
    outputs: tuple[str, ...]
    given: frozenset[str] = frozenset()
    """Calls whose value is an input now."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Calls that are left out, and the node that stands for them."""

    @classmethod
    def of(cls, program: Program) -> "Net":
        """The whole network."""
        noting = _Recording(program.module)
        leaves = pytree.tree_leaves((program.args, dict(program.kwargs)))
        with torch.no_grad():
            noting.run(*fresh(leaves), enable_io_processing=False)
        (end,) = program.module.graph.find_nodes(op="output")
        names = [node.name for node in end.all_input_nodes]
        return cls(program, noting.values, tuple(dict.fromkeys(names)))

    @cached_property
    def _needed(self) -> list[Node]:
        """The nodes that the outputs come from, in the order in which they run."""
        nodes = {node.name: node for node in self.program.module.graph.nodes}
        open_, found = list(self.outputs), set()
        while open_:
            name = self._behind(open_.pop())
            if name not in found:
                found.add(name)
                if name not in self.given:
                    open_ += [one.name for one in nodes[name].all_input_nodes]
        return [node for name, node in nodes.items() if name in found]

    def _behind(self, name: str) -> str:
        while name in self.skipped:
            name = self.skipped[name]
        return name

    @property
    def calls(self) -> list[str]:
        """Calls that run and give a tensor, in their order."""
        return [
            node.name
            for node in self._needed
            if node.op == "call_function"
            and node.name not in self.given
            and isinstance(self.values[node.name], Tensor)
        ]

    @property
    def numbers(self) -> int:
        """How many numbers its weights have."""
        module, _ = self.module()
        return sum(one.numel() for one in module.state_dict().values())

    def alike(self, name: str) -> str:
        """An input of a call that has the shape of its result, or the empty string."""
        node = next(one for one in self.program.module.graph.nodes if one.name == name)
        own = self.values[name]
        for source in node.all_input_nodes:
            value = self.values[source.name]
            same = isinstance(value, Tensor) and source.op != "get_attr"
            if same and (value.shape, value.dtype) == (own.shape, own.dtype):
                return str(source.name)
        return ""

    def module(self) -> tuple[GraphModule, tuple[Tensor, ...]]:
        """The part as a module, and what it is called with."""
        graph, made, inputs = Graph(), {}, []
        for node in self._needed:
            if node.op == "placeholder" or node.name in self.given:
                made[node.name] = graph.placeholder(node.name)
                inputs.append(self.values[node.name])
            else:
                made[node.name] = graph.node_copy(node, lambda one: made[self._behind(one.name)])
        graph.output(tuple(made[self._behind(name)] for name in self.outputs))
        tensors = self.program.tensors()
        read = {str(node.target) for node in self._needed if node.op == "get_attr"}
        state = {name: one for name, one in tensors.items() if name in read}
        parts = {name: one for name, one in self.program.parts().items() if name in read}
        return GraphModule(tree(state, parts), graph), tuple(inputs)

    def store(self, path: Path) -> None:
        """As a file that `--trust` loads; sizes that were the batch stay free where they can."""
        module, inputs = self.module()
        batch = self.program.batch
        free = tuple(
            {0: torch.export.Dim.AUTO} if one.dim() and one.shape[0] == batch else {}
            for one in inputs
        )
        exported = torch.export.export(module.eval(), inputs, dynamic_shapes=free)
        torch.export.save(exported, path)


def reduced(net: Net, fails: Callable[[Net], bool], most: int) -> tuple[Net, int]:
    """The smallest part that was found to fail, and how many were tried."""
    tried, before = 0, None
    while before != len(net.calls) and tried < most:
        before = len(net.calls)
        for cuts in (_ends, _beginnings, _without):
            net, more = smallest(net, partial(_with_calls, cuts), fails, most - tried)
            tried += more
    return net, tried


def _with_calls(cuts: Callable[[Net], Iterator[Net]], net: Net) -> Iterator[Net]:
    return (one for one in cuts(net) if one.calls)


def _ends(net: Net) -> Iterator[Net]:
    """One result instead of all, earlier ones first by halves."""
    calls = net.calls
    if len(net.outputs) > 1:
        yield from (replace(net, outputs=(name,)) for name in net.outputs)
    for at in _halving(len(calls) - 1):
        candidate = replace(net, outputs=(calls[at],))
        if len(candidate.calls) < len(calls):
            yield candidate


def _beginnings(net: Net) -> Iterator[Net]:
    """The first calls are given, many of them first."""
    calls = net.calls
    for at in reversed(list(_halving(len(calls) - 1))):
        yield replace(net, given=net.given | set(calls[: at + 1]))


def _halving(count: int) -> Sequence[int]:
    """Where to cut: the middle, the quarters, and the last one."""
    return sorted({count * part // 4 for part in (1, 2, 3)} | {count - 1} if count > 0 else ())


def _without(net: Net) -> Iterator[Net]:
    """Runs of calls left out, halves first, then single ones; a single one may be given instead."""
    can = {name: source for name in net.calls if (source := net.alike(name))}
    for names in runs(list(can)):
        yield replace(net, skipped=net.skipped | {name: can[name] for name in names})
    for name in net.calls[:-1]:
        yield replace(net, given=net.given | {name})
