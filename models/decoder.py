"""A language model's decoder: fewer keys than queries, positions as rotations, a gated mlp.

    q [8 heads, 16]     query head h reads key head h // 2: a key head takes two query heads along
    k, v [4 heads, 16]
    rotate              entries d and d + 8 turn together by inv_freq[d], which all heads share:
                        such a pair stands or falls in every head at once
    silu(gate) * up     gate[0] ~ up[0] ~ down[1]: free
    embed ~ head        one tensor, used twice

The rotations are computed in `forward`, from the buffer `inv_freq`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models._random import seeded, tokens

VOCABULARY, WIDTH, HEADS, KEY_HEADS, ENTRIES, INSIDE = 200, 64, 8, 4, 16, 128


class RMSNorm(nn.Module):
    """Scale to unit mean square, written out as in LLaMA. [..., width] -> the same"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (d, d + half) by its angle. [batch, heads, tokens, entries] -> the same"""
    first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def repeated(x: Tensor, times: int) -> Tensor:
    """Each key head, `times` in a row. [b, heads, n, entries] -> [b, heads * times, n, ...]"""
    batch, heads, length, entries = x.shape
    x = x[:, :, None].expand(batch, heads, times, length, entries)
    return x.reshape(batch, heads * times, length, entries)


class Attention(nn.Module):
    """Causal grouped-query attention. [batch, tokens, width] -> the same"""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, HEADS * ENTRIES, bias=False)
        self.key = nn.Linear(WIDTH, KEY_HEADS * ENTRIES, bias=False)
        self.value = nn.Linear(WIDTH, KEY_HEADS * ENTRIES, bias=False)
        self.project = nn.Linear(HEADS * ENTRIES, WIDTH, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q = self.query(x).view(batch, length, -1, ENTRIES).transpose(1, 2)
        k = self.key(x).view(batch, length, -1, ENTRIES).transpose(1, 2)
        v = self.value(x).view(batch, length, -1, ENTRIES).transpose(1, 2)
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        k, v = repeated(k, HEADS // KEY_HEADS), repeated(v, HEADS // KEY_HEADS)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.project(mixed.transpose(1, 2).reshape(batch, length, -1))


class Layer(nn.Module):
    """Attention and gated mlp, each behind its norm. [batch, tokens, width] -> the same"""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(WIDTH)
        self.attention = Attention()
        self.mlp_norm = RMSNorm(WIDTH)
        self.gate = nn.Linear(WIDTH, INSIDE, bias=False)
        self.up = nn.Linear(WIDTH, INSIDE, bias=False)
        self.down = nn.Linear(INSIDE, WIDTH, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin)
        normed = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


class Decoder(nn.Module):
    """A small LLaMA. int64 [batch, tokens] -> [batch, tokens, VOCABULARY]"""

    inv_freq: Tensor

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(depth))
        self.norm = RMSNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("inv_freq", 100.0 ** -torch.arange(0, 1, 2 / ENTRIES))

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device).to(self.inv_freq.dtype)
        angles = torch.outer(places, self.inv_freq)
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.head(self.norm(x))


def decoder() -> nn.Module:
    return seeded(Decoder, 14)


def example_inputs() -> Tensor:
    return tokens(VOCABULARY, 2, 16)
