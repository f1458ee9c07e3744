r"""A residual sum with the norms inside the branches.

    x --- bn - relu - conv - bn - relu - conv --- + ---
      \________________________________________/

    stem ~ bn of every block ~ second of every block    the stream itself is never normalised:
                                                        each branch has its own norm of the same
                                                        channels, so they all stand or fall together

Where the shape changes, the shortcut starts after the first norm, as in the original paper.
"""

import torch
from torch import Tensor, nn

from models._random import normal, seeded


class Block(nn.Module):
    """Pre-activation basic block. [batch, inputs, h, w] -> [batch, outputs, h / stride, ...]"""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first_norm = nn.BatchNorm2d(inputs)
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        ready = torch.relu(self.first_norm(x))
        skip = x if self.shortcut is None else self.shortcut(ready)
        out = self.first(ready)
        return self.second(torch.relu(self.second_norm(out))) + skip


class Preact(nn.Module):
    """A small pre-activation ResNet. [batch, 3, 16, 16] -> [batch, 10]"""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(
            Block(16, 16), Block(16, 16),
            Block(16, 32, stride=2), Block(32, 32),
            Block(32, 64, stride=2), Block(64, 64),
        )  # fmt: skip
        self.norm = nn.BatchNorm2d(64)
        self.classify = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.blocks(self.stem(image))))
        return self.classify(x.mean(dim=(2, 3)))


def preact() -> nn.Module:
    return seeded(Preact, 3)


def example_inputs() -> Tensor:
    return normal(2, 3, 16, 16)
