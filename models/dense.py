"""Dense connection: every layer reads the outputs of all layers before it.

    x --+------------------+-----------------+---
        |- layer 0 -> cat -+- layer 1 -> cat +- ...      16 channels more at each step

    layer[0].grow[0] ~ a run of layer[1].norm, layer[2].norm, ..., transition.norm

A channel is written once and read at a different offset of each later weight; a group is the set of
all its readers, so the layers of a block form separate groups.
"""

import torch
from torch import Tensor, nn

from models._random import normal, seeded

GROWTH = 16


class Layer(nn.Module):
    """Bottleneck layer: 1x1 to 64 channels, then 3x3 to `GROWTH` new ones."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.squeeze = nn.Conv2d(inputs, 4 * GROWTH, 1, bias=False)
        self.squeeze_norm = nn.BatchNorm2d(4 * GROWTH)
        self.grow = nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, earlier: list[Tensor]) -> Tensor:
        x = torch.relu(self.norm(torch.cat(earlier, dim=1)))
        return self.grow(torch.relu(self.squeeze_norm(self.squeeze(x))))


class Block(nn.Module):
    """[batch, inputs, h, w] -> [batch, inputs + layers * GROWTH, h, w]"""

    def __init__(self, inputs: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(inputs + i * GROWTH) for i in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        earlier = [x]
        for layer in self.layers:
            earlier.append(layer(earlier))
        return torch.cat(earlier, dim=1)


class Dense(nn.Module):
    """A small DenseNet. [batch, 3, 16, 16] -> [batch, 10]"""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.first = Block(32, 4)
        self.transition = nn.Sequential(
            nn.BatchNorm2d(96), nn.ReLU(), nn.Conv2d(96, 48, 1, bias=False), nn.AvgPool2d(2)
        )
        self.second = Block(48, 4)
        self.norm = nn.BatchNorm2d(112)
        self.classify = nn.Linear(112, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.second(self.transition(self.first(self.stem(image))))
        return self.classify(torch.relu(self.norm(x)).mean((2, 3)))


def dense() -> nn.Module:
    return seeded(Dense, 7)


def example_inputs() -> Tensor:
    return normal(2, 3, 16, 16)
