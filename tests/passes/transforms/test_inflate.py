"""Inflate, then remove: a second oracle that shares nothing with the analysis but the plan.

A small network is written into a larger one by hand. What is added is *dead*: producers of the new
channels are random, and whatever reads them is zero. A plan that removes exactly those channels
must give the small network back.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from compressor.passes.ir.dtypes import in_float64
from torch import Tensor, nn

from compressor import passes
from models._random import normal, randomise, seeded, tokens
from tests.passes.support import by_hand, doubled, outputs


@dataclass(frozen=True)
class Space:
    """Channels of one kind: which are alive, which axes make them, and which read them.

    An axis is (name, dimension, copies): the four gates of an LSTM are four copies side by side.
    """

    width: int
    alive: tuple[int, ...]
    made: tuple[tuple[str, int, int], ...]
    read: tuple[tuple[str, int, int], ...]

    def positions(self, copies: int, alive: bool = True) -> Tensor:
        one = torch.tensor([c for c in range(self.width) if (c in self.alive) is alive])
        return torch.cat([one + self.width * copy for copy in range(copies)])


def inflated(small: nn.Module, big: nn.Module, spaces: tuple[Space, ...]) -> nn.Module:
    """`big`, filled at random, with `small` written into what is alive."""
    randomise(big, 5)
    target = big.state_dict()
    for name, tensor in small.state_dict().items():
        alive = [torch.arange(size) for size in target[name].shape]
        for space in spaces:
            for own, dim, copies in (*space.made, *space.read):
                if own == name:
                    alive[dim] = space.positions(copies)
            for own, dim, copies in space.read:
                if own == name:
                    target[name].index_fill_(dim, space.positions(copies, alive=False), 0.0)
        if alive:
            target[name][torch.meshgrid(*alive, indexing="ij")] = tensor
    big.load_state_dict(target)
    return big.eval()


def channels_at(coupling: passes.Coupling, name: str, dim: int, positions: Tensor) -> Tensor:
    """Numbers of the single channels at these positions of an axis."""
    array = coupling.state[name].on(dim)
    assert array is not None
    wanted = coupling.classes[array.reshape(-1)[positions]]
    classes, owner = coupling.members
    rows = torch.cat([torch.zeros(0).long(), *(g.cells[0] for g in coupling.groups if g.rows)])
    return owner[torch.isin(classes, wanted) & ~torch.isin(owner, rows)].unique()


class Chain(nn.Module):
    """conv - batch norm - relu - conv - batch norm - sigmoid - linear"""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, a, 3), nn.BatchNorm2d(a)
        self.conv2, self.norm2 = nn.Conv2d(a, b, 3, stride=2), nn.BatchNorm2d(b)
        self.head = nn.Linear(b, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        return self.head(torch.sigmoid(self.norm2(self.conv2(x))).mean((2, 3)))


class Mlp(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(6, a), nn.Linear(a, 2 * b), nn.Linear(b, 3)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.gate(F.gelu(self.first(x))).chunk(2, -1)
        return self.last(value * torch.sigmoid(gate))


class Recurrent(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(9, a), nn.LSTM(a, b, batch_first=True)
        self.tags = nn.Linear(b, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.tags(self.lstm(self.embed(ids))[0])


class Heads(nn.Module):
    """Attention with `a` entries a head in queries and keys, `b` in values."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(6, 2 * a), nn.Linear(6, 2 * a)
        self.v, self.out = nn.Linear(6, 2 * b), nn.Linear(2 * b, 6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (2, -1)).transpose(1, 2) for p in (self.q, self.k, self.v))
        mixed = (q @ k.mT).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))


def layer(name: str, dim: int = 0, copies: int = 1) -> tuple[tuple[str, int, int], ...]:
    """Weight and bias of a layer, along `dim` of the weight."""
    return ((f"{name}.weight", dim, copies), (f"{name}.bias", 0, copies))


def norm(name: str) -> tuple[tuple[str, int, int], ...]:
    stats = ((f"{name}.running_mean", 0, 1), (f"{name}.running_var", 0, 1))
    return (*layer(name), *stats)


CELL = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
GATES = tuple((f"lstm.{name}_l0", 0, 4) for name in CELL)

NETWORKS: dict[str, tuple[Callable[[int, int], nn.Module], Tensor, tuple[Space, ...]]] = {
    "chain": (
        Chain,
        normal(2, 3, 9, 9),
        (
            Space(9, (0, 2, 3, 5, 8), layer("conv1") + norm("norm1"), (("conv2.weight", 1, 1),)),
            Space(7, (1, 2, 6), layer("conv2") + norm("norm2"), (("head.weight", 1, 1),)),
        ),
    ),
    "mlp": (
        Mlp,
        normal(4, 6),
        (
            Space(8, (0, 1, 4), layer("first"), (("gate.weight", 1, 1),)),
            Space(6, (2, 3, 4, 5), layer("gate", 0, 2), (("last.weight", 1, 1),)),
        ),
    ),
    "recurrent": (
        Recurrent,
        tokens(9, 2, 5),
        (
            Space(7, (1, 3, 4, 6), (("embed.weight", 1, 1),), (("lstm.weight_ih_l0", 1, 1),)),
            Space(8, (0, 4, 5), GATES, (("lstm.weight_hh_l0", 1, 1), ("tags.weight", 1, 1))),
        ),
    ),
    "heads": (
        Heads,
        normal(2, 4, 6),
        (
            # queries of dead entries are random, keys are zero: their product is zero
            Space(6, (0, 1, 3), layer("q", 0, 2), layer("k", 0, 2)),
            Space(4, (1, 2), layer("v", 0, 2), (("out.weight", 1, 2),)),
        ),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_removing_what_was_added_by_hand_gives_the_small_network_back(name):
    kind, x, spaces = NETWORKS[name]
    small = seeded(lambda: kind(*(len(space.alive) for space in spaces)), 4)
    big = inflated(small, kind(*(space.width for space in spaces)), spaces)
    torch.testing.assert_close(big(x), small(x))  # what was added is dead indeed

    coupling = passes.couple(passes.capture(big, (x,), {}))
    dead = [
        channels_at(coupling, own, dim, space.positions(copies, alive=False))
        for space in spaces
        for own, dim, copies in (*space.made, *space.read)
    ]
    plan = by_hand(coupling, torch.cat(dead).unique())
    removed = passes.apply(passes.Shrink(plan), coupling.program).program

    for key, tensor in small.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(removed.tensors()[key], tensor), key
    (found,) = outputs(in_float64(removed), doubled((x,)))
    (wanted,) = outputs(small.double(), doubled((x,)))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
