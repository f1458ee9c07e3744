"""Which criterion: tried on the network itself, and the best one taken."""

import pytest
import torch
from compressor.passes import Budget, Measured, Options
from compressor.passes.errors import UsageError
from torch import nn

from compressor import passes


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network():
    """Of 24 hidden channels twelve are copies of others, with large weights behind them."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 5))
    with torch.no_grad():
        net[0].weight[12:], net[0].bias[12:] = net[0].weight[:12], net[0].bias[:12]
        net[2].weight[:, 12:] *= 10
    return net.eval()


@pytest.fixture
def asked():
    x = seeded(384, 6)
    coupling = passes.couple(passes.capture(network(), (x[:2],), {}))
    return coupling, [((part,), {}) for part in x.split(32)]


def test_every_criterion_is_tried_and_the_closest_to_the_original_is_taken(asked):
    coupling, calls = asked
    measured = Measured.of(coupling, calls, Options())
    plan = passes.contest(coupling, Budget(macs=0.5), Options(round_to=1), measured, calls)
    distances = [trial.divergence or 0.0 for trial in plan.trials]
    assert {trial.criterion for trial in plan.trials} <= {"obs", "l2", "hessian"}
    assert len(distances) > 1
    assert distances[0] == min(distances) < max(distances)
    assert all(trial.reached <= 0.5 for trial in plan.trials)
    curves = {"obs": measured.curves, **measured.others}[plan.trials[0].criterion]
    again = passes.choose(coupling, Budget(macs=0.5), Options(round_to=1), curves=curves)
    assert torch.equal(plan.channels, again.channels)


def test_the_trial_foretells_what_the_repair_gives(asked):
    """On inputs that neither has seen, the one that was taken is closer than the last one."""
    coupling, calls = asked
    options = Options(round_to=1)
    measured = Measured.of(coupling, calls, Options())
    plan = passes.contest(coupling, Budget(macs=0.4), options, measured, calls)
    worst = max(plan.trials, key=lambda trial: trial.divergence or 0.0)
    curves = {"obs": measured.curves, **measured.others}
    fresh = seeded(500, 6, seed=5)

    def error(name):
        own = passes.choose(coupling, Budget(macs=0.4), options, curves=curves[name])
        small = passes.apply(passes.Shrink(own), coupling.program).program
        done = passes.mend(passes.Repair(own, calls), small)
        with torch.no_grad():
            return float((done.program.module(fresh) - network()(fresh)).square().mean())

    assert error(plan.trials[0].criterion) < error(worst.criterion)


def test_a_criterion_that_was_named_is_not_tried_against_others(asked):
    coupling, calls = asked
    measured = Measured.of(coupling, calls, Options("l2"))
    plan = passes.contest(coupling, Budget(macs=0.5), Options("l2"), measured, calls)
    assert [(trial.criterion, trial.divergence) for trial in plan.trials] == [("l2", None)]


def test_a_budget_that_none_of_them_meets_is_refused(asked):
    coupling, calls = asked
    measured = Measured.of(coupling, calls, Options())
    with pytest.raises(UsageError, match="cannot be reached"):
        passes.contest(coupling, Budget(macs=0.01), Options(), measured, calls)
