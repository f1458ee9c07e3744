"""Sparse training: what the penalties are, and what they do to a live model."""

import pytest
import torch
from compressor.passes.base.errors import UsageError

from compressor import SparseGroups
from models import digits
from tests.compressor import samples


def test_an_unknown_penalty_and_a_model_without_scales_are_refused():
    with pytest.raises(UsageError, match="unknown penalty 'l0'"):
        SparseGroups(samples.net(), samples.example_inputs(), kind="l0")
    model = samples.net()
    model.norm = torch.nn.Identity()
    with pytest.raises(UsageError, match="no norm with a scale"):
        SparseGroups(model, samples.example_inputs(), kind="bn-scale")
    with pytest.raises(UsageError, match="no channel of this model can go"):
        SparseGroups(samples.net(), samples.example_inputs(), ignore=["*"])


def test_the_group_lasso_is_the_norm_of_all_that_goes_with_a_channel():
    model = samples.net()
    penalty = SparseGroups(model, samples.example_inputs())
    state = dict(model.named_parameters())
    wanted = 0.0
    groups = {
        "body": ("body.bias", "norm.weight", "norm.bias", "mid"),
        "mid": ("mid.bias", "last"),
        "last": ("last.bias", "head"),
    }
    for name, (*own, reader) in groups.items():
        out = state[f"{name}.weight"]
        for channel in range(len(out)):
            parts = [out[channel], state[f"{reader}.weight"][:, channel]]
            parts += [state[one][channel] for one in own]
            whole = torch.cat([part.reshape(-1) for part in parts])
            wanted += len(whole) ** 0.5 * whole.norm()
    torch.testing.assert_close(penalty(), wanted)


def test_the_scale_penalty_is_the_sum_of_absolute_scales():
    model = samples.net()
    with torch.no_grad():
        model.norm.weight[::2] *= -1
    penalty = SparseGroups(model, samples.example_inputs(), kind="bn-scale")
    torch.testing.assert_close(penalty(), model.norm.weight.abs().sum())
    penalty().backward()
    assert torch.equal(model.norm.weight.grad, model.norm.weight.detach().sign())


@pytest.mark.parametrize("kind", ["group-lasso", "bn-scale"])
def test_in_the_users_own_loop_some_channels_become_small(kind):
    model = digits.digits_resnet().train()
    modes = [part.training for part in model.modules()]
    penalty = SparseGroups(model, digits.example_inputs(), kind=kind)
    assert [part.training for part in model.modules()] == modes
    before = penalty.norms()
    images, labels = digits.data()[:2]
    optimiser = torch.optim.SGD(model.parameters(), 0.05)
    weight = {"group-lasso": 3e-3, "bn-scale": 0.1}[kind]
    for _ in range(2):
        for batch in torch.arange(len(images)).split(64):
            loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimiser.zero_grad()
            (loss + weight * penalty()).backward()
            optimiser.step()
    after = penalty.norms()
    assert after.sum() < 0.85 * before.sum()
    found = digits.accuracy(model.eval())["accuracy"]
    assert found > 0.9
