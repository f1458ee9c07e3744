"""Covariances of few rows: what goes for less than it costs is what a planner believes."""

import pytest
import torch
from compressor.passes.calibration import shrinkage
from compressor.passes.calibration.activation_statistics import readings
from compressor.passes.calibration.lockstep import sampled
from compressor.passes.calibration.shrinkage import share, shrunk
from compressor.passes.importance.obs_curves import curve
from torch import nn

from compressor import passes


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def halves(rows):
    """Covariances of every second row, and of the others."""
    return [torch.cov(rows[half::2].T, correction=0)[None] for half in (0, 1)]


def mixed(rows, columns, sources):
    """So many rows of columns that follow from fewer sources, and some noise of their own."""
    mixing = seeded(sources, columns, seed=1) / sources**0.5
    return seeded(rows, sources, seed=2) @ mixing + 0.3 * seeded(rows, columns, seed=3)


def optimism(cov, truth):
    """How much larger the errors of columns, foretold from the others, are than is believed."""
    inverse = torch.linalg.inv(cov + 1e-3 * cov.diagonal().mean() * torch.eye(len(cov)))
    believed = 1 / inverse.diagonal()
    error = ((inverse @ truth) * inverse).sum(1) * believed.square()
    return float((error / believed).log().mean())


@pytest.mark.parametrize("rows", [20, 60, 200])
def test_what_is_believed_to_follow_from_others_follows_in_other_rows(rows):
    truth = torch.cov(mixed(200_000, 60, 20).T)
    seen = mixed(rows, 60, 20)
    cov = torch.cov(seen.T, correction=0)
    found = shrunk(cov[None], *halves(seen))[0]
    assert abs(optimism(found, truth)) < 0.7 * optimism(cov, truth)
    assert torch.equal(found.diagonal(), cov.diagonal())


def test_the_more_rows_the_less_is_taken_off():
    found = [float(share(*halves(mixed(rows, 60, 20)))[0]) for rows in (20, 200, 20_000)]
    assert found[0] > found[1] > found[2]
    assert found[2] < 0.002


def test_a_copy_is_a_copy_however_few_rows_there_are():
    seen = seeded(60, 10)
    seen = torch.cat([seen, seen], 1)
    found = shrunk(torch.cov(seen.T, correction=0)[None], *halves(seen))[0]
    assert float(share(*halves(seen))[0]) < 0.02
    assert float(found[0, 10] / found[0, 0]) > 0.98


def test_one_half_without_rows_leaves_nothing_that_ties_columns():
    one = torch.cov(seeded(5, 4).T)[None]
    found = shrunk(one / 2, one, torch.zeros_like(one))[0]
    assert torch.equal(found, torch.diag(found.diagonal()))


def test_dead_columns_and_single_ones_are_left_alone():
    seen = mixed(40, 6, 3)
    seen[:, 2] = 0
    found = shrunk(torch.cov(seen.T, correction=0)[None], *halves(seen))
    assert bool(torch.isfinite(found).all())
    assert not found[0, 2].any()
    single = torch.rand(3, 1, 1).double()
    assert torch.equal(shrunk(single, single, single), single)


def test_blocks_have_a_share_each():
    many, few = mixed(40_000, 12, 4), mixed(16, 12, 4)
    both = [torch.cat(pair) for pair in zip(halves(many), halves(few), strict=True)]
    one, other = share(*both).tolist()
    assert one == pytest.approx(float(share(*halves(many))[0]))
    assert other == pytest.approx(float(share(*halves(few))[0]))


class Pictures(nn.Module):
    """What the last layer reads has one row a picture; what the others read has many."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.wide = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 96, 1)
        self.last = nn.Linear(96, 10)

    def forward(self, x):
        return self.last(torch.relu(self.wide(torch.relu(self.first(x)))).mean((2, 3)))


def foreseen(pictures, count):
    """What losing half of the wide layer is said to cost by so many pictures."""
    coupling = passes.couple(passes.capture(Pictures().eval(), (pictures[:2],), {}))
    chunks = sampled([((pictures[:count],), {})], coupling.program, 16)[0]
    group = next(g for g in coupling.groups if "wide.weight[0]" in map(str, g.axes))
    return sum(curve(coupling, group, readings(coupling, chunks)).losses[:48])


def test_fewer_pictures_than_channels_do_not_make_channels_free(monkeypatch):
    pictures = seeded(2048, 3, 2, 2).float()
    many, few = (foreseen(pictures, count) for count in (2048, 48))
    monkeypatch.setattr(shrinkage, "FEW", 2.0)  # nothing is looked at
    believed = foreseen(pictures, 48)
    assert believed < many / 4
    assert few > 2 * believed
