"""Repair: closed-form answers that are known, layer by layer, and what decides."""

import pytest
import torch
import torch.nn.functional as F
from compressor.passes import Budget
from compressor.passes.base.errors import ContractError, UsageError
from compressor.passes.coupling.groups import Coupling
from compressor.passes.planning.choice import Plan
from compressor.passes.repair import layerwise
from compressor.passes.repair.repair import Repair
from torch import nn

from compressor import passes


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Twice(nn.Module):
    """Two layers; the hidden channels `copies` say what each of them repeats."""

    def __init__(self, first, second, between=None):
        super().__init__()
        self.first, self.second = first, second
        self.between = between or nn.Identity()

    def forward(self, x):
        return self.second(F.relu(self.between(self.first(x))))


def doubled(layer, axis=0):
    """Outputs n and n + half are the same."""
    with torch.no_grad():
        half = layer.weight.shape[axis] // 2
        first = layer.weight.narrow(axis, 0, half)
        layer.weight.narrow(axis, half, half).copy_(first)
        if layer.bias is not None:
            layer.bias[half:] = layer.bias[:half]
    return layer


def plan_without(coupling: Coupling, axis: str, gone) -> Plan:
    """The plan that removes these positions of the group with this axis."""
    group = next(g for g in coupling.groups if axis in map(str, g.axes))
    channels = torch.cat([cell[torch.tensor(gone)] for cell in group.cells]).sort().values
    return Plan(coupling, Budget(channels=0.5), channels)


def repaired(model, x, axis, gone, batches=None, **options):
    """The model without some channels, as sliced and as repaired."""
    torch.manual_seed(0)
    model.eval()
    args = x if isinstance(x, tuple) else (x,)
    program = passes.capture(model, tuple(one[:2] for one in args), {})
    plan = plan_without(passes.couple(program), axis, gone)
    small = passes.apply(passes.Shrink(plan), program).program
    calls = [(args, {})] if batches is None else batches
    return small, passes.apply(Repair(plan, calls, **options), small)


def worst(a, b):
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / b.abs().max())


