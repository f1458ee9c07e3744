"""A wrong surgery is found out, whatever is wrong with it, and the guilty group is named."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from compressor.passes.coupling.sizes import Sizes
from compressor.passes.transforms import prune
from torch import Tensor, nn
from torch.fx import Node

from compressor import passes
from models._random import normal, seeded
from tests.passes.support import NONE, by_hand, coupled, random_plan, shrunk

aten = torch.ops.aten


def prove(plan: passes.Plan, small: passes.Program, *more: Any) -> passes.Proof:
    return passes.prove(plan, small, [(plan.coupling.program.args, {}), *more])


def call(small: passes.Program, op: Any, place: int = 0) -> Node:
    """The call of an operator, counted from the first."""
    return [node for node in small.calls() if node.target is op][place]


def put(node: Node, **arguments: Any) -> None:
    """Other literal arguments, by the names of the schema."""
    names = [argument.name for argument in node.target._schema.arguments]
    for name, value in arguments.items():
        if names.index(name) < len(node.args):
            node.update_arg(names.index(name), value)
        else:
            node.update_kwarg(name, value)


# ------------------------------------------------------------------------------ planted faults

Damage = Callable[[passes.Program], None]


def tensor(name: str, change: Callable[[Tensor], Tensor]) -> Damage:
    def damage(small: passes.Program) -> None:
        own = small.tensors()[name]
        own.copy_(change(own.clone()))

    return damage


def literal(op: Any, place: int = 0, **arguments: Any) -> Damage:
    return lambda small: put(call(small, op, place), **arguments)


def without(op: Any) -> Damage:
    """A call that was lost."""

    def damage(small: passes.Program) -> None:
        node = call(small, op)
        node.replace_all_uses_with(node.args[0])
        small.module.graph.erase_node(node)

    return damage


def swapped(first: str, second: str) -> Damage:
    def damage(small: passes.Program) -> None:
        a, b = small.tensors()[first], small.tensors()[second]
        kept = a.clone()
        a.copy_(b)
        b.copy_(kept)

    return damage


def other_order(small: passes.Program) -> None:
    node = call(small, aten.cat.default)
    node.update_arg(0, list(reversed(node.args[0])))


def earlier_slice(small: passes.Program) -> None:
    node = next(node for node in small.calls() if node.args[1:2] == (1,))
    put(node, start=node.args[2] - 1, end=node.args[3] - 1)


def tiled_keys(small: passes.Program) -> None:
    """Key heads 0 1 0 1 for query heads 0 1 2 3, where 0 0 1 1 is right."""
    for node in list(small.calls()):
        if node.target is aten.repeat_interleave.self_int:
            node.target, node.args = aten.repeat.default, (node.args[0], [1, 2, 1, 1])
            node.kwargs = {}


def shifted_padding(small: passes.Program) -> None:
    node = call(small, aten.pad.default)
    pad = list(node.args[1])
    pad[-2:] = [pad[-2] + pad[-1], 0]
    node.update_arg(1, pad)


def swapped_halves(weight: Tensor) -> Tensor:
    return torch.cat([weight[len(weight) // 2 :], weight[: len(weight) // 2]])


def swapped_gates(weight: Tensor) -> Tensor:
    """input, forget, cell, output -> forget, input, cell, output"""
    i, f, g, o = weight.chunk(4)
    return torch.cat([f, i, g, o])


def swapped_query_heads(weight: Tensor) -> Tensor:
    """The first two heads of the queries; keys and values stay."""
    q, k, v = weight.chunk(3)
    heads = list(q.unflatten(0, (4, -1)))
    heads[:2] = heads[1], heads[0]
    return torch.cat([*heads, k, v])


def one_off(weight: Tensor) -> Tensor:
    weight.view(-1)[0] += 1e-6
    return weight


@dataclass(frozen=True)
class Fault:
    """What is done to the small version of which network."""

    network: str
    damage: Damage


FAULTS = {
    "filters in another order": Fault("residual", tensor("stem.weight", lambda w: w.roll(1, 0))),
    "filter slices in another order": Fault(
        "residual", tensor("blocks.0.expand.weight", lambda w: w.flip(1))
    ),
    "a bias that belongs to the next filter": Fault(
        "residual", tensor("blocks.0.reduce.bias", lambda b: b.roll(1))
    ),
    "one variance that was not sliced": Fault(
        "residual", tensor("stem_norm.running_var", lambda v: torch.cat([v[:1] * 1.1, v[1:]]))
    ),
    "means of the next channel": Fault(
        "residual", tensor("blocks.1.norm.running_mean", lambda m: m.roll(1))
    ),
    "a norm that lost its scale": Fault(
        "residual", tensor("blocks.0.norm.weight", torch.ones_like)
    ),
    "one weight off by a millionth": Fault("residual", tensor("head.weight", one_off)),
    "another epsilon": Fault("residual", literal(aten.batch_norm.default, 1, eps=1.1e-5)),
    "a lost activation": Fault("residual", without(aten.relu.default)),
    "convolution groups in another order": Fault(
        "grouped", tensor("grouped.weight", swapped_halves)
    ),
    "ragged rows in the order of their neighbour": Fault(
        "grouped", tensor("grouped.weight", lambda w: w.flip(1))
    ),
    "a shuffle by the wrong index": Fault("shuffled", tensor("gather_0", lambda i: i.roll(1))),
    "pieces joined in another order": Fault("slice_from_the_end", other_order),
    "a slice that begins one too early": Fault("slice", earlier_slice),
    "padding on the wrong side": Fault("pad_of_channels", shifted_padding),
    "a row taken by the wrong index": Fault("select_of_a_row", literal(aten.select.int, index=0)),
    "query heads that meet other key heads": Fault(
        "encoder", tensor("qkv.weight", swapped_query_heads)
    ),
    "the scale of the new head size": Fault(
        "encoder", literal(aten.scaled_dot_product_attention.default, scale=None)
    ),
    "the position of the next token": Fault("encoder", tensor("places", lambda p: p.roll(1, 1))),
    "another epsilon in a layer norm": Fault(
        "encoder", literal(aten.layer_norm.default, eps=1.1e-5)
    ),
    "keys repeated in another order": Fault("grouped_query", tiled_keys),
    "attention that sees the future": Fault(
        "grouped_query", literal(aten.scaled_dot_product_attention.default, is_causal=False)
    ),
    "gates in another order": Fault("tagger", tensor("lstm.weight_ih_l0", swapped_gates)),
    "both directions exchanged": Fault(
        "tagger", swapped("lstm.weight_hh_l1", "lstm.weight_hh_l1_reverse")
    ),
    "embedding columns in another order": Fault(
        "tagger", tensor("embed.weight", lambda w: w.flip(1))
    ),
    "a single group of a group norm": Fault(
        "group_norm", literal(aten.group_norm.default, num_groups=1)
    ),
    "slopes of the next channel": Fault("prelu", tensor("op.weight", lambda s: s.roll(1))),
    "a dropout that acts": Fault("dropout", literal(aten.dropout.default, train=True)),
}


def plan_without_rows(coupling: passes.Coupling) -> passes.Plan:
    """The first quarter of every cell goes, at least one; no whole rows."""
    gone = [
        cell[: max(group.size // 4, 1)]
        for group in coupling.groups
        if not group.rows and group.size > 1
        for cell in group.cells
    ]
    return by_hand(coupling, torch.cat(gone))


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name):
    fault = FAULTS[name]
    plan = plan_without_rows(coupled(fault.network))
    small = shrunk(plan)
    assert prove(plan, small).holds
    with torch.no_grad():
        fault.damage(small)
    small.module.graph.lint()
    with pytest.raises(passes.GateError, match="the surgery is wrong") as caught:
        prove(plan, small)
    assert "only the whole plan shows it" in caught.value.where
    assert "report the model" in caught.value.hint
    assert caught.value.exit_code == 5


def test_a_small_network_that_cannot_run_is_a_failed_proof():
    plan = plan_without_rows(coupled("grouped"))
    small = shrunk(plan)
    put(call(small, aten.conv2d.default, 1), groups=1)
    with pytest.raises(passes.GateError):
        prove(plan, small)


# ------------------------------------------------------------------------------ nothing hides


class Silent(nn.Module):
    """Two convolutions side by side in a branch that does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(8, 4, 1)
        self.back, self.last = nn.Conv2d(10, 8, 1), nn.Conv2d(8, 3, 1)
        self.gate = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = torch.relu(torch.cat([self.a(x), self.b(x)], 1))
        return self.last(x + self.gate * self.back(y))


