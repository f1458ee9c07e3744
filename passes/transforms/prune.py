"""The surgery: cut every tensor, recompute every literal, and put selections where order changed.

    parameter     what stays of it, in the original order
    view, split   the sizes that the results now have
    groups        as many as still have a channel
    shuffle       one index_select (see coupling/permutations.py)

The user's code is never run again, so numbers written in its `forward` do no harm.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

from ..base.errors import ContractError, UsageError
from ..base.threads import one_thread
from ..coupling.groups import Coupling, check_rectangles, couple
from ..coupling.kept_indices import makes
from ..coupling.permutations import Gather
from ..coupling.propagate import results_of
from ..coupling.sizes import Sizes
from ..importance.obs_curves import Curve
from ..ir.dtypes import copied
from ..ir.fake_weights import require_values
from ..ir.labels import Value
from ..ir.log import Entry
from ..ir.pass_base import PassResult, Site, apply
from ..ir.program import Program, by_name, fetch
from ..ir.rebuild import rebuilt
from ..operators import Resizing, rule_for
from ..planning.budget import Budget
from ..planning.choice import Plan

aten = torch.ops.aten

_KEPT = ("nn_module_stack", "stack_trace", "follows_mode")
"""What is still true of a node after the surgery."""


@dataclass(frozen=True)
class Shrink:
    """Rebuild the program without the channels of the plan.

    1. parameters and buffers keep what stays of them
    2. literal arguments follow their results
    3. reordered axes are selected by index
    """

    plan: Plan
    curves: Sequence[Curve] | None = None
    name: ClassVar[str] = "prune"
    version: ClassVar[int] = 1

    def sites(self, program: Program) -> Sequence[Site]:
        """Every group, with what its channels cost where that was measured."""
        groups = self.plan.coupling.groups
        curves = [()] * len(groups) if self.curves is None else [c.losses for c in self.curves]
        return [
            Site(group.name, group.size - 1, tuple(losses))
            for group, losses in zip(groups, curves, strict=True)
        ]

    def requires(self, before: Program) -> None:
        if before is not self.plan.coupling.program:
            raise ContractError("the plan was made for another program")
        require_values(before.tensors().values(), "cutting a network")

    @one_thread()
    def run(self, before: Program) -> PassResult:
        coupling = self.plan.coupling
        sizes = self.plan.sizes
        check_rectangles(coupling, sizes)
        state, changes = _cut_state(coupling, sizes)
        graph = copied(before.module.graph)
        twins = _twins(before.module.graph, graph)
        selected = {node for g in coupling.gathers for node in (*g.inside, g.exit)}
        for node, twin in twins.items():
            if node not in selected:
                _resize(coupling, sizes, node, twin)
        for gather in coupling.gathers:
            changes += _select(coupling, sizes, gather, twins, state)
        for twin in graph.nodes:  # shapes of the capture no longer hold, but those of the inputs
            kept = _KEPT if twin.op != "placeholder" else (*_KEPT, "val")
            twin.meta = {key: value for key, value in twin.meta.items() if key in kept}
        graph.lint()
        return PassResult(rebuilt(before, state, graph), tuple(changes))

    def metadata(self, result: PassResult) -> Mapping[str, Any]:
        """Kept indices by the names of the user's state dict, and the channels that go."""
        channels = self.plan.channels.tolist()
        return facts(self.plan) | {"channels": channels, "unit": self.plan.unit}

    @classmethod
    def again(cls, entry: Entry, program: Program) -> Program:
        """The same channels go, and every tensor keeps the same indices."""
        coupling = couple(program, _words(entry, "ignore"))
        unread = Budget(channels=0.5)
        plan = Plan(coupling, unread, _channels(entry))
        if plan.kept != entry.metadata["kept"]:
            raise ValueError("the channels are others there")
        return apply(cls(plan), program).program

    def ensures(self, before: Program, after: Program) -> None:
        coupling = self.plan.coupling
        sizes = self.plan.sizes
        kept = self.plan.kept
        old, new = before.tensors(), after.tensors()
        for name in old.keys() & new.keys():
            whole, small = old[name], new[name]
            if tuple(small.shape) != sizes.shape(coupling.state[name]):
                raise ContractError(f"{name} has {tuple(small.shape)} after the surgery")
            if small.shape != whole.shape and not whole.is_floating_point():
                raise ContractError(f"{name} holds no weights, and was cut")
            if not makes(whole.detach(), kept.get(name, []), small.detach()):
                raise ContractError(f"{name} is not what its kept indices say")
            if _role(small) != _role(whole):
                raise ContractError(f"{name} is {_role(small)}, but was {_role(whole)}")
        _still_tied(before, after)
        _cut_where_they_were(coupling, sizes)


