"""The choice in several steps: what is measured in between is the network as it was cut so far."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from compressor.passes import Budget, Measured, Options
from compressor.passes.base.errors import UsageError
from compressor.passes.cost.latency import Timed
from compressor.passes.pipeline.multi_step import inflated
from torch import nn

from compressor import passes


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """Convolutions with batch norms, one beside a shortcut, one in groups."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.inner, self.norm = nn.Conv2d(32, 48, 3, padding=1, groups=4), nn.BatchNorm2d(48)
        self.back, self.head = nn.Conv2d(48, 32, 1), nn.Linear(32, 7)

    def forward(self, x):
        x = self.bn(self.stem(x)).relu()
        x = x + self.back(self.norm(self.inner(x)).relu())
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def asked():
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        for norm in (net.bn, net.norm):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            norm.bias.normal_()
    x = seeded(96, 3, 6, 6)
    coupling = passes.couple(passes.capture(net.eval(), (x[:2],), {}))
    return coupling, [((part,), {}) for part in x.split(32)]


def test_the_small_network_written_into_the_large_one_computes_the_same(asked):
    coupling, calls = asked
    plan = passes.choose(coupling, Budget(macs=0.5), Options(round_to=1))
    small = passes.apply(passes.Shrink(plan), coupling.program).program
    mended = passes.mend(passes.Repair(plan, calls), small).program
    large = inflated(plan, mended)
    with torch.no_grad():
        found, wanted = (net.module(calls[0][0][0]) for net in (large, mended))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    for name, tensor in large.tensors().items():
        assert tensor.shape == coupling.program.tensors()[name].shape
    back = replace(plan, coupling=passes.couple(large))
    again = passes.apply(passes.Shrink(back), large).program
    for name, tensor in again.tensors().items():
        assert torch.equal(tensor, mended.tensors()[name])


def recorded(calls, options):
    """What curves were asked for, and the function that measures them."""
    asked_for = []

    def measure(at, gone, trial):
        measured = Measured.of(at, calls, options.criterion, options.seed, gone=gone, trial=trial)
        asked_for.append((at, gone, trial, measured))
        return measured

    return asked_for, measure


@pytest.mark.parametrize("criterion", ["obs", "fpgm", "random"])
def test_every_step_goes_on_from_the_one_before(asked, criterion):
    coupling, calls = asked
    options = Options(criterion, round_to=1)
    steps, measure = recorded(calls, options)
    plan = passes.contest(coupling, Budget(macs=0.4), options, calls, measure, 3)
    assert len(steps) > 1  # a part of the way that is not met closely is left out
    assert steps[0][0] is coupling is not steps[-1][0]
    assert [len(gone) for _, gone, _, _ in steps] == sorted(len(gone) for _, gone, _, _ in steps)
    assert plan.coupling is coupling
    assert 0.38 * plan.dense <= plan.reached <= 0.4 * plan.dense
    assert plan.trials[0].criterion == criterion
    assert plan.budget == Budget(macs=0.4)
    _, gone, _, measured = steps[-1]  # what went is silent, and goes first again
    assert len(gone)
    for group, curve in zip(coupling.groups, measured.curves, strict=True):
        for order, cell in zip(curve.order, group.cells, strict=True):
            mine = gone[torch.isin(gone, cell)]
            assert set(order[: len(mine)].tolist()) == set(mine.tolist())
    small = passes.apply(passes.Shrink(plan), coupling.program).program
    assert passes.prove(plan, small, [calls[0]]).holds


def test_one_step_is_the_cheapest_plan_by_the_curves(asked):
    coupling, calls = asked
    options = Options("obs", round_to=1)
    plan = passes.contest(coupling, Budget(macs=0.5), options, calls, steps=1)
    curves = Measured.of(coupling, calls, options.criterion, options.seed).curves
    wanted = passes.choose(coupling, Budget(macs=0.5), options, curves=curves)
    assert torch.equal(plan.channels, wanted.channels)
    assert plan.loss == wanted.loss


