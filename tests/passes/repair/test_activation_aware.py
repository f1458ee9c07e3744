"""A fit before an activation: what that cuts off is no error, and other rows judge."""

import math

import pytest
import torch
import torch.nn.functional as F
from compressor.passes.calibration.lockstep import held_out, sampled
from compressor.passes.ir.rebuild import clone
from compressor.passes.operators import RULES, row_of
from compressor.passes.repair import activation_aware, layerwise
from compressor.passes.repair.activation_aware import Drawn, Rows, ends, spread, through
from compressor.passes.repair.least_squares import Moments, fit
from torch import nn

from compressor import passes
from tests.passes.repair.test_repair import CONV, doubled, plan_without, repaired, seeded, worst

HELD = [False, False, True]


def rows(wanted, low=0.0, high=None, chunks=3, columns=4, outputs=3):
    """Rows of some chunks, whose targets are `wanted` of the inputs."""
    found = []
    for chunk in range(chunks):
        u = seeded(1, 400, columns, seed=chunk)
        y = wanted(u)
        assert y.shape[2] == outputs
        bounds = [None if end is None else torch.tensor(end) for end in (low, high)]
        found.append(Rows(u, y, *bounds))
    return found


def solved(found, start=None, free=True):
    """By what comes through, and without looking at that."""
    columns, outputs = found[0].u.shape[2], found[0].y.shape[2]
    moments = Moments(1, columns, outputs), Moments(1, columns, outputs)
    for one, out in zip(found, HELD, strict=True):
        moments[out].add(one.u, one.y)
    weight = torch.zeros(1, outputs, columns) if start is None else start
    begin = weight, torch.zeros(1, outputs)
    linear = fit(*moments, *begin, free=free)
    aware = through(lambda chunk: found[chunk], HELD, moments, begin, linear,
                    free=free, present=True)  # fmt: skip
    return aware, linear


def error(one, found, low=0.0, high=math.inf):
    """Behind the activation, on the rows that are held out."""
    held = found[-1]
    given = held.u.double() @ one.weight.mT + one.bias[:, None]
    gap = given.clamp(low, high) - held.y.double().clamp(low, high)
    return float(gap.square().sum()) / held.u.shape[1]


def bent(u):
    """Three times as steep where a ReLU cuts it off."""
    y = u[..., :3] + 0.3 * u[..., 3:]
    return torch.where(y > 0, y, 3 * y)


def test_what_a_relu_cuts_off_is_no_error():
    found = rows(bent)
    aware, linear = solved(found)
    assert error(aware, found) < error(linear, found) / 2
    assert aware.after == pytest.approx(error(aware, found), rel=1e-4)
    assert aware.before == pytest.approx(error(fit_of_zeros(aware), found), rel=1e-4)


def fit_of_zeros(like):
    return type(like)(0 * like.weight, 0 * like.bias, math.inf, 0.0, 0.0)


def test_both_ends_of_a_clip_are_looked_at(monkeypatch):
    def wanted(u):
        y = 4 * bent(u)
        return torch.where(y < 6, y, 6 + 4 * (y - 6))

    found = rows(wanted, 0.0, 6.0)
    aware, linear = solved(found)
    assert error(aware, found, 0, 6) < error(linear, found, 0, 6) * 0.9
    monkeypatch.setattr(activation_aware, "STEPS", 150)
    exact, _ = solved(found)
    assert error(exact, found, 0, 6) < error(linear, found, 0, 6) / 1000


def test_without_an_activation_nothing_is_gained_or_lost():
    found = rows(bent, None, None)
    aware, linear = solved(found)
    assert torch.allclose(aware.weight, linear.weight, atol=1e-6)
    assert aware.after == pytest.approx(linear.after, rel=1e-4)


def test_other_rows_decide_against_a_fit_to_noise():
    found = rows(lambda u: u[..., :3].clone())
    few = [Rows(one.u[:, :5], seeded(1, 5, 3, seed=7), one.low) for one in found[:2]]
    aware, _ = solved([*few, found[2]], torch.eye(4)[None, :3])
    assert aware.after <= aware.before
    assert torch.equal(aware.weight, torch.eye(4)[None, :3].double())


