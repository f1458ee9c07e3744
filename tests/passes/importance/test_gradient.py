"""Criteria: planted channels that each of them must see, and where they come from."""

import re

import pytest
import torch
from compressor.passes import Budget, Measured, Options
from compressor.passes.base.errors import UsageError
from compressor.passes.calibration.activation_statistics import readings
from compressor.passes.calibration.lockstep import sampled
from compressor.passes.importance.gradient import DATA_CRITERIA
from compressor.passes.importance.magnitude import CRITERIA, channel_scores, of_channels
from torch import Tensor, nn

from compressor import passes


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = seeded(128, 6)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def coupled(model) -> passes.Coupling:
    return passes.couple(passes.capture(model.eval(), (X[:2],), {}))


def scores(model, criterion, seed=0) -> Tensor:
    """Scores of the hidden channels, in their order."""
    coupling = coupled(model)
    if criterion in CRITERIA:
        found = channel_scores(coupling, criterion, seed)
    else:
        chunks, _ = sampled([((X,), {})], coupling.program, 8)
        evidence = (chunks, readings(coupling, chunks))
        found = of_channels(coupling, DATA_CRITERIA[criterion](coupling, evidence, seed))
    return found[coupling.groups[0].cells[0]]


@pytest.mark.parametrize("criterion", [*CRITERIA, *DATA_CRITERIA])
def test_scores_are_numbers_and_the_same_each_time(criterion):
    first, again = scores(Net(), criterion), scores(Net(), criterion)
    assert torch.equal(first, again)
    assert bool((torch.isfinite(first) & (first >= 0)).all())
    assert len(first.unique()) == 8


@pytest.mark.parametrize("criterion", DATA_CRITERIA)
def test_a_channel_that_is_never_on_goes_first(criterion):
    model = Net()
    with torch.no_grad():
        model.first.bias[3] = -100
    found = scores(model, criterion)
    assert int(found.argmin()) == 3


@pytest.mark.parametrize("criterion", [*CRITERIA, *DATA_CRITERIA])
def test_a_parameter_that_is_one_number_scores_nothing(criterion):
    class Scaled(Net):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, x):
            return super().forward(x) * self.scale

    torch.testing.assert_close(scores(Scaled(), criterion), scores(Net(), criterion))


@pytest.mark.parametrize("criterion", ["taylor", "fisher", "hessian", "wanda", "l1", "l2", "lamp"])
def test_a_channel_that_nothing_reads_is_worth_less(criterion):
    model = Net()
    before = scores(model, criterion)
    with torch.no_grad():
        model.second.weight[:, 5] = 0
    assert scores(model, criterion)[5] < before[5]


def test_the_zero_rate_counts_how_often_a_channel_is_on():
    model = Net()
    on = (torch.relu(model.first(X)) > 0).double().mean(0)
    assert torch.allclose(scores(model, "zero-rate"), on / on.sum())


def test_activation_is_the_mean_magnitude():
    model = Net()
    size = torch.relu(model.first(X)).detach().double().mean(0)
    assert torch.allclose(scores(model, "activation"), size / size.sum(), rtol=1e-5)


def test_wanda_is_the_weight_times_the_norm_of_what_it_reads():
    model = Net()
    norm = torch.relu(model.first(X)).detach().double().square().mean(0).sqrt()
    own = model.second.weight.detach().double().abs().sum(0) * norm
    assert torch.allclose(scores(model, "wanda"), own / own.sum(), rtol=1e-5)


def test_the_geometric_median_finds_filters_that_others_resemble():
    model = Net()
    with torch.no_grad():
        model.first.weight.zero_()
        model.first.weight[:, 0] = torch.tensor([1.0, 1, 1, 1, 1, 1, 9, -9])
        model.first.bias.zero_()
        model.second.weight.fill_(1.0)
    found = scores(model, "fpgm")
    assert set(found.topk(2).indices.tolist()) == {6, 7}


def test_lamp_divides_by_all_that_are_no_smaller():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 4, bias=False), nn.Linear(4, 5, bias=False)

        def forward(self, x):
            return self.second(torch.relu(self.first(x)))

    model = Plain()
    with torch.no_grad():
        model.first.weight.zero_()
        model.first.weight[:, 0] = torch.tensor([1.0, 2, 3, 4])
        model.second.weight.zero_()
    wanted = torch.tensor([1 / 30, 4 / 29, 9 / 25, 1.0], dtype=torch.float64)
    assert torch.allclose(scores(model, "lamp"), wanted / wanted.sum())


@pytest.mark.parametrize("criterion", DATA_CRITERIA)
def test_criteria_that_look_at_data_are_refused_without(criterion):
    with pytest.raises(UsageError, match=f"'{criterion}' needs calibration inputs"):
        passes.choose(coupled(Net()), Budget(macs=0.5), Options(criterion))


@pytest.mark.parametrize("criterion", DATA_CRITERIA)
def test_a_criterion_says_what_goes_first_and_its_cost_is_measured(criterion):
    coupling = coupled(Net())
    measured = Measured.of(coupling, [((X,), {})], criterion)
    order = measured.curves[0].order[0]
    chunks, _ = sampled([((X,), {})], coupling.program, 8)
    evidence = (chunks, readings(coupling, chunks))
    own = of_channels(coupling, DATA_CRITERIA[criterion](coupling, evidence, 0))[order]
    assert bool((own.diff() >= -1e-6).all())
    plan = passes.choose(
        coupling, Budget(macs=0.5), Options(criterion, round_to=1), curves=measured.curves
    )
    assert set(plan.channels.tolist()) == set(order[: len(plan.channels)].tolist())


@pytest.mark.parametrize("name", [*CRITERIA, *DATA_CRITERIA])
def test_every_criterion_names_its_source(name):
    text = {**CRITERIA, **DATA_CRITERIA}[name].__doc__
    own = {"l2", "random"}  # a norm, and a baseline
    assert name in own or re.search(r"et al\.|and Wolf", text)
