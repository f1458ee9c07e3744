"""Small networks in a user's own words, for the golden texts and for the passes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models._random import normal, seeded


class Residual(nn.Module):
    """Two blocks on one stream: the stream is one group, the inside of each block its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.blocks = nn.ModuleList(Block(16, inside) for inside in (8, 12))
        self.head = nn.Linear(16, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(image)), inplace=True)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Block(nn.Module):
    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.reduce, self.norm = nn.Conv2d(width, inside, 3, padding=1), nn.BatchNorm2d(inside)
        self.expand = nn.Conv2d(inside, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.expand(F.relu(self.norm(self.reduce(x))))


class Separable(nn.Module):
    """Depthwise filters belong to the channel they filter; the second one makes two of each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.depthwise, self.pointwise = nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 6, 1)
        self.twofold, self.head = nn.Conv2d(6, 12, 3, groups=6), nn.Conv2d(12, 5, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = F.silu(self.pointwise(self.depthwise(self.stem(image))))
        return self.head(self.twofold(x))


class Encoder(nn.Module):
    """One block of a vision transformer, with queries, keys and values in one projection."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.places = nn.Parameter(torch.zeros(1, 4, 16))
        self.norm1, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm2, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 24), nn.Linear(24, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2) + self.places
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, n, 16))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


class GroupedQuery(nn.Module):
    """Four query heads share two key heads; the input is a sequence of 12 numbers a place."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(12, 32, bias=False), nn.Linear(12, 16, bias=False)
        self.value, self.project = nn.Linear(12, 16, bias=False), nn.Linear(32, 12, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.query(x).view(b, n, 4, 8).transpose(1, 2)
        k = self.key(x).view(b, n, 2, 8).transpose(1, 2).repeat_interleave(2, dim=1)
        v = self.value(x).view(b, n, 2, 8).transpose(1, 2).repeat_interleave(2, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.project(mixed.transpose(1, 2).reshape(b, n, 32))


class Rotary(nn.Module):
    """Two layers turn their queries and keys by one table of angles; all heads share one key."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(12, 40) for _ in range(2))
        self.outs = nn.ModuleList(nn.Linear(16, 12) for _ in range(2))
        self.angles: Tensor
        self.register_buffer("angles", torch.tensor([1.0, 0.3, 0.1, 0.03]))

    def turned(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[-2])[:, None] * self.angles
        angles = torch.cat([angles, angles], -1)
        half = torch.cat([-x[..., 4:], x[..., :4]], -1)
        return x * angles.cos() + half * angles.sin()

    def forward(self, x: Tensor) -> Tensor:
        for layer, out in zip(self.layers, self.outs, strict=True):
            query, key, value = layer(x).split([16, 8, 16], -1)
            query = query.view(2, 5, 2, 8).transpose(1, 2)
            value = value.view(2, 5, 2, 8).transpose(1, 2)
            scores = self.turned(query) @ self.turned(key[:, None]).transpose(-2, -1)
            x = x + out((scores.softmax(-1) @ value).transpose(1, 2).reshape(2, 5, 16))
        return x


class Linearised(nn.Module):
    """Attention without scores: keys meet values first, both with the heads and neither alike."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(12, 24), nn.Linear(12, 24)
        self.value, self.project = nn.Linear(12, 32), nn.Linear(32, 12)

    def forward(self, x: Tensor) -> Tensor:
        parts = [layer(x).view(2, 5, 4, -1) for layer in (self.query, self.key, self.value)]
        query, key, value = (part.transpose(1, 2) for part in parts)
        mixed = query @ (key.softmax(-2).transpose(-2, -1) @ value)
        return self.project(mixed.transpose(1, 2).reshape(2, 5, 32))


class Grouped(nn.Module):
    """A convolution in four groups: as many channels of each, or whole groups."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.norm = nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16)
        self.grouped, self.expand = nn.Conv2d(16, 24, 3, groups=4), nn.Conv2d(24, 5, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.expand(F.relu(self.grouped(F.relu(self.norm(self.reduce(image))))))


class Shuffled(nn.Module):
    """ShuffleNet: one half passes, the other is computed, then the two are dealt like cards."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, image: Tensor) -> Tensor:
        passed, computed = F.relu(self.stem(image)).chunk(2, dim=1)
        x = torch.cat([passed, self.branch(computed)], dim=1)
        b, c, h, w = x.shape
        return self.head(x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w))


class Dense(nn.Module):
    """Every layer reads what all before it have made."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layer1, self.layer2 = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(12, 6, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(18), nn.Conv2d(18, 5, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        x = torch.cat([x, F.relu(self.layer1(x))], 1)
        x = torch.cat([x, F.relu(self.layer2(x))], 1)
        return self.head(F.relu(self.norm(x)))


class Odd(nn.Module):
    """An operator that we know nothing of (a Fourier transform) in the middle of known ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 12), nn.Linear(12, 8)
        self.third, self.last = nn.Linear(8, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        x = torch.fft.rfft(x, dim=1).abs()
        return self.last(torch.relu(self.third(x)))


class Tagger(nn.Module):
    """Two recurrent layers, in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.lstm = nn.LSTM(12, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.tags = nn.Linear(12, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.tags(self.lstm(self.embed(ids))[0])


PICTURE = normal(2, 3, 8, 8)
NETWORKS: dict[str, tuple[type[nn.Module], Tensor]] = {
    "residual": (Residual, PICTURE),
    "separable": (Separable, PICTURE),
    "encoder": (Encoder, PICTURE),
    "grouped_query": (GroupedQuery, normal(2, 5, 12)),
    "rotary": (Rotary, normal(2, 5, 12)),
    "linearised": (Linearised, normal(2, 5, 12)),
    "grouped": (Grouped, PICTURE),
    "shuffled": (Shuffled, PICTURE),
    "dense": (Dense, PICTURE),
    "odd": (Odd, normal(2, 7, 6)),
    "tagger": (Tagger, torch.arange(14).view(2, 7)),
}


def network(name: str) -> nn.Module:
    return seeded(NETWORKS[name][0], 3)
