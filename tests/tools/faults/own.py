"""Networks made to let faults through: what the tests' networks have little of."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models._random import normal


class Parts(nn.Module):
    """A part without gradients that takes two tensors and gives two, none like the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        with torch.no_grad():
            c = a - 2 * torch.relu(b)
            d = torch.sigmoid(a) + b
        return self.last(torch.cat([torch.relu(c), d], -1))


class Outputs(nn.Module):
    """Three outputs that are hidden channels themselves, the first of a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(8, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.relu(self.first(x))
        a, b = self.a(x), torch.relu(self.b(x))
        return self.last(b), a, b[:, 2:]


class Dead(nn.Module):
    """A branch that a zero keeps silent, as residual blocks are initialised, and dead units."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.a, self.b = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 8, 1)
        self.inner, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        self.register_buffer("gate", torch.zeros(1))
        self.register_buffer("shift", torch.tensor([0.0, 0.0, 30.0, 0.0]).repeat(2)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = x + self.gate * self.b(torch.relu(self.a(x)))
        return self.last(torch.relu(self.inner(x) - self.shift))


class Shifted(nn.Module):
    """Branches of different widths of the same size after the cut: only the order tells."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.norm, self.last = nn.BatchNorm2d(16), nn.Conv2d(16, 4, 1)
        self.gate = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.norm(torch.cat([self.a(x), self.b(x).flip(1)], 1)))
        gate = torch.sigmoid(self.gate(y.mean((2, 3))))
        return self.last(y * gate[:, :, None, None])


class Mixed(nn.Module):
    """Channels beside the input's own meet channels that could go."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 11, 1), nn.Conv2d(11, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(torch.cat([x, self.a(x)], 1) + self.b(x)))


class Middle(nn.Module):
    """A shuffle, read from in its middle as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.other = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.first(x).view(x.shape[0], 2, 4)
        return self.last(rows.transpose(1, 2).reshape(x.shape[0], 8)) + self.other(rows.sum(1))


class Turned(nn.Module):
    """A shuffle that turns the picture as well; one whose channels end on another axis."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        b, _, h, w = x.shape
        x = torch.relu(x.view(b, 2, 4, h, w).permute(0, 2, 1, 4, 3).reshape(b, 8, w, h))
        x = self.second(x).view(b, 3, 2, w, h).permute(0, 3, 4, 2, 1).reshape(b, w, h, 6)
        return self.last(x)


class Places(nn.Module):
    """Positions have parameters of their own, before a convolution mixes them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3)
        self.rows, self.grid = nn.Parameter(torch.zeros(6, 1)), nn.Parameter(torch.zeros(8, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) * self.grid.roll((1, 2), (1, 2)) + self.rows
        return self.last(F.max_pool2d(torch.relu(x), 2))


class Standardised(nn.Module):
    """A weight that is standardised over its inputs and taps before it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = (
            nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1))  # fmt: skip
        self.taps = nn.Parameter(torch.zeros(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.middle.weight * torch.sigmoid(self.taps)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-3)
        return self.last(torch.relu(F.conv2d(self.first(x), weight, self.middle.bias)))


class Enlarged(nn.Module):
    """Pixels that come from channels, and then are summed over by a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 1), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(F.pixel_shuffle(self.first(x), 2)))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...]]] = {
    "parts": (Parts, (normal(2, 5),)),
    "outputs": (Outputs, (normal(2, 5),)),
    "dead": (Dead, (normal(2, 3, 6, 6),)),
    "shifted": (Shifted, (normal(2, 3, 6, 6),)),
    "mixed": (Mixed, (normal(2, 3, 6, 6),)),
    "middle": (Middle, (normal(2, 5),)),
    "turned": (Turned, (normal(2, 3, 6, 6),)),
    "places": (Places, (normal(2, 3, 6, 6),)),
    "standardised": (Standardised, (normal(2, 3, 6, 6),)),
    "enlarged": (Enlarged, (normal(2, 3, 6, 6),)),
}
