"""Criteria from elsewhere: those of Torch-Pruning on our groups, and the user's own loss."""

import sys

import pytest
import torch
from compressor.passes.base.errors import UsageError
from torch import nn

from compressor import Budget, compress, passes
from compressor.criteria.choice import labelled, measured
from compressor.criteria.torch_pruning import PREFIX, scored
from compressor.loading.calibration_data import Data


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Block(nn.Module):
    """Two convolutions beside a shortcut, and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.back = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 8, 1)
        self.head = nn.Linear(8 * 16, 5)

    def forward(self, x):
        x = self.bn(self.stem(x)).relu()
        x = x + self.back(self.inner(x).relu())
        return self.head(x.flatten(1))


def block():
    torch.manual_seed(0)
    net = Block().eval()
    with torch.no_grad():
        net.bn.weight.uniform_(0.5, 1.5)
    return net


@pytest.fixture
def asked():
    images = seeded(64, 3, 4, 4)
    coupling = passes.couple(passes.capture(block(), (images[:2],), {}))
    return coupling, Data(images, coupling.program)


def ours(asked, name):
    coupling, data = asked
    seen = []
    inner = scored(PREFIX + name)
    assert inner is not None

    def spy(*args):
        seen.append(inner(*args))
        return seen[0]

    passes.Measured.of(coupling, data.calls, PREFIX + name, scored=spy)
    return coupling, seen[0]


@pytest.mark.parametrize("name", ["GroupMagnitudeImportance", "BNScaleImportance",
                                  "LAMPImportance"])  # fmt: skip
def test_scores_are_those_that_torch_pruning_gives_by_its_own_graph(asked, name):
    tp = pytest.importorskip("torch_pruning")
    coupling, found = ours(asked, name)
    net = block()
    graph = tp.DependencyGraph().build_dependency(net, seeded(1, 3, 4, 4))
    for group in coupling.groups:
        layer = getattr(net, group.name.split(".")[0])
        pruned = graph.get_pruning_group(layer, tp.prune_conv_out_channels,
                                         list(range(group.size)))  # fmt: skip
        wanted = getattr(tp.importance, name)()(pruned)
        scores = found[torch.cat(group.cells)]
        if wanted is None:  # no batch norm in this group
            assert not scores.any()
            continue
        torch.testing.assert_close(scores / scores.mean(), (wanted / wanted.mean()).double(),
                                   rtol=1e-4, atol=1e-4)  # fmt: skip


@pytest.mark.parametrize("name", ["TaylorImportance", "HessianImportance", "FPGMImportance",
                                  "RandomImportance"])  # fmt: skip
def test_other_importance_objects_score_every_channel(asked, name):
    pytest.importorskip("torch_pruning")
    coupling, found = ours(asked, name)
    assert found.shape == (coupling.channel_count,)
    for group in coupling.groups:
        scores = found[torch.cat(group.cells)]
        assert bool(torch.isfinite(scores).all())
        assert len(scores.unique()) > 1


def test_a_network_is_built_by_a_criterion_of_torch_pruning():
    pytest.importorskip("torch_pruning")
    images = seeded(64, 3, 4, 4)
    built = compress(block(), images[:2], budget=Budget(macs=0.5), data=images,
                     criterion="torch-pruning:GroupTaylorImportance")  # fmt: skip
    assert built.report["measured"]["criterion"] == "torch-pruning:GroupTaylorImportance"
    assert built.plan.reached <= 0.5 * built.plan.dense


def test_an_unknown_importance_object_is_refused_with_those_that_are_near():
    pytest.importorskip("torch_pruning")
    with pytest.raises(UsageError, match="no criterion 'GroupTaylor'") as caught:
        scored(PREFIX + "GroupTaylor")
    assert "GroupTaylorImportance" in str(caught.value)


def test_one_that_needs_more_than_a_group_is_refused(asked):
    pytest.importorskip("torch_pruning")
    with pytest.raises(UsageError, match="cannot be asked about a single group"):
        ours(asked, "OBDCImportance")


def test_a_missing_package_is_named_with_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(UsageError, match="needs torch_pruning, which is not installed"):
        scored(PREFIX + "TaylorImportance")


def test_criteria_from_elsewhere_need_calibration_inputs():
    with pytest.raises(UsageError, match="needs calibration inputs"):
        compress(block(), seeded(2, 3, 4, 4), budget=Budget(macs=0.5),
                 criterion="torch-pruning:TaylorImportance")  # fmt: skip


# ------------------------------------------------------------------------------ the user's loss


def halves():
    """Hidden units 0 to 3 make the first output, the others the second."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    with torch.no_grad():
        net[2].weight[0, 4:] = 0
        net[2].weight[1, :4] = 0
    return net.eval()