def closed(model: Silent) -> None:
    model.gate.zero_()


def dead(model: Silent) -> None:
    """Units that never fire, whatever the input."""
    model.a.bias.fill_(-1e4)
    model.b.bias.fill_(-1e4)


def tiny(model: Silent) -> None:
    model.gate.fill_(1e-12)


@pytest.mark.parametrize("silence", [closed, dead, tiny])
def test_a_mistake_in_a_branch_that_is_silent_by_itself_is_found(silence):
    model = seeded(Silent, 1)
    with torch.no_grad():
        silence(model)
    coupling = passes.couple(passes.capture(model, (normal(2, 3, 4, 4),), {}))
    plan = plan_without_rows(coupling)
    small = shrunk(plan)
    assert prove(plan, small).holds
    other_order(small)
    with pytest.raises(passes.GateError):
        prove(plan, small)


def test_a_mistake_in_a_small_output_beside_large_ones_is_found():
    model = seeded(Silent, 1)
    with torch.no_grad():
        model.last.weight[0] *= 1e5
    coupling = passes.couple(passes.capture(model, (normal(2, 3, 4, 4),), {}))
    plan = plan_without_rows(coupling)
    small = shrunk(plan)
    assert prove(plan, small).holds
    with torch.no_grad():
        small.tensors()["last.weight"][1] *= 1 + 1e-6
    with pytest.raises(passes.GateError):
        prove(plan, small)


