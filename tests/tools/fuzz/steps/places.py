"""Steps that leave channels alone: reductions, pooling, interpolation, moves of places, indices."""

from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models._random import normal, tokens

from .table import (
    PICTURES,
    Do,
    Options,
    StepKind,
    StepTable,
    Stream,
    chained,
    one_of,
    param,
    pure,
    some_of,
)

aten = torch.ops.aten


def flag(op: Any) -> Any:
    return lambda a: a * op(a > 0.1)


def apart(a: Tensor) -> Tensor:
    """The stream with places that differ: which of two equal ones is larger, rounding would say."""
    places = a.shape[2:]
    return a + torch.arange(float(places.numel())).sin().view(places)


REDUCTIONS = {  # of the last axis of a picture or sound
    "softmax": lambda a: a.softmax(-1),
    "_softmax": lambda a: aten._softmax.default(a, a.dim() - 1, False),
    "log_softmax": lambda a: a.log_softmax(-1),
    "_log_softmax": lambda a: aten._log_softmax.default(a, a.dim() - 1, False),
    "sum": lambda a: a + a.sum(-1, keepdim=True) * 0.1,
    "nansum": lambda a: a * a.nansum(-1, keepdim=True).tanh(),
    "prod": lambda a: a * a.tanh().prod(-1, keepdim=True),
    "amax": lambda a: a * a.amax(-1, keepdim=True).tanh(),
    "amin": lambda a: a - a.amin(-1, keepdim=True),
    "aminmax": lambda a: a + torch.sub(*torch.aminmax(a, dim=-1, keepdim=True)) * 0.1,
    "max": lambda a: a - a.max(-1, keepdim=True)[0],
    "min": lambda a: a - a.min(-1, keepdim=True)[0],
    "argmax": lambda a: a * apart(a).argmax(-1, keepdim=True) * 0.3,
    "argmin": lambda a: a * apart(a).argmin(-1, keepdim=True) * 0.3,
    "any": flag(lambda f: f.any(-1, keepdim=True)),
    "any_of_several": flag(lambda f: f.any((-1,), keepdim=True)),
    "all": flag(lambda f: f.all(-1, keepdim=True).logical_not()),
    "all_of_several": flag(lambda f: f.all((-1,), keepdim=True).logical_not()),
    "count_nonzero": lambda a: a * (a > 0.1).count_nonzero(-1)[..., None] * 0.2,
    "count_of_several": lambda a: a * (a > 0.1).count_nonzero((2,)).unsqueeze(2) * 0.2,
    "sort": lambda a: a.sort(-1)[0],
    "sort_stable": lambda a: a.sort(dim=-1, stable=True)[0],
    "argsort": lambda a: a * apart(a).argsort(-1) * 0.2,
    "argsort_stable": lambda a: a * apart(a).argsort(dim=-1, stable=True) * 0.2,
    "topk": lambda a: a + a.topk(1, -1)[0],
    "cumsum": lambda a: a.cumsum(-1) * 0.5,
    "cumprod": lambda a: a.tanh().cumprod(-1),
    "cummax": lambda a: a.cummax(-1)[0],
    "logcumsumexp": lambda a: a.tanh().logcumsumexp(-1),
    "logsumexp": lambda a: a - a.logsumexp(-1, keepdim=True),
    "median": lambda a: a - a.median(-1, keepdim=True)[0],
    "var_mean": lambda a: a + torch.add(*torch.var_mean(a, -1, unbiased=False, keepdim=True)),
    "var_mean_correction": lambda a: (
        a + torch.add(*torch.var_mean(a, -1, correction=0, keepdim=True))
    ),
    "std_mean": lambda a: a + torch.add(*torch.std_mean(a, -1, unbiased=False, keepdim=True)),
    "std_mean_correction": lambda a: (
        a + torch.add(*torch.std_mean(a, -1, correction=0, keepdim=True))
    ),
    "var": lambda a: a * a.var(-1, keepdim=True, unbiased=False).tanh(),
    "std": lambda a: a * a.std(-1, keepdim=True, unbiased=False).tanh(),
    "flip": lambda a: a.flip(-1),
    "roll": lambda a: a.roll(1, -1),
    "unbind": lambda a: torch.stack(a.unbind(-1)[::-1], -1),
    "narrow": lambda a: a.narrow(-1, 0, 1) + a,
    "select": lambda a: a + a.select(-1, 0).unsqueeze(-1),
    "gather": lambda a: a.gather(-1, a.argsort(-1)),
    "repeat": lambda a: a.mean(-1, keepdim=True).repeat(*[1] * (a.dim() - 1), a.shape[-1]),
    "norm": lambda a: a / (a.norm(dim=-1, keepdim=True) + 0.1),
    "index": lambda a: a[..., torch.tensor([0, 0])].sum(-1, keepdim=True) + a,
}
OF_ALL = {  # one number of everything: what goes in keeps all channels
    "sum": lambda a: a + a.sum().tanh(),
    "mean": lambda a: a + a.mean(),
    "prod": lambda a: a * a.prod().tanh(),
    "max": lambda a: a - a.max(),
    "min": lambda a: a - a.min(),
    "any": flag(torch.any),
    "all": flag(lambda f: torch.all(f).logical_not()),
    "count_nonzero": lambda a: a * (a > 0.1).count_nonzero() * 0.01,
    "median": lambda a: a - a.median(),
    "var_mean": lambda a: a * torch.var_mean(a)[0].tanh(),
    "var_mean_by_name": lambda a: a * aten.var_mean.default(a)[1].tanh(),
    "std_mean": lambda a: a * torch.std_mean(a)[1].tanh(),
    "std_mean_by_name": lambda a: a * aten.std_mean.default(a)[0].tanh(),
    "item": lambda a: a * (1 + 0.1 * torch.ops.aten.tanh.default(a.mean()).item()),
}


