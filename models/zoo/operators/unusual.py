"""Mathematics that few networks use, and operators that nobody has a rule for."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .frames import WIDTH, of_family, picture, sentence, vector


class Fourier(nn.Module):
    """Tokens are mixed in the frequency domain (FNet, GFNet)."""

    def __init__(self, learned: bool) -> None:
        super().__init__()
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.weight = nn.Parameter(torch.zeros(7, WIDTH, 2)) if learned else None
        self.rest = nn.Sequential(nn.Linear(WIDTH, 96), nn.GELU(), nn.Linear(96, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.fft.rfft(self.mix(x), dim=1, norm="ortho")
        if self.weight is None:
            y = torch.cat([y.real, y.imag], 1)[:, :12]
        else:
            y = torch.fft.irfft(y * torch.view_as_complex(self.weight), n=12, dim=1, norm="ortho")
        return x + self.rest(y)


class Rounded(torch.autograd.Function):
    """The gradient passes a rounding unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x * 8) / 8

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


@torch.library.custom_op("benchmarks_coverage::warp", mutates_args=())
def warp(x: Tensor) -> Tensor:
    """An operator of somebody's extension."""
    return torch.sin(x) + x.mean(-1, keepdim=True)


@warp.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Custom(nn.Module):
    """An unknown operator in the middle; what is around it can still shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Linear(WIDTH, 96), nn.ReLU(), nn.Linear(96, 8))
        self.back = nn.Sequential(nn.Linear(8, 96), nn.ReLU(), nn.Linear(96, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.back(warp(self.wide(x)))


class Equations(nn.Module):
    """einsum in one, two and three operands."""

    def __init__(self, *equations: str) -> None:
        super().__init__()
        self.equations = equations
        self.weight = nn.Parameter(torch.zeros(WIDTH, 48))
        self.back = nn.Parameter(torch.zeros(48, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        for equation in self.equations:
            count = equation.count(",")
            x = torch.einsum(equation, *(x, self.weight, self.back)[: count + 1])
        return x


class PerHead(nn.Module):
    """A weight for each head: einsum over entries, heads stay apart."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 8, 16))
        self.out = nn.Linear(64, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("bnhd,hde->bnhe", x.unflatten(-1, (4, 8)), self.weight)
        return self.out(F.relu(y).flatten(2))


class Factorised(nn.Module):
    """Pairwise products of features, summed (factorisation machine)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        pairs = 0.5 * (y.sum(1, keepdim=True).square() - y.square().sum(1, keepdim=True))
        return x + self.out(pairs)


class Compact(nn.Module):
    """Second moments of channels (bilinear pooling): all pairs, flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(WIDTH, 8, 1)
        self.out = nn.Linear(64, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.reduce(x).flatten(2)
        pairs = torch.bmm(y, y.transpose(1, 2)) / y.shape[-1]
        return x * self.out(pairs.flatten(1)).sigmoid()[:, :, None, None]


class Spline(nn.Module):
    """A learned function of every input, by powers (KAN)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(WIDTH, WIDTH, 4))

    def forward(self, x: Tensor) -> Tensor:
        powers = torch.stack([torch.tanh(x) ** k for k in range(4)], -1)
        return torch.einsum("bik,oik->bo", powers, self.weight)


class Complex(nn.Module):
    """A complex layer of two real ones."""

    def __init__(self) -> None:
        super().__init__()
        self.real, self.imaginary = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.complex(self.real(x), self.imaginary(x))
        return z.abs() + z.angle() * 0.1


class Tensordot(nn.Module):
    """tensordot, inner and kron-like products of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(WIDTH, 48)), nn.Parameter(torch.zeros(WIDTH, 48))

    def forward(self, x: Tensor) -> Tensor:
        return torch.inner(torch.relu(torch.tensordot(x, self.a, dims=1)), self.b)


class Antisymmetric(nn.Module):
    """A weight that is made of its own triangle."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(WIDTH, WIDTH))
        self.rest = nn.Sequential(nn.Linear(WIDTH, 96), nn.ReLU(), nn.Linear(96, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        upper = self.weight.triu(1)
        return self.rest(x + x @ (upper - upper.T))


class Blurred(nn.Module):
    """A fixed filter, the same for every channel (anti-aliased pooling)."""

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(line, line)[None, None].repeat(WIDTH, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.kernel, stride=2, groups=WIDTH)


class Blurred1(nn.Module):
    """The same with channels folded into the batch and one filter for all."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.full((1, 1, 3, 3), 1 / 9))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y = F.conv2d(x.reshape(b * c, 1, h, w), self.kernel, padding=1)
        return y.reshape(b, c, h, w)


CASES = of_family(
    "unusual",
    sentence("fourier_mixing", lambda: Fourier(learned=False)),
    sentence("fourier_filter", lambda: Fourier(learned=True)),
    picture("autograd_function", lambda x: Rounded.apply(x)),
    sentence("unknown_operator", Custom, frozen="No ONNX function found"),
    vector("einsum_two", lambda: Equations("bi,io->bo")),
    sentence("einsum_three", lambda: Equations("bni,io,oj->bnj")),
    sentence("einsum_dots", lambda: Equations("...i,io,oj->...j")),
    sentence("einsum_heads", PerHead),
    sentence("factorisation_machine", Factorised),
    picture("bilinear_pooling", Compact),
    vector("spline_layer", Spline),
    vector("complex_layer", Complex),
    sentence("tensordot_inner", Tensordot),
    vector("antisymmetric_weight", Antisymmetric),
    picture("fixed_blur", Blurred),
    picture("fixed_blur_in_the_batch", Blurred1),
    sentence("addcmul_special", lambda x: torch.addcmul(x, x, torch.erf(x)) + torch.expm1(-(x**2))),
    sentence("triangle_of_tokens", lambda x: torch.ones(12, 12).tril() @ x / 12),
    sentence(
        "median_of_tokens",
        lambda x: x - x.median(1, keepdim=True).values,
        frozen="No ONNX function found",
    ),
    sentence("diff_of_tokens", lambda x: torch.diff(x, dim=1)),
)
