"""Steps that move channels: split, join, reorder, repeat, view in rows."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .table import (
    LARGEST,
    Do,
    Options,
    StepKind,
    StepTable,
    Stream,
    beside,
    no_options,
    one_of,
    param,
    pure,
    twin,
)

aten = torch.ops.aten

# --- cut and join --------------------------------------------------------------------------------


def cat(x: Stream, *others: Stream, fn: str) -> nn.Module:
    join = torch.concat if fn == "concat" else torch.cat
    return pure(lambda *all_: join(all_, x.axis))


def cat_places(x: Stream, y: Stream) -> nn.Module:
    axis = 1 if x.kind == "tokens" else 2
    return pure(lambda a, b: torch.cat([a, b], axis))


SPLITS = {
    "reversed": lambda parts, axis: torch.cat(list(parts)[::-1], axis),
    "first": lambda parts, axis: parts[0],
    "last": lambda parts, axis: torch.relu(parts[-1]),
    "one_active": lambda parts, axis: torch.cat([torch.sigmoid(parts[0]), *parts[1:]], axis),
    "two_uses": lambda parts, axis: torch.cat([parts[-1], parts[0].relu(), parts[-1].tanh()], axis),
    "all": lambda parts, axis: torch.cat([torch.tanh(part) for part in parts], axis),
}


def cuts(rng: Random, x: Stream) -> Options | None:
    if x.channels < 4:
        return None
    count = rng.choice([2, 2, 3])
    ends = sorted(rng.sample(range(1, x.channels), count - 1))
    sizes = [b - a for a, b in zip([0, *ends], [*ends, x.channels], strict=True)]
    how = rng.choice(["split", "split_with_sizes", "narrow", "slice", "schema", "tensor_split"])
    return {"sizes": sizes, "how": how, "fn": rng.choice(list(SPLITS))}


def split(x: Stream, *, sizes: list[int], how: str, fn: str) -> nn.Module:
    axis, starts = x.axis, [sum(sizes[:i]) for i in range(len(sizes))]

    def parts(a: Tensor) -> Sequence[Tensor]:
        if how == "narrow":
            return [a.narrow(axis, at, n) for at, n in zip(starts, sizes, strict=True)]
        if how == "slice":
            lead = (slice(None),) * axis
            return [a[(*lead, slice(at, at + n))] for at, n in zip(starts, sizes, strict=True)]
        if how == "schema":
            return aten.split.sizes(a, sizes, axis)
        if how == "tensor_split":
            return torch.tensor_split(a, starts[1:], axis)
        return (torch.split_with_sizes if how == "split_with_sizes" else torch.split)(
            a, sizes, axis
        )

    return pure(lambda a: SPLITS[fn](parts(a), axis))


CHUNKS = {
    **SPLITS,
    "gate": lambda parts, axis: parts[0] * torch.sigmoid(parts[1]),
    "sum": lambda parts, axis: parts[0] + F.silu(parts[1]),
    "cross": lambda parts, axis: torch.cat([parts[0] * parts[1], parts[0] + parts[1]], axis),
    "rotate": lambda parts, axis: torch.cat([-parts[1], parts[0]], axis),
}


def chunks(rng: Random, x: Stream) -> Options | None:
    even = x.channels % 2 == 0
    if x.channels < 4:
        return None
    how = rng.choice(["chunk", "split", "tensor_split"])
    if even and rng.random() < 0.7:
        return {"count": 2, "how": how, "fn": rng.choice(list(CHUNKS))}
    return {"count": rng.choice([2, 3, 4]), "how": how, "fn": rng.choice(list(SPLITS))}


def chunk(x: Stream, *, count: int, how: str, fn: str) -> nn.Module:
    size = -(-x.channels // count)
    cut = {"chunk": torch.chunk, "split": torch.split, "tensor_split": torch.tensor_split}[how]
    number = size if how == "split" else count
    return pure(lambda a: CHUNKS[fn](cut(a, number, x.axis), x.axis))


def glu(x: Stream) -> nn.Module:
    return nn.GLU(x.axis)


SLICES = {
    "even": lambda a: a[:, ::2],
    "odd": lambda a: a[:, 1::2],
    "sorted": lambda a: torch.cat([a[:, 1::2], a[:, ::2]], 1),
    "thirds": lambda a: torch.cat([a[:, ::3].relu(), a[:, 2::3]], 1),
    "most": lambda a: a[:, 1:-1],
    "front": lambda a: a[:, :-2],
    "back": lambda a: a[:, 2:],
    "swap": lambda a: torch.cat([a[:, -2:], a[:, :-2]], 1),
    "one": lambda a: a + a[:, 2].unsqueeze(1),
    "one_of_range": lambda a: a * a[:, 1:2].sigmoid(),
    "select": lambda a: a * a.select(1, 3).unsqueeze(1),
    "written": lambda a: written(a),
    "written_in_steps": lambda a: written_in_steps(a),
}


def written(x: Tensor) -> Tensor:
    y = torch.relu(x)
    y[:, :2] = torch.sigmoid(x[:, 2:4])
    return y


def written_in_steps(x: Tensor) -> Tensor:
    y = torch.relu(x)
    y[:, ::2] = torch.sigmoid(x[:, ::2])
    return y


def first_axis(x: Stream, function: Callable[[Tensor], Tensor]) -> nn.Module:
    """A function of axis 1, for streams whose channels are last too."""
    if x.axis == 1:
        return pure(function)
    return pure(lambda a: function(a.transpose(1, 2)).transpose(1, 2))


def slices(x: Stream, *, fn: str) -> nn.Module:
    return first_axis(x, SLICES[fn])


# --- reorder and repeat --------------------------------------------------------------------------

ORDERS = {
    "flip": lambda a: a.flip(1),
    "roll": lambda a: a.roll(3, 1),
    "roll_back": lambda a: a.roll(-1, 1),
    "swapped_axes": lambda a: a.swapaxes(0, 1).relu().swapaxes(0, 1),
    "moved_axis": lambda a: a.movedim(1, -1).relu().movedim(-1, 1),
    "moved_axes": lambda a: a.movedim((0, 1), (1, 0)).relu().movedim((0, 1), (1, 0)),
    "permuted": lambda a: a.permute(1, 0, *range(2, a.dim())).permute(1, 0, *range(2, a.dim())),
}
LONGER = {
    "repeat": lambda a: a.repeat(1, 2, *[1] * (a.dim() - 2)),
    "tile": lambda a: a.tile(1, 2, *[1] * (a.dim() - 2)),
    "interleave": lambda a: a.repeat_interleave(2, dim=1),
    "itself": lambda a: torch.cat([a, torch.relu(a)], 1),
    "stack": lambda a: torch.stack([a, torch.sigmoid(a)], 2).flatten(1, 2),
    "stack_first": lambda a: torch.stack([a, torch.sigmoid(a)], 1).flatten(1, 2),
}
CHANNEL_MIXES = {
    "softmax": lambda a: a.softmax(1),
    "cumsum": lambda a: a.cumsum(1) * 0.3,
    "mean": lambda a: torch.cat([a, a.mean(1, keepdim=True)], 1),
    "max_gate": lambda a: a * a.amax(1, keepdim=True).sigmoid(),
    "mean_gate": lambda a: a * a.mean(1, keepdim=True).sigmoid(),
    "sum_gate": lambda a: a + a.sum(1, keepdim=True).tanh(),
    "std": lambda a: a + a.std(1).unsqueeze(1),
    "normalize": lambda a: F.normalize(a, dim=1),
    "sorted": lambda a: a.sort(1)[0],
    "topk": lambda a: a.topk(3, 1)[0],
    "index": lambda a: a[:, torch.tensor([2, 0, 1])],
    "index_select": lambda a: a.index_select(1, torch.tensor([2, 0, 3])),
    "unbind": lambda a: torch.stack(a.unbind(1)[::-1], 1),
    "avg_pool": lambda a: F.avg_pool1d(a.flatten(2).transpose(1, 2), 2).transpose(1, 2).mean(2),
    "local_response": lambda a: F.local_response_norm(a, 3),
    "arange": lambda a: a + torch.arange(float(a.shape[1])).view(-1, *[1] * (a.dim() - 2)),
    "fft": lambda a: torch.fft.rfft(a, dim=1).abs(),
}


def orders(x: Stream, *, fn: str) -> nn.Module:
    return first_axis(x, ORDERS[fn])


def longer(x: Stream, *, fn: str) -> nn.Module:
    return first_axis(x, LONGER[fn])


def short_enough(rng: Random, x: Stream) -> Options | None:
    return {"fn": rng.choice(list(LONGER))} if x.channels <= LARGEST // 2 else None


def mixes(x: Stream, *, fn: str) -> nn.Module:
    return first_axis(x, CHANNEL_MIXES[fn])


def mixing(rng: Random, x: Stream) -> Options | None:
    names = list(CHANNEL_MIXES)
    if x.channels < 4:
        return None
    if x.kind == "vector":
        names = [name for name in names if name not in ("avg_pool", "local_response")]
    return {"fn": rng.choice([n for n in names if n != "avg_pool"])}


def shuffle(x: Stream, *, groups: int, how: str) -> nn.Module:
    if how == "layer" and x.axis == 1 and x.kind in ("image", "volume"):
        return nn.ChannelShuffle(groups)
    return first_axis(x, lambda a: a.reshape(a.shape[0], groups, -1, *a.shape[2:]).transpose(1, 2)
                      .reshape(a.shape))  # fmt: skip


def shuffling(rng: Random, x: Stream) -> Options | None:
    divisors = x.divisors()
    if not divisors:
        return None
    return {"groups": rng.choice(divisors), "how": rng.choice(["view", "layer"])}


def padded(x: Stream, *, low: int, high: int, value: float, how: str) -> nn.Module:
    def pad(a: Tensor) -> Tensor:
        widths = [0, 0] * (a.dim() - 2) + [low, high]
        if how == "schema":
            return aten.constant_pad_nd.default(a, widths, value)
        return F.pad(a, widths, value=value)

    return first_axis(x, pad)


def padding(rng: Random, x: Stream) -> Options:
    return {"low": rng.randrange(3), "high": rng.randrange(1, 4),
            "value": rng.choice([0.0, 0.0, 0.5]), "how": rng.choice(["pad", "schema"])}  # fmt: skip


CONSTANTS = {
    "zeros": lambda a, s: torch.zeros(s),
    "ones": lambda a, s: torch.ones(s),
    "full": lambda a, s: torch.full(s, 0.5),
    "empty": lambda a, s: torch.empty(s).fill_(0.25),
    "new_zeros": lambda a, s: a.new_zeros(s),
    "new_ones": lambda a, s: a.new_ones(s),
    "new_full": lambda a, s: a.new_full(s, 2.0),
}


def with_constant(x: Stream, *, fn: str, width: int, join: str) -> nn.Module:
    def joined(a: Tensor) -> Tensor:
        count = a.shape[1] if join != "cat" else width
        constant = CONSTANTS[fn](a, (a.shape[0], count, *a.shape[2:]))
        if join == "written":
            constant[:, 1:] = a[:, 1:]
            return constant
        return torch.cat([a, constant], 1) if join == "cat" else a * constant + constant

    return first_axis(x, joined)


# --- rows ----------------------------------------------------------------------------------------

ROWS = {  # y is [B, rows, entries, ...]
    "scaled": lambda y: y * y.select(2, 0).unsqueeze(2).sigmoid(),
    "last": lambda y: y * y.select(2, -1).unsqueeze(2).sigmoid(),
    "first_entries": lambda y: torch.cat([y[:, :, :1].tanh(), y[:, :, 1:]], 2),
    "inner": lambda y: y.narrow(2, 0, max(y.shape[2] - 1, 1)),
    "some_rows": lambda y: y[:, 1:],
    "reversed_rows": lambda y: y.flip(1),
    "reversed_entries": lambda y: y.flip(2),
    "rolled_rows": lambda y: y.roll(1, 1),
    "rolled_entries": lambda y: y.roll(1, 2),
    "row_by_row": lambda y: torch.stack([torch.sigmoid(row) for row in y.unbind(1)][::-1], 1),
    "entry_by_entry": lambda y: torch.stack(y.unbind(2)[::-1], 2),
    "row_of_rows": lambda y: y[:, 1].unsqueeze(1) + y,
    "soft_rows": lambda y: y * y.softmax(1),
    "soft_entries": lambda y: y * y.softmax(2),
    "mean_of_rows": lambda y: y - y.mean(1, keepdim=True),
    "mean_of_entries": lambda y: y * y.mean(2, keepdim=True).sigmoid(),
    "norm_of_entries": lambda y: F.normalize(y, dim=2),
    "transposed": lambda y: y.transpose(1, 2),
    "transposed_meets": lambda y: y.relu().transpose(1, 2).tanh(),
    "steps": lambda y: torch.cat([y[:, :, 1::2], y[:, :, ::2]], 2),
    "merged_rows": lambda y: y.relu(),
}
FEWER = {
    "max_of_rows": lambda y: y.amax(1),
    "max_of_entries": lambda y: y.amax(2),
    "sum_of_rows": lambda y: y.sum(1),
    "mean_of_rows": lambda y: y.relu().mean(1),
    "mean_of_entries": lambda y: y.mean(2),
    "one_row": lambda y: y[:, 1],
    "two_rows": lambda y: y[:, 0] * y[:, -1].sigmoid(),
}


def rows(x: Stream, *, count: int, fn: str, view: str) -> nn.Module:
    return first_axis(x, lambda a: ROWS[fn](opened(a, count, view)).flatten(1, 2))


def fewer(x: Stream, *, count: int, fn: str, view: str) -> nn.Module:
    return first_axis(x, lambda a: FEWER[fn](opened(a, count, view)))


def opened(a: Tensor, count: int, view: str) -> Tensor:
    """[B, C, ...] -> [B, rows, entries, ...]"""
    if view == "unflatten":
        return a.unflatten(1, (count, -1))
    return a.reshape(a.shape[0], count, a.shape[1] // count, *a.shape[2:])


def drawn_rows(names: dict[str, Any]) -> Callable[[Random, Stream], Options | None]:
    def draw(rng: Random, x: Stream) -> Options | None:
        divisors = x.divisors(least=2)
        if not divisors:
            return None
        return {"count": rng.choice(divisors), "fn": rng.choice(list(names)),
                             "view": rng.choice(["unflatten", "reshape"])}  # fmt: skip

    return draw


def row_product(x: Stream, *, count: int, width: int) -> nn.Module:
    """Every row of channels has a matrix of its own (einsum)."""

    def product(m: Any, a: Tensor) -> Tensor:
        y = a.movedim(x.axis, -1).unflatten(-1, (count, -1))
        return torch.einsum("...gi,gio->...go", y, m.w).flatten(-2).movedim(-1, x.axis)

    return Do(product, w=param(count, x.channels // count, width))


def row_sizes(rng: Random, x: Stream) -> Options | None:
    divisors = x.divisors()
    if not divisors:
        return None
    return {"count": rng.choice(divisors), "width": rng.choice([2, 3, 4])}


def stack_of(x: Stream, y: Stream, *, fn: str) -> nn.Module:
    return first_axis_of_two(x, STACKS[fn])


STACKS = {
    "max": lambda a, b: torch.stack([a, b], 2).amax(2),
    "sum": lambda a, b: torch.stack([a, b], 0).sum(0),
    "unbound": lambda a, b: torch.sub(*torch.stack([a, b]).unbind(0)),
    "rows": lambda a, b: torch.stack([a, b], 1).flatten(1, 2),
    "entries": lambda a, b: torch.stack([a, b], 2).flatten(1, 2),
    "softmax": lambda a, b: (torch.stack([a, b], 2) * torch.stack([b, a], 2).softmax(2)).sum(2),
}


def first_axis_of_two(x: Stream, function: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    if x.axis == 1:
        return pure(function)
    return pure(lambda a, b: function(a.transpose(1, 2), b.transpose(1, 2)).transpose(1, 2))


STEPS: StepTable = {
    "cat": StepKind(cat, one_of(["cat", "cat", "concat"]), find=beside, weight=6),
    "cat_places": StepKind(cat_places, takes=("tokens", "image", "sound"), find=twin, weight=0.7),
    "split": StepKind(split, cuts, weight=4),
    "chunk": StepKind(chunk, chunks, weight=4),
    "glu": StepKind(glu, lambda r, x: None if x.channels % 2 else no_options(r, x)),
    "slices": StepKind(slices, lambda r, x: one_of(SLICES)(r, x) if x.channels > 4 else None,
                       weight=3),
    "orders": StepKind(orders, one_of(ORDERS), weight=2),
    "longer": StepKind(longer, short_enough, weight=2),
    "mixes": StepKind(mixes, mixing, weight=0.8),
    "shuffle": StepKind(shuffle, shuffling, weight=2),
    "padded": StepKind(padded, padding),
    "constant": StepKind(with_constant, lambda r, x: {
        "fn": r.choice(list(CONSTANTS)), "width": r.choice([2, 3, 4]),
        "join": r.choice(["cat", "cat", "sum", "written"])}, weight=2),
    "rows": StepKind(rows, drawn_rows(ROWS), weight=4),
    "fewer": StepKind(fewer, drawn_rows(FEWER), weight=1.5),
    "row_product": StepKind(row_product, row_sizes),
    "stack_of": StepKind(stack_of, one_of(STACKS), find=twin, weight=1.5),
}  # fmt: skip
