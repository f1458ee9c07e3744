r"""Depthwise separable convolution with squeeze and excitation: a channel guarded by its own gate.

    x - expand 1x1 - depthwise 3x3 --- * - project 1x1 - + -
     \                          \ gate /               /
      \________________________________________________/

    expand[0] ~ depthwise[0] ~ gate.up[0] ~ gate.down[1] ~ project[1]     one group, five tensors
    gate.down[0] ~ gate.up[1]                                             the gate's own width

A depthwise convolution has one filter for each channel, and `groups` is a number in the graph that
must shrink with it. The gate is a hard sigmoid: at zero it says one half, so a silent channel stays
silent only because the product does.
"""

from torch import Tensor, nn

from models._random import normal, seeded


class Gate(nn.Module):
    """Squeeze and excitation: scale each channel by a number that depends on all of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.down = nn.Conv2d(width, width // 4, 1)
        self.up = nn.Conv2d(width // 4, width, 1)
        self.relu = nn.ReLU(inplace=True)
        self.sigmoid = nn.Hardsigmoid(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.sigmoid(self.up(self.relu(self.down(self.pool(x)))))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list:
    """Convolution and norm, as a list to be continued."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class Inverted(nn.Module):
    """Wide inside, narrow outside. [batch, inputs, h, w] -> [batch, outputs, ...]"""

    def __init__(self, inputs: int, inside: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.adds = stride == 1 and inputs == outputs
        self.expand = nn.Sequential(*convolution(inputs, inside, 1), nn.Hardswish(inplace=True))
        self.depthwise = nn.Sequential(
            *convolution(inside, inside, 3, stride, groups=inside), nn.Hardswish(inplace=True)
        )
        self.gate = Gate(inside)
        self.project = nn.Sequential(*convolution(inside, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.gate(self.depthwise(self.expand(x))))
        return x + out if self.adds else out


class Separable(nn.Module):
    """A small MobileNetV3. [batch, 3, 32, 32] -> [batch, 10]"""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*convolution(3, 16, 3, stride=2), nn.Hardswish(inplace=True))
        self.blocks = nn.Sequential(
            Inverted(16, 64, 24, stride=2),
            Inverted(24, 96, 24),
            Inverted(24, 96, 40, stride=2),
            Inverted(40, 160, 40),
        )
        self.last = nn.Sequential(*convolution(40, 128, 1), nn.Hardswish(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Linear(128, 128)
        self.activation = nn.Hardswish()
        self.dropout = nn.Dropout(0.2)
        self.classify = nn.Linear(128, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.pool(self.last(self.blocks(self.stem(image)))).flatten(1)
        return self.classify(self.dropout(self.activation(self.hidden(x))))


def separable() -> nn.Module:
    return seeded(Separable, 4)


def example_inputs() -> Tensor:
    return normal(2, 3, 32, 32)
