"""Sizes and types of every value, by running the graph on tensors that hold no numbers.

    infer(module)     after a surgery: every node gets the size that its result has now
    check(program)    at every border between passes: all is written down, and is what comes out

Sizes that are free stay symbols: the inputs' own, as they were captured.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import snapshot_fake
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree

from .errors import ContractError
from .program import Program, fetch, hint, operator_name, where
from .quiet import quiet

Sized = tuple[tuple[int, ...], torch.dtype]
"""Sizes at the example inputs, and the type of the elements."""


def infer(module: GraphModule) -> None:
    """Write the result of every node into its ``meta["val"]``, as a tensor without numbers.

    Inputs keep theirs. Raises ContractError, which names the operator and the user's line, where a
    call does not fit what it is given.
    """
    with quiet("torch._subclasses.fake_tensor"):
        for node, value in _run(module):
            if node.op != "output":
                node.meta["val"] = value


def check(program: Program) -> None:
    """Raise ContractError, which names the node, unless the program is closed: every tensor that
    its graph reads is there, every value has a size and a type, and these are what the calls give.
    """
    module = program.module
    for node in module.graph.nodes:
        if node.op == "get_attr":
            _fetched(module, node)
        elif node.op != "output" and "val" not in node.meta:
            raise ContractError(f"{operator_name(node)} at {where(node)} has no shape")
    module.graph.lint()
    with quiet("torch._subclasses.fake_tensor"):
        for node, value in _run(module):
            _compare(node, value)


def _compare(node: Node, value: Any) -> None:
    wanted, found = _sized(value), _sized(node.meta.get("val"))
    if node.op not in ("output", "get_attr") and wanted != found:
        raise ContractError(
            f"{operator_name(node)} at {where(node)} is said to be {_words(found)}, "
            f"and is {_words(wanted)}"
        )


def _fetched(module: GraphModule, node: Node) -> None:
    try:
        fetch(module, str(node.target))
    except AttributeError as error:
        raise ContractError(f"{node.target}, which the graph reads, is not there") from error


def _words(sized: list[Sized]) -> str:
    return ", ".join(f"{str(dtype)[6:]}{list(shape)}" for shape, dtype in sized) or "nothing"


def _sized(value: Any) -> list[Sized]:
    return [
        (tuple(map(hint, leaf.shape)), leaf.dtype)
        for leaf in pytree.tree_leaves(value)
        if isinstance(leaf, Tensor)
    ]


def _run(module: GraphModule) -> Iterator[tuple[Node, Any]]:
    """Every node with its result, in the order in which they run."""
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    run = _Numberless(module, _mode_of(inputs))
    run.args_iter = iter([run.own(node.meta.get("val")) for node in inputs])
    for node in module.graph.nodes:
        yield node, run.step(node)


def _mode_of(inputs: list[Node]) -> FakeTensorMode:
    """The mode that the inputs were captured in, if it knows symbols: theirs, and sizes that only
    the data have."""
    for node in inputs:
        for leaf in pytree.tree_leaves(node.meta.get("val")):
            if isinstance(leaf, FakeTensor) and leaf.fake_mode.shape_env is not None:
                return leaf.fake_mode
    return FakeTensorMode(shape_env=ShapeEnv())


class _Numberless(Interpreter):
    """The graph on fake tensors, one node at a time."""

    def __init__(self, module: GraphModule, mode: FakeTensorMode) -> None:
        super().__init__(module)
        self._mode = mode

    def own(self, given: Any) -> Any:
        """An input in the mode of this run: each of a graph that was not exported has its own."""
        if not isinstance(given, FakeTensor) or given.fake_mode is self._mode:
            return given
        with self._mode:
            return torch.empty_strided(
                given.shape, given.stride(), dtype=given.dtype, device=given.device
            )

    def step(self, node: Node) -> Any:
        symbols = self._mode.shape_env
        unseen = nullcontext() if symbols is None else symbols.ignore_fresh_unbacked_symbols()
        try:
            with self._mode, enable_python_dispatcher(), unseen, torch.no_grad():
                found = self.run_node(node)
        except Exception as error:  # whatever the operator says of sizes that do not fit
            raise ContractError(
                f"{operator_name(node)} at {where(node)} does not fit what it is given: "
                f"{str(error).strip().splitlines()[0][:200]}"
            ) from error
        self.env[node] = found
        for done in self.user_to_last_uses.get(node, []):
            self.env.pop(done, None)
        return pytree.tree_map_only(FakeTensor, snapshot_fake, found)

    def fetch_attr(self, target: str) -> Any:
        found = fetch(self.module, target)
        if isinstance(found, Tensor) and not isinstance(found, FakeTensor):
            return self._mode.from_tensor(found, static_shapes=True)
        return found
