"""Channel shuffle: a reshape that deals the channels of two halves like a pack of cards.

    [a0 a1 a2 a3 | b0 b1 b2 b3] - view [2, 4] - transpose - flatten -> [a0 b0 a1 b1 a2 b2 a3 b3]

    chunk: the first half passes by untouched, the second half is computed; cat, shuffle, again

Which channel meets which convolution changes from unit to unit, and only the reshape says how.
"""

import torch
from torch import Tensor, nn

from models._random import normal, seeded


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Deal the channels of `groups` equal piles in turn. [batch, c, h, w] -> the same"""
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).flatten(1, 2)


def pointwise(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def depthwise(width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False),
        nn.BatchNorm2d(width),
    )


class Unit(nn.Module):
    """ShuffleNetV2 unit: half of the channels pass, the other half is computed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(
            pointwise(half, half), depthwise(half, stride=1), pointwise(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        passed, computed = x.chunk(2, dim=1)
        return shuffled(torch.cat((passed, self.branch(computed)), dim=1), 2)


class DownUnit(nn.Module):
    """ShuffleNetV2 unit with stride 2: both halves are computed from all channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.short = nn.Sequential(depthwise(inputs, stride=2), pointwise(inputs, half))
        self.branch = nn.Sequential(
            pointwise(inputs, half), depthwise(half, stride=2), pointwise(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        return shuffled(torch.cat((self.short(x), self.branch(x)), dim=1), 2)


class Shuffle(nn.Module):
    """A small ShuffleNetV2. [batch, 3, 32, 32] -> [batch, 10]"""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.Sequential(
            DownUnit(24, 64), Unit(64), Unit(64), DownUnit(64, 128), Unit(128), Unit(128)
        )
        self.last = pointwise(128, 128)
        self.classify = nn.Linear(128, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.classify(self.last(self.stages(self.stem(image))).mean([2, 3]))


def shuffle() -> nn.Module:
    return seeded(Shuffle, 6)


def example_inputs() -> Tensor:
    return normal(2, 3, 32, 32)
