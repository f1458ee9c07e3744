"""What a budget means, how it is met, and what is said when it cannot be."""

import itertools
import re
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from compressor.passes import KINDS, Budget, Options, UsageError
from compressor.passes.cost.memory import Memory
from compressor.passes.importance.magnitude import channel_scores
from compressor.passes.importance.obs_curves import Curve
from compressor.passes.importance.ranking import by_curve, by_scores
from compressor.passes.planning.choice import TOLERANCE, UNITS
from compressor.passes.planning.search import Search
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from compressor import passes
from models._random import normal, seeded
from tests.passes.networks import NETWORKS
from tests.passes.support import coupled, random_plan, shrunk


class Wide(nn.Module):
    """A residual network wide enough for budgets to be met closely."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 40, 3, padding=1), nn.BatchNorm2d(40)
        self.inner, self.inner_norm = nn.Conv2d(40, 64, 3, padding=1), nn.BatchNorm2d(64)
        self.outer = nn.Conv2d(64, 40, 1)
        self.second, self.head = nn.Conv2d(40, 48, 3, stride=2), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.outer(F.relu(self.inner_norm(self.inner(x))))
        return self.head(F.relu(self.second(x)).mean((2, 3)))


@cache
def wide() -> passes.Coupling:
    return passes.couple(passes.capture(seeded(Wide, 2), (normal(2, 3, 8, 8),), {}))


def choose(coupling=None, options=None, **budget) -> passes.Plan:
    return passes.choose(coupling or wide(), Budget(**budget), options or Options(round_to=1))


def macs_of(module: nn.Module, x: Tensor) -> float:
    """Multiply-accumulates of one sample, counted by torch while it runs."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        module(x)
    return counter.get_total_flops() / 2 / len(x)


def counted(kind: str, plan: passes.Plan) -> float:
    """The cost of the small network, found without `cost.py`."""
    small = shrunk(plan)  # selections of a shuffle (gather_0) are no part of the network
    own = [small.tensors()[name] for name in plan.coupling.program.tensors()]
    tensors = {id(tensor): tensor for tensor in own}.values()
    if kind == "macs":
        return macs_of(small.module, plan.coupling.program.args[0])
    if kind == "bytes":
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if kind == "params":
        return sum(tensor.numel() for tensor in tensors)
    return sum(kept for _, kept in plan.widths)


# ------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("amount", [0, 0.0, 1, 1.0, 1.5, -0.5, -3, float("nan"), float("inf")])
def test_an_amount_that_means_nothing_is_refused(kind, amount):
    with pytest.raises(UsageError, match="means nothing") as caught:
        Budget(**{kind: amount})
    assert kind in caught.value.what
    assert "0.5 is half" in caught.value.hint


def test_a_budget_names_at_least_one_cost():
    with pytest.raises(UsageError, match="at least one of latency, channels, macs, params, bytes"):
        Budget()


def test_several_budgets_are_all_met():
    plan = choose(macs=0.6, params=0.5, memory=0.9)
    for kind, share in (("macs", 0.6), ("params", 0.5)):
        cost = passes.Costs(wide(), kind)
        assert cost.amount(plan.channels) <= share * cost.dense
    memory = Memory(wide())
    assert memory.amount(plan.channels) <= 0.9 * memory.dense
    nearest = max(passes.Costs(wide(), kind).amount(plan.channels)
                  / passes.Costs(wide(), kind).dense / share
                  for kind, share in (("macs", 0.6), ("params", 0.5)))  # fmt: skip
    assert nearest > 0.9  # and no more goes than one of them asks for


def test_the_budget_that_cannot_be_reached_is_named():
    with pytest.raises(UsageError, match=r"cannot be reached; the least is .* \(\d"):
        choose(macs=0.9, params=0.0001)


def test_an_unknown_criterion_is_refused_with_those_there_are():
    with pytest.raises(
        UsageError, match="unknown criterion 'l3'; one of: activation, auto, bn-scale, "
    ):
        Options(criterion="l3")


