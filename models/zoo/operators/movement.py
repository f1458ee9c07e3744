"""Data that only moves: shuffles, splits, slices, views, joins."""

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .frames import WIDTH, of_family, picture, sentence, vector

HALF = WIDTH // 2


def shuffle(x: Tensor, groups: int) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).contiguous().view(b, c, h, w)


class ShuffleUnit(nn.Module):
    """Grouped convolutions with a channel shuffle written as views between them (ShuffleNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(WIDTH, WIDTH, 1, groups=4)
        self.second = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(shuffle(F.relu(self.first(x)), 4)))


class ShuffleBranches(nn.Module):
    """Half of the channels pass, half are convolved, then all are shuffled (ShuffleNet v2)."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(HALF, HALF, 1), nn.ReLU(),
            nn.Conv2d(HALF, HALF, 3, padding=1, groups=HALF), nn.Conv2d(HALF, HALF, 1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        kept, rest = x.chunk(2, 1)
        return shuffle(torch.cat([kept, self.branch(rest)], 1), 2)


class Pieces(nn.Module):
    """Pieces of different size, each to a layer of its own."""

    def __init__(self, sizes: list[int], cut: str) -> None:
        super().__init__()
        self.sizes, self.cut = sizes, cut
        self.layers = nn.ModuleList(nn.Conv2d(n, WIDTH, 3, padding=1) for n in sizes)

    def forward(self, x: Tensor) -> Tensor:
        if self.cut == "split":
            parts = list(x.split(self.sizes, dim=1))
        else:
            first = self.sizes[0]
            parts = [x[:, :first], x[:, first:]]
        made = [F.relu(layer(part)) for layer, part in zip(self.layers, parts, strict=True)]
        return reduce(torch.add, made)


def slices_with_steps(x: Tensor) -> Tensor:
    return torch.cat([torch.sigmoid(x[:, ::2]) * x[:, 1::2], x[:, ::4]], 1)


def focus(x: Tensor) -> Tensor:
    """Four pictures of a quarter of the pixels (YOLOv5)."""
    corners = [x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
    return torch.cat(corners, 1)


class SubPixel(nn.Module):
    """Twice the resolution, by PixelShuffle or by a view."""

    def __init__(self, by_view: bool) -> None:
        super().__init__()
        self.by_view, self.raise_ = by_view, nn.Conv2d(WIDTH, 4 * WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.raise_(x)
        if not self.by_view:
            return F.relu(F.pixel_shuffle(x, 2))
        b, c, h, w = x.shape
        x = x.view(b, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2)
        return F.relu(x.reshape(b, c // 4, h * 2, w * 2))


class Windows(nn.Module):
    """Pictures cut into windows of 4 x 4 pixels, mixed inside each, and put back."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.out = nn.Linear(16, 16), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        x = x.view(b, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)
        x = self.out(F.gelu(self.mix(x.transpose(1, 2)).transpose(1, 2)))
        x = x.view(b, h // 4, w // 4, 4, 4, c).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(b, c, h, w)


class Streams(nn.Module):
    """unbind, something different for each of three streams, and stack."""

    def __init__(self) -> None:
        super().__init__()
        self.raise_ = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.raise_(x).unflatten(-1, (3, WIDTH)).unbind(-2)
        return torch.stack([torch.tanh(a), torch.sigmoid(b), F.relu(c)], 2).sum(2)


class Temporal(nn.Module):
    """A quarter of the channels looks one frame ahead, a quarter one back (TSM)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.unflatten(2, (4, 2)).transpose(1, 2)  # rows as frames: [B, 4, C, 2, W]
        shifted = torch.zeros_like(frames)
        fold = frames.shape[2] // 4
        shifted[:, :-1, :fold] = frames[:, 1:, :fold]
        shifted[:, 1:, fold : 2 * fold] = frames[:, :-1, fold : 2 * fold]
        shifted[:, :, 2 * fold :] = frames[:, :, 2 * fold :]
        return F.relu(self.mix(shifted.transpose(1, 2).flatten(2, 3)))


def slice_assignment(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :HALF] = torch.sigmoid(x[:, HALF:])
    y[:, HALF:] = x[:, :HALF] * 2
    return y


def slice_increment(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 8:] += x[:, :-8]
    y[:, :, 1:].mul_(0.5)
    return y


class Flattened(nn.Module):
    """All channels and pixels in one vector, as in LeNet and VGG; `sizes` written by hand."""

    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        self.by_hand = by_hand
        self.back = nn.Linear(WIDTH * 16, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(x, 4)
        x = x.view(-1, 512) if self.by_hand else torch.flatten(x, 1)
        return self.back(x)[:, :, None, None]


class Dense(nn.Module):
    """Every layer reads everything before it (DenseNet)."""

    def __init__(self) -> None:
        super().__init__()
        widths = [WIDTH + 16 * i for i in range(3)]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, 16, 3, padding=1))
            for n in widths
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class ThreeSources(nn.Module):
    """Concatenation of a convolution, a pool and a constant picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, 24, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        constant = torch.linspace(0, 1, x.shape[-1]).expand(x.shape[0], 1, *x.shape[2:])
        return torch.cat([self.conv(x), F.max_pool2d(x, 3, 1, 1), constant], dim=1)


def unfolded(x: Tensor) -> Tensor:
    """Patches and back: every pixel is summed as often as patches hold it."""
    patches = F.unfold(x, 3, padding=1)
    return F.fold(torch.tanh(patches), x.shape[-2:], 3, padding=1)


class Pyramid(nn.Module):
    """Two resolutions, joined after interpolation (FPN)."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.down = nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.side = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = F.relu(self.down(x))
        return self.side(x) + F.interpolate(low, size=x.shape[-2:], mode=self.mode)


class WidenedShortcut(nn.Module):
    """The shortcut gets more channels by padding with zeros (ResNet, option A)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, 2 * WIDTH, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, HALF, HALF)))


def rearranged(x: Tensor) -> Tensor:
    """'b n (h d) -> b h n d', a softer version of each head, and back, as einops does it."""
    b, n, _ = x.shape
    y = x.reshape(b, n, 4, 8).permute(0, 2, 1, 3)
    y = torch.tanh(y) * y.amax(2, keepdim=True)
    return y.permute(0, 2, 1, 3).reshape(b, n, 32)


def repeated(x: Tensor) -> Tensor:
    pooled = x.mean((2, 3), keepdim=True)
    return torch.cat([x * pooled.expand(-1, -1, 8, 8), pooled.repeat(1, 1, 8, 8)], 1)


CASES = of_family(
    "movement",
    picture("channel_shuffle_view", ShuffleUnit),
    picture("channel_shuffle_branches", ShuffleBranches),
    picture("channel_shuffle_op", lambda: nn.Sequential(
        nn.Conv2d(WIDTH, WIDTH, 1, groups=4), nn.ChannelShuffle(4), nn.Conv2d(WIDTH, WIDTH, 1))),
    picture("split_unequal", lambda: Pieces([8, 24], "split")),
    picture("slice_channels", lambda: Pieces([12, 20], "slice")),
    picture("slice_with_steps", slices_with_steps),
    picture("slice_from_the_end", lambda x: torch.cat([x[:, -8:], x[:, :-8].sigmoid()], 1)),
    picture("chunk_swap", lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)),
    picture("pixel_shuffle", lambda: SubPixel(by_view=False)),
    picture("pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2)),
    picture("depth_to_space_view", lambda: SubPixel(by_view=True)),
    picture("focus", focus),
    picture("roll_of_channels", lambda x: x + torch.roll(x, 3, 1).sigmoid()),
    picture("roll_of_places", lambda x: torch.roll(x, (-2, -2), (2, 3))),
    picture("window_partition", Windows),
    sentence("unbind_stack", Streams),
    picture("temporal_shift", Temporal),
    picture("slice_assignment", slice_assignment),
    picture("slice_increment", slice_increment),
    picture("flatten_linear", lambda: Flattened(by_hand=False)),
    picture("hard_coded_view", lambda: Flattened(by_hand=True)),
    picture("reshape_minus_one", lambda x: x.reshape(x.shape[0], -1, 4, 16).relu()),
    picture("dense_connections", Dense),
    picture("concat_of_sources", ThreeSources),
    picture("unfold_fold", unfolded),
    picture("interpolate_nearest", lambda: Pyramid("nearest")),
    picture("interpolate_bilinear", lambda: Pyramid("bilinear")),
    picture("pad_of_channels", WidenedShortcut),
    picture("pad_reflect", lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect")),
    sentence("einops_rearrange", rearranged),
    picture("expand_repeat", repeated),
    picture("repeat_interleave", lambda x: x.repeat_interleave(2, dim=1)),
    picture("tile", lambda x: torch.tile(x, (1, 2, 1, 1))),
    picture("flip_of_channels", lambda x: x * x.flip(1).sigmoid()),
    picture("movedim", lambda x: x.movedim(1, -1).sigmoid().movedim(-1, 1)),
    vector("unflatten_sum", lambda x: x.unflatten(1, (4, 8)).softmax(1).flatten(1)),
)  # fmt: skip
