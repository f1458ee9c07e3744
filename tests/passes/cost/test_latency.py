"""Plans by time: kernels, stairs, and the choice between widths that a device made of them."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from compressor.passes import Budget, Options, UsageError
from compressor.passes.cost.kernels import Kernel, works
from compressor.passes.cost.latency import Timed, WeightReading
from compressor.passes.cost.memory import Memory
from torch import Tensor, nn

from compressor import passes
from compressor.timing.kernel_models import BUILDERS, weights
from models._random import normal, seeded

NONE = torch.zeros(0, dtype=torch.long)


class Chain(nn.Module):
    """Three convolutions with a norm, an activation and an addition that are fused into them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 48, 3, padding=1), nn.BatchNorm2d(48)
        self.second, self.third = nn.Conv2d(48, 64, 3, padding=1), nn.Conv2d(64, 48, 1)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        x = F.relu(x + self.third(F.relu(self.second(x))))
        return self.head(x.mean((2, 3)))


def coupling_of(make=Chain, inputs=(2, 3, 8, 8)) -> passes.Coupling:
    return passes.couple(passes.capture(seeded(make, 0), (normal(*inputs),), {}))


def stairs(kernel: Kernel) -> float:
    """A device that computes blocks of 16 channels, in and out."""
    blocks = (math.ceil(width / 16) for width in kernel.widths)
    return float(math.prod(blocks)) if kernel.kind in ("conv", "linear") else 0.0


def chosen(coupling: passes.Coupling, ratio: float, time=stairs, **options) -> passes.Plan:
    timed = Timed(coupling, time)
    return passes.choose(coupling, Budget(latency=ratio), Options(**options), time=timed)


def test_what_is_fused_into_a_convolution_is_no_kernel_of_its_own():
    kinds = [work.kind for work in works(coupling_of())]
    assert kinds == ["conv", "conv", "conv", "pool", "linear"]


def test_an_activation_with_two_readers_before_it_stays_a_kernel():
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.head(F.relu(y) * y)

    kernels = [work.at(lambda v, axis: v.shape[axis]) for work in works(coupling_of(Both))]
    assert [kernel.kind for kernel in kernels] == ["conv", "elementwise", "elementwise", "conv"]
    assert kernels[1].widths == (16 * 6 * 6,)  # of one sample, though two were captured


def test_an_activation_that_is_no_relu_belongs_to_its_convolution():
    """It goes over the result once more: half as long again for a depthwise convolution."""

    class Acting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(5))

        def forward(self, x: Tensor) -> Tensor:
            plain, relu, clip, after, alone = self.layers
            y = F.relu(relu(plain(x)))
            y = F.relu6(clip(y))
            y = torch.sigmoid(after(y) + x)
            z = alone(y)
            return torch.tanh(z) + z

    kernels = [work.at(lambda v, axis: v.shape[axis]) for work in works(coupling_of(Acting))]
    convs = [dict(kernel.fixed)["activation"] for kernel in kernels if kernel.kind == "conv"]
    assert convs == ["", "", "clip", "sigmoid", ""]
    assert [kernel.kind for kernel in kernels[5:]] == ["elementwise", "elementwise"]


class Equation(nn.Module):
    """An einsum of x with weights, or with itself."""

    def __init__(self, equation: str, *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.equation = equation
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(shape)) for shape in shapes)

    def forward(self, x: Tensor) -> Tensor:
        several = not self.weights and "," in self.equation
        return torch.einsum(self.equation, x, *self.weights, *[x] * several)


@pytest.mark.parametrize(("equation", "shapes", "found"), [
    ("btc,oc->bto", [(6, 8)], [("matmul", (8, 5, 6, 1))]),
    ("btc,btd->bcd", [], [("matmul", (5, 8, 8, 1))]),
    ("btc,cr,ro->bto", [(8, 4), (4, 6)], [("matmul", (8, 5, 4, 1)), ("matmul", (4, 5, 6, 1))]),
    ("btc,o->btco", [(6,)], [("matmul", (1, 40, 6, 1))]),
    ("btc,btc->btc", [], [("mul", (40,))]),
    ("btc,c->btc", [(8,)], [("mul", (40,))]),
    ("btc->bct", [], [("permute", (40,))]),
    ("btc->bt", [], [("sum", (40,))]),
])  # fmt: skip
def test_an_einsum_takes_the_time_of_its_products(equation, shapes, found):
    coupling = coupling_of(lambda: Equation(equation, *shapes), (2, 5, 8))
    kernels = [work.at(lambda v, axis: v.shape[axis]) for work in works(coupling)]
    names = [dict(kernel.fixed).get("op", kernel.kind) for kernel in kernels]
    assert list(zip(names, (kernel.widths for kernel in kernels), strict=True)) == found