def test_an_output_of_another_type_is_a_failed_proof():
    plan = plan_without_rows(coupled("to_dtype"))
    small = shrunk(plan)
    assert prove(plan, small).holds
    output = next(node for node in small.module.graph.nodes if node.op == "output")
    (result,) = output.all_input_nodes
    with small.module.graph.inserting_before(output):
        half = small.module.graph.call_function(aten.ge.Scalar, (result, 0.0))
    output.replace_input_with(result, half)
    with pytest.raises(passes.GateError):
        prove(plan, small)


def test_a_size_that_only_the_example_has_is_found():
    plan = plan_without_rows(coupled("view"))
    small = shrunk(plan)
    assert prove(plan, small).holds
    view = call(small, aten.view.default)
    put(view, size=[2, *list(view.args[1])[1:]])
    with pytest.raises(passes.GateError):
        prove(plan, small)


# ------------------------------------------------------------------------------ bisection


def broken_where(monkeypatch, broken: Callable[[Tensor, Tensor], bool], coupling, name):
    """A surgery that turns one parameter round, where `broken(whole, cut)`, and no contract."""
    cut = Sizes.cut

    def wrong(self: Sizes, whole: Tensor, value: Any) -> Tensor:
        small = cut(self, whole, value)
        guilty = value is coupling.state[name] and broken(whole, small)
        return small.flip(0) if guilty else small

    monkeypatch.setattr(Sizes, "cut", wrong)
    monkeypatch.setattr(prune, "makes", lambda *given: True)


