"""Models on the meta device, and fake ones: the same groups as with values, at no memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compressor.passes.importance.magnitude import BLOCK, channel_scores
from compressor.passes.ir.fake_weights import has_values
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from compressor import passes
from models import decoder, residual

ROOT = Path(__file__).resolve().parents[3]


def capture(model: nn.Module, x: Tensor) -> passes.Program:
    return passes.capture(model, (x,), {})


class Mixed(nn.Module):
    """Weights on the meta device, a real buffer, and a constant made in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16, device="meta")
        self.second = nn.Linear(16, 16, device="meta")
        self.head = nn.Linear(16, 3, device="meta")
        self.register_buffer("shift", torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.shift + torch.arange(6)
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


def tied(device: str) -> nn.Module:
    with torch.device(device):
        return decoder.Decoder(depth=1).eval()


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (residual.Residual, residual.example_inputs()),
        (decoder.Decoder, decoder.example_inputs()),
    ],
    ids=["residual", "decoder"],
)
def test_the_groups_are_those_of_the_model_with_values(make, x):
    real = capture(make(), x)
    with torch.device("meta"):
        empty = capture(make(), x)
    assert not any(map(has_values, empty.tensors().values()))
    assert empty.engine == real.engine == "torch.export, dynamic batch"
    coupled, other = passes.couple(real), passes.couple(empty)
    assert passes.to_text(other) == passes.to_text(coupled)
    for kind in passes.KINDS:
        assert passes.Costs(other, kind).dense == passes.Costs(coupled, kind).dense


def test_inputs_may_be_on_the_meta_device_as_well():
    program = capture(decoder.decoder().to("meta"), decoder.example_inputs().to("meta"))
    assert passes.couple(program).groups


def test_a_model_built_under_a_fake_mode_is_captured_in_that_mode():
    wanted = passes.to_text(passes.couple(capture(tied("cpu"), decoder.example_inputs())))
    with FakeTensorMode():
        model, x = tied("cpu"), torch.zeros(2, 16, dtype=torch.long)
    for given in (x, decoder.example_inputs()):
        assert passes.to_text(passes.couple(capture(model, given))) == wanted


def test_tied_weights_stay_tied_and_weights_of_equal_shape_stay_apart():
    real, empty = tied("cpu"), tied("meta")
    assert dict(capture(empty, decoder.example_inputs()).aliases) == dict(
        capture(real, decoder.example_inputs()).aliases
    )
    groups = passes.couple(capture(Mixed(), torch.zeros(2, 6))).groups
    assert [group.name for group in groups] == ["first.weight[0]", "second.weight[0]"]


def test_the_model_itself_is_left_as_it_was():
    model = Mixed()
    before = {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    capture(model, torch.zeros(2, 6))
    assert {n: id(t) for n, t in model.state_dict(keep_vars=True).items()} == before
    assert model.first.weight.is_meta
    assert torch.equal(model.shift, torch.ones(6))


def test_what_cannot_be_captured_says_so_and_leaves_the_model_too():
    class Looks(Mixed):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if self.shift.sum() > 0 else -x)

    model = Looks()
    with pytest.raises(passes.UsageError, match="cannot be captured"):
        capture(model, torch.zeros(2, 6))
    assert model.first.weight.is_meta


# ---------------------------------------------------------------------------- planning


def halved(coupling: passes.Coupling, criterion: str, weights=None) -> passes.Plan:
    options = passes.Options(criterion=criterion)
    return passes.choose(coupling, passes.Budget(params=0.5), options, weights)


def test_random_scores_need_no_values():
    real = passes.couple(capture(residual.residual(), residual.example_inputs()))
    empty = passes.couple(capture(residual.residual().to("meta"), residual.example_inputs()))
    assert halved(empty, "random").kept == halved(real, "random").kept


@pytest.mark.parametrize("criterion", ["l1", "l2", "bn-scale"])
def test_other_scores_refuse_or_read_the_weights_that_are_given(criterion):
    model = residual.residual()
    real = passes.couple(capture(model, residual.example_inputs()))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    empty = passes.couple(capture(model.to("meta"), residual.example_inputs()))
    with pytest.raises(passes.UsageError, match="this criterion needs weights") as refused:
        halved(empty, criterion)
    assert "--criterion random" in refused.value.hint
    assert halved(empty, criterion, state).kept == halved(real, criterion).kept


def test_cutting_and_proving_refuse_a_program_without_values():
    coupling = passes.couple(capture(Mixed(), torch.zeros(2, 6)))
    plan = halved(coupling, "random")
    with pytest.raises(passes.UsageError, match="cutting a network needs weights"):
        passes.apply(passes.Shrink(plan), coupling.program)
    with pytest.raises(passes.UsageError, match="a proof needs weights"):
        passes.prove(plan, coupling.program, [((torch.zeros(2, 6),), {})])


def test_scores_are_summed_block_by_block(monkeypatch):
    coupling = passes.couple(capture(residual.residual(), residual.example_inputs()))
    whole = channel_scores(coupling, "l2")
    monkeypatch.setattr("compressor.passes.importance.magnitude.BLOCK", 100)
    assert BLOCK > 100
    torch.testing.assert_close(channel_scores(coupling, "l2"), whole)


# ---------------------------------------------------------------------------- growth

MEASURE = """
import json, resource, sys
import torch
from torch import nn
from compressor import passes

class Gated(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.gate, self.up = nn.Linear(width, 3 * width), nn.Linear(width, 3 * width)
        self.down = nn.Linear(3 * width, width)
    def forward(self, x):
        y = self.norm(x)
        return x + self.down(torch.sigmoid(self.gate(y)) * self.up(y))

def peak(width):
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(8, width), *[Gated(width) for _ in range(4)])
    program = passes.capture(model, (torch.zeros(2, 8),), {})
    coupling = passes.couple(program, [])
    passes.choose(coupling, passes.Budget(params=0.5), passes.Options("random", uniform=True))
    count = sum(one.numel() for one in model.parameters())
    return {"parameters": count, "groups": len(coupling.groups),
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}

print(json.dumps([peak(256), peak(8192)]))
"""


def test_memory_grows_with_the_channels_and_not_with_the_parameters():
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    narrow, wide = json.loads(done.stdout)
    assert wide["groups"] == narrow["groups"] == 4
    assert wide["parameters"] > 1000 * narrow["parameters"] > 1e9
    assert wide["peak"] - narrow["peak"] < 0.02 * 4 * wide["parameters"]
    assert wide["peak"] - narrow["peak"] < 150e6