torch.manual_seed(0)
CONV = seeded(96, 6, 10, 10)
LAYERS = {
    "linear": (nn.Linear(6, 8), nn.Linear(8, 5), seeded(300, 6)),
    "linear over tokens": (nn.Linear(6, 8), nn.Linear(8, 5), seeded(60, 7, 6)),
    "no bias": (nn.Linear(6, 8), nn.Linear(8, 5, bias=False), seeded(300, 6)),
    "conv1d": (nn.Conv1d(6, 8, 3), nn.Conv1d(8, 5, 3, padding=1), seeded(60, 6, 20)),
    "conv2d": (nn.Conv2d(6, 8, 3), nn.Conv2d(8, 5, 3, padding=1), CONV),
    "strided": (nn.Conv2d(6, 8, 3), nn.Conv2d(8, 5, 3, stride=2, padding=1), CONV),
    "dilated": (nn.Conv2d(6, 8, 3), nn.Conv2d(8, 5, (3, 2), dilation=(2, 1)), CONV),
    "same": (nn.Conv2d(6, 8, 3), nn.Conv2d(8, 5, (3, 2), padding="same"), CONV),
    "conv3d": (nn.Conv3d(2, 8, 3), nn.Conv3d(8, 3, 2), seeded(30, 2, 6, 6, 6)),
    "transposed": (
        nn.Conv2d(6, 8, 3),
        nn.ConvTranspose2d(8, 5, 3, stride=2, padding=1, output_padding=1),
        CONV,
    ),
    "transposed without stride": (nn.Conv1d(6, 8, 3), nn.ConvTranspose1d(8, 5, 4),
                                  seeded(60, 6, 20)),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_what_a_copy_carried_is_moved_to_the_channel_that_stays(name):
    first, second, x = LAYERS[name]
    model = Twice(doubled(first), second)
    small, result = repaired(model, x, "first.weight[0]", [4, 5, 6, 7])
    assert result.chosen == "refit"
    assert worst(small.module(x), model(x)) > 0.1
    assert worst(result.program.module(x), model(x)) < 1e-6


def test_a_channel_that_is_a_sum_of_others_can_go():
    first = nn.Linear(6, 8)
    with torch.no_grad():
        first.weight[7] = first.weight[0] - 2 * first.weight[1]
        first.bias[7] = first.bias[0] + 3
    model = nn.Sequential(first, nn.Linear(8, 5)).eval()
    x = seeded(300, 6)
    small, result = repaired(model, x, "0.weight[0]", [7])
    assert worst(small.module(x), model(x)) > 0.1
    assert worst(result.program.module(x), model(x)) < 1e-6


def test_a_constant_channel_goes_into_the_bias():
    first = nn.Conv2d(6, 8, 3)
    with torch.no_grad():
        first.weight[3] = 0
        first.bias[3] = 2.0
    model = Twice(first, nn.Conv2d(8, 5, 3))
    small, result = repaired(model, CONV, "first.weight[0]", [3])
    assert worst(small.module(CONV), model(CONV)) > 0.05
    assert worst(result.program.module(CONV), model(CONV)) < 1e-6


def test_groups_of_a_convolution_are_solved_apart():
    first, second = nn.Conv2d(6, 8, 3), nn.Conv2d(8, 6, 3, groups=2)
    with torch.no_grad():
        for one, other in ((0, 2), (1, 3), (4, 6), (5, 7)):
            first.weight[other], first.bias[other] = first.weight[one], first.bias[one]
    model = Twice(first, second)
    small, result = repaired(model, CONV, "first.weight[0]", [2, 3])
    assert [layer.columns for layer in result.layers][-1] == 2 * 9
    assert worst(small.module(CONV), model(CONV)) > 0.1
    assert worst(result.program.module(CONV), model(CONV)) < 1e-6


class Depthwise(nn.Module):
    """A channel that goes leaves an error in the stream, a depthwise layer passes it on."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(6, 8, 1)
        self.mid = nn.Conv2d(8, 4, 1)
        self.deep = nn.Conv2d(4, 4, 3, groups=4)

    def forward(self, x):
        return self.deep(F.relu(self.mid(F.relu(self.first(x)))))


def test_a_depthwise_layer_is_refitted_channel_by_channel():
    torch.manual_seed(1)
    _, result = repaired(Depthwise(), CONV, "first.weight[0]", [1, 2, 3])
    deep = result.layers[-1]
    assert (deep.name[:4], deep.columns, deep.why) == ("deep", 9, "")
    assert deep.after < deep.before


class Block(nn.Module):
    """A residual block behind one that is damaged: its shortcut carries the damage."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(6, 8, 1)
        self.hidden, self.out = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        self.wide, self.back = nn.Conv2d(4, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        stream = self.out(F.relu(self.hidden(F.relu(self.stem(x)))))
        return stream + self.back(self.wide(stream))


def test_a_block_mends_what_its_shortcut_lacks():
    torch.manual_seed(1)
    model = Block()
    with torch.no_grad():  # the block can add any multiple of its input
        model.wide.weight[:4] = torch.eye(4)[:, :, None, None]
    small, result = repaired(model, CONV, "hidden.weight[0]", [0, 1, 2])
    alone = float((result.program.module(CONV) - model(CONV)).detach().square().mean())
    ends = {layer.name.split()[0]: layer for layer in result.layers}
    assert ends["back"].after < ends["back"].before
    assert alone < float((small.module(CONV) - model(CONV)).detach().square().mean()) / 2


def test_batch_norm_takes_over_the_mean_of_a_layer_without_a_bias():
    first = doubled(nn.Conv2d(6, 8, 3))
    norm = nn.BatchNorm2d(5)
    norm.running_mean[:], norm.running_var[:] = torch.arange(5.0), torch.arange(1.0, 6)
    model = nn.Sequential(first, nn.ReLU(), nn.Conv2d(8, 5, 3, bias=False), norm).eval()
    small, result = repaired(model, CONV, "0.weight[0]", [4, 5, 6, 7])
    assert worst(small.module(CONV), model(CONV)) > 0.1
    assert worst(result.program.module(CONV), model(CONV)) < 1e-5


class Attention(nn.Module):
    def __init__(self, heads=4, width=16):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(6, 3 * width), nn.Linear(width, 6)

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(n, t, -1))


def test_a_head_that_another_repeats_can_go():
    model = Attention()
    with torch.no_grad():
        for part in (model.qkv.weight, model.qkv.bias):
            grid = part.view(3, 4, 4, -1)
            grid[:, 3] = grid[:, 1]
    x = seeded(60, 7, 6)
    program = passes.capture(model, (x[:2],), {})
    names = [g.name for g in passes.couple(program).groups if g.rows]
    assert names
    coupling = passes.couple(program)
    rows = next(g for g in coupling.groups if g.rows)
    plan = Plan(coupling, Budget(channels=0.5), rows.cells[0][3:4])
    small = passes.apply(passes.Shrink(plan), program).program
    result = passes.apply(Repair(plan, [((x,), {})]), small)
    assert worst(small.module(x), model(x)) > 0.1
    assert worst(result.program.module(x), model(x)) < 1e-5


class Matmul(nn.Module):
    """The same layer, written with `operation`."""

    def __init__(self, operation):
        super().__init__()
        self.first = doubled(nn.Linear(6, 8))
        self.weight, self.bias = nn.Parameter(seeded(8, 5)), nn.Parameter(seeded(5, seed=1))
        self.operation = operation

    def forward(self, x):
        return self.operation(F.relu(self.first(x)), self.weight, self.bias)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x, w, b: x @ w,
        lambda x, w, b: torch.mm(x, w) + b,
        lambda x, w, b: torch.addmm(b, x, w),
        lambda x, w, b: torch.einsum("ni,io->no", x, w),
        lambda x, w, b: torch.einsum("io,ni->on", w, x),
        lambda x, w, b: F.linear(x, w.t(), b),
        lambda x, w, b: F.linear(x, w.transpose(0, 1), b),
        lambda x, w, b: F.linear(x, w.permute(1, 0)),
    ],
)
def test_products_are_refitted_however_they_are_written(operation):
    model, x = Matmul(operation), seeded(300, 6)
    small, result = repaired(model, x, "first.weight[0]", [4, 5, 6, 7])
    assert worst(small.module(x), model(x)) > 0.1
    assert worst(result.program.module(x), model(x)) < 1e-6


