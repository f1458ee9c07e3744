"""Grouped convolution: channels in rows, one row for each group.

    reduce 1x1 -> [ group 0 | group 1 | group 2 | group 3 ] 3x3 -> expand 1x1 -> + -

    reduce[0] ~ grouped.weight[1]     input channel k of each group is slice k of weight[1], yet
                                      one group may keep other positions than the next
    grouped.weight[0] ~ expand[1]     output channel k of group g is filter g * width + k

Every group keeps the same *number* of channels, or a whole group goes and `groups` shrinks.
"""

import torch
from torch import Tensor, nn

from models._random import normal, seeded

GROUPS = 4


class Block(nn.Module):
    """ResNeXt bottleneck. [batch, inputs, h, w] -> [batch, outputs, h / stride, w / stride]"""

    def __init__(self, inputs: int, inside: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, inside, 1, bias=False)
        self.reduce_norm = nn.BatchNorm2d(inside)
        self.grouped = nn.Conv2d(inside, inside, 3, stride, padding=1, groups=GROUPS, bias=False)
        self.grouped_norm = nn.BatchNorm2d(inside)
        self.expand = nn.Conv2d(inside, outputs, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        out = torch.relu(self.reduce_norm(self.reduce(x)))
        out = torch.relu(self.grouped_norm(self.grouped(out)))
        return torch.relu(self.expand_norm(self.expand(out)) + skip)


class Grouped(nn.Module):
    """A small ResNeXt. [batch, 3, 16, 16] -> [batch, 10]"""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(32)
        self.blocks = nn.Sequential(
            Block(32, 32, 64),
            Block(64, 32, 64),
            Block(64, 64, 96, stride=2),
            Block(96, 64, 96),
        )
        self.classify = nn.Linear(96, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(image)))
        return self.classify(self.blocks(x).mean((2, 3)))


def grouped() -> nn.Module:
    return seeded(Grouped, 5)


def example_inputs() -> Tensor:
    return normal(2, 3, 16, 16)
