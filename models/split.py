"""Split, work on parts, join again: a channel's way depends on where it stands in its layer.

    c2f:       first - chunk(2) -> [a, b]; b -> block -> c -> block -> d;  cat [a, b, c, d] - last
    res2net:   first - split(4) -> a | b -> conv | c + b' -> conv | d + c' -> conv;  cat - last

In `c2f` the residual blocks tie b ~ c ~ d while a is free; in `res2net` the sums tie the parts to
one another, and the split sizes are numbers in the graph that need not stay equal.
"""

import torch
from torch import Tensor, nn

from models._random import normal, seeded


def layer(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(inplace=True),
    )


class C2f(nn.Module):
    """YOLOv8's block: each step's output is kept. [b, inputs, h, w] -> [b, outputs, h, w]"""

    def __init__(self, inputs: int, outputs: int, steps: int = 2) -> None:
        super().__init__()
        half = outputs // 2
        self.first = layer(inputs, 2 * half)
        self.steps = nn.ModuleList(
            nn.Sequential(layer(half, half, 3), layer(half, half, 3)) for _ in range(steps)
        )
        self.last = layer((2 + steps) * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for step in self.steps:
            parts.append(parts[-1] + step(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Res2(nn.Module):
    """Res2Net's block: each part also reads the one before. [batch, width, h, w] -> the same"""

    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.part = inside // 4
        self.first = layer(width, inside)
        self.steps = nn.ModuleList(layer(self.part, self.part, 3) for _ in range(3))
        self.last = nn.Sequential(nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(self.first(x), self.part, dim=1)
        done = [parts[0], self.steps[0](parts[1])]
        for part, step in zip(parts[2:], self.steps[1:], strict=True):
            done.append(step(part + done[-1]))
        return torch.relu(self.last(torch.cat(done, 1)) + x)


class Classifier(nn.Module):
    """Stem, blocks, mean, linear. [batch, 3, 16, 16] -> [batch, 10]"""

    def __init__(self, *blocks: nn.Module, width: int) -> None:
        super().__init__()
        self.stem = layer(3, 32, 3)
        self.blocks = nn.Sequential(*blocks)
        self.classify = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.classify(self.blocks(self.stem(image)).mean((2, 3)))


def c2f() -> nn.Module:
    return seeded(lambda: Classifier(C2f(32, 32), layer(32, 64, 3, 2), C2f(64, 64), width=64), 9)


def res2net() -> nn.Module:
    return seeded(lambda: Classifier(Res2(32, 64), layer(32, 64, 3, 2), Res2(64, 96), width=64), 10)


def example_inputs() -> Tensor:
    return normal(2, 3, 16, 16)