@pytest.mark.parametrize("scale", [2.0, -2.0])
def test_the_ends_are_those_of_the_layer_in_front_of_a_norm_and_a_sum(scale):
    factors, shift = torch.full((1, 1, 3), scale), torch.tensor([1.0, 0.0, -1.0]).view(1, 1, 3)
    moved, like = seeded(1, 50, 3, seed=3), seeded(1, 50, 3, seed=4) * 5
    low, high = ends((0.0, 6.0), moved, factors, shift, like)
    seen = (factors * like + shift + moved).clamp(0, 6)
    cut = like.clamp(low, high)
    torch.testing.assert_close((factors * cut + shift + moved).clamp(0, 6), seen)
    inside = (seen > 0.01) & (seen < 5.99)
    assert torch.equal(cut[inside], like[inside])
    assert bool((cut != like).any())


def test_a_channel_that_a_norm_passes_on_nothing_of_has_no_ends():
    scale = torch.tensor([0.0, 1.0]).view(1, 1, 2)
    low, high = ends((0.0, 6.0), 0.0, scale, torch.zeros(1, 1, 2), torch.zeros(1, 5, 2))
    assert low.flatten().tolist() == [-math.inf, 0.0]
    assert high.flatten().tolist() == [math.inf, 6.0]
    assert ends((-math.inf, math.inf), 0.0, None, None, torch.zeros(1)) == (None, None)


def test_rows_that_there_is_no_room_for_are_drawn_again():
    asked = []

    def draw(chunk):
        asked.append(chunk)
        return Rows(torch.full((1, 8, 2), float(chunk)), torch.zeros(1, 8, 2))

    drawn = Drawn(draw, room=2 * draw(0).bytes)
    asked.clear()
    for _ in range(2):
        assert [float(drawn(chunk).u.mean()) for chunk in range(3)] == [0.0, 1.0, 2.0]
    assert asked == [0, 1, 2, 2]
    assert drawn.bytes == 2 * draw(0).bytes


def test_the_spread_is_that_of_what_comes_through():
    found = [Rows(torch.zeros(1, 4, 1), torch.tensor([-9.0, -1, 2, 4]).view(1, 4, 1),
                  torch.tensor(0.0))]  # fmt: skip
    values = torch.tensor([0.0, 0, 2, 4])
    wanted = float((values - values.mean()).square().mean())
    assert spread(lambda chunk: found[chunk], [True]) == pytest.approx(wanted)


# ---------------------------------------------------------------------------- whole networks


class Layers(nn.Module):
    """A layer that is cut, another, a norm, a shortcut and an activation."""

    def __init__(self, norm=False, shortcut=False, activation=F.relu):
        super().__init__()
        self.first = nn.Conv2d(6, 8, 1)
        self.second = nn.Conv2d(8, 6, 3, padding=1, bias=not norm)
        self.second.weight.data *= 12  # beyond 6 as well
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.shortcut, self.activation = shortcut, activation
        if norm:
            self.norm.running_mean[:] = torch.linspace(-0.3, 0.3, 6)
            self.norm.running_var[:] = torch.linspace(0.1, 0.5, 6)
            self.norm.weight.data[:] = torch.tensor([1.0, -1, 0.5, -0.5, 2, 1])

    def forward(self, x):
        y = self.norm(self.second(F.relu(self.first(x))))
        return self.activation(y + x if self.shortcut else y)


@pytest.mark.parametrize("activation", [F.relu, F.relu6, F.hardsigmoid, lambda x: x.clamp(-1, 2)],
                         ids=["relu", "relu6", "hardsigmoid", "clamp"])  # fmt: skip
@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_the_outputs_are_nearer_than_after_a_fit_that_ignores_the_activation(
    norm, shortcut, activation, monkeypatch
):
    torch.manual_seed(2)
    model = Layers(norm, shortcut, activation).eval()
    fresh = seeded(300, 6, 10, 10, seed=9)

    def apart():
        _, result = repaired(model, CONV, "first.weight[0]", [0, 1, 2, 3])
        gap = result.program.module(fresh) - model(fresh)
        return float(gap.detach().square().mean())

    aware = apart()
    monkeypatch.setattr(layerwise.Duet, "_flat", lambda *_: None)
    assert aware < apart()


