"""Encoder and decoder: attention whose queries and keys come from different streams.

    source - embed - [self-attention - mlp] x 2 ------------------ memory
    target - embed - [self-attention - cross-attention - mlp] x 2 -- | -- logits
                       query from the target's stream, key and value from memory

    query[0] ~ key[0]         tied entry by entry through the product q . k
    key[1] ~ value[1]         read the encoder's stream, a group of its own; query[1] the decoder's

Attention is written by hand, with matmul and softmax, as tutorials have it.
"""

import torch
from torch import Tensor, nn

from models._random import seeded, tokens

VOCABULARY, WIDTH, HEADS, INSIDE = 120, 64, 4, 128


class Attention(nn.Module):
    """Tokens of `x` look at tokens of `memory`. [b, n, WIDTH], [b, m, WIDTH] -> [b, n, WIDTH]"""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.project = nn.Linear(WIDTH, WIDTH)

    def heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], HEADS, WIDTH // HEADS).transpose(1, 2)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.query(x), self.key(memory), self.value(memory)
        q, k, v = self.heads(q), self.heads(k), self.heads(v)
        scores = torch.matmul(q, k.transpose(-2, -1)) / (WIDTH // HEADS) ** 0.5
        if mask is not None:
            scores = scores.masked_fill(mask, float("-inf"))
        mixed = torch.matmul(torch.softmax(scores, dim=-1), v)
        return self.project(mixed.transpose(1, 2).contiguous().view(x.shape[0], -1, WIDTH))


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, INSIDE), nn.ReLU(), nn.Linear(INSIDE, WIDTH))


class EncoderLayer(nn.Module):
    """Norms after the sums, as in the first transformer. [b, m, WIDTH] -> the same"""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.attention_norm = Attention(), nn.LayerNorm(WIDTH)
        self.mlp, self.mlp_norm = mlp(), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention_norm(x + self.attention(x, x))
        return self.mlp_norm(x + self.mlp(x))


class DecoderLayer(nn.Module):
    """[b, n, WIDTH], memory [b, m, WIDTH], mask [n, n] -> [b, n, WIDTH]"""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.attention_norm = Attention(), nn.LayerNorm(WIDTH)
        self.cross, self.cross_norm = Attention(), nn.LayerNorm(WIDTH)
        self.mlp, self.mlp_norm = mlp(), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        x = self.attention_norm(x + self.attention(x, x, mask))
        x = self.cross_norm(x + self.cross(x, memory))
        return self.mlp_norm(x + self.mlp(x))


class Seq2Seq(nn.Module):
    """A small translator. source int64 [b, m], target int64 [b, n] -> [b, n, VOCABULARY]"""

    def __init__(self, longest: int = 16) -> None:
        super().__init__()
        self.source_embed = nn.Embedding(VOCABULARY, WIDTH)
        self.target_embed = nn.Embedding(VOCABULARY, WIDTH)
        self.source_position = nn.Parameter(torch.zeros(longest, WIDTH))
        self.target_position = nn.Parameter(torch.zeros(longest, WIDTH))
        self.encoder = nn.ModuleList(EncoderLayer() for _ in range(2))
        self.decoder = nn.ModuleList(DecoderLayer() for _ in range(2))
        self.classify = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory = self.source_embed(source) + self.source_position[: source.shape[1]]
        for layer in self.encoder:
            memory = layer(memory)
        length = target.shape[1]
        future = torch.ones(length, length, dtype=torch.bool, device=target.device).triu(1)
        x = self.target_embed(target) + self.target_position[:length]
        for layer in self.decoder:
            x = layer(x, memory, future)
        return self.classify(x)


def seq2seq() -> nn.Module:
    return seeded(Seq2Seq, 15)


def example_inputs() -> dict[str, Tensor]:
    return {
        "source": tokens(VOCABULARY, 2, 12, seed=1),
        "target": tokens(VOCABULARY, 2, 10, seed=2),
    }
