"""Curves: what the loss of channels costs after the best refit, against the refit itself."""

import pytest
import torch
from compressor.passes import Budget, Measured, Options
from compressor.passes.base.errors import UsageError
from compressor.passes.calibration.activation_statistics import Reading, readings
from compressor.passes.calibration.lockstep import sampled
from compressor.passes.importance.obs_curves import DAMPING, curve
from torch import nn

from compressor import passes


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def coupled(model, x):
    return passes.couple(passes.capture(model.eval(), (x[:2],), {}))


def calls(x, size=32):
    return [((part,), {}) for part in x.split(size)]


def of(coupling, x, axis):
    read = readings(coupling, sampled(calls(x), coupling.program)[0])
    group = next(g for g in coupling.groups if axis in map(str, g.axes))
    return group, read


class Mlp(nn.Module):
    def __init__(self, bias=True):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 5, bias=bias)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def test_what_others_carry_costs_nothing_and_goes_first():
    model, x = Mlp(), seeded(400, 6)
    with torch.no_grad():
        model.first.weight[7], model.first.bias[7] = model.first.weight[2], model.first.bias[2]
    coupling = coupled(model, x)
    group, read = of(coupling, x, "first.weight[0]")
    found = curve(coupling, group, read)
    assert int(found.order[0][0] - group.cells[0][0]) in (2, 7)
    assert found.losses[0] < 1e-2 * found.losses[1]


def test_the_cost_of_channels_is_the_error_that_least_squares_leaves():
    model, x = Mlp(), seeded(400, 6)
    coupling = coupled(model, x)
    group, read = of(coupling, x, "first.weight[0]")
    (reading,) = [one for one in read if len(one.classes) == 8]
    found = curve(coupling, group, read)
    hidden = torch.relu(model.first(x)).detach().double()
    hidden = hidden - hidden.mean(0)
    order = (found.order[0] - group.cells[0].min()).tolist()
    for count in (1, 3, 5):
        gone, stay = order[:count], sorted(order[count:])
        fit = torch.linalg.lstsq(hidden[:, stay], hidden[:, gone]).solution
        left = hidden[:, gone] - hidden[:, stay] @ fit
        cov = left.T @ left / len(x)
        wanted = float((cov * reading.energy[gone][:, gone]).sum())
        assert sum(found.losses[:count]) == pytest.approx(wanted, rel=0.05 + 50 * DAMPING)


def test_other_scores_set_the_order_and_not_the_cost():
    model, x = Mlp(), seeded(400, 6)
    coupling = coupled(model, x)
    group, read = of(coupling, x, "first.weight[0]")
    scores = torch.arange(float(int(coupling.members[1].max()) + 1)).flip(0)
    own, other = curve(coupling, group, read), curve(coupling, group, read, scores)
    assert other.order[0].tolist() == group.cells[0].flip(0).tolist()
    assert sum(other.losses) == pytest.approx(sum(own.losses), rel=1e-3)
    assert sum(own.losses[:3]) < sum(other.losses[:3])


def test_a_depthwise_layer_costs_nothing_by_itself():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
    x = seeded(64, 3, 6, 6)
    coupling = coupled(model, x)
    group, read = of(coupling, x, "0.weight[0]")
    blocks = [one for one in read if len(one.classes) == 1]
    assert len(blocks) == 8
    others = [one for one in read if len(one.classes) > 1]
    assert curve(coupling, group, others).losses == curve(coupling, group, read).losses
    assert min(curve(coupling, group, read).losses) > 0


def test_columns_of_a_flattened_picture_go_together():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4, 5))
    x = seeded(200, 3, 4, 4)
    coupling = coupled(model, x)
    group, read = of(coupling, x, "0.weight[0]")
    found = curve(coupling, group, read)
    assert len(found.losses) == 6
    assert sorted(found.order[0].tolist()) == group.cells[0].tolist()


def test_the_gain_is_the_curvature_of_the_squared_difference():
    """For a last layer it is one over the variance of the outputs, for each of them."""
    model, x = nn.Linear(6, 5), seeded(2000, 6)
    coupling = coupled(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), model), x)
    _, read = of(coupling, x, "0.weight[0]")
    (last,) = [one for one in read if len(one.results) == 5]
    with torch.no_grad():
        out = coupling.program.module(x)
        out = out - out.mean(1, keepdim=True)
    weight = model.weight.detach().double()
    wanted = weight.T @ weight / (2 * float(out.var(0).sum())) * (1 - 1 / 5)
    assert float((last.energy - wanted).abs().max()) < 0.1 * float(wanted.abs().max())