def test_one_step_is_tried_against_several_with_the_criteria_of_the_last(asked):
    coupling, calls = asked
    options = Options(round_to=1)
    steps, measure = recorded(calls, options)
    plan = passes.contest(coupling, Budget(macs=0.4), options, calls, measure)
    assert [trial for _, _, trial, _ in steps] == [False] * (passes.STEPS - 1) + [True]
    assert [bool(one.others) for *_, one in steps] == [False] * (passes.STEPS - 1) + [True]
    assert {trial.steps for trial in plan.trials} == {1, passes.STEPS}
    assert [trial.noise for trial in plan.trials if trial.steps == 1] == [None]
    assert len(plan.trials) > 2
    assert plan.coupling is coupling
    own = plan.trials[0]
    if own.steps > 1:  # it was surely closer than the plan of one step
        (first,) = [one for one in plan.trials if one.steps == 1]
        assert first.divergence - own.divergence > 2 * own.noise


def test_whole_blocks_are_worth_a_tenth_of_all_that_is_lost_also_of_what_was_lost_before(asked):
    coupling, calls = asked
    curves = Measured.of(coupling, calls, "obs").curves
    asks = Budget(macs=0.45), Options("obs")
    now = passes.choose(coupling, *asks, curves=curves)
    later = passes.choose(coupling, *asks, curves=curves, spent=1e6 * now.loss)
    assert later.unit > now.unit
    assert later.loss > 1e6 * now.loss


def test_a_budget_of_latency_is_met_in_steps_by_the_times_of_the_original(asked):
    coupling, calls = asked

    def time(kernel):
        return float(math.prod(kernel.widths)) if kernel.kind in ("conv", "linear") else 0.0

    timed, options = Timed(coupling, time), Options("obs")
    steps, measure = recorded(calls, options)
    plan = passes.contest(coupling, Budget(latency=0.5), options, calls, measure, 3, timed)
    assert len(steps) == 3
    assert timed.amount(plan.channels) == plan.reached <= 0.5 * timed.dense
    assert 0.4 * timed.dense <= plan.reached


def test_a_network_whose_curves_cannot_be_measured_is_planned_by_its_weights(asked):
    coupling, calls = asked
    seen = []

    def measure(at, gone, trial):
        seen.append((at, trial))
        return Measured(None, "l2", "it has no gradients")

    plan = passes.contest(coupling, Budget(macs=0.5), Options(), calls, measure)
    assert seen == [(coupling, False)]
    wanted = passes.choose(coupling, Budget(macs=0.5), Options("l2"))
    assert torch.equal(plan.channels, wanted.channels)


class Normed(nn.Module):
    """A weight is divided by the norm of its rows: zeros have none."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(8, 24), nn.Linear(24, 5)
        nn.utils.parametrizations.weight_norm(self.inner)

    def forward(self, x):
        return self.head(self.inner(x).relu())


def test_a_network_that_zeros_would_break_is_planned_in_one_step():
    torch.manual_seed(0)
    x = seeded(96, 8)
    coupling = passes.couple(passes.capture(Normed().eval(), (x[:2],), {}))
    calls: list[tuple[Any, Any]] = [((part,), {}) for part in x.split(32)]
    plan = passes.contest(coupling, Budget(channels=0.5), Options(round_to=1), calls)
    assert {trial.steps for trial in plan.trials} == {1}
    with pytest.raises(UsageError, match="cannot be chosen in 3 steps"):
        passes.contest(coupling, Budget(channels=0.5), Options(round_to=1), calls, steps=3)


def test_weights_are_written_into_tensors_of_any_layout(asked):
    coupling, _ = asked
    plan = passes.choose(coupling, Budget(macs=0.5), Options(round_to=1))
    small = passes.apply(passes.Shrink(plan), coupling.program).program
    wanted = inflated(plan, small).tensors()
    turned = {name: one.data for name, one in coupling.program.tensors().items()}
    try:
        for one in coupling.program.tensors().values():
            one.data = one.data.transpose(0, -1).contiguous().transpose(0, -1)
        found = inflated(plan, small).tensors()
    finally:
        for name, one in coupling.program.tensors().items():
            one.data = turned[name]
    for name, tensor in found.items():
        assert torch.equal(tensor, wanted[name])