def facts(plan: Plan) -> dict[str, Any]:
    """What cuts a checkpoint by a plan, as plain values: kept indices and sizes of the original by
    name, which of them are buffers, and the other names of tied tensors."""
    program, kept = plan.coupling.program, plan.kept
    tensors, tied = program.tensors(), program.aliases
    own = {name: tensors[tied.get(name, name)] for name in kept}
    return {
        "kept": kept,
        "shapes": {name: list(tensor.shape) for name, tensor in own.items()},
        "buffers": sorted(n for n, one in own.items() if not isinstance(one, nn.Parameter)),
        "tied": {alias: name for alias, name in tied.items() if alias in kept},
    }


def _channels(entry: Entry) -> Tensor:
    """The channels that go, int64."""
    found = entry.metadata.get("channels")
    if not isinstance(found, list) or not all(type(n) is int and 0 <= n < 1 << 63 for n in found):
        raise UsageError("the log does not say which channels go", where=f"the pass {entry.name}")
    return torch.tensor(found, dtype=torch.int64)


def _words(entry: Entry, option: str) -> tuple[str, ...]:
    found = entry.options.get(option, ())
    if not isinstance(found, list | tuple) or not all(isinstance(one, str) for one in found):
        raise UsageError(f"{option} is no list of words", where=f"the pass {entry.name}")
    return tuple(found)


def _role(tensor: Tensor) -> str:
    if not isinstance(tensor, nn.Parameter):
        return "a buffer"
    return "a trained parameter" if tensor.requires_grad else "a frozen parameter"


def _still_tied(before: Program, after: Program) -> None:
    """Raise ContractError unless tensors that were one under several names still are."""
    new: dict[str, Tensor] = after.tensors()
    first: dict[int, str] = {}
    for name, tensor in before.tensors().items():
        twin = first.setdefault(id(tensor), name)
        if name in new and twin in new and new[name] is not new[twin]:
            raise ContractError(f"{name} and {twin} are no longer one tensor")
    for alias, name in before.aliases.items():
        if fetch(after.module, alias) is not new[name]:
            raise ContractError(f"{alias} is no longer {name}")


def _cut_where_they_were(coupling: Coupling, sizes: Sizes) -> None:
    """Raise ContractError where an axis has shrunk that is cut by a size of the inputs.

    Inputs of the sizes that are tried may not reach what is gone, so the proof need not see it.
    Which axis that is, is read off the call and not asked of the rules.
    """
    for node, call in coupling.trace.calls.items():
        raw = by_name(node)
        bounds = [raw.get(name) for name in ("start", "end", "length", "index")]
        if "dim" not in call.given or not any(map(_is_size, bounds)):
            continue
        axis = int(raw.get("dim", 0))
        if sizes.extent(call.x, axis % call.x.rank) != call.x.shape[axis]:
            raise ContractError(f"an axis has shrunk that a size of the inputs cuts at {node}")


def _is_size(raw: Any) -> bool:
    """Whether an argument is computed from the sizes of the inputs."""
    return isinstance(raw, Node) and not isinstance(raw.meta.get("val"), Tensor)


def _cut_state(coupling: Coupling, sizes: Sizes) -> tuple[dict[str, Tensor], list[str]]:
    state: dict[str, Tensor] = {}
    changes = []
    done: dict[int, Tensor] = {}
    for name, tensor in coupling.program.tensors().items():
        key = id(coupling.state[name])
        if key not in done:
            small = sizes.cut(tensor.detach(), coupling.state[name])
            small = small.clone() if small.data_ptr() == tensor.data_ptr() else small
            wrap = isinstance(tensor, nn.Parameter)
            done[key] = nn.Parameter(small, tensor.requires_grad) if wrap else small
        state[name] = done[key]
        if state[name].shape != tensor.shape:
            changes.append(f"{name}: {list(tensor.shape)} -> {list(state[name].shape)}")
    return state, changes