@pytest.mark.parametrize("name", ["round_to", "least"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_width_below_one_is_refused(name, value):
    with pytest.raises(UsageError, match=f"{name} must be at least 1, not {value}"):
        Options(**{name: value})


@pytest.mark.parametrize("kind", KINDS)
def test_an_unreachable_budget_names_the_least_value_and_what_is_frozen(kind):
    with pytest.raises(UsageError, match="cannot be reached; the least is") as caught:
        choose(**{kind: 0.0001 if kind != "channels" else 0.01})
    error = caught.value
    assert error.where == "3 groups can shrink, 3 axes are frozen"
    assert "head.weight[0] (10) program output" in error.why
    least = int(re.search(r"the least is ([\d,]+)", error.what)[1].replace(",", ""))
    plan = choose(**{kind: least})  # the value named is reachable indeed
    assert all(kept == 1 for _, kept in plan.widths)


def test_a_budget_that_is_met_already_is_refused():
    with pytest.raises(UsageError, match="is met already"):
        choose(params=10**9)


def test_a_network_of_which_nothing_can_go_says_why():
    with pytest.raises(UsageError, match="no channel of this model can go") as caught:
        choose(coupled("unbind_of_channels"), channels=0.5)
    assert "a single channel is taken out by its index" in caught.value.why


def test_steps_too_coarse_for_a_budget_give_the_nearest_plan_below_it_and_say_so():
    plan = choose(options=Options(round_to=32), params=0.9)
    assert plan.reached < (0.9 - TOLERANCE) * plan.dense
    assert f"({plan.reached / plan.dense:.1%}): a single step is more than 2% of" in plan.note
    assert not choose(params=0.9).note


def test_a_small_network_gets_what_its_steps_allow():
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 3))
    coupling = passes.couple(passes.capture(net.eval(), (torch.randn(2, 3, 8, 8),), {}))
    plan = passes.choose(coupling, Budget(params=0.5), Options(round_to=1))
    assert 0.469 < plan.reached / plan.dense < 0.471
    assert "47.0%" in plan.note


def test_a_share_is_of_the_users_network_and_not_of_what_a_pass_made_of_it():
    dense = passes.Costs(wide(), "macs").dense
    plan = passes.choose(wide(), Budget(macs=0.5), Options(round_to=1), dense={"macs": 1.5 * dense})
    assert plan.dense == 1.5 * dense
    assert (0.5 - TOLERANCE) * plan.dense <= plan.reached <= 0.5 * plan.dense


# ------------------------------------------------------------------------------ budgets