def test_a_norm_behind_a_layer_without_a_bias_takes_its_mean_and_nothing_else():
    torch.manual_seed(2)
    model = Layers(norm=True).eval()
    small, result = repaired(model, CONV, "first.weight[0]", [0, 1, 2, 3])
    before, after = small.tensors(), result.program.tensors()
    assert not torch.equal(before["norm.running_mean"], after["norm.running_mean"])
    for name in ("norm.running_var", "norm.weight", "norm.bias"):
        assert torch.equal(before[name], after[name]), name
    assert not any(layer.kind == "batch_norm" for layer in result.layers)


class Twofold(nn.Module):
    """One norm behind two layers."""

    def __init__(self):
        super().__init__()
        self.first = doubled(nn.Conv2d(6, 8, 1))
        self.left, self.right = nn.Conv2d(8, 5, 1, bias=False), nn.Conv2d(8, 5, 1, bias=False)
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x):
        hidden = F.relu(self.first(x))
        return F.relu(self.norm(self.left(hidden))) + F.relu(self.norm(self.right(hidden)))


def test_a_norm_that_two_layers_share_stays_as_it_is():
    torch.manual_seed(2)
    model = Twofold().eval()
    small, result = repaired(model, CONV, "first.weight[0]", [4, 5, 6, 7])
    before, after = small.tensors(), result.program.tensors()
    for name in ("norm.running_mean", "norm.running_var"):
        assert torch.equal(before[name], after[name])
    assert worst(result.program.module(CONV), model(CONV)) < 1e-5


def test_rows_are_the_same_ones_whether_they_are_kept_or_drawn_again():
    torch.manual_seed(2)
    program = passes.capture(Layers().eval(), (CONV[:2],), {})
    plan = plan_without(passes.couple(program), "first.weight[0]", [0, 1])
    small = passes.apply(passes.Shrink(plan), program).program
    chunks, _ = sampled([((CONV,), {})], program)
    made = []
    for room in (0, 1 << 30):
        duet = layerwise.Duet(plan, clone(small), chunks, held_out(chunks), kept=room)
        duet.run()
        made.append((duet.small.tensors(), duet.moments))
    assert all(torch.equal(one, made[1][0][name]) for name, one in made[0][0].items())
    assert made[0][1] < made[1][1]


# ---------------------------------------------------------------------------- operators

CALLS = {
    "relu": F.relu, "relu6": F.relu6, "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh, "hardtanh of its own": lambda x: F.hardtanh(x, -2.5, 0.5),
    "clamp": lambda x: x.clamp(-1, 2), "clamp from below": lambda x: x.clamp(min=0.5),
    "in place": lambda x: F.relu_(x + 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_an_activation_is_flat_outside_of_its_two_numbers_and_not_between_them(name):
    x = torch.linspace(-8, 8, 1601)[None]
    program = passes.capture(_Of(CALLS[name]), (x,), {})
    *_, node = program.calls()
    found = row_of(node).flat
    assert found is not None
    ends_of = found(node)
    assert ends_of is not None
    low, high = ends_of
    y = CALLS[name](x)
    torch.testing.assert_close(CALLS[name](x.clamp(low, high)), y)
    inside = y[(x > low) & (x < high)]
    assert float(inside.diff().abs().max()) > 0
    edges = [end for end in (low, high) if math.isfinite(end)]
    assert edges
    assert all(_moves(CALLS[name], end, low, high) for end in edges)


class _Of(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


def _moves(call, end, low, high):
    """Whether the numbers just inside of an end are others than at it."""
    inside = torch.tensor([end + (0.01 if end == low else -0.01), end])
    near, at = call(inside)
    return float((near - at).abs()) > 1e-4


@pytest.mark.parametrize("call", [F.gelu, F.silu, F.hardswish, torch.sigmoid, F.elu])
def test_an_activation_that_is_flat_nowhere_has_no_ends(call):
    program = passes.capture(_Of(call), (torch.ones(1, 4),), {})
    *_, node = program.calls()
    assert row_of(node).flat is None


def test_a_clamp_by_a_tensor_has_no_ends():
    program = passes.capture(_Of(lambda x: torch.clamp(x, min=x.mean())), (torch.ones(1, 4),), {})
    *_, node = program.calls()
    found = row_of(node).flat
    assert found is None or found(node) is None
    assert torch.ops.aten.clamp.Tensor not in {op for op, row in RULES.items() if row.flat}