def _twins(old: Graph, new: Graph) -> dict[Node, Node]:
    return dict(zip(old.nodes, new.nodes, strict=True))


def _resize(coupling: Coupling, sizes: Sizes, node: Node, twin: Node) -> None:
    """Write the new literal arguments of one call into its twin in the new graph."""
    call = coupling.trace.calls.get(node)
    rule = rule_for(call.op) if call is not None else None
    if call is None or rule is None or rule.resize is None:
        return
    results = results_of(coupling.trace.results[node])
    if all(sizes.shape(v) == v.shape for v in [*call.values, *results]):
        return
    updates = rule.resize(Resizing(call, results, sizes.extent, sizes.kept))
    raw = by_name(twin)
    target = updates.pop("op", call.op)
    changed = target is not call.op
    for name, value in updates.items():
        old = call.given.get(name)
        if name in raw and value == (list(old) if isinstance(old, list | tuple) else old):
            continue
        raw[name] = _literal(twin, raw.get(name), old, value)
        changed = True
    if changed:
        twin.target = target
        twin.args, twin.kwargs = _arguments(target, raw)


def _arguments(
    op: torch._ops.OpOverload, raw: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments in the order of the schema, up to the last one that is given."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for argument in op._schema.arguments:
        if argument.name not in raw:
            if not argument.kwarg_only:
                args.append(argument.default_value)
        elif argument.kwarg_only:
            kwargs[argument.name] = raw[argument.name]
        else:
            args.append(raw[argument.name])
    return tuple(args), kwargs


def _literal(twin: Node, raw: Any, old: Any, new: Any) -> Any:
    """The new literal; a symbolic size (``batch * heads``) is scaled, or left to be inferred."""
    if not isinstance(new, list):
        return new
    if not isinstance(raw, list | tuple) or len(raw) != len(new):
        return new
    result: list[Any] = []
    for was, before, after in zip(raw, old, new, strict=True):
        if isinstance(was, Node):
            result.append(was if before == after else _scaled(twin, was, before, after))
        else:
            result.append(-1 if was == -1 else int(after))
    return result


def _scaled(twin: Node, size: Node, before: int, after: int) -> Node:
    graph = twin.graph
    ratio = torch.tensor([after, before])
    common = int(torch.gcd(ratio[0], ratio[1]))
    with graph.inserting_before(twin):
        many = graph.call_function(operator.mul, (size, after // common))
        return graph.call_function(operator.floordiv, (many, before // common))


def _select(
    coupling: Coupling,
    sizes: Sizes,
    gather: Gather,
    twins: dict[Node, Node],
    state: dict[str, Tensor],
) -> list[str]:
    """Replace a region that reorders an axis by one index_select, if channels of it went."""
    start, end = coupling.trace.results[gather.entry], coupling.trace.results[gather.exit]
    assert isinstance(start, Value)
    assert isinstance(end, Value)
    before, after = sizes.kept(start, gather.axis), sizes.kept(end, gather.axis)
    if bool(before.all()):
        return []
    place = before.cumsum(0) - 1
    index = place[gather.source[after]]
    name = f"gather_{len([key for key in state if key.startswith('gather_')])}"
    state[name] = index
    exit_, entry = twins[gather.exit], twins[gather.entry]
    with exit_.graph.inserting_before(exit_):
        constant = exit_.graph.get_attr(name)
        selected = exit_.graph.call_function(
            aten.index_select.default, (entry, gather.axis, constant)
        )
    exit_.replace_all_uses_with(selected)
    for node in [gather.exit, *reversed(gather.inside)]:
        if not twins[node].users:
            exit_.graph.erase_node(twins[node])
    twins[gather.exit] = selected  # another region may begin here
    return [f"{gather.exit}: channels selected by index"]
