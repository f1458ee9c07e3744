"""Which plan: tried on the network itself, and the best one taken."""

import pytest
import torch
from compressor.passes import Budget, Measured, Options
from compressor.passes.base.errors import UsageError
from compressor.passes.calibration.divergence import divergence, lead
from compressor.passes.pipeline.select_plan import best, candidates
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


def test_every_criterion_is_tried_and_one_that_is_surely_closer_is_taken(asked):
    coupling, calls = asked
    options = Options(round_to=1)
    measured = Measured.of(coupling, calls, options.criterion, options.seed)
    plan = best(candidates(coupling, Budget(macs=0.5), options, measured), calls)
    distances = [trial.divergence or 0.0 for trial in plan.trials]
    assert {trial.criterion for trial in plan.trials} <= {"obs", "l2", "hessian"}
    assert len(distances) > 1
    assert min(distances) < max(distances)
    taken, *rest = plan.trials
    if taken.noise is None:  # the first that was tried: none is surely closer
        assert taken.criterion == "obs"
        assert all(distances[0] - (one.divergence or 0.0) <= 2 * (one.noise or 0.0) for one in rest)
    else:
        (first,) = [one for one in rest if one.noise is None]
        assert (first.divergence or 0.0) - distances[0] > 2 * taken.noise
    assert all(trial.reached <= 0.5 for trial in plan.trials)
    curves = {"obs": measured.curves, **measured.others}[plan.trials[0].criterion]
    again = passes.choose(coupling, Budget(macs=0.5), Options(round_to=1), curves=curves)
    assert torch.equal(plan.channels, again.channels)


def test_the_trial_foretells_what_the_repair_gives(asked):
    """On inputs that neither has seen, the one that was taken is closer than the last one."""
    coupling, calls = asked
    options = Options(round_to=1)
    measured = Measured.of(coupling, calls)
    plan = best(candidates(coupling, Budget(macs=0.4), options, measured), calls)
    worst = max(plan.trials, key=lambda trial: trial.divergence or 0.0)
    curves = {"obs": measured.curves, **measured.others}
    fresh = seeded(500, 6, seed=5)

    def error(name):
        own = passes.choose(coupling, Budget(macs=0.4), options, curves=curves[name])
        small = passes.apply(passes.Shrink(own), coupling.program).program
        done = passes.mend(passes.Repair(own, calls), small)
        with torch.no_grad():
            return divergence([[network()(fresh)]], [[done.program.module(fresh)]])

    assert error(plan.trials[0].criterion) < error(worst.criterion)


def test_a_lead_within_its_noise_decides_nothing():
    easy, hard = seeded(100).square(), seeded(100, seed=1).square() * 50
    first = [easy + hard]
    gain, noise = lead(first, [easy + hard - 0.1])  # the same for every input: no noise
    assert gain == pytest.approx(0.1, rel=1e-4)
    assert noise == pytest.approx(0.0, abs=1e-5)
    by_chance = [easy + hard - 0.1 + seeded(100, seed=2) * 5]
    gain, noise = lead(first, by_chance)
    assert noise == pytest.approx(0.5, rel=0.3)
    assert abs(gain) < 2 * noise


def test_a_network_that_is_not_finite_is_behind_every_other():
    fine, broken = [torch.ones(4)], [torch.tensor([1.0, 1.0, 1.0, float("nan")])]
    assert lead(broken, fine) == (float("inf"), 0.0)
    assert lead(fine, broken) == (float("-inf"), 0.0)
    assert lead(broken, broken) == (0.0, 0.0)


def test_a_criterion_that_was_named_is_not_tried_against_others(asked):
    coupling, calls = asked
    plan = passes.contest(coupling, Budget(macs=0.5), Options("l2"), calls, steps=1)
    assert [(trial.criterion, trial.divergence) for trial in plan.trials] == [("l2", None)]


def test_a_budget_that_none_of_them_meets_is_refused(asked):
    coupling, calls = asked
    with pytest.raises(UsageError, match="cannot be reached"):
        passes.contest(coupling, Budget(macs=0.01), Options(), calls)
