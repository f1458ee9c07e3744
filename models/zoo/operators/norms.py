"""Normalisations and reductions, over the channels and beside them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .frames import WIDTH, of_family, picture, sentence, vector


def around(norm: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 1)
    )


class FrozenBatchNorm(nn.Module):
    """Statistics, scale and shift as buffers, multiplied out in the forward (torchvision)."""

    def __init__(self) -> None:
        super().__init__()
        for name, value in (("weight", 1.1), ("bias", 0.1), ("mean", 0.2), ("var", 0.9)):
            self.register_buffer(name, torch.full((WIDTH,), value))

    def forward(self, x: Tensor) -> Tensor:
        w, b, m, v = (t.reshape(1, -1, 1, 1) for t in (self.weight, self.bias, self.mean, self.var))
        scale = w * (v + 1e-5).rsqrt()
        return x * scale + (b - m * scale)


class Permuted(nn.Module):
    """LayerNorm over the channels of a picture (LayerNorm2d)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ByHand(nn.Module):
    """The same written out with mean and variance over dimension 1 (ConvNeXt)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class RMS(nn.Module):
    """LLaMA's norm, with its casts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        dtype, x = x.dtype, x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * x.to(dtype)


class Response(nn.Module):
    """Global response normalisation (ConvNeXt v2): the norms of all channels share a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, 64))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, 64))
        self.raise_, self.lower = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.raise_(x.permute(0, 2, 3, 1)))
        size = torch.norm(y, p=2, dim=(1, 2), keepdim=True)
        y = self.gamma * (y * size / (size.mean(dim=-1, keepdim=True) + 1e-6)) + self.beta + y
        return x + self.lower(y).permute(0, 3, 1, 2)


class FilterResponse(nn.Module):
    """Each channel by its own mean square, with a learned threshold (FRN, TLU)."""

    def __init__(self) -> None:
        super().__init__()
        shape = (1, WIDTH, 1, 1)
        self.gamma, self.beta, self.tau = (nn.Parameter(torch.zeros(shape)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        square = x.pow(2).mean(dim=(2, 3), keepdim=True)
        return torch.max(self.gamma * x * torch.rsqrt(square + 1e-6) + self.beta, self.tau)


class Pixel(nn.Module):
    """Every pixel has length one over its channels (ProGAN)."""

    def forward(self, x: Tensor) -> Tensor:
        return x / torch.sqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-8)


class Prototypes(nn.Module):
    """Cosine similarity with learned directions."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, 64)
        self.directions = nn.Parameter(torch.zeros(20, 64))

    def forward(self, x: Tensor) -> Tensor:
        x = F.normalize(self.inner(x), dim=-1)
        return F.linear(x, F.normalize(self.directions, dim=-1)) * 8


class Similarity(nn.Module):
    """F.cosine_similarity of two projections weighs the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        return a * F.cosine_similarity(a, b, dim=-1).unsqueeze(-1)


class Whole(nn.Module):
    """A reduction that needs every channel, between layers wide enough to shrink elsewhere."""

    def __init__(self, op: str) -> None:
        super().__init__()
        self.op = op
        self.wide = nn.Sequential(nn.Linear(WIDTH, 128), nn.ReLU(), nn.Linear(128, 16))
        self.back = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(x)
        if self.op == "softmax":
            y = y.softmax(-1)
        elif self.op == "max":
            y = y * (y - y.max(dim=-1, keepdim=True).values).exp()
        elif self.op == "cumsum":
            y = y.cumsum(-1)
        elif self.op == "sort":
            y = y.sort(dim=-1, descending=True).values
        else:
            y = y.logsumexp(-1, keepdim=True) - y
        return x + self.back(y)


class Maxout(nn.Module):
    """The largest of four pieces of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.raise_ = nn.Linear(WIDTH, 4 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.raise_(x).view(*x.shape[:-1], 4, WIDTH).max(dim=-2)[0]


CASES = of_family(
    "norms",
    picture("group_norm", lambda: around(nn.GroupNorm(8, WIDTH))),
    picture("group_norm_one", lambda: around(nn.GroupNorm(1, WIDTH))),
    picture("instance_norm", lambda: around(nn.InstanceNorm2d(WIDTH, affine=True))),
    picture("local_response_norm", lambda: around(nn.LocalResponseNorm(5))),
    picture("prelu", lambda: around(nn.PReLU(WIDTH))),
    picture("batch_norm_frozen", lambda: around(FrozenBatchNorm())),
    picture("layer_norm_permuted", lambda: around(Permuted())),
    picture("layer_norm_by_hand", lambda: around(ByHand())),
    picture("global_response_norm", Response),
    picture("filter_response_norm", lambda: around(FilterResponse())),
    picture("pixel_norm", lambda: around(Pixel())),
    sentence("rms_norm", lambda: nn.Sequential(nn.RMSNorm(WIDTH), nn.Linear(WIDTH, WIDTH))),
    sentence("rms_norm_by_hand", lambda: nn.Sequential(RMS(), nn.Linear(WIDTH, WIDTH))),
    sentence("normalized_prototypes", Prototypes),
    sentence("cosine_similarity", Similarity),
    sentence("softmax_of_channels", lambda: Whole("softmax")),
    sentence("max_of_channels", lambda: Whole("max")),
    sentence("cumsum_of_channels", lambda: Whole("cumsum")),
    sentence("sort_of_channels", lambda: Whole("sort")),
    sentence("logsumexp_of_channels", lambda: Whole("logsumexp")),
    sentence("cumsum_of_tokens", lambda x: x.cumsum(1) / torch.arange(1, 13.0)[:, None]),
    vector("maxout", Maxout),
)  # fmt: skip
