"""A program again with other tensors, or with another graph as well: its ties, the graphs inside
its graph and its modes stay.

    rebuilt(program, state, graph)     what a surgery made
    with_tensors(program, tensors)     the same network with other values
    clone(program)                     the same values in tensors of its own
"""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn
from torch.fx import Graph

from .modes import Shrunk, follow_mode
from .program import Program
from .state import attach, copied, tree


def rebuilt(program: Program, state: Mapping[str, Tensor], graph: Graph) -> Program:
    """The program with this graph, which becomes its own, and the tensors that the graph reads."""
    follow_mode(graph)
    module = Shrunk(tree(state, program.parts()), graph)
    for alias, name in program.aliases.items():
        attach(module, alias, state[name])
    module.eval()
    return replace(program, module=module)


def with_tensors(program: Program, tensors: Mapping[str, Tensor]) -> Program:
    """The same network with other values; parameters stay parameters, frozen ones frozen."""
    own: dict[int, Tensor] = {}
    state: dict[str, Tensor] = {}
    for name, old in program.tensors().items():
        if id(old) not in own:
            value = tensors[name].detach().clone()
            parameter = isinstance(old, nn.Parameter)
            own[id(old)] = nn.Parameter(value, old.requires_grad) if parameter else value
        state[name] = own[id(old)]
    return rebuilt(program, state, copied(program.module.graph))


def clone(program: Program) -> Program:
    """The same network with tensors of its own."""
    return with_tensors(program, program.tensors())