def test_group_costs_are_told_in_one_unit():
    """A branch that hardly counts is cheaper than one that does, whatever its weights are."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.loud, self.quiet = Mlp(), Mlp()

        def forward(self, x):
            return self.loud(x) + 0.01 * self.quiet(x)

    x = seeded(400, 6)
    measured = Measured.of(coupled(Branches(), x), calls(x))
    assert measured.criterion == "obs"
    loud, quiet = (sum(one.losses) for one in measured.curves)
    assert quiet < loud * 1e-3


def test_a_plan_by_curves_takes_what_is_cheap():
    model, x = nn.Sequential(Mlp(), nn.ReLU(), nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), None
    x = seeded(400, 6)
    with torch.no_grad():
        model[0].first.weight[4:] = model[0].first.weight[:4]
        model[0].first.bias[4:] = model[0].first.bias[:4]
    coupling = coupled(model, x)
    measured = Measured.of(coupling, calls(x))
    dense = passes.Costs(coupling, "channels").dense
    plan = passes.choose(
        coupling, Budget(channels=dense - 4), Options(round_to=1), curves=measured.curves
    )
    kept = {group.name: count for group, count in plan.widths}
    assert kept["0.first.weight[0]"] in (4, 5)
    total = torch.cat([torch.tensor(one.losses) for one in measured.curves]).sum()
    assert plan.loss < 0.02 * float(total)


def test_rounding_costs_no_more_than_it_is_worth():
    x = seeded(400, 6)

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = nn.Linear(6, 64), nn.Linear(64, 5)

        def forward(self, x):
            return self.second(torch.relu(self.first(x)))

    model = Wide()
    with torch.no_grad():  # 37 of 64 are needed
        model.first.weight[37:] = model.first.weight[:27]
        model.first.bias[37:] = model.first.bias[:27]
    coupling = coupled(model, x)
    curves = Measured.of(coupling, calls(x)).curves
    plans = {
        unit: passes.choose(coupling, Budget(macs=0.6), Options(round_to=unit), curves=curves)
        for unit in (None, 1)
    }
    assert plans[None].loss <= plans[1].loss * 1.1 + 1e-12


def test_a_model_without_gradients_says_so():
    class Argmax(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = Mlp()

        def forward(self, x):
            return self.body(x).argmax(1)

    x = seeded(64, 6)
    measured = Measured.of(coupled(Argmax(), x), calls(x))
    assert measured.curves is None
    assert measured.criterion == "l2"
    assert "nothing that can be refitted" in measured.why


def test_obs_without_inputs_is_refused():
    with pytest.raises(UsageError, match="needs calibration inputs"):
        passes.choose(coupled(Mlp(), seeded(4, 6)), Budget(macs=0.5), Options("obs"))


def test_readings_of_equal_inputs_are_kept_once():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(6, 8)
            self.a, self.b = nn.Linear(8, 3), nn.Linear(8, 4)

        def forward(self, x):
            hidden = torch.relu(self.first(x))
            return torch.cat([self.a(hidden), self.b(hidden)], 1)

    x = seeded(64, 6)
    _, read = of(coupled(Two(), x), x, "first.weight[0]")
    assert [len(one.classes) for one in read] == [6, 8]
    assert isinstance(read[0], Reading)


class Masked(nn.Module):
    """One head of attention over numbers of which zeros are padding, and the mean of the others."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.tokens = nn.Embedding(20, 8)
        self.q, self.k, self.v = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(8, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, ids):
        x, there = self.tokens(ids), ids != 0
        scores = self.q(x) @ self.k(x).transpose(1, 2) / 8
        weights = scores.masked_fill(~there[:, None], float("-inf")).softmax(2)
        found = self.last(weights @ self.v(x)) * there[..., None]
        return found.sum(1) / there.sum(1, keepdim=True)


def questions():
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 20, (256, 7), generator=random)
    return ids.masked_fill(torch.arange(7) >= torch.randint(2, 8, (256, 1), generator=random), 0)


def test_what_no_layer_reads_costs_what_silencing_it_costs():
    """Queries and keys go into a product: nothing makes up for an entry that is gone."""
    model, x = Masked().eval(), questions()
    coupling = coupled(model, x)
    group, read = of(coupling, x, "q.weight[0]")
    found = curve(coupling, group, read)
    assert min(found.losses) > 0
    with torch.no_grad():
        wanted = model(x)
        spread = float((wanted - wanted.mean(1, keepdim=True)).var(0, correction=0).sum())
        costs = []
        for entry in (int(one - group.cells[0].min()) for one in found.order[0]):
            small = Masked().eval()
            small.q.weight[entry], small.q.bias[entry] = 0, 0
            gap = small(x) - wanted
            gap = gap - gap.mean(1, keepdim=True)
            costs.append(float(gap.square().sum(1).mean()) / spread / 2)
    for told, cost in zip(found.losses, costs, strict=True):
        assert 0.4 * cost < told < 2.5 * cost


def test_rows_that_nothing_depends_on_do_not_count():
    model, x = Masked().eval(), questions()
    _, read = of(coupled(model, x), x, "q.weight[0]")
    (reading,) = [one for one in read if len(one.classes) == 8 and one.cov.shape[0] == 8]
    seen = model.tokens(x)[x != 0].detach().double()
    wanted = torch.cov(seen.T, correction=0)
    every = torch.cov(model.tokens(x).flatten(0, 1).detach().double().T, correction=0)
    gap = float((reading.cov - wanted).abs().max())
    assert gap < 1e-5 < float((every - wanted).abs().max())
