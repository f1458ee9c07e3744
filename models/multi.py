r"""Two inputs, one trunk, two named outputs.

    image    - conv - conv * scale + shift - conv - mean - \             / - kind
                             |       |                      cat - trunk -
    features - read ---------+-------+------------- side - /             \ - place

    scale[0] ~ shift[0] ~ conv1[0]          a vector from one input modulates channels of the other
    trunk.weight[1]                         a run for the image, a run for the features
    trunk.weight[0] ~ kind[1] ~ place[1]    two readers of one layer

The inputs share nothing but their batch size.
"""

import torch
from torch import Tensor, nn

from models._random import normal, seeded


class Multi(nn.Module):
    """image [batch, 3, 16, 16], features [batch, 12] -> kind [batch, 6], place [batch, 4]"""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.norm0 = nn.BatchNorm2d(32)
        self.conv1 = nn.Conv2d(32, 48, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(48)
        self.conv2 = nn.Conv2d(48, 64, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(64)
        self.read = nn.Linear(12, 48)
        self.scale = nn.Linear(48, 48)
        self.shift = nn.Linear(48, 48)
        self.side = nn.Linear(48, 32)
        self.trunk = nn.Linear(64 + 32, 96)
        self.kind = nn.Linear(96, 6)
        self.place = nn.Linear(96, 4)

    def forward(self, image: Tensor, features: Tensor) -> dict[str, Tensor]:
        told = torch.tanh(self.read(features))
        x = torch.relu(self.norm0(self.conv0(image)))
        x = self.norm1(self.conv1(x))
        x = torch.relu(x * self.scale(told)[:, :, None, None] + self.shift(told)[:, :, None, None])
        seen = torch.relu(self.norm2(self.conv2(x))).mean(dim=(2, 3))
        joined = torch.cat((seen, torch.relu(self.side(told))), dim=1)
        trunk = torch.relu(self.trunk(joined))
        return {"kind": self.kind(trunk), "place": torch.sigmoid(self.place(trunk))}


def multi() -> nn.Module:
    return seeded(Multi, 19)


def example_inputs() -> tuple[Tensor, Tensor]:
    return normal(2, 3, 16, 16, seed=1), normal(2, 12, seed=2)
