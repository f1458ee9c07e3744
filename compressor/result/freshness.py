"""The module of a build as it is now, beside what it was when it was built.

    the user trains `built.module` in place        other values: what was made of them is made anew
    moves it, casts it, swaps a layer, adds one    another network: refused, in words

Everything that a release says of the weights is keyed on a digest of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from compressor.base.messages import kind_of, listed
from compressor.loading import check_finite
from compressor.passes.base.errors import UsageError
from compressor.passes.ir.program import Program, fetch
from compressor.result.build_cache import digest

Kind = tuple[tuple[int, ...], torch.dtype, torch.device]
"""Sizes, type and place of a tensor."""

_ANOTHER = "a network that is made otherwise needs a build of its own: compress(...)"
_MERGE = "merge adapters and parametrisations into the weights that the build has"


@dataclass(frozen=True)
class Snapshot:
    """What a network was when it was made: its calls, its tensors by kind, and all their values."""

    calls: str
    kinds: Mapping[str, Kind]
    digest: str

    @classmethod
    def of(cls, program: Program) -> "Snapshot":
        """As it is now."""
        return cls(_calls(program), _kinds(program), _values(program))

    def now(self, program: Program) -> str:
        """The digest of its present values.

        Raises UsageError where it is no longer the network that was made.
        """
        self._check_kinds(program)
        if _calls(program) != self.calls:
            raise UsageError("the graph of the built module was changed", hint=_ANOTHER)
        return _values(program)

    def holds(self, program: Program) -> bool:
        """Whether a network is still what it was, to the last number."""
        return _kinds(program) == self.kinds and _values(program) == self.digest

    def check_ready(self, program: Program, now: str) -> None:
        """Raise UsageError where the network is not in a state to be exported."""
        if any(part.training for part in program.module.modules() if _is_graph(part)):
            raise UsageError(
                "the built module is in training mode",
                why="batch norm and dropout compute something else there than when it is deployed",
                hint="call built.module.eval() when it is trained",
            )
        if now != self.digest:
            check_finite(program.module)

    def _check_kinds(self, program: Program) -> None:
        present = _kinds(program)
        if missing := [name for name in self.kinds if name not in present]:
            raise UsageError(
                f"the built module has no tensor {listed(missing)} any more", hint=_MERGE
            )
        if more := [name for name in present if name not in self.kinds]:
            raise UsageError(
                f"the built module has tensors that its network did not have: {listed(more)}",
                hint=_MERGE,
            )
        for name, was in self.kinds.items():
            if present[name] != was:
                raise _other_kind(name, was, present[name])
        for alias, name in program.aliases.items():
            one, other = fetch(program.module, alias), fetch(program.module, name)
            if one is not other and not torch.equal(one, other):
                raise UsageError(
                    f"{alias} and {name} were one tensor, and differ now",
                    hint="give both the same values, or train them as the one that they were",
                )


def _other_kind(name: str, was: Kind, now: Kind) -> UsageError:
    hint = _ANOTHER
    if was[0] == now[0] and was[1] != now[1]:
        hint = f"built.module.to({was[1]}) before it is saved"
    elif was[0] == now[0]:
        hint = f"built.module.to('{was[2]}') before it is saved"
    return UsageError(
        f"{name} of the built module is another kind of tensor now",
        why=f"it was {_said(was)}, and is {_said(now)}",
        hint=hint,
    )


def _said(kind: Kind) -> str:
    sizes, dtype, device = kind
    return f"{list(sizes)} of {str(dtype).removeprefix('torch.')} on {device}"


def _calls(program: Program) -> str:
    """A digest of the graph, whatever mode it is in."""
    return digest(
        [
            (node.op, str(node.target), node.name, [one.name for one in node.all_input_nodes])
            + (() if node.meta.get("follows_mode") else (repr(node.args), repr(node.kwargs)))
            for node in program.module.graph.nodes
        ]
    )


def _values(program: Program) -> str:
    """A digest of every number, by name."""
    tensors = dict(sorted(_tensors(program).items()))
    return digest(list(tensors), list(tensors.values()))


def _kinds(program: Program) -> dict[str, Kind]:
    return {
        name: (tuple(one.shape), one.dtype, one.device) for name, one in _tensors(program).items()
    }


def _tensors(program: Program) -> dict[str, Tensor]:
    """All that the module stores or the graph reads, by name."""
    found: dict[str, Any] = dict(program.module.state_dict(keep_vars=True))
    for node in program.module.graph.nodes:
        if node.op == "get_attr":
            found[node.target] = _there(program, node.target)
    return {name: one for name, one in found.items() if isinstance(one, Tensor)}


def _there(program: Program, name: str) -> Any:
    """What the module has by that name, or None."""
    try:
        return fetch(program.module, name)
    except AttributeError:
        return None


def _is_graph(part: Any) -> bool:
    return isinstance(part, GraphModule)


def check_in_place(module: Any, returned: Any, changed: bool) -> None:
    """Raise UsageError where a function that trains in place gave back another network instead."""
    other = isinstance(returned, torch.nn.Module) and returned is not module
    if not changed and (other or isinstance(returned, Mapping)):
        raise UsageError(
            f"the function that trains returned {kind_of(returned)}, and left the module as it was",
            why="what it returns is not looked at",
            hint="train the module that it is given, in place: module.load_state_dict(...)",
        )