def reduced(x: Stream, *, fns: list[str]) -> nn.Module:
    return chained(REDUCTIONS, fns)


def of_all(x: Stream, *, fn: str) -> nn.Module:
    return pure(OF_ALL[fn])


# --- pooling and interpolation -------------------------------------------------------------------


def up(mode: str, dims: int, align: bool = False) -> Any:
    more = {"align_corners": False} if align else {}
    return lambda a: F.interpolate(a, scale_factor=2, mode=mode, **more)


def twice(a: Tensor) -> list[int]:
    return [2 * n for n in a.shape[2:]]


def unpooled(a: Tensor, down: Any, back: Any) -> Tensor:
    """The largest of each window stays where it was."""
    largest, at = down(apart(a), 2, return_indices=True)
    kept: Tensor = back(largest, at, 2, output_size=a.shape[2:])
    return kept


SOUND = {
    "avg_pool": nn.AvgPool1d(2),
    "max_pool": nn.MaxPool1d(2),
    "max_pool_with_indices": lambda a: F.max_pool1d(a, 2, return_indices=True)[0],
    "adaptive_avg": nn.AdaptiveAvgPool1d(3),
    "adaptive_max": nn.AdaptiveMaxPool1d(3),
    "nearest": up("nearest", 1),
    "nearest_to": lambda a: aten.upsample_nearest1d.default(a, twice(a)),
    "linear": up("linear", 1, True),
    "linear_to": lambda a: aten.upsample_linear1d.default(a, twice(a), False),
    "reflection_pad": lambda a: aten.reflection_pad1d.default(a, [1, 1]),
    "replication_pad": lambda a: aten.replication_pad1d.default(a, [1, 1]),
}
IMAGE = {
    "avg_pool": nn.AvgPool2d(2),
    "max_pool": nn.MaxPool2d(3, 2, 1),
    "max_pool_with_indices": lambda a: F.max_pool2d(a, 2, return_indices=True)[0],
    "max_unpool": lambda a: unpooled(a, F.max_pool2d, F.max_unpool2d),
    "adaptive_avg": nn.AdaptiveAvgPool2d((2, 4)),
    "_adaptive_avg": lambda a: aten._adaptive_avg_pool2d.default(a, [2, 4]),
    "adaptive_max": nn.AdaptiveMaxPool2d(2),
    "nearest": up("nearest", 2),
    "nearest_to": lambda a: aten.upsample_nearest2d.default(a, twice(a)),
    "bilinear": up("bilinear", 2, True),
    "bilinear_to": lambda a: aten.upsample_bilinear2d.default(a, twice(a), False),
    "bicubic": up("bicubic", 2, True),
    "bicubic_to": lambda a: aten.upsample_bicubic2d.default(a, twice(a), True),
    "bilinear_aa": lambda a: F.interpolate(a, (2, 2), mode="bilinear", antialias=True),
    "bilinear_aa_to": lambda a: aten._upsample_bilinear2d_aa.default(a, [2, 2], False),
    "bicubic_aa": lambda a: F.interpolate(a, (2, 2), mode="bicubic", antialias=True),
    "bicubic_aa_to": lambda a: aten._upsample_bicubic2d_aa.default(a, [2, 2], False),
    "nearest_exact": nn.Upsample((4, 6), mode="nearest-exact"),
    "nearest_exact_to": lambda a: aten._upsample_nearest_exact2d.default(a, [4, 6]),
    "reflection_pad": lambda a: aten.reflection_pad2d.default(a, [1, 1, 1, 1]),
    "replication_pad": lambda a: aten.replication_pad2d.default(a, [1, 1, 1, 1]),
    "circular_pad": lambda a: F.pad(a, (1, 1, 1, 1), mode="circular"),
    "zero_pad": lambda a: F.pad(a, (1, 0, 0, 1)),
    "crop": lambda a: F.pad(a, (-1, 0, 0, -1)),
    "cut": lambda a: a[:, :, 1:, ::2],
    "window": lambda a: a.unfold(2, 2, 2).mean(-1),
    "fold": lambda a: F.fold(F.unfold(a, 2).sigmoid(), a.shape[2:], 2) * 0.5,
    "diagonal": lambda a: a * a.diagonal(0, 2, 3).unsqueeze(-1),
    "unfold": lambda a: F.unfold(a, 2, stride=2).mean(2)[:, :, None, None].expand(-1, -1, 2, 2),
}
VOLUME = {
    "avg_pool": nn.AvgPool3d(2),
    "max_pool": nn.MaxPool3d(2),
    "max_pool_with_indices": lambda a: F.max_pool3d(a, 2, return_indices=True)[0],
    "max_unpool": lambda a: unpooled(a, F.max_pool3d, F.max_unpool3d),
    "adaptive_avg": nn.AdaptiveAvgPool3d(2),
    "nearest": up("nearest", 3),
    "nearest_to": lambda a: aten.upsample_nearest3d.default(a, twice(a)),
    "trilinear": up("trilinear", 3, True),
    "trilinear_to": lambda a: aten.upsample_trilinear3d.default(a, twice(a), False),
    "reflection_pad": lambda a: aten.reflection_pad3d.default(a, [1] * 6),
    "replication_pad": lambda a: aten.replication_pad3d.default(a, [1] * 6),
}
POOLS = {"sound": SOUND, "image": IMAGE, "volume": VOLUME}