# ---------------------------------------------------------------------------- what is left alone


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.both, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x):
        return self.last(F.relu(self.both(F.relu(self.both(F.relu(self.first(x)))))))


def test_a_weight_that_is_used_twice_is_left_alone_with_a_reason():
    model, x = Shared(), seeded(300, 6)
    small, result = repaired(model, x, "first.weight[0]", [0, 1])
    left = [layer for layer in result.layers if layer.name.startswith("both")]
    assert len(left) == 2
    assert all("used in several places" in layer.why for layer in left)
    before, after = small.tensors(), result.program.tensors()
    assert torch.equal(before["both.weight"], after["both.weight"])


def test_held_out_inputs_decide_against_a_refit_to_noise():
    model = nn.Sequential(nn.Linear(40, 60), nn.ReLU(), nn.Linear(60, 5)).eval()
    with torch.no_grad():
        model[2].weight[:, 59] = 0  # what goes was not needed
    x = seeded(12, 40)
    small, result = repaired(model, x, "0.weight[0]", [59])
    assert result.chosen == "sliced"
    assert result.program is small
    assert result.changes == ()


def test_the_original_and_the_sliced_program_are_left_as_they_were():
    first, second, x = LAYERS["conv2d"]
    model = Twice(doubled(first), second)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    small, result = repaired(model, x, "first.weight[0]", [4, 5, 6, 7])
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    kept = small.tensors()["second.weight"]
    assert torch.equal(kept, second.weight.detach()[:, :4])
    assert result.program.tensors()["second.weight"] is not kept


