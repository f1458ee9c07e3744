"""Convolutions and pools of every kind, and blocks that are built of them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .frames import WIDTH, of_family, picture, sound, volume

HALF = WIDTH // 2


class SpatialAttention(nn.Module):
    """A convolution with one output weighs every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.mix = nn.Conv2d(WIDTH, 1, 7, padding=3), nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x * torch.sigmoid(self.score(x)))


class ConvNeXt(nn.Module):
    """Depthwise, then an MLP on channels last, with a layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(WIDTH, WIDTH, 7, padding=3, groups=WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.raise_, self.lower = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.gamma = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.gamma * self.lower(F.gelu(self.raise_(self.norm(y))))
        return x + y.permute(0, 3, 1, 2)


class Ghost(nn.Module):
    """Half of the output is cheap: a depthwise convolution of the other half (GhostNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.primary = nn.Sequential(nn.Conv2d(WIDTH, 24, 1), nn.BatchNorm2d(24), nn.ReLU())
        self.cheap = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], 1)[:, :40]


class Involution(nn.Module):
    """A kernel for every pixel and group of channels, made from the pixel itself."""

    def __init__(self, groups: int = 4) -> None:
        super().__init__()
        self.groups = groups
        self.reduce, self.span = nn.Conv2d(WIDTH, 16, 1), nn.Conv2d(16, 9 * groups, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        kernel = self.span(F.relu(self.reduce(x))).view(b, self.groups, 1, 9, h, w)
        patches = F.unfold(x, 3, padding=1).view(b, self.groups, c // self.groups, 9, h, w)
        return (kernel * patches).sum(3).view(b, c, h, w)


class MixConv(nn.Module):
    """Depthwise kernels of different size on unequal parts of the channels (MixNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [12, 12, 8]
        self.parts = nn.ModuleList(
            nn.Conv2d(n, n, k, padding=k // 2, groups=n)
            for n, k in zip(self.sizes, (3, 5, 7), strict=True)
        )
        self.out = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self.parts, x.split(self.sizes, 1), strict=True)
        return self.out(torch.cat([part(y) for part, y in parts], 1))


class Partial(nn.Module):
    """Only a quarter of the channels is convolved (FasterNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Conv2d(8, 8, 3, padding=1)
        self.raise_, self.lower = nn.Conv2d(WIDTH, 64, 1), nn.Conv2d(64, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, rest = torch.split(x, [8, WIDTH - 8], dim=1)
        y = torch.cat((self.part(first), rest), 1)
        return x + self.lower(F.relu(self.raise_(y)))


class CoordConv(nn.Module):
    """Every pixel is told where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH + 2, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        line = torch.linspace(-1, 1, x.shape[-1])
        places = torch.stack(torch.meshgrid(line, line, indexing="ij"))
        return self.conv(torch.cat([x, places.expand(x.shape[0], -1, -1, -1)], 1))


class Deformable(nn.Module):
    """Pixels are fetched from where a convolution says."""

    def __init__(self) -> None:
        super().__init__()
        self.offset, self.mix = nn.Conv2d(WIDTH, 2, 3, padding=1), nn.Conv2d(WIDTH, WIDTH, 1)
        line = torch.linspace(-1, 1, 8)
        self.register_buffer("grid", torch.stack(torch.meshgrid(line, line, indexing="xy"), -1))

    def forward(self, x: Tensor) -> Tensor:
        at = self.grid + 0.1 * torch.tanh(self.offset(x)).permute(0, 2, 3, 1)
        return self.mix(F.grid_sample(x, at, align_corners=True))


class Unpooled(nn.Module):
    """What was pooled goes back to where it came from (SegNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y, places = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(self.inner(y), places, 2)


class UNet(nn.Module):
    """Down, up by a transposed convolution, and a skip by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(WIDTH, 64, 3, stride=2, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(64, WIDTH, 2, stride=2)
        self.join = nn.Conv2d(2 * WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.join(torch.cat([x, self.up(self.down(x))], 1)))


class Res2Net(nn.Module):
    """Pieces of the channels, each convolved together with the result of the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.out = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = x.split(8, 1)
        found, last = [first], None
        for conv, piece in zip(self.convs, rest, strict=True):
            last = F.relu(conv(piece if last is None else piece + last))
            found.append(last)
        return x + self.out(torch.cat(found, 1))


class CrossStage(nn.Module):
    """Half of the channels takes the long way (CSPNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.raise_ = nn.Conv2d(WIDTH, 2 * WIDTH, 1)
        self.long = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU())
        self.out = nn.Conv2d(2 * WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        short, long = self.raise_(x).chunk(2, dim=1)
        return self.out(torch.cat([short, long + self.long(long)], dim=1))


class Projected(nn.Module):
    """A residual whose shortcut is a convolution too."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(WIDTH, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU(inplace=True),
            nn.Conv2d(24, 48, 3, padding=1), nn.BatchNorm2d(48),
        )  # fmt: skip
        self.short = nn.Conv2d(WIDTH, 48, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        y += self.short(x)
        return y.relu_()


class Inception(nn.Module):
    """Branches with kernels of different shapes, and a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(WIDTH, 16, 1)
        self.line = nn.Sequential(
            nn.Conv2d(WIDTH, 16, (1, 7), padding=(0, 3)), nn.ReLU(),
            nn.Conv2d(16, 16, (7, 1), padding=(3, 0)),
        )  # fmt: skip
        self.far = nn.Conv2d(WIDTH, 16, 3, padding=2, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return F.relu(torch.cat([self.one(x), self.line(x), self.far(x), pooled], 1))


def conv(*args: int, **options: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(*args, **options), nn.BatchNorm2d(args[1]), nn.ReLU())


def both_pools(x: Tensor) -> Tensor:
    pooled = torch.cat([F.adaptive_avg_pool2d(x, 2), F.adaptive_max_pool2d(x, 2)], 1)
    return pooled * 0.5


CASES = of_family(
    "convolution",
    picture("depthwise_multiplier", lambda: nn.Sequential(
        conv(WIDTH, 2 * WIDTH, 3, padding=1, groups=WIDTH), nn.Conv2d(2 * WIDTH, WIDTH, 1))),
    picture("one_output_conv", SpatialAttention),
    picture("grouped_conv", lambda: nn.Sequential(
        conv(WIDTH, 64, 1), conv(64, 64, 3, padding=1, groups=4), nn.Conv2d(64, WIDTH, 1))),
    picture("grouped_transposed", lambda: nn.Sequential(
        conv(WIDTH, 64, 1), nn.ConvTranspose2d(64, WIDTH, 4, 2, 1, groups=4), nn.ReLU())),
    picture("transposed_conv", lambda: nn.ConvTranspose2d(WIDTH, HALF, 3, 2, 1, output_padding=1)),
    sound("conv1d", lambda: nn.Sequential(
        nn.Conv1d(WIDTH, WIDTH, 5, dilation=2, padding="same"), nn.GELU(), nn.AvgPool1d(2))),
    sound("conv1d_transposed", lambda: nn.Sequential(
        nn.Conv1d(WIDTH, 48, 3, stride=2), nn.ReLU(), nn.ConvTranspose1d(48, WIDTH, 3, 2))),
    volume("conv3d", lambda: nn.Sequential(
        nn.Conv3d(WIDTH, WIDTH, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool3d(2))),
    volume("conv3d_pools", lambda: nn.Sequential(
        nn.AvgPool3d(2, ceil_mode=True), nn.ConvTranspose3d(WIDTH, HALF, 2, 2))),
    picture("circular_padding", lambda: nn.Conv2d(
        WIDTH, WIDTH, 3, padding=1, padding_mode="circular")),
    picture("convnext_block", ConvNeXt),
    picture("ghost_module", Ghost),
    picture("involution", Involution),
    picture("mixed_depthwise", MixConv),
    picture("partial_conv", Partial),
    picture("coordinates", CoordConv),
    picture("deformable", Deformable),
    picture("max_unpool", Unpooled),
    picture("unet_skip", UNet),
    picture("res2net", Res2Net),
    picture("cspnet", CrossStage),
    picture("residual_projection", Projected),
    picture("inception", Inception),
    picture("avg_pool_ceil", lambda: nn.Sequential(
        nn.AvgPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(2, ceil_mode=True))),
    picture("adaptive_pools", both_pools),
    picture("lp_pool", lambda: nn.LPPool2d(2, 2)),
)  # fmt: skip