def first(outputs, target):
    return (outputs[:, 0] - target[:, 0]).square().mean()


def second(outputs, target):
    return (outputs[:, 1] - target[:, 1]).square().mean()


@pytest.mark.parametrize("criterion", ["taylor", "gradient", "hessian", "fisher"])
@pytest.mark.parametrize(("loss", "kept"), [(first, {0, 1, 2, 3}), (second, {4, 5, 6, 7})])
def test_what_the_users_loss_depends_on_stays(criterion, loss, kept):
    x, y = seeded(64, 6), seeded(64, 2, seed=1)
    built = compress(halves(), x[:2], budget=Budget(channels=0.5), round_to=1,
                     data=[(x[at : at + 16], y[at : at + 16]) for at in range(0, 64, 16)],
                     criterion=criterion, criterion_loss=loss)  # fmt: skip
    (indices,) = built.plan.kept["0.bias"]
    assert set(indices) == kept


def test_the_users_loss_sees_every_pair_together():
    x, y = seeded(50, 6), seeded(50, 2, seed=1)
    program = passes.capture(halves(), (x[:2],), {})
    seen = []

    def loss(outputs, target):
        seen.append((len(outputs), target))
        return first(outputs, target)

    chunks = labelled(program, Data([(x[:20], y[:20]), (x[20:], y[20:])], program), loss)
    assert sum(chunk.samples for chunk in chunks) == 50
    for chunk in chunks:
        assert chunk.loss is not None
        chunk.loss([halves()(chunk.leaves[0])])
    assert all(count == len(target) for count, target in seen)
    assert torch.equal(torch.cat([target for _, target in seen]), y)


@pytest.mark.parametrize(("options", "pairs", "why"), [
    ({"criterion": "taylor"}, False, "needs targets"),
    ({"criterion": "l2"}, True, "takes no loss"),
    ({"criterion": "taylor", "data": None}, True, "needs calibration inputs"),
])  # fmt: skip
def test_a_loss_that_cannot_be_taken_is_refused(options, pairs, why):
    x, y = seeded(32, 6), seeded(32, 2, seed=1)
    given = {"data": [(x, y)] if pairs else [x], **options}
    with pytest.raises(UsageError, match=why):
        compress(halves(), x[:2], budget=Budget(channels=0.5), criterion_loss=first, **given)


def test_a_loss_that_is_no_number_is_refused():
    x, y = seeded(32, 6), seeded(32, 2, seed=1)
    program = passes.capture(halves(), (x[:2],), {})
    with pytest.raises(UsageError, match="did not return a number"):
        measured(passes.couple(program), Data([(x, y)], program), passes.Options("taylor"),
                 lambda outputs, target: outputs - target)  # fmt: skip


# ----------------------------------------------------------------------------------- several steps


def test_a_network_is_built_in_several_steps():
    images = seeded(64, 3, 4, 4)
    built = compress(block(), images[:2], budget=Budget(channels=0.5), data=images, steps=3,
                     criterion="obs", round_to=1)  # fmt: skip
    assert built.plan.reached <= 0.5 * built.plan.dense
    assert built.report["measured"]["criterion"] == "obs"
    assert built.proof.holds


def test_several_steps_need_calibration_inputs():
    with pytest.raises(UsageError, match="several steps need calibration inputs"):
        compress(block(), seeded(2, 3, 4, 4), budget=Budget(macs=0.5), steps=2)
