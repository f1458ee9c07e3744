"""Steps with weights: convolutions, linear layers, norms, squeeze and excite, shared layers."""

from collections.abc import Sequence
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .table import (
    DIMS,
    PICTURES,
    WIDTHS,
    Do,
    Options,
    StepKind,
    StepTable,
    Stream,
    no_options,
    of_kind,
    one_of,
    param,
    twin,
    wide,
)

aten = torch.ops.aten

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORMS = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORMS = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}

# --- convolutions --------------------------------------------------------------------------------


def conv(
    x: Stream, *, width: int, kernel: int, groups: int = 1, stride: int = 1, dilation: int = 1,
    bias: bool = True, padding: str = "",
) -> nn.Module:  # fmt: skip
    reflect = {"padding_mode": "reflect"} if padding == "reflect" else {}
    pad: Any = "same" if padding == "same" else dilation * (kernel // 2)
    layer = CONVS[DIMS[x.kind]]
    return layer(x.channels, width, kernel, stride, pad, dilation, groups, bias, **reflect)


def convolving(rng: Random, x: Stream) -> Options:
    small = min(x.places)
    options: Options = {"width": rng.choice(WIDTHS), "kernel": rng.choice([1, 3])}
    kind = rng.choice(["plain", "plain", "plain", "grouped", "grouped", "depthwise", "strided",
                       "dilated", "same", "reflect"])  # fmt: skip
    divisors = x.divisors(least=1)
    if kind == "grouped" and divisors:
        groups = rng.choice(divisors)
        options |= {"groups": groups, "width": groups * rng.choice([1, 2, 3])}
    elif kind == "depthwise":
        options |= {"groups": x.channels, "width": x.channels * rng.choice([1, 1, 2]), "kernel": 3}
    elif kind == "strided" and small > 2:
        options |= {"stride": 2, "kernel": 3}
    elif kind == "dilated":
        options |= {"dilation": 2, "kernel": 3}
    elif kind in ("same", "reflect") and small > 2:
        options |= {"padding": kind, "kernel": 3}
    return {**options, "width": min(options["width"], 48) if "groups" not in options
            else options["width"], "bias": rng.random() < 0.7}  # fmt: skip


def conv_transposed(
    x: Stream, *, width: int, kernel: int, groups: int = 1, stride: int = 1
) -> nn.Module:
    layer = TRANSPOSED[DIMS[x.kind]]
    return layer(x.channels, width, kernel, stride, (kernel - stride) // 2, groups=groups)


def growing(rng: Random, x: Stream) -> Options:
    groups = rng.choice([1, 1, *x.divisors(least=1)])
    stride = 2 if max(x.places) <= 4 and rng.random() < 0.6 else 1
    return {"width": groups * rng.choice([1, 2, 3]) if groups > 1 else rng.choice(WIDTHS),
            "kernel": 2 if stride == 2 else rng.choice([1, 3]), "groups": groups,
            "stride": stride}  # fmt: skip


def functional_conv(x: Stream, *, width: int, transposed: bool, groups: int) -> nn.Module:
    """aten.convolution by its own name, as other captures meet it."""
    shape = (x.channels, width) if transposed else (width, x.channels // groups)
    return Do(
        lambda m, a: aten.convolution.default(
            a, m.w, None, [1, 1], [1, 1], [1, 1], transposed, [0, 0], groups
        ),
        w=param(*shape, 3, 3),
    )


def functional(rng: Random, x: Stream) -> Options:
    transposed = rng.random() < 0.5
    groups = 1 if transposed else rng.choice([1, *x.divisors(least=1)])
    return {"width": groups * rng.choice([2, 3, 5]), "transposed": transposed, "groups": groups}


def weight_normed(x: Stream, *, width: int) -> nn.Module:
    return nn.utils.parametrizations.weight_norm(CONVS[DIMS[x.kind]](x.channels, width, 1))


def weight_sliced(x: Stream, *, width: int) -> nn.Module:
    """A layer that uses a part of a larger weight."""
    return Do(
        lambda m, a: F.linear(a.movedim(x.axis, -1), m.w[1:, : x.channels]).movedim(-1, x.axis),
        w=param(width + 1, x.channels + 2),
    )


# --- linear --------------------------------------------------------------------------------------


def linear(x: Stream, *, width: int, bias: bool, how: str) -> nn.Module:
    """On the channels, wherever they are."""
    c, axis = x.channels, x.axis
    if how == "layer":
        layer = nn.Linear(c, width, bias)
        last = axis == x.value.dim() - 1
        if last:
            return layer
        return Do(lambda m, a: m.layer(a.movedim(axis, -1)).movedim(-1, axis), layer=layer)
    if how == "matmul":
        return Do(lambda m, a: (a.movedim(axis, -1) @ m.w).movedim(-1, axis), w=param(c, width))
    return Do(
        lambda m, a: torch.einsum("...i,oi->...o", a.movedim(axis, -1), m.w).movedim(-1, axis),
        w=param(width, c),
    )


def linear_options(rng: Random, x: Stream) -> Options:
    return {**wide(rng, x), "bias": rng.random() < 0.7,
            "how": rng.choice(["layer", "layer", "layer", "matmul", "einsum"])}  # fmt: skip


def feed_forward(x: Stream, *, width: int, fn: str) -> nn.Module:
    """x + down(act(up(x))), or a gated unit."""
    gated = fn in ("swiglu", "chunked")
    up = nn.Linear(x.channels, 2 * width if fn == "chunked" else width)
    gate = {"gate": nn.Linear(x.channels, width)} if fn == "swiglu" else {}

    def run(m: Any, a: Tensor) -> Tensor:
        y = a.movedim(x.axis, -1)
        inside = m.up(y)
        if fn == "chunked":
            value, gate = inside.chunk(2, -1)
            inside = value * F.gelu(gate)
        elif fn == "swiglu":
            inside = F.silu(m.gate(y)) * inside
        elif not gated:
            inside = {"gelu": F.gelu, "relu": F.relu, "tanh": torch.tanh}[fn](inside)
        return a + m.down(inside).movedim(-1, x.axis)

    return Do(run, up=up, down=nn.Linear(width, x.channels), **gate)


def bilinear(x: Stream, y: Stream, *, width: int) -> nn.Module:
    """Every channel of one stream meets every channel of another: sum of x[i] w[o, i, j] y[j]."""
    layer = nn.Bilinear(x.channels, y.channels, width)
    axis = x.axis
    return Do(lambda m, a, b: m.layer(a.movedim(axis, -1), b.movedim(axis, -1)).movedim(-1, axis),
              layer=layer)  # fmt: skip


def similar(x: Stream, y: Stream) -> nn.Module:
    """How much two streams agree at every place gates one of them."""
    return Do(lambda m, a, b: a * F.cosine_similarity(a, b.tanh(), dim=x.axis).unsqueeze(x.axis))


def tied(x: Stream, y: Stream) -> nn.Module:
    """The other way through the weight of an earlier linear layer."""
    layer = y.module
    if not isinstance(layer, nn.Linear | nn.Embedding):
        raise ValueError("no weight to tie to")
    back = isinstance(layer, nn.Linear)
    return Do(lambda m, a, _: F.linear(a, m.layer.weight.t() if back else m.layer.weight),
              layer=layer)  # fmt: skip


def tied_to(rng: Random, x: Stream, streams: Sequence[Stream]) -> Sequence[Stream] | None:
    fitting = [
        s
        for s in streams
        if (isinstance(s.module, nn.Linear) and s.module.out_features == x.channels)
        or (isinstance(s.module, nn.Embedding) and s.module.embedding_dim == x.channels)
    ]
    return [rng.choice(fitting)] if fitting else None


def again(x: Stream, y: Stream) -> nn.Module:
    """The layer of an earlier step once more."""
    return Do(lambda m, a, _: m.layer(a), layer=y.module)


def callable_again(rng: Random, x: Stream, streams: Sequence[Stream]) -> Sequence[Stream] | None:
    fitting = [
        s
        for s in streams
        if len(s.sources) == 1 and s.sources[0].kind == x.kind and s.sources[0].shape == x.shape
        and s.op in ("conv", "linear", "norm", "param", "feed_forward", "excite", "recurrent",
                     "attention", "row_product", "conv_transposed", "prelu")
    ]  # fmt: skip
    return [rng.choice(fitting)] if fitting else None


# --- norms ---------------------------------------------------------------------------------------


def norm(x: Stream, *, fn: str, groups: int = 1, affine: bool = True) -> nn.Module:
    c, axis, dims = x.channels, x.axis, DIMS.get(x.kind, 0)
    if fn == "batch":
        return swapped(x, BATCH_NORMS[dims](c, affine=affine, track_running_stats=groups == 1))
    if fn == "group":
        return swapped(x, nn.GroupNorm(groups, c, affine=affine))
    if fn == "instance":
        stats = groups > 1
        return INSTANCE_NORMS[dims](c, affine=affine, track_running_stats=stats)
    if fn in ("layer", "rms"):
        layer: nn.Module = (
            nn.LayerNorm(c, elementwise_affine=affine)
            if fn == "layer"
            else nn.RMSNorm(c, eps=1e-3 if groups > 1 else None, elementwise_affine=affine)
        )
        if axis == x.value.dim() - 1:
            return layer
        return Do(lambda m, a: m.layer(a.movedim(axis, -1)).movedim(-1, axis), layer=layer)
    if fn == "whole":
        return nn.LayerNorm(x.shape[1:])
    return Do(lambda m, a: BY_HAND[fn](a, axis) * m.scale + m.shift,
              scale=param(*x.lying()), shift=param(*x.lying()))  # fmt: skip


def centred(a: Tensor, axis: int) -> Tensor:
    return a - a.mean(axis, keepdim=True)


BY_HAND = {
    "rms_by_hand": lambda a, d: a * torch.rsqrt(a.pow(2).mean(d, keepdim=True) + 1e-5),
    "var_by_hand": lambda a, d: (
        centred(a, d) / (a.var(d, keepdim=True, unbiased=False) + 1e-5).sqrt()
    ),
    "var_corrected": lambda a, d: (
        centred(a, d) / (a.var(d, keepdim=True, correction=1) + 1e-5).sqrt()
    ),
    "std_by_hand": lambda a, d: centred(a, d) / (a.std(d, keepdim=True, unbiased=True) + 1e-2),
    "std_corrected": lambda a, d: centred(a, d) / (a.std(d, keepdim=True, correction=0) + 1e-2),
    "square_by_hand": lambda a, d: (
        centred(a, d) / (centred(a, d).square().mean(d, keepdim=True) + 1e-5).sqrt()
    ),
    "normalize": lambda a, d: F.normalize(a, dim=d),
    "normalize_of_order_one": lambda a, d: F.normalize(a, p=1, dim=d),
    "vector_norm": lambda a, d: a / (torch.linalg.vector_norm(a, dim=d, keepdim=True) + 0.1),
    "norm_by_name": lambda a, d: a / (aten.norm.ScalarOpt_dim(a, 2, [d], True) + 0.1),
    "norm_by_name_and_dtype": lambda a, d: (
        a / (aten.norm.ScalarOpt_dim_dtype(a, 2, [d], True, dtype=a.dtype) + 0.1)
    ),
    "response": lambda a, d: a * torch.sigmoid(a.mean(d, keepdim=True)),
    "standardised": lambda a, d: centred(a, d) / (a.abs().amax() + 1),
}


def swapped(x: Stream, layer: nn.Module) -> nn.Module:
    """A layer that wants channels on axis 1."""
    if x.axis == 1:
        return layer
    return Do(lambda m, a: m.layer(a.transpose(1, 2)).transpose(1, 2), layer=layer)


def norming(rng: Random, x: Stream) -> Options:
    names = ["batch"] * 5 + ["layer"] * 2 + ["group"] * 3 + ["rms"] + ["by hand"] * 3
    if x.kind in PICTURES and torch.Size(x.places).numel() > 1:
        names += ["instance"]
    if x.kind == "image" and rng.random() < 0.3:
        names += ["whole"]
    fn = rng.choice(names)
    fn = rng.choice(list(BY_HAND)) if fn == "by hand" else fn
    if fn in BY_HAND or fn == "whole":
        return {"fn": fn}
    groups = rng.choice([1, *x.divisors(least=1)]) if fn == "group" else rng.choice([1, 1, 2])
    if fn == "batch" and x.kind == "vector":
        groups = 1
    return {"fn": fn, "groups": groups, "affine": rng.random() < 0.8}


# --- gates ---------------------------------------------------------------------------------------


def excite(x: Stream, *, width: int, how: str) -> nn.Module:
    """Squeeze and excite."""
    c, places = x.channels, tuple(a for a in range(1, x.value.dim()) if a != x.axis)

    def run(m: Any, a: Tensor) -> Tensor:
        gate = torch.sigmoid(m.up(F.silu(m.down(a.mean(places)))))
        gate = gate.unsqueeze(1) if x.axis > 1 else gate[(..., *[None] * len(places))]
        return a * (gate.expand_as(a) if how == "expand" else gate)

    return Do(run, down=nn.Linear(c, width), up=nn.Linear(width, c))


def one_gate(x: Stream, *, how: str) -> nn.Module:
    """One number a place weighs all channels: [B, 1, H, W]."""
    layer = CONVS[DIMS[x.kind]](x.channels, 1, 1)
    if how == "softmax":
        return Do(lambda m, a: a * m.layer(a).flatten(2).softmax(2).view(a.shape[0], 1, *x.places),
                  layer=layer)  # fmt: skip
    if how == "expand":
        return Do(lambda m, a: a * m.layer(a).sigmoid().expand_as(a), layer=layer)
    return Do(lambda m, a: a * m.layer(a).sigmoid(), layer=layer)


def modulated(x: Stream, y: Stream, *, fn: str) -> nn.Module:
    """FiLM, adaptive instance norm: another stream says scale and shift."""

    def run(m: Any, a: Tensor, b: Tensor) -> Tensor:
        scale, shift = m.layer(b).chunk(2, 1)
        view = (a.shape[0], 1, -1) if x.axis > 1 else (a.shape[0], -1, *[1] * len(x.places))
        if fn == "adain":
            axes = tuple(q for q in range(1, a.dim()) if q != x.axis)
            a = (a - a.mean(axes, keepdim=True)) / (a.std(axes, keepdim=True) + 0.1)
        return a * (1 + scale.view(view)) + shift.view(view)

    return Do(run, layer=nn.Linear(y.channels, 2 * x.channels))


def film(rng: Random, x: Stream) -> Options:
    many = torch.Size(x.places).numel() > 1
    return {"fn": rng.choice(["film", "adain"] if many else ["film"])}


STEPS: StepTable = {
    "conv": StepKind(conv, convolving, takes=PICTURES, weight=14),
    "conv_transposed": StepKind(conv_transposed, growing, takes=PICTURES, weight=3),
    "functional_conv": StepKind(functional_conv, functional, takes=("image",)),
    "weight_normed": StepKind(weight_normed, wide, takes=PICTURES, weight=0.8),
    "weight_sliced": StepKind(weight_sliced, wide, weight=0.8),
    "linear": StepKind(linear, linear_options, weight=4),
    "feed_forward": StepKind(feed_forward, lambda r, x: {
        **wide(r, x), **one_of(["gelu", "relu", "tanh", "swiglu", "chunked"])(r, x)}, weight=2),
    "bilinear": StepKind(bilinear, wide, find=twin, weight=0.6),
    "similar": StepKind(similar, find=twin, weight=0.8),
    "tied": StepKind(tied, no_options, takes=("tokens", "vector"), find=tied_to, weight=1,
                     refers=True),
    "again": StepKind(again, no_options, find=callable_again, weight=3, refers=True),
    "norm": StepKind(norm, norming, weight=9),
    "excite": StepKind(excite, lambda r, x: {
        **wide(r, x), "how": r.choice(["", "expand"])}, takes=(*PICTURES, "tokens"), weight=2),
    "one_gate": StepKind(one_gate, lambda r, x: {
        "how": r.choice(["", "softmax", "expand"])}, takes=PICTURES),
    "modulated": StepKind(modulated, film, takes=(*PICTURES, "tokens"), find=of_kind("vector"),
                          weight=2),
}  # fmt: skip
