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

from ..base.errors import ContractError
from .dtypes import attach, copied, tree
from .modes import Shrunk, follow_mode
from .program import Program
from .shapes import infer


def rebuilt(program: Program, state: Mapping[str, Tensor], graph: Graph) -> Program:
    """The program with this graph, which becomes its own, and the tensors that the graph reads.

    Raises ContractError where a call does not fit what it is given (`shapes.infer`).
    """
    made = _assembled(program, state, graph)
    infer(made.module)
    return made


def _assembled(program: Program, state: Mapping[str, Tensor], graph: Graph) -> Program:
    follow_mode(graph)
    module = Shrunk(tree(state, program.parts()), graph)
    for alias, name in program.aliases.items():
        attach(module, alias, state[name])
    module.eval()
    return replace(program, module=module)


def with_tensors(program: Program, tensors: Mapping[str, Tensor]) -> Program:
    """The same network with other values; parameters stay parameters, frozen ones frozen.

    Raises ContractError for values of another form: the sizes in the graph are those of the old.
    """
    own: dict[int, Tensor] = {}
    state: dict[str, Tensor] = {}
    for name, old in program.tensors().items():
        if id(old) not in own:
            value = tensors[name].detach().clone()
            if (value.shape, value.dtype) != (old.shape, old.dtype):
                form = f"{str(value.dtype)[6:]}{list(value.shape)}"
                raise ContractError(f"{name} is to be {form}, and has another form in the program")
            parameter = isinstance(old, nn.Parameter)
            own[id(old)] = nn.Parameter(value, old.requires_grad) if parameter else value
        state[name] = own[id(old)]
    return _assembled(program, state, copied(program.module.graph))


def clone(program: Program) -> Program:
    """The same network with tensors of its own."""
    return with_tensors(program, program.tensors())
