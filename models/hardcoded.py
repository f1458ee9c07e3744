"""Numbers written into `forward`: sizes that are true of the original only.

    conv - view(-1, 512) - linear - view(-1, 32, 4, 4) - conv - view(b, 64, 4 * 4) - attention

    view(-1, 512)         a channel is 16 columns of `wide`
    view(-1, 32, 4, 4)    and 16 rows of it are a channel again: they go together
    view(b, 64, 4 * 4)    the stream of the attention
    view(b, 16, 4, 16)    its heads: 4 of them, 16 entries each

Run again with fewer channels this code would stop with an error, or worse, fold channels into the
batch through its -1. Only a tool that edits the graph can shrink it.
"""

import torch
from torch import Tensor, nn

from models._random import normal, seeded


class Hardcoded(nn.Module):
    """Convolutions, then attention over 16 places. [batch, 3, 16, 16] -> [batch, 10]"""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.norm0 = nn.BatchNorm2d(32)
        self.conv1 = nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.wide = nn.Linear(512, 512)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(64)
        self.query = nn.Linear(64, 64)
        self.key = nn.Linear(64, 64)
        self.value = nn.Linear(64, 64)
        self.project = nn.Linear(64, 64)
        self.hidden = nn.Linear(64 * 16, 64)
        self.classify = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm0(self.conv0(x)))
        x = torch.relu(self.conv1(x)).view(-1, 512)
        x = torch.relu(self.wide(x)).view(-1, 32, 4, 4)
        x = torch.relu(self.norm2(self.conv2(x)))
        x = x.view(x.shape[0], 64, 4 * 4).permute(0, 2, 1)
        q = self.query(x).view(x.shape[0], 16, 4, 16).permute(0, 2, 1, 3)
        k = self.key(x).view(x.shape[0], 16, 4, 16).permute(0, 2, 3, 1)
        v = self.value(x).view(x.shape[0], 16, 4, 16).permute(0, 2, 1, 3)
        mixed = torch.softmax(q @ k / 4.0, dim=-1) @ v
        x = x + self.project(mixed.permute(0, 2, 1, 3).reshape(-1, 16, 64))
        return self.classify(torch.relu(self.hidden(x.reshape(-1, 1024))))


def hardcoded() -> nn.Module:
    return seeded(Hardcoded, 18)


def example_inputs() -> Tensor:
    return normal(2, 3, 16, 16)
