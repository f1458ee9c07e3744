r"""A residual sum: whatever is added must stay aligned, all along a stage.

    x --- conv - bn - relu - conv - bn --- + --- relu ---
      \________________________________/              (or conv 1x1 - bn, where the shape changes)

    stem ~ block[0].second ~ block[1].second ~ ...    one group for all writers of a stage's stream
    block[i].first                                    inside a block: free, two tensors and a norm

The sums and the activations are written in place, as torchvision's are.
"""

from torch import Tensor, nn

from models._random import normal, seeded


class Block(nn.Module):
    """Post-activation basic block. [batch, inputs, h, w] -> [batch, outputs, h / stride, ...]"""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.first_norm(self.first(x)))
        out = self.second_norm(self.second(out))
        out += skip
        return self.relu(out)


class Residual(nn.Module):
    """A small ResNet. [batch, colours, height, width] -> [batch, 10]"""

    def __init__(self, colours: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(colours, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.Sequential(
            Block(16, 16), Block(16, 16),
            Block(16, 32, stride=2), Block(32, 32),
            Block(32, 64, stride=2), Block(64, 64),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.classify(self.pool(self.blocks(self.stem(image))).flatten(1))


def residual() -> nn.Module:
    return seeded(Residual, 2)


def example_inputs() -> Tensor:
    return normal(2, 3, 16, 16)