@pytest.mark.parametrize("uniform", [False, True], ids=["global", "uniform"])
@pytest.mark.parametrize("amount", [0.8, 0.5, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_ratio_is_met_from_below_and_closely(kind, amount, uniform):
    plan = choose(options=Options(uniform=uniform, round_to=1), **{kind: amount})
    share = plan.reached / plan.dense
    assert amount - TOLERANCE <= share <= amount
    assert counted(kind, plan) == pytest.approx(plan.reached, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_number_is_met_from_below_and_closely(kind):
    dense = passes.Costs(wide(), kind).dense
    wanted = int(dense * 0.6)
    plan = choose(**{kind: wanted})
    assert wanted - TOLERANCE * dense <= plan.reached <= wanted
    assert counted(kind, plan) == pytest.approx(plan.reached, rel=1e-12)


@pytest.mark.parametrize("kind", ["macs", "params", "bytes"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_cost_is_what_the_small_network_has(name, kind):
    if (name, kind) == ("tagger", "macs"):
        pytest.skip("torch does not count recurrent layers")
    for seed in range(3):
        plan = random_plan(coupled(name), seed)
        amount = passes.Costs(plan.coupling, kind).amount(plan.channels)
        assert counted(kind, plan) == pytest.approx(amount, rel=1e-12)


@pytest.mark.parametrize(
    ("coupling", "criterion", "kind", "amount"),
    [
        *((wide, criterion, "macs", 0.5) for criterion in ("l1", "l2", "random")),
        pytest.param(wide, "bn-scale", "macs", 0.5),
        pytest.param(lambda: coupled("grouped"), "l2", "params", 0.6),
        pytest.param(lambda: coupled("encoder"), "random", "macs", 0.5),
    ],
)
def test_a_budget_that_some_plan_meets_is_met(coupling, criterion, kind, amount):
    costs = passes.Costs(coupling(), kind)
    most, least = amount * costs.dense, (amount - TOLERANCE) * costs.dense
    amounts = (costs.amount(random_plan(coupling(), seed).channels) for seed in range(500))
    assert any(least <= found <= most for found in amounts)
    choose(coupling(), Options(criterion=criterion, round_to=1), **{kind: amount})


@pytest.mark.parametrize("name", NETWORKS)
def test_the_smallest_network_still_has_something_of_everything(name):
    coupling = coupled(name)
    with pytest.raises(UsageError) as caught:
        choose(coupling, params=2)
    least = int(re.search(r"the least is ([\d,]+)", caught.value.what)[1].replace(",", ""))
    plan = choose(coupling, params=least)
    assert all(kept >= 1 for _, kept in plan.widths)
    small = shrunk(plan)
    assert all(tensor.numel() for tensor in small.tensors().values())
    assert passes.prove(plan, small, [(coupling.program.args, {})]).holds


# ------------------------------------------------------------------------------ options


@pytest.mark.parametrize("uniform", [False, True])
def test_kept_widths_are_multiples_of_round_to_or_the_original(uniform):
    plan = choose(options=Options(round_to=8, uniform=uniform), params=0.5)
    assert all(kept % 8 == 0 or kept == group.size for group, kept in plan.widths)
    assert plan.unit == 8


def test_without_round_to_the_largest_block_that_meets_the_budget_is_taken():
    plan = choose(options=Options(), params=0.5)
    larger = [unit for unit in UNITS if unit > plan.unit]
    for unit in larger:
        assert choose(options=Options(round_to=unit), params=0.5).note
    assert plan.unit > 1
    assert not plan.note


def test_at_least_so_many_channels_stay():
    plan = choose(options=Options(least=20, round_to=1), channels=0.5)
    assert min(kept for _, kept in plan.widths) >= 20
    with pytest.raises(UsageError, match="cannot be reached"):
        choose(options=Options(least=30, round_to=1), channels=0.5)


def test_ignored_parameters_keep_their_values():
    coupling = passes.couple(wide().program, ("inner*",))
    plan = choose(coupling, params=0.8)
    before, after = coupling.program.tensors(), shrunk(plan).tensors()
    assert torch.equal(after["inner_norm.weight"], before["inner_norm.weight"])
    assert torch.equal(after["inner.weight"], before["inner.weight"])
    assert any(after[name].shape != before[name].shape for name in before)


def test_uniform_takes_the_same_share_of_every_group():
    plan = choose(options=Options(uniform=True, round_to=1), macs=0.5)
    shares = [kept / group.size for group, kept in plan.widths]
    assert max(shares) - min(shares) <= 1.5 / min(group.size for group, _ in plan.widths)


class States(nn.Module):
    """Each channel keeps states of its own, which decay at its own rates and are read together."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.read, self.head = nn.Linear(5, 8), nn.Linear(5, 4), nn.Linear(8, 3)
        self.decay = nn.Parameter(torch.zeros(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        states = torch.zeros(x.shape[0], 8, 4) + self.inner(x)[..., None] * torch.exp(self.decay)
        return self.head((states @ self.read(x)[..., None]).squeeze(-1))


def test_uniform_takes_channels_that_have_states_of_their_own():
    coupling = passes.couple(passes.capture(seeded(States, 1), (normal(2, 5),), {}))
    plan = choose(coupling, Options(uniform=True, round_to=1), channels=0.5)
    kept = {str(axis): n for group, n in plan.widths for axis in group.axes}
    assert (kept["inner.weight[0]"], kept["decay[1]"]) == (4, 2)


def test_uniform_leaves_whole_heads_alone_where_entries_can_go():
    plan = choose(coupled("encoder"), Options(uniform=True, round_to=1), channels=0.5)
    assert not any(group.rows for group, _ in plan.widths)


def kept(plan: passes.Plan) -> dict[str, int]:
    return {group.name: count for group, count in plan.widths}


def weighted(coupling: passes.Coupling, **weights: float) -> Options:
    """Options in which the groups whose names start so have these weights."""
    pairs = [(group.name, weights.get(group.name.split(".")[0], 1.0)) for group in coupling.groups]
    return Options(round_to=1, group_weights=tuple(pairs))


def curves_of(coupling: passes.Coupling) -> list[Curve]:
    """The same for every group: each step costs more than the one before."""
    return [
        Curve(group.cells, tuple(0.1 * (n + 1) for n in range(group.size)))
        for group in coupling.groups
    ]


@pytest.mark.parametrize(
    ("measured", "weights"),
    [(False, (1.0, 2.0, 5.0)), (True, (0.2, 1.0, 5.0))],
    ids=["scores", "curves"],
)
def test_a_group_with_a_large_weight_keeps_more_and_one_with_a_small_weight_less(measured, weights):
    curves = curves_of(wide()) if measured else None

    def plan(**weights: float) -> dict[str, int]:
        options = weighted(wide(), **weights)
        return kept(passes.choose(wide(), Budget(macs=0.5), options, curves=curves))

    group = next(group.name for group in wide().groups if group.name.startswith("inner"))
    counts = [plan(inner=weight)[group] for weight in weights]
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("measured", [False, True], ids=["scores", "curves"])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_of_few_plans_none_that_meets_the_budget_loses_less(measured, share):
    curves = curves_of(wide()) if measured else None
    plan = passes.choose(wide(), Budget(macs=share), Options(round_to=8), curves=curves)
    ranked = [by_scores(group, channel_scores(wide(), "l2")) for group in wide().groups]
    ranked = [by_curve(curve) for curve in curves] if curves else ranked
    rankings = dict(zip(wide().groups, ranked, strict=True))
    search = Search(wide(), passes.Costs(wide(), "macs"), Options(round_to=8), 8, rankings)
    dense = search.amount([0, 0, 0])
    losses = [
        search.lost_by(list(every))
        for every in itertools.product(*search.stops)
        if share - TOLERANCE <= search.amount(list(every)) / dense <= share
    ]
    assert len(losses) > 1
    assert plan.loss == pytest.approx(min(losses))


def test_of_two_plans_that_come_close_the_one_that_loses_less_is_taken():
    options, curves = weighted(wide(), inner=8.0), curves_of(wide())
    plan = passes.choose(wide(), Budget(macs=0.5), options, curves=curves)
    assert kept(plan)["inner.weight[0]"] >= 60  # where each channel costs 8 times as much
    assert plan.loss < 25


@pytest.mark.parametrize("measured", [False, True], ids=["scores", "curves"])
def test_weights_of_one_change_nothing(measured):
    curves = curves_of(wide()) if measured else None
    without, ones = (
        passes.choose(wide(), Budget(macs=0.5), options, curves=curves)
        for options in (Options(round_to=1), weighted(wide()))
    )
    assert torch.equal(without.channels, ones.channels)
    assert without.loss == ones.loss


def test_what_all_weights_have_in_common_changes_nothing():
    double = weighted(wide(), **{group.name.split(".")[0]: 2.0 for group in wide().groups})
    plan = choose(options=double, macs=0.5)
    assert torch.equal(plan.channels, choose(macs=0.5).channels)


def test_groups_that_are_worth_nothing_go_first_and_still_keep_something():
    nothing = weighted(wide(), **{group.name.split(".")[0]: 0.0 for group in wide().groups})
    plan = choose(options=nothing, macs=0.5)
    assert plan.reached <= 0.5 * plan.dense
    assert min(kept(plan).values()) >= 1
    assert plan.loss == 0


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_means_nothing_is_refused(weight):
    with pytest.raises(UsageError, match="means nothing") as caught:
        Options(group_weights=(("stem.weight[0]", weight),))
    assert caught.value.where == "stem.weight[0]"


def test_a_weight_of_a_group_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match=r"no group is called 'other\.weight\[0\]'"):
        choose(options=Options(group_weights=(("other.weight[0]", 2.0),)), macs=0.5)


@pytest.mark.parametrize("criterion", passes.CRITERIA)
def test_a_criterion_chooses_the_same_for_the_same_seed(criterion):
    options = Options(criterion=criterion, seed=3, round_to=1)
    first, second = choose(options=options, params=0.5), choose(options=options, params=0.5)
    assert torch.equal(first.channels, second.channels)
    assert first.reached == second.reached


def test_random_depends_on_the_seed_and_nothing_else_does():
    def chosen(criterion, seed):
        options = Options(criterion=criterion, seed=seed, round_to=1)
        return choose(options=options, params=0.5).channels.tolist()

    assert chosen("random", 0) != chosen("random", 1)
    for criterion in passes.CRITERIA.keys() - {"random"}:
        assert chosen(criterion, 0) == chosen(criterion, 1)


WEAK = (3, 17, 29, 60)


@pytest.mark.parametrize("criterion", ["l1", "l2", "bn-scale"])
def test_planted_weak_channels_go_first(criterion):
    model = seeded(Wide, 2)
    with torch.no_grad():
        for tensor in (model.inner.weight, model.inner.bias, *model.inner_norm.parameters()):
            tensor[list(WEAK)] *= 1e-3
        model.outer.weight[:, list(WEAK)] *= 1e-3
    coupling = passes.couple(passes.capture(model, (normal(2, 3, 8, 8),), {}))
    dense = int(passes.Costs(coupling, "channels").dense)
    plan = choose(coupling, Options(criterion=criterion, round_to=1), channels=dense - len(WEAK))
    assert plan.kept == {
        "inner.weight": [[c for c in range(64) if c not in WEAK], None, None, None],
        "inner.bias": [[c for c in range(64) if c not in WEAK]],
        "inner_norm.weight": [[c for c in range(64) if c not in WEAK]],
        "inner_norm.bias": [[c for c in range(64) if c not in WEAK]],
        "inner_norm.running_mean": [[c for c in range(64) if c not in WEAK]],
        "inner_norm.running_var": [[c for c in range(64) if c not in WEAK]],
        "outer.weight": [None, [c for c in range(64) if c not in WEAK], None, None],
    }


def test_scores_are_shares_of_layers_so_that_narrow_streams_do_not_collapse():
    class Narrow(nn.Module):
        """An inverted bottleneck: an inner group twelve times as wide as the stream."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)
            self.up = nn.ModuleList(nn.Conv2d(8, 96, 1) for _ in range(3))
            self.down = nn.ModuleList(nn.Conv2d(96, 8, 1) for _ in range(3))
            self.head = nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.stem(x))
            for up, down in zip(self.up, self.down, strict=True):
                x = x + down(F.relu(up(x)))
            return self.head(x.mean((2, 3)))

    coupling = passes.couple(passes.capture(seeded(Narrow, 0), (normal(2, 3, 4, 4),), {}))
    scores = channel_scores(coupling, "l2")
    layers = {group.name: float(scores[group.cells[0]].sum()) for group in coupling.groups}
    assert layers == pytest.approx({**dict.fromkeys(layers, 2), "stem.weight[0]": 8})
    plan = choose(coupling, Options(round_to=1), macs=0.5)
    assert kept(plan)["stem.weight[0]"] >= 4


def test_biases_and_norms_follow_their_layer():
    model = seeded(Wide, 2)
    with torch.no_grad():
        model.norm.weight[:20] *= 100
        model.inner.bias[:20] *= 100
    coupling = passes.couple(passes.capture(model, (normal(2, 3, 8, 8),), {}))
    torch.testing.assert_close(channel_scores(coupling, "l2"), channel_scores(wide(), "l2"))


def test_a_vector_counts_where_its_channels_lie_in_nothing_else():
    class Vectors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.Parameter(torch.arange(1.0, 7.0)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return x * (torch.relu(self.first) * self.second).sum()

    coupling = passes.couple(passes.capture(Vectors(), (normal(2, 4),), {}))
    scores = channel_scores(coupling, "l1")[coupling.groups[0].cells[0]]
    torch.testing.assert_close(scores, 2 * torch.arange(1.0, 7.0).double() / 21)


def test_scores_do_not_depend_on_how_a_layer_is_scaled():
    model = seeded(Wide, 2)
    with torch.no_grad():
        model.second.weight *= 100
    coupling = passes.couple(passes.capture(model, (normal(2, 3, 8, 8),), {}))
    torch.testing.assert_close(channel_scores(coupling, "l1"), channel_scores(wide(), "l1"))


# ------------------------------------------------------------------------------ costs

COUNTED = [
    "conv1d", "conv2d_same", "conv3d", "conv2d_grouped", "conv2d_depthwise_twofold",
    "conv_transpose1d", "conv_transpose2d_grouped", "conv_transpose3d", "linear", "matmul", "mm",
    "bmm", "addmm", "baddbmm", "einsum_with_dots", "einsum_of_rows", "attention_by_hand",
    "attention_by_einsum", "scaled_dot_product_attention", "attention_grouped",
    "attention_with_one_key_head", "attention_fused", "multihead_attention", "squeeze_excite",
    "residual", "shared_twice",
]  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_macs_are_those_that_torch_counts(name):
    coupling = coupled(name)
    program = coupling.program
    assert passes.Costs(coupling, "macs").dense == macs_of(program.module, program.args[0])


def test_macs_do_not_depend_on_the_batch_size_of_the_example():
    model = seeded(Wide, 2)
    several = passes.couple(passes.capture(model, (normal(5, 3, 8, 8),), {}))
    assert passes.Costs(several, "macs").dense == passes.Costs(wide(), "macs").dense


def test_macs_of_a_recurrent_layer_are_its_products_at_each_step():
    layer = (6 + 6) * 4 * 6  # [input, hidden] x [four gates of six units]
    first, second = (12 + 6) * 4 * 6, (12 + 6) * 4 * 6
    assert layer < first
    steps, tags = 7, 12 * 5
    dense = passes.Costs(coupled("tagger"), "macs").dense
    assert dense == steps * (2 * first + 2 * second + tags)


@pytest.mark.parametrize("name", ["residual", "embedding", "embedding_tied", "gru"])
def test_params_and_bytes_count_every_tensor_once(name):
    coupling = coupled(name)
    tensors = {tensor.data_ptr(): tensor for tensor in coupling.program.tensors().values()}
    count = sum(tensor.numel() for tensor in tensors.values())
    assert passes.Costs(coupling, "params").dense == count
    assert passes.Costs(coupling, "bytes").dense == 4 * count


def test_half_precision_weighs_half():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).bfloat16()
    coupling = passes.couple(passes.capture(model, (normal(2, 4).bfloat16(),), {}))
    costs = {kind: passes.Costs(coupling, kind).dense for kind in ("params", "bytes")}
    assert costs["bytes"] == 2 * costs["params"] == 2 * 58


@pytest.mark.parametrize("kind", KINDS)
def test_savings_are_what_a_step_takes_off_to_first_order(kind):
    """Exactly what it takes off, where a step changes a single size."""
    costs = passes.Costs(wide(), kind)
    none = torch.zeros(0, dtype=torch.long)
    steps = {index: group.cells[0][:1] for index, group in enumerate(wide().groups)}
    for index, saved in costs.savings(none, steps).items():
        assert saved == pytest.approx(costs.dense - costs.amount(steps[index]), rel=0.05)


def test_a_plan_reads_as_widths_before_and_after():
    plan = choose(coupled("grouped"), channels=0.6)
    lines = passes.plan_to_text(plan).splitlines()
    assert len(lines) == len(plan.widths)
    for line, (group, kept) in zip(lines, plan.widths, strict=True):
        assert line.endswith(f"-> {kept:4} {group.name}")
