"""Weights that are computed, shared, tied, frozen, or read without a layer."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models._random import tokens

from .frames import VOCABULARY, WIDTH, network, of_family, picture, sentence, vector


def normed(apply: object) -> nn.Module:
    """Two convolutions, the first with its weight computed."""
    return nn.Sequential(
        apply(nn.Conv2d(WIDTH, 64, 3, padding=1)), nn.ReLU(), nn.Conv2d(64, WIDTH, 1)
    )


class Standardised(nn.Conv2d):
    """A convolution whose filters have mean 0 and variance 1 (weight standardisation)."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        mean = weight.mean(dim=(1, 2, 3), keepdim=True)
        std = weight.std(dim=(1, 2, 3), keepdim=True) + 1e-5
        weight = (weight - mean) / std
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class StandardisedByBatchNorm(nn.Conv2d):
    """The same by batch_norm, with a gain for each filter (timm's ScaledStdConv2d)."""

    def __init__(self, *args: int, **options: int) -> None:
        super().__init__(*args, **options)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))
        self.scale = self.weight[0].numel() ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(
            self.weight.reshape(1, self.out_channels, -1), None, None,
            weight=(self.gain * self.scale).view(-1), training=True, momentum=0.0, eps=1e-6,
        ).reshape_as(self.weight)  # fmt: skip
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Equalised(nn.Module):
    """The learning rate of a weight as a factor in front of it (StyleGAN)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(WIDTH, WIDTH, 3, 3))
        self.bias = nn.Parameter(torch.zeros(WIDTH))
        self.scale = 1 / math.sqrt(WIDTH * 9)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight * self.scale, padding=1)
        return F.leaky_relu(x + self.bias.view(1, -1, 1, 1), 0.2) * math.sqrt(2)


class Modulated(nn.Module):
    """A style scales the input channels of a weight, sample by sample (StyleGAN2)."""

    def __init__(self) -> None:
        super().__init__()
        self.style = nn.Linear(WIDTH, WIDTH)
        self.weight = nn.Parameter(torch.zeros(WIDTH, WIDTH, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        style = self.style(x.mean((2, 3)))
        weight = self.weight[None] * style[:, None, :, None, None]
        weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        y = F.conv2d(x.reshape(1, b * c, h, w), weight.reshape(-1, c, 3, 3), padding=1, groups=b)
        return y.reshape(b, -1, h, w)


class CondConv(nn.Module):
    """Every sample mixes its own weight of four (dynamic convolution)."""

    def __init__(self) -> None:
        super().__init__()
        self.route = nn.Linear(WIDTH, 4)
        self.weight = nn.Parameter(torch.zeros(4, WIDTH, WIDTH, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        share = torch.softmax(self.route(x.mean((2, 3))), -1)
        weight = (share @ self.weight.flatten(1)).view(b * WIDTH, c, 3, 3)
        y = F.conv2d(x.reshape(1, b * c, h, w), weight, padding=1, groups=b)
        return y.view(b, WIDTH, h, w)


class Hyper(nn.Module):
    """The weight of a layer is what a small network says."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Parameter(torch.zeros(8))
        self.make = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, WIDTH * WIDTH))
        self.rest = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(9)))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.make(self.code).view(WIDTH, WIDTH)
        return self.rest(F.relu(F.linear(x, weight)))


class LowRank(nn.Module):
    """A weight plus a product of two thin ones (LoRA, merged on the fly)."""

    def __init__(self) -> None:
        super().__init__()
        self.full = nn.Linear(WIDTH, WIDTH)
        self.a, self.b = nn.Parameter(torch.zeros(4, WIDTH)), nn.Parameter(torch.zeros(WIDTH, 4))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.full.weight + 0.5 * self.b @ self.a, self.full.bias).relu()


class Binary(nn.Module):
    """Signs with one scale for each filter (XNOR-Net)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(WIDTH, WIDTH, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.weight.abs().mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, torch.sign(self.weight) * alpha, padding=1)


class Masked(nn.Module):
    """A causal convolution: the weight is multiplied with a mask of its taps (PixelCNN)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        mask = torch.ones(WIDTH, WIDTH, 3, 3)
        mask[:, :, 1, 2:], mask[:, :, 2:] = 0, 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight * self.mask, self.conv.bias, padding=1).relu()


class TiedHead(nn.Module):
    """The embedding is the output layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.body = nn.Sequential(
            nn.Linear(WIDTH, 96), nn.GELU(), nn.Linear(96, WIDTH), nn.LayerNorm(WIDTH)
        )
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.body(x))


class TiedConv(nn.Module):
    """Two layers hold one weight, and have biases of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(2))
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.two(F.relu(self.one(x))))


class CalledTwice(nn.Module):
    """One module on two inputs (siamese), and again on its own result."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())
        self.other = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.shared(x), self.shared(self.other(x))
        return self.shared((a - b).abs())


class Direct(nn.Module):
    """Parameters without layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(WIDTH, 64))
        self.second = nn.Parameter(torch.zeros(64, WIDTH))
        self.shift = nn.Parameter(torch.zeros(64))
        self.heat = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.first + self.shift) @ self.second * self.heat.exp()


def frozen_weights() -> nn.Module:
    block = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU())
    return block.requires_grad_(False)


def bilinear() -> nn.Module:
    class Twice(nn.Bilinear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x, torch.tanh(x))

    return Twice(WIDTH, WIDTH, WIDTH)


CASES = of_family(
    "weights",
    picture("weight_norm_hook", lambda: normed(nn.utils.weight_norm)),
    picture("weight_norm_parametrized", lambda: normed(nn.utils.parametrizations.weight_norm)),
    picture("spectral_norm_hook", lambda: normed(nn.utils.spectral_norm)),
    picture("spectral_norm_parametrized", lambda: normed(nn.utils.parametrizations.spectral_norm)),
    vector("orthogonal_parametrized", lambda: nn.Sequential(
        nn.utils.parametrizations.orthogonal(nn.Linear(WIDTH, WIDTH)), nn.ReLU(),
        *(nn.Linear(WIDTH, WIDTH) for _ in range(2)))),
    picture("weight_standardised", lambda: nn.Sequential(
        Standardised(WIDTH, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, WIDTH, 1))),
    picture("weight_standardised_batch_norm", lambda: nn.Sequential(
        StandardisedByBatchNorm(WIDTH, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, WIDTH, 1))),
    picture("equalised_rate", Equalised),
    picture("modulated_conv", Modulated),
    picture("dynamic_conv", CondConv),
    vector("hyper_network", Hyper),
    vector("low_rank_update", LowRank),
    picture("binary_weight", Binary),
    picture("masked_conv", Masked),
    network("tied_embedding", TiedHead, tokens(VOCABULARY, 2, 12)),
    picture("tied_conv", TiedConv),
    vector("shared_module", CalledTwice),
    sentence("direct_parameters", Direct),
    picture("frozen_parameters", frozen_weights),
    vector("bilinear", bilinear),
)  # fmt: skip
