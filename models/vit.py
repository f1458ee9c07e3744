"""Fused attention: one matrix makes queries, keys and values, for all heads.

    qkv [3 * H * D] - reshape [3, H, D] - q . k -> softmax -> . v - [H * D] - project

    head h     rows h of q, k and v, and D columns of project: they go together, all at once
    entry d    q[h, d] ~ k[h, d]     free within a head, as many for each head
               v[h, d] ~ project[1]  the same, independently of q and k

The stream (embedding, class token, positions, norms, project, mlp) is one group of 64; layer norms
make it inexact. The hidden layer of each mlp is free.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models._random import normal, seeded


class Attention(nn.Module):
    """Multi-head self-attention. [batch, tokens, width] -> the same"""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.entries = heads, width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, self.entries)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.project(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Layer(nn.Module):
    """Attention and mlp, each behind its norm. [batch, tokens, width] -> the same"""

    def __init__(self, width: int, heads: int, inside: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, inside), nn.GELU(), nn.Linear(inside, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class ViT(nn.Module):
    """A small ViT: 16 patches and a class token. [batch, 3, 32, 32] -> [batch, 10]"""

    def __init__(self, width: int = 64, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, kernel_size=8, stride=8)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 1 + 16, width))
        self.layers = nn.Sequential(*(Layer(width, heads, 2 * width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        patches = self.embed(image).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls.expand(image.shape[0], -1, -1), patches), dim=1) + self.position
        return self.classify(self.norm(self.layers(x))[:, 0])


def vit() -> nn.Module:
    return seeded(ViT, 12)


def example_inputs() -> Tensor:
    return normal(2, 3, 32, 32)
