"""The choice in several steps: what is measured in between is the network as it was cut so far."""

from dataclasses import replace

import pytest
import torch
from compressor.passes import Budget, Measured, Options
from compressor.passes.errors import UsageError
from compressor.passes.steps import inflated
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


@pytest.mark.parametrize("criterion", ["obs", "fpgm", "random"])
def test_every_step_goes_on_from_the_one_before(asked, criterion):
    coupling, calls = asked
    steps = []

    def measure(at, options, gone):
        steps.append((at, options, gone))
        return Measured.of(at, calls, options, gone=gone)

    options = Options(criterion, round_to=1)
    plan = passes.stepwise(coupling, Budget(macs=0.4), options, calls, measure, 3)
    assert len(steps) == 3
    assert steps[0][0] is coupling is not steps[-1][0]
    assert plan.coupling is coupling
    assert 0.38 * plan.dense <= plan.reached <= 0.4 * plan.dense
    assert plan.trials[0].criterion == steps[-1][1].criterion
    assert plan.budget == Budget(macs=0.4)
    for at, own, gone in steps[-1:]:  # what went is silent, and goes first again
        measured = Measured.of(at, calls, own, gone=gone)
        assert measured.curves is not None
        for group, curve in zip(coupling.groups, measured.curves, strict=True):
            for order, cell in zip(curve.order, group.cells, strict=True):
                mine = gone[torch.isin(gone, cell)]
                assert set(order[: len(mine)].tolist()) == set(mine.tolist())
    small = passes.apply(passes.Shrink(plan), coupling.program).program
    assert passes.prove(plan, small, [calls[0]]).holds


def test_one_step_is_the_choice_as_it_is_made_without_steps(asked):
    coupling, calls = asked
    options = Options("obs", round_to=1)

    def measure(at, own, gone):
        return Measured.of(at, calls, own, gone=gone)

    plan = passes.stepwise(coupling, Budget(macs=0.5), options, calls, measure, 1)
    measured = Measured.of(coupling, calls, options)
    wanted = passes.contest(coupling, Budget(macs=0.5), options, measured, calls)
    assert torch.equal(plan.channels, wanted.channels)


def test_a_budget_of_latency_has_no_steps(asked):
    coupling, calls = asked
    with pytest.raises(UsageError, match="met in one step"):
        passes.stepwise(coupling, Budget(latency=0.5), Options(), calls, Measured.of, 2)
