"""Sizes and types of every value, by running the graph on tensors that hold no numbers.

    infer(module)      after a surgery: every node gets the size that its result has now
    trimmed(module)    after the capture: slices end where their axis does
    check(module)      at every border between passes: all is written down, and is what comes out

Sizes that are free stay symbols: the inputs' own, as they were captured.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import snapshot_fake
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree

from ..base.errors import ContractError
from ..base.library_logs import quiet
from .nodes import by_name, fetch, hint, operator_name, where

_BOUNDS = {"dim", "start", "end"}
"""Arguments of a call that cuts an axis, and takes bounds outside of it."""
OPEN = 2**63 - 1
"""The end of ``x[3:]``."""

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


def check(module: GraphModule) -> None:
    """Raise ContractError, which names the node, unless the graph is closed: every tensor that it
    reads is there, every value has a size and a type, these are what the calls give, and literals
    fit what they are applied to.
    """
    for node in module.graph.nodes:
        if node.op == "get_attr":
            _fetched(module, node)
        elif node.op != "output" and "val" not in node.meta:
            raise ContractError(f"{operator_name(node)} at {where(node)} has no shape")
    module.graph.lint()
    with quiet("torch._subclasses.fake_tensor"):
        for node, value in _run(module):
            _compare(node, value)
            for name, bound in _past_the_axis(node).items():
                raise ContractError(
                    f"{operator_name(node)} at {where(node)} has a stale literal: {name} is "
                    f"{by_name(node)[name]}, and the axis ends at {bound}"
                )


def trimmed(module: GraphModule) -> None:
    """Write slices that reach past their axis (``x[:, :1000]``) as what they take, so that a bound
    which no longer fits tells of a surgery that forgot it."""
    for node in module.graph.nodes:
        for name, bound in _past_the_axis(node).items():
            place = [one.name for one in node.target._schema.arguments].index(name)
            node.update_arg(place, bound)


def _past_the_axis(node: Node) -> dict[str, int]:
    """Bounds of a slice outside of an axis of known size, and where they cut: torch takes both."""
    op = node.target
    if not isinstance(op, OpOverload) or not {one.name for one in op._schema.arguments} >= _BOUNDS:
        return {}
    given, source = by_name(node), node.all_input_nodes[0]
    owner: Any = node.graph.owning_module
    known = fetch(owner, str(source.target)) if source.op == "get_attr" else source.meta["val"]
    size = known.shape[given.get("dim", 0)]
    return {
        name: size if bound > 0 else 0
        for name in ("start", "end")
        if isinstance(bound := given.get(name), int) and isinstance(size, int) and bound != OPEN
        if not -size <= bound <= size
    }


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
