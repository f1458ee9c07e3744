"""A shrunk network as a module: called like the original, and trainable.

An exported graph has eval mode burnt into the arguments of batch norm and dropout, and its
`train()` raises. `Shrunk` flips those arguments instead.
"""

from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node

_MODE_ARGUMENTS = {"training", "train"}
"""What schemas of operators that follow train mode call it: norms, dropout, recurrent layers."""


class Shrunk(GraphModule):
    """A flat graph whose `train()` and `eval()` switch batch norm and dropout."""

    def train(self, mode: bool = True) -> "Shrunk":
        """Switch to training (or, with False, evaluation) mode."""
        if _switch(self.graph, mode):
            self.recompile()
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self) -> "Shrunk":
        """Switch to evaluation mode."""
        return self.train(False)


def follow_mode(graph: Graph) -> None:
    """Mark the calls that eval mode switched off, so that `train()` switches them; once.

    What is on in eval mode too (``F.dropout(x)``, a weight standardised by its own statistics) was
    written so, and stays.
    """
    for node in graph.nodes:
        mode = None if "follows_mode" in node.meta else trains(node)
        if mode is not None:
            node.meta["follows_mode"] = mode is False


def trains(node: Node) -> object:
    """What a call is told of training; None where it is told nothing."""
    place = _mode_argument(node)
    return None if place is None else _given(node, *place)


def _switch(graph: Graph, mode: bool) -> bool:
    changed = False
    for node in graph.nodes:
        place = _mode_argument(node) if node.meta.get("follows_mode") else None
        if place is None or _given(node, *place) is mode:
            continue
        index, name = place
        changed = True
        if index < len(node.args):
            node.args = (*node.args[:index], mode, *node.args[index + 1 :])
        else:
            node.kwargs = {**node.kwargs, name: mode}
    return changed


def _mode_argument(node: Node) -> tuple[int, str] | None:
    """Where a call is told whether it trains: position and name."""
    if not isinstance(node.target, OpOverload):
        return None
    named = enumerate(argument.name for argument in node.target._schema.arguments)
    return next(((index, name) for index, name in named if name in _MODE_ARGUMENTS), None)


def _given(node: Node, index: int, name: str) -> object:
    return node.args[index] if index < len(node.args) else node.kwargs.get(name, False)