@pytest.mark.parametrize("layer", [
    nn.Conv2d(32, 16, 3, groups=4), nn.ConvTranspose2d(32, 16, 3, groups=4), nn.Conv1d(8, 12, 5),
    nn.Conv2d(8, 8, 3, groups=8), nn.ConvTranspose2d(8, 12, 3), nn.Linear(8, 12),
])  # fmt: skip
def test_the_weights_of_a_kernel_are_those_of_its_layer(layer):
    shape = {1: (2, 8), 3: (2, 8, 9), 4: (2, layer.weight.shape[0], 9, 9)}
    rank = 1 if isinstance(layer, nn.Linear) else layer.weight.dim()
    inputs = shape[rank] if rank != 4 else (2, layer.in_channels, 9, 9)
    coupling = coupling_of(lambda: nn.Sequential(layer), inputs)
    (kernel,) = [work.at(lambda v, axis: v.shape[axis]) for work in works(coupling)]
    assert weights(kernel) == layer.weight.numel()
    assert kernel.kind in BUILDERS


def test_kernels_shrink_with_the_plan():
    coupling = coupling_of()
    plan = chosen(coupling, 0.6)
    kernels = Timed(coupling, stairs).kernels(plan.channels)
    small = passes.apply(passes.Shrink(plan), coupling.program).program
    weights = [tensor for name, tensor in small.tensors().items() if tensor.dim() > 1]
    made = [kernel.widths[:2] for kernel in kernels if kernel.kind in ("conv", "linear")]
    assert made == [(weight.shape[1], weight.shape[0]) for weight in weights]
    assert made != [(3, 48), (48, 64), (64, 48), (48, 10)]


def test_widths_are_the_tops_of_stairs():
    widths = [kept for _, kept in chosen(coupling_of(), 0.6).widths]
    assert widths != [48, 64]
    assert all(kept % 16 == 0 for kept in widths)


def test_what_is_free_is_kept():
    """Without stairs below 32, nothing narrower is worth it."""

    def time(kernel: Kernel) -> float:
        return float(math.prod(math.ceil(width / 32) for width in kernel.widths))

    widths = {kept for _, kept in chosen(coupling_of(), 0.8, time).widths}
    assert widths <= {32, 48, 64}


def test_the_rounding_that_is_asked_for_is_kept_to():
    widths = [kept for _, kept in chosen(coupling_of(), 0.6, round_to=12).widths]
    assert all(kept % 12 == 0 or kept in (48, 64) for kept in widths)


def test_a_time_that_cannot_be_reached_says_the_least():
    with pytest.raises(UsageError, match=r"0.001 of the latency cannot be reached; the least is"):
        chosen(coupling_of(), 0.001)


def test_a_budget_of_latency_without_times_is_refused():
    with pytest.raises(UsageError, match="needs a device's times"):
        passes.choose(coupling_of(), Budget(latency=0.5), Options())


@pytest.mark.parametrize("ratio", [0.9, 0.75, 0.6, 0.45, 0.3])
def test_the_plan_loses_as_little_as_the_best_of_all(ratio):
    coupling = coupling_of()
    timed = Timed(coupling, stairs)
    plan = passes.choose(coupling, Budget(latency=ratio), Options(), time=timed)
    from compressor.passes.importance.magnitude import channel_scores
    from compressor.passes.importance.ranking import by_scores

    scores = channel_scores(coupling, "l2", 0)
    rankings = [by_scores(group, scores) for group in coupling.groups]
    best = math.inf
    for counts in itertools.product(*(range(0, group.size, 4) for group in coupling.groups)):
        gone = torch.cat([NONE, *(cell[:n] for ranking, n in zip(rankings, counts, strict=True)
                                  for cell in ranking.order)])  # fmt: skip
        if timed.amount(gone) <= ratio * timed.dense:
            lost = sum(sum(one.losses[:n]) for one, n in zip(rankings, counts, strict=True))
            best = min(best, lost)
    assert plan.loss <= best * (1 + 1e-6)


def test_gains_are_what_amounts_say():
    coupling = coupling_of()
    timed, memory = Timed(coupling, stairs), Memory(coupling)

    def read(held: float) -> float:
        return max(held - 4e3, 0) / 7

    reading = WeightReading(lambda kernel: math.prod(kernel.widths), read, read)
    streamed = Timed(coupling, stairs, reading=reading)
    assert streamed.dense > timed.dense
    orders = [group.cells for group in coupling.groups]

    def block(group: int, count: int) -> Tensor:
        return torch.cat([cell[:count] for cell in orders[group]])

    for cost in (timed, memory, streamed):
        gains = cost.gains(NONE, {0: [16, 32], 1: [16, 40]}, block)
        for group, saved in gains.items():
            for count, gain in zip({0: [16, 32], 1: [16, 40]}[group], saved, strict=True):
                assert gain == pytest.approx(cost.dense - cost.amount(block(group, count)))


def test_peak_memory_is_that_of_the_widest_place():
    """The second convolution reads 48 channels, keeps them for the addition, and makes 64."""
    assert Memory(coupling_of()).dense == (48 + 64 + 64) * 8 * 8 * 4
