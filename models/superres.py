"""Pixel shuffle: four channels become one channel of twice the height and width.

    conv [128, 16, 16] - pixel_shuffle(2) - [32, 32, 32] - conv - image of twice the size

    spread.weight[0] in runs of 4 ~ paint.weight[1]     one channel after it is four in a row before

A long skip joins the stem to the end of the residual body, so the body is one group.
"""

import torch
from torch import Tensor, nn

from models._random import normal, seeded


class Block(nn.Module):
    """Residual block without norms, its branch scaled down. [batch, width, h, w] -> the same"""

    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, inside, 3, padding=1)
        self.second = nn.Conv2d(inside, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5 * self.second(torch.relu(self.first(x)))


class SuperResolution(nn.Module):
    """A small EDSR. [batch, 3, 16, 16] -> [batch, 3, 32, 32]"""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.body = nn.Sequential(Block(32, 48), Block(32, 48), nn.Conv2d(32, 32, 3, padding=1))
        self.spread = nn.Conv2d(32, 4 * 32, 3, padding=1)
        self.enlarge = nn.PixelShuffle(2)
        self.paint = nn.Conv2d(32, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        x = x + self.body(x)
        return self.paint(torch.relu(self.enlarge(self.spread(x))))


def superres() -> nn.Module:
    return seeded(SuperResolution, 11)


def example_inputs() -> Tensor:
    return normal(2, 3, 16, 16)
