"""Outputs that are steps of numbers: flags, classes, counts, rounded numbers.

    y = conv(x)      the last numbers before the output
    m = y > 0        a step: it shows little of y, and where y is near 0 rounding decides

So the last numbers are compared as well, and an entry may flip where rounding them flips it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.nn import Parameter
from torch.utils import _pytree as pytree

from ..ir.compare import LEAST
from ..ir.leaves import fresh
from ..operators import row_of

DRAWS = 16
"""Ways of rounding that are tried: up, down, and at random."""


def output_nodes(module: GraphModule) -> list[Any]:
    """What the graph gives: nodes, or literals, one for each leaf."""
    output = next(node for node in module.graph.nodes if node.op == "output")
    leaves: list[Any] = pytree.tree_leaves(output.args[0])
    return leaves


def output_names(module: GraphModule) -> list[str]:
    """How the user would call each leaf of the result."""
    count = len(output_nodes(module))
    spec = getattr(module, "_out_spec", None)
    if spec is None or spec.num_leaves != count:
        return [f"output {place}" for place in range(count)] if count > 1 else ["output"]
    tree = pytree.tree_unflatten(range(count), spec)
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(tree)[0]]
    return [f"output{path}" for path in paths]


def sources(module: GraphModule, leaves: Sequence[Any]) -> list[tuple[str, ...]]:
    """For each output leaf that is a step: the names of the last numbers before it; else nothing.

    `leaves` are inputs to run on: what is a number shows then.
    """
    kinds = _Kinds(module)
    with torch.no_grad():
        kinds.run(*leaves, enable_io_processing=False)
    found = []
    for node in output_nodes(module):
        is_step = isinstance(node, Node) and node in kinds.steps
        found.append(kinds.before(node) if is_step else ())
    return found


class _Careful(Interpreter):
    """Leaves the buffers of the network as they are: some count their calls."""

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        own = super().get_attr(target, args, kwargs)
        return own.clone() if isinstance(own, Tensor) and not isinstance(own, Parameter) else own


class _Kinds(_Careful):
    """Notes which results are numbers, and which are steps of some."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.numbers: set[Node] = set()
        self.steps: set[Node] = set()

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and n.op == "call_function":
            (self.steps if self._is_step(n, result) else self.numbers).add(n)
        return result

    def _is_step(self, n: Node, result: Tensor) -> bool:
        if not (result.is_floating_point() or result.is_complex()):
            return True
        if row_of(n).steps:
            return True
        given = [one for one in n.all_input_nodes if one.op != "get_attr" or self._floats(one)]
        return bool(given) and all(one in self.steps and self._stems(one) for one in given)

    def _floats(self, n: Node) -> bool:
        own = self.env.get(n)
        return isinstance(own, Tensor) and own.is_floating_point() and own.dim() > 0

    def _stems(self, n: Node) -> bool:
        return bool(self.before(n))

    def before(self, node: Node) -> tuple[str, ...]:
        """The last numbers before a step, in the order of the graph's names."""
        found: dict[str, None] = {}
        todo, seen = [node], {node}
        while todo:
            for one in todo.pop().all_input_nodes:
                if one in self.numbers:
                    found[one.name] = None
                elif one not in seen and one.op == "call_function":
                    seen.add(one)
                    todo.append(one)
        return tuple(found)


def loose(
    module: GraphModule, leaves: Sequence[Any], before: Sequence[str], limit: float
) -> list[Tensor | None]:
    """Per output leaf, the entries that change where the numbers of `before` are rounded.

    They move by `limit` of the largest number of their slices along axis 1 and the last. None for
    leaves that are no tensors.
    """
    with torch.no_grad():
        base = _leaves(module, leaves, {})
        flips = [torch.zeros(one.shape, dtype=torch.bool) if isinstance(one, Tensor) else None
                 for one in base]  # fmt: skip
        random = torch.Generator().manual_seed(0)
        for draw in range(DRAWS):
            amounts = dict.fromkeys(before, (random, draw, limit))
            for known, one, first in zip(
                flips, _leaves(module, leaves, amounts), base, strict=True
            ):
                if known is not None and one.shape == first.shape:
                    known |= (one != first).cpu()
    return flips


def _leaves(
    module: GraphModule, leaves: Sequence[Any], amounts: Mapping[str, tuple[Any, int, float]]
) -> list[Any]:
    result = _Rounded(module, amounts).run(*fresh(leaves), enable_io_processing=False)
    found: list[Any] = pytree.tree_leaves(result)
    return found


class _Rounded(_Careful):
    """Runs the graph with some results moved a little."""

    def __init__(
        self, module: GraphModule, amounts: Mapping[str, tuple[torch.Generator, int, float]]
    ) -> None:
        super().__init__(module)
        self._amounts = amounts

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n.name not in self._amounts or not isinstance(result, Tensor):
            return result
        random, draw, limit = self._amounts[n.name]
        signs = torch.randint(0, 2, result.shape, generator=random) * 2 - 1
        signs = {0: torch.ones_like(signs), 1: -torch.ones_like(signs)}.get(draw, signs)
        return result + limit * _scale(result) * signs.to(result)


def _scale(numbers: Tensor) -> Tensor:
    """The largest number of the smaller of an entry's slices."""
    size = torch.nan_to_num(numbers.abs(), nan=0.0, posinf=0.0, neginf=0.0)
    if not size.numel():
        return size
    scale = size.amax().expand(size.shape)
    for axis in {1, size.dim() - 1} if size.dim() > 1 else ():
        rest = [other for other in range(size.dim()) if other != axis]
        scale = torch.minimum(scale, size.amax(rest, keepdim=True))
    return scale + LEAST * size.amax()
