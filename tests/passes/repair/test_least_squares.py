"""Least squares from moments: against torch's own, and what held-out rows decide."""

import torch
from compressor.passes.repair.least_squares import Moments, fit


def rows(n, columns=6, outputs=3, blocks=2, noise=0.0, seed=0):
    random = torch.Generator().manual_seed(seed)
    u = torch.randn(blocks, n, columns, generator=random, dtype=torch.float64) + 0.5
    truth = torch.arange(blocks * outputs * columns, dtype=torch.float64)
    truth = truth.sin().view(blocks, outputs, columns)
    y = u @ truth.mT + 2 + noise * torch.randn(blocks, n, outputs, generator=random)
    return u, y, truth


def moments(u, y):
    found = Moments(u.shape[0], u.shape[2], y.shape[2])
    for part in range(0, u.shape[1], 7):  # streamed
        found.add(u[:, part : part + 7], y[:, part : part + 7])
    return found


def test_the_error_from_moments_is_the_mean_squared_error():
    u, y, truth = rows(50, noise=0.3)
    bias = torch.full((2, 3), 1.5, dtype=torch.float64)
    wanted = (u @ truth.mT + 1.5 - y).square().sum((0, 2)).mean()
    assert abs(moments(u, y).error(truth, bias) - float(wanted)) < 1e-9


def test_weights_and_bias_of_exact_rows_are_found():
    u, y, truth = rows(200)
    held = moments(*rows(50, seed=1)[:2])
    found = fit(moments(u, y), held, torch.zeros(2, 3, 6), torch.zeros(2, 3), free=True)
    assert torch.allclose(found.weight, truth, atol=1e-7)
    assert torch.allclose(found.bias, torch.full_like(found.bias, 2.0), atol=1e-7)
    assert found.ridge == 1e-9
    assert found.after < 1e-12 < found.before


def test_a_bias_that_is_not_free_stays():
    u, y, _ = rows(200)
    bias = torch.full((2, 3), 2.0)
    found = fit(moments(u, y), moments(u, y), torch.zeros(2, 3, 6), bias, free=False)
    assert torch.equal(found.bias, bias.double())
    assert found.after < 1e-12


def test_it_is_what_lstsq_finds():
    u, y, _ = rows(300, noise=1.0)
    found = fit(moments(u, y), moments(u, y), torch.zeros(2, 3, 6), torch.zeros(2, 3), free=True)
    whole = torch.cat([u, torch.ones(2, 300, 1, dtype=torch.float64)], 2)
    wanted = torch.linalg.lstsq(whole, y).solution
    assert torch.allclose(found.weight, wanted[:, :-1].mT, atol=1e-6)
    assert torch.allclose(found.bias, wanted[:, -1], atol=1e-6)


def test_noise_asks_for_a_ridge():
    u, y, truth = rows(9, noise=3.0)
    held = moments(*rows(500, seed=1)[:2])
    near = truth + 0.05
    found = fit(moments(u, y), held, near, torch.full((2, 3), 2.0), free=True)
    assert found.ridge > 1e-3


def test_weights_that_are_right_are_left_as_they_are():
    u, y, truth = rows(8, noise=5.0)
    held = moments(*rows(500, seed=1)[:2])
    found = fit(moments(u, y), held, truth, torch.full((2, 3), 2.0), free=True)
    assert found.ridge == float("inf")
    assert found.after == found.before
    assert torch.equal(found.weight, truth)


def test_columns_that_repeat_each_other_do_no_harm():
    u, y, _ = rows(200)
    u = torch.cat([u, u], 2)
    start = torch.zeros(2, 3, 12)
    found = fit(moments(u, y), moments(u, y), start, torch.zeros(2, 3), free=True)
    assert found.after < 1e-9
    assert bool(torch.isfinite(found.weight).all())