# ---------------------------------------------------------------------------- the inputs


def test_the_order_of_batches_does_not_matter():
    first, second, _ = LAYERS["conv2d"]
    model = Twice(first, second)
    batches: list = [((part,), {}) for part in CONV.split(8)]
    _, one = repaired(model, CONV, "first.weight[0]", [1, 2], batches)
    _, two = repaired(model, CONV, "first.weight[0]", [1, 2], batches[::-1])
    first_, other = one.program.tensors(), two.program.tensors()
    assert all(torch.equal(tensor, other[name]) for name, tensor in first_.items())


def test_memory_is_bounded_however_many_inputs_there_are():
    first, second, _ = LAYERS["conv2d"]
    model = Twice(first, second)
    used = []
    for count in (96, 960):
        batches: list = [((seeded(32, 6, 10, 10, seed=n),), {}) for n in range(count // 32)]
        _, result = repaired(model, CONV, "first.weight[0]", [1], batches, memory=1 << 20)
        used.append((result.samples["given"], result.samples["used"], result.bytes))
    assert [given for given, _, _ in used] == [96, 960]
    assert used[1][2] <= max(used[0][2], 1 << 21)


def test_one_input_is_too_few():
    first, second, x = LAYERS["linear"]
    with pytest.raises(UsageError, match="too few"):
        repaired(Twice(first, second), x, "first.weight[0]", [1], [((x[:1],), {})])


def test_a_repair_for_another_plan_is_refused():
    first, second, x = LAYERS["linear"]
    program = passes.capture(Twice(first, second), (x[:2],), {})
    coupling = passes.couple(program)
    plans = [plan_without(coupling, "first.weight[0]", gone) for gone in ([0], [0, 1])]
    small = passes.apply(passes.Shrink(plans[0]), program).program
    with pytest.raises(ContractError, match="not as this plan cuts it"):
        passes.apply(Repair(plans[1], [((x,), {})]), small)


# ---------------------------------------------------------------------------- wide, recurrent


@pytest.mark.parametrize("name", ["conv2d", "transposed", "strided"])
def test_a_wide_layer_is_solved_by_channels(name, monkeypatch):
    monkeypatch.setattr(layerwise, "COLUMNS", 20)
    first, second, x = LAYERS[name]
    with torch.no_grad():
        second.bias.zero_()
    model = Twice(doubled(first), second)
    small, result = repaired(model, x, "first.weight[0]", [4, 5, 6, 7])
    assert worst(small.module(x), model(x)) > 0.1
    assert worst(result.program.module(x), model(x)) < 1e-5


def test_a_wide_layer_that_cannot_be_solved_says_so(monkeypatch):
    monkeypatch.setattr(layerwise, "COLUMNS", 3)
    first, second, x = LAYERS["linear"]
    _, result = repaired(Twice(doubled(first), second), x, "first.weight[0]", [4, 5, 6, 7])
    assert "more than can be solved" in result.layers[-1].why


class Sequence(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.first, self.layer = doubled(nn.Linear(6, 8)), layer

    def forward(self, x):
        return self.layer(torch.relu(self.first(x)))[0]


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(8, 5, batch_first=True),
        nn.GRU(8, 5, bidirectional=True, batch_first=True),
        nn.RNN(8, 5, num_layers=2, batch_first=True),
        nn.LSTM(8, 5, bias=False, batch_first=True),
    ],
)
def test_recurrent_layers_read_on_what_stays(layer):
    model, x = Sequence(layer), seeded(60, 7, 6)
    small, result = repaired(model, x, "first.weight[0]", [4, 5, 6, 7])
    assert worst(small.module(x), model(x)) > 0.01
    assert worst(result.program.module(x), model(x)) < 1e-5
