"""A plain chain: each layer feeds the next one and nothing else.

image - [conv - bn - relu] x 2 - pool - [conv - bn - relu] x 2 - pool - flatten - linear - linear

conv[i].weight[0] ~ bn[i] ~ conv[i + 1].weight[1]     a channel is a filter and the slice after it
conv[3].weight[0] ~ hidden.weight[1], in runs of 16   flatten spreads a channel over 4 x 4 columns
"""

import torch
from torch import Tensor, nn

from models._random import normal, seeded


def layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Chain(nn.Module):
    """A VGG in miniature. [batch, 3, 16, 16] -> [batch, 10]"""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            layer(3, 32),
            layer(32, 32),
            nn.MaxPool2d(2),
            layer(32, 64),
            layer(64, 64),
            nn.MaxPool2d(2),
        )
        self.hidden = nn.Linear(64 * 4 * 4, 64)
        self.classify = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        hidden = torch.relu(self.hidden(torch.flatten(self.features(image), 1)))
        return self.classify(hidden)


def chain() -> nn.Module:
    return seeded(Chain, 1)


def example_inputs() -> Tensor:
    return normal(2, 3, 16, 16)