@pytest.mark.parametrize(
    ("owner", "name", "dims", "guilty"),
    [
        ("residual", "blocks.1.reduce.weight", [0], "blocks.1.reduce.weight[0]"),
        ("residual", "blocks.1.reduce.weight", [1], "stem.weight[0]"),
        ("residual", "blocks.0.expand.weight", [0, 1], "stem.weight[0]; blocks.0.reduce.weight[0]"),
        ("encoder", "up.weight", [0], "up.weight[0]"),
        ("dense", "layer2.weight", [0], "layer2.weight[0]"),
        ("grouped", "expand.weight", [1], "grouped.weight[0]"),
    ],
)
def test_the_smallest_set_of_guilty_groups_is_named(monkeypatch, owner, name, dims, guilty):
    coupling = coupled(owner)
    broken_where(
        monkeypatch,
        lambda whole, cut: all(whole.shape[dim] != cut.shape[dim] for dim in dims),
        coupling,
        name,
    )
    plan = plan_without_rows(coupling)
    with pytest.raises(passes.GateError) as caught:
        prove(plan, shrunk(plan))
    assert caught.value.where == guilty


# ------------------------------------------------------------------------------ what a proof says


def test_a_plan_of_nothing_is_proven_exactly():
    plan = by_hand(coupled("residual"), NONE)
    proof = prove(plan, shrunk(plan))
    assert (proof.max_abs, proof.max_rel, proof.dtype) == (0.0, 0.0, "float64")


def test_every_input_is_looked_at():
    """Words 0 to 13 are in the example, word 19 is not."""
    plan = plan_without_rows(coupled("tagger"))
    small = shrunk(plan)
    with torch.no_grad():
        small.tensors()["embed.weight"][19] += 1
    assert prove(plan, small).holds
    with pytest.raises(passes.GateError):
        prove(plan, small, ((torch.full((2, 7), 19),), {}))


def test_every_output_is_looked_at():
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            x = torch.relu(self.first(x))
            return {"scores": self.a(x), "best": self.b(x).argmax(-1), "big": self.a(x) * 1e6}

    coupling = passes.couple(passes.capture(seeded(Pair, 1), (normal(2, 5),), {}))
    plan = plan_without_rows(coupling)
    small = shrunk(plan)
    assert prove(plan, small).holds
    with torch.no_grad():
        small.tensors()["b.weight"].neg_()  # the other class wins, and only whole numbers show it
    with pytest.raises(passes.GateError):
        prove(plan, small)


def test_norms_whose_statistics_changed_are_named():
    coupling = coupled("encoder")
    stream, inner = (
        next(group for group in coupling.groups if str(axis) in map(str, group.axes))
        for axis in ("places[2]", "up.weight[0]")
    )
    changed, exact = (by_hand(coupling, group.cells[0][:2]) for group in (stream, inner))
    assert [one.split(" ")[0] for one in prove(changed, shrunk(changed)).inexact] == [
        "norm1", "norm2",
    ]  # fmt: skip
    assert prove(exact, shrunk(exact)).inexact == ()


def test_a_network_that_writes_into_its_input_is_proven():
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x.mul_(2)
            return self.last(torch.relu(self.first(x)))

    x = normal(2, 5)
    coupling = passes.couple(passes.capture(seeded(Writing, 1), (x.clone(),), {}))
    plan = random_plan(coupling, seed=1)
    given = x.clone()
    assert passes.prove(plan, shrunk(plan), [((given,), {}), ((given,), {})]).holds
    assert torch.equal(given, x)


@torch.library.custom_op("compressor_tests::single", mutates_args=())
def single(x: Tensor) -> Tensor:
    """An operator for float32 only, as many kernels are."""
    if x.dtype != torch.float32:
        raise NotImplementedError("\"single\" not implemented for 'Double'")
    return x * 2


@single.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_a_network_that_cannot_run_in_float64_is_compared_in_float32_and_says_so():
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.middle = nn.Linear(5, 8), nn.Linear(8, 8)
            self.last = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.ops.compressor_tests.single(torch.relu(self.first(x)))
            return self.last(torch.relu(self.middle(x)))

    coupling = passes.couple(passes.capture(seeded(Single, 1), (normal(2, 5),), {}))
    plan = plan_without_rows(coupling)
    small = shrunk(plan)
    proof = prove(plan, small)
    assert (proof.dtype, proof.tolerance, proof.holds) == ("float32", 1e-4, True)
    with torch.no_grad():
        small.tensors()["last.weight"].mul_(1.001)
    with pytest.raises(passes.GateError):
        prove(plan, small)
