"""Windowed attention: pixels are sorted into windows, attend there, and are put back.

    [b, 16, 16, c] - roll - view [b, 4, 4, 4, 4, c] - permute - view [b * 16, 16, c] - attention

    bias_table [49, heads]     a parameter with a *head* axis: dropping a head drops a column of it
    bias_index, mask           buffers that index and mask positions, and must stay as they are
    merge                      four neighbours are concatenated: a channel of the stream is read in
                               four places of `merge_norm` and `merge`

A window is folded into the batch, so the batch axis is one that no channel may move into.
"""

import torch
from torch import Tensor, nn

from models._random import normal, seeded

WINDOW = 4


def partition(x: Tensor) -> Tensor:
    """[batch, height, width, c] -> [batch * windows, WINDOW * WINDOW, c]"""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, WINDOW * WINDOW, channels)


def position_index() -> Tensor:
    """For each pair of pixels of a window, the row of the bias table. [16, 16]"""
    places = torch.cartesian_prod(torch.arange(WINDOW), torch.arange(WINDOW))
    apart = places[:, None] - places[None, :] + WINDOW - 1
    return apart[..., 0] * (2 * WINDOW - 1) + apart[..., 1]


def shift_mask(size: int, shift: int) -> Tensor:
    """-100 where two pixels of a rolled window were no neighbours. [windows, 16, 16]"""
    band = torch.zeros(size)
    band[-WINDOW:-shift], band[-shift:] = 1, 2
    region = partition((3 * band[:, None] + band[None, :])[None, :, :, None]).squeeze(-1)
    return (region[:, None, :] != region[:, :, None]) * -100.0


class Attention(nn.Module):
    """Attention within each window. [batch * windows, 16, width] -> the same"""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        self.register_buffer("bias_index", position_index())
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        windows, tokens, width = x.shape
        qkv = self.qkv(x).reshape(windows, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        bias = self.bias_table[self.bias_index.view(-1)].view(tokens, tokens, self.heads)
        scores = (q * self.scale) @ k.transpose(-2, -1) + bias.permute(2, 0, 1)
        if mask is not None:
            scores = scores.view(-1, len(mask), self.heads, tokens, tokens) + mask[None, :, None]
            scores = scores.view(-1, self.heads, tokens, tokens)
        mixed = scores.softmax(dim=-1) @ v
        return self.project(mixed.transpose(1, 2).reshape(windows, tokens, width))


class Layer(nn.Module):
    """Windowed attention, shifted or not, and mlp. [batch, size, size, width] -> the same"""

    def __init__(self, size: int, width: int, heads: int, shift: int) -> None:
        super().__init__()
        self.size, self.shift = size, shift
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width)
        )
        self.register_buffer("mask", shift_mask(size, shift) if shift else None)

    def forward(self, x: Tensor) -> Tensor:
        side = self.size // WINDOW
        rolled = torch.roll(self.attention_norm(x), (-self.shift, -self.shift), dims=(1, 2))
        done = self.attention(partition(rolled), self.mask)
        done = done.view(-1, side, side, WINDOW, WINDOW, x.shape[-1]).permute(0, 1, 3, 2, 4, 5)
        done = done.reshape(-1, self.size, self.size, x.shape[-1])
        x = x + torch.roll(done, (self.shift, self.shift), dims=(1, 2))
        return x + self.mlp(self.mlp_norm(x))


class Window(nn.Module):
    """A small Swin transformer with two stages. [batch, 3, 32, 32] -> [batch, 10]"""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 32, kernel_size=2, stride=2)
        self.first = nn.Sequential(Layer(16, 32, 4, shift=0), Layer(16, 32, 4, shift=2))
        self.merge_norm = nn.LayerNorm(4 * 32)
        self.merge = nn.Linear(4 * 32, 64, bias=False)
        self.second = nn.Sequential(Layer(8, 64, 4, shift=0), Layer(8, 64, 4, shift=2))
        self.norm = nn.LayerNorm(64)
        self.classify = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(self.embed(image).permute(0, 2, 3, 1))
        corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        x = self.second(self.merge(self.merge_norm(torch.cat(corners, dim=-1))))
        return self.classify(self.norm(x).mean(dim=(1, 2)))


def window() -> nn.Module:
    return seeded(Window, 13)


def example_inputs() -> Tensor:
    return normal(2, 3, 32, 32)
