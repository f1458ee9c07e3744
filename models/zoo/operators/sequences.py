"""Recurrence, scans, embeddings and positions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models._random import tokens

from .frames import VOCABULARY, WIDTH, network, of_family, sentence, sound

LENGTH = 12


class Recurrent(nn.Module):
    """Any recurrent layer on [batch, length, width]."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Unrolled(nn.Module):
    """A cell that is called step by step."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros((x.shape[0], int(self.cell.hidden_size)))
        state = (h, h) if isinstance(self.cell, nn.LSTMCell) else h
        found = []
        for step in range(4):
            state = self.cell(x[:, step], state)
            found.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(found, 1)


class LastState(nn.Module):
    """The final states of both directions, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(WIDTH, WIDTH, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.layer(x)
        return torch.cat([state[-2], state[-1]], dim=-1)[:, None]


class StateSpace(nn.Module):
    """A selective scan: decay and input of every step depend on the token (Mamba)."""

    def __init__(self, states: int = 4) -> None:
        super().__init__()
        self.inner, self.states = 2 * WIDTH, states
        self.raise_, self.lower = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.conv = nn.Conv1d(self.inner, self.inner, 3, padding=2, groups=self.inner)
        self.choose = nn.Linear(self.inner, 4 + 2 * states, bias=False)
        self.step = nn.Linear(4, self.inner)
        self.decay = nn.Parameter(torch.zeros(self.inner, states))
        self.skip = nn.Parameter(torch.ones(self.inner))

    def forward(self, x: Tensor) -> Tensor:
        y, gate = self.raise_(x).chunk(2, dim=-1)
        n = y.shape[1]
        y = F.silu(self.conv(y.transpose(1, 2))[..., :n].transpose(1, 2))
        step, b, c = self.choose(y).split([4, self.states, self.states], dim=-1)
        step = F.softplus(self.step(step))
        decay = torch.exp(step.unsqueeze(-1) * -torch.exp(self.decay))
        given = step.unsqueeze(-1) * b.unsqueeze(2) * y.unsqueeze(-1)
        h = torch.zeros(x.shape[0], self.inner, self.states)
        found = []
        for t in range(n):
            h = decay[:, t] * h + given[:, t]
            found.append((h * c[:, t].unsqueeze(1)).sum(-1))
        return self.lower((torch.stack(found, 1) + y * self.skip) * F.silu(gate))


class WaveNet(nn.Module):
    """Dilated causal convolutions with gates, and a sum of skips."""

    def __init__(self) -> None:
        super().__init__()
        self.filters, self.gates = (self._convs() for _ in range(2))
        self.skips = nn.ModuleList(nn.Conv1d(24, WIDTH, 1) for _ in range(3))
        self.backs = nn.ModuleList(nn.Conv1d(24, WIDTH, 1) for _ in range(3))

    def _convs(self) -> nn.ModuleList:
        return nn.ModuleList(nn.Conv1d(WIDTH, 24, 2, dilation=2**i) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        total = 0
        for i in range(3):
            y = F.pad(x, (2**i, 0))
            y = torch.tanh(self.filters[i](y)) * torch.sigmoid(self.gates[i](y))
            x, total = x + self.backs[i](y), total + self.skips[i](y)
        return F.relu(total)


class Positions(nn.Module):
    """A learned table, cut to the length, and a fixed one of sines."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(64, WIDTH)
        place = torch.arange(64.0)[:, None]
        rate = torch.exp(torch.arange(0, WIDTH, 2) * (-math.log(1e4) / WIDTH))
        sines = torch.zeros(64, WIDTH)
        sines[:, 0::2], sines[:, 1::2] = torch.sin(place * rate), torch.cos(place * rate)
        self.register_buffer("sines", sines[None])
        self.mix = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        at = torch.arange(x.shape[1]).unsqueeze(0)
        return self.mix(x + self.table(at) + self.sines[:, : x.shape[1]])


class Bags(nn.Module):
    """nn.EmbeddingBag, of means, and a classifier (fastText)."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(VOCABULARY, WIDTH, mode="mean")
        self.body = nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.bag(x))


class Retention(nn.Module):
    """Attention without a softmax, decaying with the distance (RetNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.gate, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(5))
        self.norm = nn.GroupNorm(4, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = (y(x).view(b, n, 4, 8).transpose(1, 2) for y in (self.q, self.k, self.v))
        at = torch.arange(n)
        decay = torch.where(at[:, None] >= at, 0.9 ** (at[:, None] - at).float(), 0.0)
        y = ((q @ k.mT) * decay @ v).transpose(1, 2).reshape(b * n, c)
        return self.out(F.silu(self.gate(x)) * self.norm(y).view(b, n, c))


class Encoder(nn.Module):
    """nn.TransformerEncoder and nn.TransformerDecoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.TransformerEncoderLayer(WIDTH, 4, 64, batch_first=True, norm_first=True)
        self.decode = nn.TransformerDecoderLayer(WIDTH, 4, 64, activation="gelu", batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(x, self.encode(x))


class ShiftMix(nn.Module):
    """Each channel mixes a token with the one before it (RWKV)."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.k, self.v = nn.Linear(WIDTH, 64, bias=False), nn.Linear(64, WIDTH, bias=False)
        self.r = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        before = F.pad(x, (0, 0, 1, -1))
        y = x * self.share + before * (1 - self.share)
        return torch.sigmoid(self.r(y)) * self.v(F.relu(self.k(y)).square())


CASES = of_family(
    "sequences",
    sentence("lstm_two_layers_both_ways", lambda: Recurrent(
        nn.LSTM(WIDTH, WIDTH, 2, bidirectional=True, batch_first=True))),
    sentence("gru", lambda: Recurrent(nn.GRU(WIDTH, 48, batch_first=True))),
    sentence("gru_last_state", LastState),
    sentence("lstm_projected", lambda: Recurrent(
        nn.LSTM(WIDTH, 48, proj_size=16, batch_first=True)),
        frozen="ONNX Runtime cannot run the exported model"),
    sentence("gru_cell", lambda: Unrolled(nn.GRUCell(WIDTH, WIDTH))),
    sentence("lstm_cell", lambda: Unrolled(nn.LSTMCell(WIDTH, WIDTH))),
    sentence("state_space_scan", StateSpace),
    sound("wavenet", WaveNet),
    sentence("position_tables", Positions),
    network("embedding_bag", Bags, tokens(VOCABULARY, 2, LENGTH)),
    sentence("retention", Retention),
    sentence("transformer_layers", Encoder),
    sentence("token_shift", ShiftMix),
)  # fmt: skip
