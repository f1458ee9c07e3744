"""Channels and pixels that are weighed, gated, scaled and shifted by others."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models._random import normal

from .frames import WIDTH, network, of_family, picture, sentence


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.raise_ = nn.Conv2d(WIDTH, 8, 1), nn.Conv2d(8, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = F.silu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * self.raise_(gate).sigmoid()


class EfficientAttention(nn.Module):
    """A one-channel convolution along the channels themselves (ECA): they keep their places."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.inner = nn.Sequential(
            nn.Conv2d(WIDTH, 96, 3, padding=1), nn.ReLU(), nn.Conv2d(96, WIDTH, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        gate = self.mix(x.mean((2, 3))[:, None])[:, 0]
        return x * gate.sigmoid()[:, :, None, None]


class SelectiveKernel(nn.Module):
    """Two kernels, weighed channel by channel with a softmax between them (SKNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.far = nn.Conv2d(WIDTH, WIDTH, 3, padding=2, dilation=2)
        self.reduce, self.raise_ = nn.Linear(WIDTH, 16), nn.Linear(16, 2 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([self.near(x), self.far(x)], 1)
        pooled = F.relu(self.reduce(both.sum(1).mean((2, 3))))
        share = self.raise_(pooled).view(-1, 2, WIDTH, 1, 1).softmax(1)
        return (both * share).sum(1)


class CBAM(nn.Module):
    """Channels are weighed by mean and maximum over pixels, pixels by those over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, WIDTH))
        self.place = nn.Conv2d(2, 1, 7, padding=3)
        self.inner = nn.Conv2d(WIDTH, 64, 3, padding=1)
        self.out = nn.Conv2d(64, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        x = x * gate.sigmoid()[:, :, None, None]
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.out(F.relu(self.inner(x * self.place(seen).sigmoid())))


class Film(nn.Module):
    """Scale and shift for each channel, from a second input (FiLM)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, WIDTH, 3), nn.Conv2d(WIDTH, WIDTH, 3)
        self.condition, self.head = nn.Linear(6, 2 * WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        scale, shift = self.condition(code)[:, :, None, None].chunk(2, dim=1)
        x = F.relu(self.stem(x) * (1 + scale) + shift)
        return self.head(self.body(x).mean((2, 3)))


class AdaIN(nn.Module):
    """The statistics of one picture are given to another."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(3, WIDTH, 3), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3))
        self.decode = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3), nn.ReLU(), nn.Conv2d(WIDTH, 3, 3))

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        x, y = self.encode(content), self.encode(style)
        spread, mean = torch.std_mean(y, (2, 3), keepdim=True)
        x = F.instance_norm(x) * spread + mean
        return self.decode(x)


class SwiGLU(nn.Module):
    """A gated MLP, with one projection for gate and value or with two."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.gate = nn.Linear(WIDTH, 128 if fused else 64, bias=False)
        self.value = None if fused else nn.Linear(WIDTH, 64, bias=False)
        self.down = nn.Linear(64, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.value is None:
            gate, value = self.gate(x).chunk(2, dim=-1)
        else:
            gate, value = self.gate(x), self.value(x)
        return x + self.down(F.silu(gate) * value)


class Glu(nn.Module):
    """A convolution gated by F.glu, over channels or tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.back = nn.Conv2d(WIDTH, 96, 3, padding=1), nn.Conv2d(48, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.back(F.glu(self.conv(x), dim=1))


class SpatialGate(nn.Module):
    """Tokens are mixed by a linear layer over positions (gMLP)."""

    def __init__(self) -> None:
        super().__init__()
        self.raise_, self.lower = nn.Linear(WIDTH, 96), nn.Linear(48, WIDTH)
        self.norm, self.places = nn.LayerNorm(48), nn.Conv1d(12, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        u, v = F.gelu(self.raise_(x)).chunk(2, -1)
        return x + self.lower(u * (1 + self.places(self.norm(v))))


class Mixer(nn.Module):
    """An MLP over positions, then one over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.places = nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 12))
        self.channels = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.places(self.one(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.two(x))


class GlobalContext(nn.Module):
    """One softmax over all pixels gives the context that is added everywhere (GCNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv2d(WIDTH, 1, 1)
        self.turn = nn.Sequential(
            nn.Conv2d(WIDTH, 16, 1), nn.LayerNorm([16, 1, 1]), nn.ReLU(), nn.Conv2d(16, WIDTH, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        weight = self.score(x).view(b, 1, h * w).softmax(2).unsqueeze(-1)
        context = torch.matmul(x.view(b, c, h * w).unsqueeze(1), weight)
        return x + self.turn(context.view(b, c, 1, 1))


class Coordinate(nn.Module):
    """Rows and columns are pooled apart, mixed together, and split again (coordinate attention)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(WIDTH, 16, 1)
        self.rows, self.columns = nn.Conv2d(16, WIDTH, 1), nn.Conv2d(16, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)
        mixed = F.hardswish(self.mix(torch.cat([rows, columns], dim=2)))
        a, b = torch.split(mixed, [h, w], dim=2)
        return x * self.rows(a).sigmoid() * self.columns(b.permute(0, 1, 3, 2)).sigmoid()


class Highway(nn.Module):
    """A gate chooses between the input and what a layer makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gate = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(x, torch.relu(self.layer(x)), torch.sigmoid(self.gate(x)))


class LayerScale(nn.Module):
    """A residual with a small factor for each channel, dropped at random while training."""

    def __init__(self, drop: float = 0.1) -> None:
        super().__init__()
        self.drop, self.gamma = drop, nn.Parameter(torch.ones(WIDTH, 1, 1))
        self.inner = nn.Sequential(nn.Conv2d(WIDTH, 64, 1), nn.GELU(), nn.Conv2d(64, WIDTH, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x).mul(self.gamma)
        if self.training:
            kept = torch.empty(x.shape[0], 1, 1, 1).bernoulli_(1 - self.drop)
            y = y * kept / (1 - self.drop)
        return x + y


class Masked(nn.Module):
    """Pixels are masked by a second input [batch, 1, h, w]."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, WIDTH, 3)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = F.relu(self.one(x)) * mask
        x = x.masked_fill(mask == 0, -1.0)
        return self.head(torch.where(mask[:, :, 1:-1, 1:-1] > 0, self.two(x), 0.0).mean((2, 3)))


CASES = of_family(
    "gates",
    picture("squeeze_excite", SqueezeExcite),
    picture("eca", EfficientAttention),
    picture("sknet", SelectiveKernel),
    picture("cbam", CBAM),
    network("film", Film, (normal(2, 3, 8, 8), normal(2, 6, seed=1))),
    network("adain", AdaIN, (normal(2, 3, 10, 10), normal(2, 3, 10, 10, seed=1))),
    sentence("swiglu_fused", lambda: SwiGLU(fused=True)),
    sentence("swiglu_split", lambda: SwiGLU(fused=False)),
    picture("glu_conv", Glu),
    sentence("spatial_gate", SpatialGate),
    sentence("mixer", Mixer),
    picture("global_context", GlobalContext),
    picture("coordinate_attention", Coordinate),
    sentence("highway", Highway),
    picture("layer_scale_stochastic_depth", LayerScale),
    network("broadcast_mask", Masked,
            (normal(2, 3, 8, 8), (normal(2, 1, 8, 8, seed=1) > 0).float())),
)  # fmt: skip
