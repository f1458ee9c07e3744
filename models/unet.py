r"""A U: the way up joins what the way down left behind.

    16 ------------------------- cat - 32 -> 16 - mask
       \ 32 ------------- cat - 64 -> 32 / up
           \ 64 ------------- / up

    up.weight[1] ~ first run of merge.weight[1]     a transposed convolution keeps its *outputs* in
    down[i]      ~ second run of merge.weight[1]    weight[1]; cat puts the skipped channels behind

The two runs need not shrink alike.
"""

import torch
from torch import Tensor, nn

from models._random import normal, seeded


def double(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, each with norm and activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Up(nn.Module):
    """Double the size, join the skipped map. [b, inputs, h, w] and [b, outputs, 2h, 2w]"""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
        self.merge = double(2 * outputs, outputs)

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        return self.merge(torch.cat([self.up(x), skipped], dim=1))


class UNet(nn.Module):
    """A small U-Net with three levels. [batch, 3, 32, 32] -> [batch, 2, 32, 32]"""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.down0 = double(3, 16)
        self.down1 = double(16, 32)
        self.bottom = double(32, 64)
        self.up1 = Up(64, 32)
        self.up0 = Up(32, 16)
        self.mask = nn.Conv2d(16, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.down0(image)
        coarse = self.down1(self.pool(fine))
        x = self.bottom(self.pool(coarse))
        return self.mask(self.up0(self.up1(x, coarse), fine))


def unet() -> nn.Module:
    return seeded(UNet, 8)


def example_inputs() -> Tensor:
    return normal(2, 3, 32, 32)