def pooled(x: Stream, *, fn: str) -> nn.Module:
    return pure(POOLS[x.kind][fn])


def pooling(rng: Random, x: Stream) -> Options | None:
    if min(x.places) < 2:
        return None
    most = {"sound": 16, "image": 8, "volume": 4}[x.kind]
    names = [n for n in POOLS[x.kind] if max(x.places) <= most or _shrinks(n)]
    return {"fn": rng.choice(names)}


def _shrinks(name: str) -> bool:
    return not name.endswith(("_pad", "_to")) and name not in (
        "nearest", "linear", "bilinear", "bicubic", "trilinear")  # fmt: skip


def sampled(x: Stream, *, how: str) -> nn.Module:
    """grid_sample at fixed places."""
    if how == "schema":
        return Do(lambda m, a: aten.grid_sampler_2d.default(a, m.at[: a.shape[0]], 0, 0, False),
                  at=normal(8, 4, 4, 2))  # fmt: skip
    return Do(lambda m, a: F.grid_sample(a, m.at[: a.shape[0]], align_corners=False),
              at=normal(8, 4, 4, 2))  # fmt: skip


# --- indices -------------------------------------------------------------------------------------

ORDER = torch.tensor([1, 0, 1, 2])
INDEXED = {
    "index": lambda m, a: a[:, :, m.order],
    "index_select": lambda m, a: a.index_select(2, m.order),
    "index_of_two": lambda m, a: a[:, :, m.order, m.order[:, None]],
    "table": lambda m, a: a + m.table.gather(0, m.at),
    "last_index": lambda m, a: a[..., m.order],
}


