"""A shrunk network as a module: called like the original, and trainable.

An exported graph has eval mode burnt into the arguments of batch norm and dropout, and its
`train()` raises. `Shrunk` flips those arguments instead.
"""

from torch._ops import OpOverload
from torch.fx import Graph, GraphModule

_MODE_ARGUMENTS = {"training", "train"}
_SWITCHED = {"batch_norm", "dropout", "feature_dropout", "alpha_dropout", "lstm", "gru",
             "rnn_tanh", "rnn_relu", "rrelu"}  # fmt: skip


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


def _switch(graph: Graph, mode: bool) -> bool:
    changed = False
    for node in graph.nodes:
        if not isinstance(node.target, OpOverload):
            continue
        schema = node.target._schema
        if schema.name.removeprefix("aten::").rstrip("_") not in _SWITCHED:
            continue
        for place, argument in enumerate(schema.arguments):
            if argument.name not in _MODE_ARGUMENTS:
                continue
            if place < len(node.args):
                args = list(node.args)
                changed |= args[place] is not mode
                args[place] = mode
                node.args = tuple(args)
            elif node.kwargs.get(argument.name) is not mode:
                node.kwargs = {**node.kwargs, argument.name: mode}
                changed = True
    return changed
