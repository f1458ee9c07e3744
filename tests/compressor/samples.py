"""A user's project: one tiny network, and what else they may name on the command line.

body (16) - norm - mid (32) - last (24) - mean - head     three groups of channels, all free
"""

import sys
import time

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """A classifier of tiny pictures. [batch, 3, 8, 8] -> [batch, 10]"""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.mid = nn.Conv2d(16, 32, 3, padding=1)
        self.last = nn.Conv2d(32, 24, 3, padding=1)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.body(x)))
        x = torch.relu(self.last(torch.relu(self.mid(x))))
        return self.head(x.mean((2, 3)))


class Branches(Net):
    """What cannot be captured: the way depends on the numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


# ---------------------------------------------------------------------------- models


def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Net()
        for tensor in (*model.norm.parameters(), model.norm.running_mean, model.norm.running_var):
            tensor.data.uniform_(0.5, 1.5)
    return model.eval()


def raises():
    raise RuntimeError("no checkpoint at hand")


def weights_only():
    return net().state_dict()


def with_nan():
    model = net()
    model.mid.weight.data[0, 0, 0, 0] = float("nan")
    return model


def chatty():
    print("the model says hello")
    return net()


def endless():
    print("ready", file=sys.stderr, flush=True)
    time.sleep(600)


# ---------------------------------------------------------------------------- inputs


def example_inputs():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------------------- evaluation


def agreement(predict):
    """The share of pictures that get the class which the original gives them."""
    pictures = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = net()(pictures).argmax(1)
    return float((predict(pictures).argmax(1) == wanted).double().mean())


def two_numbers(predict):
    return {"agreement": agreement(predict), "ten": 10}


def ten(predict):
    return 10


def in_words(predict):
    return "good"


def dies(predict):
    return {"top5": 1.0}["top1"]


def of_another_shape(predict):
    return predict(torch.zeros(1, 4, 8, 8))


def without_inputs(predict):
    return predict()


def not_a_number(predict):
    return {"perplexity": float("nan"), "loss": float("inf")}


CALLS: list[int] = []


def fickle(predict):
    CALLS.append(1)
    return {f"metric {len(CALLS)}": 1.0}