def indexed(x: Stream, *, fn: str) -> nn.Module:
    wide = x.shape[-1]
    return Do(INDEXED[fn], order=ORDER, table=normal(5, wide), at=tokens(5, 1, wide)[:1])


def enough_places(rng: Random, x: Stream) -> Options | None:
    return one_of(INDEXED)(rng, x) if min(x.places) > 2 else None


ENDS = torch.tensor([1, 0])
SCATTERED = {  # along the places, axis `d`; each channel may have an order of its own
    "value": lambda a, d: a.scatter(d, ordered(a, d).narrow(d, 0, 1), 0.5),
    "source": lambda a, d: a.scatter(d, ordered(a, d), torch.sigmoid(a)),
    "by_flag": lambda a, d: a.scatter(d, ordered(a, d), torch.sigmoid(a), reduce="add"),
    "value_by_flag": lambda a, d: a.scatter(d, ordered(a, d), 0.5, reduce="multiply"),
    "add": lambda a, d: a.scatter_add(d, ordered(a, d), torch.sigmoid(a)),
    "reduce": lambda a, d: a.scatter_reduce(d, ordered(a, d), torch.sigmoid(a), reduce="amax"),
    "index_add": lambda a, d: a.index_add(d, ENDS, torch.sigmoid(a.narrow(d, 0, 2))),
    "index_copy": lambda a, d: a.index_copy(d, ENDS, torch.sigmoid(a.narrow(d, 0, 2))),
    "index_fill": lambda a, d: a.index_fill(d, ENDS[:1], 0.5),
    "index_put": lambda a, d: aten.index_put.default(
        a, [*[None] * d, ENDS], torch.sigmoid(a.narrow(d, 0, 2))
    ),
}


def ordered(a: Tensor, axis: int) -> Tensor:
    """The order of the places along an axis, in each channel."""
    ramp = torch.arange(float(a.shape[axis])).sin().view(-1, *[1] * (a.dim() - axis - 1))
    return (a + ramp).argsort(axis)


def scattered(x: Stream, *, fns: list[str]) -> nn.Module:
    """Places are written by index."""
    axis = 1 if x.kind == "tokens" else 2
    return chained({name: lambda a, f=f: f(a, axis) for name, f in SCATTERED.items()}, fns)


def place_linear(x: Stream, *, width: int) -> nn.Module:
    """A network over all places of each channel."""
    n = torch.Size(x.places).numel()
    return Do(lambda m, a: a + m.down(F.gelu(m.up(a.flatten(2)))).view(a.shape),
              up=nn.Linear(n, width), down=nn.Linear(width, n))  # fmt: skip


def place_table(x: Stream) -> nn.Module:
    return Do(lambda m, a: a * (1 + m.table), table=param(*x.shape[1:]))


IMAGES = ("image",)

STEPS: StepTable = {
    "reduced": StepKind(reduced, some_of(REDUCTIONS, 5), takes=PICTURES, weight=7),
    "of_all": StepKind(of_all, one_of(OF_ALL), weight=3),
    "pooled": StepKind(pooled, pooling, takes=PICTURES, weight=22),
    "sampled": StepKind(sampled, lambda r, x: {"how": r.choice(["", "schema"])}, takes=IMAGES,
                        weight=1),
    "indexed": StepKind(indexed, enough_places, takes=IMAGES, weight=2),
    "scattered": StepKind(scattered, lambda r, x: some_of(SCATTERED, 4)(r, x)
                          if min(x.places) > 1 else None, takes=(*PICTURES, "tokens"), weight=3),
    "place_linear": StepKind(place_linear, lambda r, x: {"width": r.choice([3, 5])},
                             takes=IMAGES, weight=0.7),
    "place_table": StepKind(place_table, takes=(*IMAGES, "sound", "tokens"), weight=0.7),
}  # fmt: skip
