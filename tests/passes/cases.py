"""One tiny network for every operator: producer -> operator -> consumer, with channels that can go.

    picture(op)   Conv2d(3, 8) -> op -> Conv2d          sound: Conv1d, volume: Conv3d
    tokens(op)    Linear(5, 8) -> op -> Linear          vector: the same on [batch, 5]

The consumer is fitted to whatever comes out of the operator. `free` names axes that a group must
lie on, so a rule that freezes everything fails; `frozen` is what must be said of what cannot go.
Operators that no user's code leads to are called by their own name (`aten`): other ways of
capturing a network meet them.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models._random import normal, seeded
from models._random import tokens as words

aten = torch.ops.aten

Op = Callable[..., Any]
BEFORE, AFTER = "before.weight[0]", "after.weight[1]"


@dataclass(frozen=True, eq=False)
class Case:
    """How to build a network, what to call it with, and what the analysis must find."""

    make: Callable[[], nn.Module]
    args: tuple[Any, ...]
    free: tuple[str, ...] = (BEFORE, AFTER)
    frozen: str = ""
    random: bool = False
    """Its output is random: only the analysis is looked at."""

    def build(self) -> nn.Module:
        with warnings.catch_warnings():  # torch on its own kernels
            warnings.simplefilter("ignore")
            return seeded(self.make, 7)


class Around(nn.Module):
    """before -> op -> after."""

    def __init__(self, before: nn.Module, op: Op, x: Tensor) -> None:
        super().__init__()
        self.before, self.op = before, copy.deepcopy(op)
        with torch.no_grad():
            y = self.op(before(x))
        self.after = consumer(y, sound=isinstance(before, nn.Conv1d))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.op(self.before(x)))


def consumer(y: Tensor, sound: bool) -> nn.Module:
    """What reads `y`: channels are on axis 1 of a picture, on the last axis of tokens."""
    convolution = {3: nn.Conv1d if sound else None, 4: nn.Conv2d, 5: nn.Conv3d}.get(y.dim())
    if convolution is not None:
        return convolution(y.shape[1], 3, 1)
    return nn.Linear(y.shape[-1], 3) if y.dim() > 1 else nn.Identity()


class With(nn.Module):
    """A function of the input and of parameters of the given shapes, named p0, p1, ..."""

    def __init__(self, op: Op, *shapes: Sequence[int]) -> None:
        super().__init__()
        self.op = op
        for index, shape in enumerate(shapes):
            self.register_parameter(f"p{index}", nn.Parameter(torch.zeros(*shape)))

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x, *self.parameters())


class Fixed(nn.Module):
    """A function of the input and of constant tensors, which are buffers named b0, b1, ..."""

    def __init__(self, op: Op, *tensors: Tensor) -> None:
        super().__init__()
        self.op = op
        for index, tensor in enumerate(tensors):
            self.register_buffer(f"b{index}", tensor)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x, *self.buffers())


class Both(nn.Module):
    """A function of what several layers make of the input: op(part0(x), part1(x), ...)."""

    def __init__(self, op: Op, *parts: nn.Module) -> None:
        super().__init__()
        self.op = op
        for index, part in enumerate(parts):
            self.add_module(f"part{index}", part)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(*(part(x) for part in self.children()))


def picture(op: Op, *, channels: int = 8, size: int = 6, **expected: Any) -> Case:
    x = normal(2, 3, size, size)
    return Case(lambda: Around(nn.Conv2d(3, channels, 3, padding=1), op, x), (x,), **expected)


def sound(op: Op, *, channels: int = 8, size: int = 8, **expected: Any) -> Case:
    x = normal(2, 3, size)
    return Case(lambda: Around(nn.Conv1d(3, channels, 3, padding=1), op, x), (x,), **expected)


def volume(op: Op, *, channels: int = 8, size: int = 4, **expected: Any) -> Case:
    x = normal(2, 3, size, size, size)
    return Case(lambda: Around(nn.Conv3d(3, channels, 1), op, x), (x,), **expected)


def tokens(op: Op, *, channels: int = 8, length: int = 6, **expected: Any) -> Case:
    x = normal(2, length, 5)
    return Case(lambda: Around(nn.Linear(5, channels), op, x), (x,), **expected)


def vector(op: Op, *, channels: int = 8, **expected: Any) -> Case:
    x = normal(2, 5)
    return Case(lambda: Around(nn.Linear(5, channels), op, x), (x,), **expected)


# --- movement ------------------------------------------------------------------------------------

SAME = {
    "clone": picture(torch.clone),
    "contiguous": picture(aten.contiguous.default),
    "detach": picture(aten.detach.default),
    "detach_": picture(lambda x: aten.detach_.default(x.clone())),
    "alias": picture(aten.alias.default),
    "lift_fresh_copy": picture(aten.lift_fresh_copy.default),
    "positive": picture(torch.positive),
    "dropout": picture(nn.Dropout(0.5)),
    "dropout2d": picture(nn.Dropout2d(0.5)),
    "alpha_dropout": picture(nn.AlphaDropout(0.5)),
    "to_device": picture(lambda x: x.to("cpu")),
    "to_device_and_dtype": picture(lambda x: x.to("cpu", torch.float64).to(x)),
    "to_dtype": picture(lambda x: x.to(torch.float64).to(x.dtype)),
    "to_other": picture(lambda x: aten.to.other(x, x)),
    "_to_copy": picture(aten._to_copy.default),
    "type_as": picture(lambda x: x.type_as(x)),
}


def by_its_size(x: Tensor) -> Tensor:
    """[batch * 4, 6, 2] -> [batch, 6, 8]; the size is asked of the folded tensor itself."""
    count = x.shape[0]
    return x.relu().view(count // 4, 4, 6, 2).transpose(1, 2).reshape(count // 4, 6, 8)


def split_heads(x: Tensor, heads: int = 4) -> Tensor:
    """[batch, tokens, channels] -> [batch, heads, tokens, entries]"""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


VIEWS = {
    "view": picture(lambda x: x.view(x.shape[0], -1)),
    "view_to_rows": tokens(lambda x: x.view(x.shape[0], 6, 2, 4).view(x.shape[0], 6, 8)),
    "_unsafe_view": picture(lambda x: aten._unsafe_view.default(x, [x.shape[0], 8, 36]).mean(2)),
    "reshape": picture(lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], 36, 8)),
    "view_as": picture(lambda x: x.flatten(2).view_as(x)),
    "view_as_another": picture(
        Both(lambda a, b: a.flatten(1).view_as(b), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)),
        free=(BEFORE, AFTER, "op.part1.weight[0]"),
    ),
    "reshape_as": picture(lambda x: x.flatten(2).reshape_as(x)),
    "flatten": picture(lambda x: x.flatten(1)),
    "flatten_of_places": picture(lambda x: x.flatten(2).transpose(1, 2)),
    "unflatten": tokens(lambda x: x.unflatten(-1, (4, 2)).flatten(2)),
    "unflatten_of_places": tokens(lambda x: x.unflatten(1, (2, -1)).sum(1)),
    "squeeze": picture(lambda x: x.mean((2, 3), keepdim=True).squeeze()),
    "squeeze_dim": picture(lambda x: x.mean((2, 3), keepdim=True).squeeze(3).squeeze(2)),
    "squeeze_dims": picture(lambda x: x.mean((2, 3), keepdim=True).squeeze((2, 3))),
    "unsqueeze": tokens(lambda x: x.unsqueeze(1).sum(1)),
    "permute": picture(lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2)),
    "transpose": tokens(lambda x: x.transpose(1, 2).transpose(-1, -2)),
    "t": vector(lambda x: x.t().t()),
    "T": vector(lambda x: x.T.T),
    "mT": tokens(lambda x: x.mT.mT),
    "movedim": picture(lambda x: x.movedim(1, 3).movedim(3, 1)),
    "movedims": picture(lambda x: x.movedim((1, 2), (3, 1)).movedim((3, 1), (1, 2))),
    "swapaxes": picture(lambda x: x.swapaxes(1, 2).swapaxes(1, 2)),
    "expand": picture(lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 6, 6)),
    "expand_of_a_parameter": picture(With(lambda x, p: x + p.expand(-1, 6, 6), (8, 1, 1))),
    "expand_along_channels": picture(
        lambda x: x * x.sum(1, keepdim=True).sigmoid().expand(-1, 8, -1, -1)
    ),
    "expand_of_heads": tokens(
        lambda x: join_heads(split_heads(x) * torch.arange(6.0)[:, None].expand(4, 6, 2))
    ),
    "expand_as": picture(lambda x: x * x.mean((2, 3), keepdim=True).expand_as(x)),
    "expand_as_along_channels": picture(
        Both(
            lambda a, b: a.expand_as(b),
            nn.Conv2d(8, 1, 1),
            nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()),
        )
    ),
    "linear_to_picture": vector(lambda x: x.view(-1, 8, 4, 4), channels=128),
    "flatten_of_two_labelled_axes": picture(
        With(lambda x, p: (x.flatten(2) * p.flatten(1)).transpose(1, 2), (8, 6, 6))
    ),
    "window_partition": picture(
        lambda x: x.view(x.shape[0], 8, 2, 3, 2, 3).permute(0, 2, 4, 3, 5, 1).reshape(-1, 9, 8)
    ),
    "heads_in_the_batch": tokens(
        lambda x: join_heads(split_heads(x).reshape(-1, 6, 2).relu().view(-1, 4, 6, 2))
    ),
    "heads_in_the_batch_by_its_size": tokens(
        lambda x: by_its_size(split_heads(x).reshape(-1, 6, 2))
    ),
}


def equal_parts(x: Tensor) -> Tensor:
    a, b, c, d = x.split(2, 1)
    return torch.cat([a + c, b * d], 1)


def unequal_parts(x: Tensor) -> Tensor:
    a, b = x.split([3, 5], 1)
    return torch.cat([torch.sigmoid(b), a], 1)


def parts_by_schema_name(x: Tensor) -> Tensor:
    a, b = aten.split.sizes(x, [2, 6], 1)
    return torch.cat([b, a], 1)


def chunk_gate(x: Tensor) -> Tensor:
    value, gate = x.chunk(2, dim=-1)
    return value * F.gelu(gate)


def first_times_second(parts: Sequence[Tensor]) -> Tensor:
    first, second = parts
    return first * torch.sigmoid(second)


def head_by_head(x: Tensor) -> Tensor:
    return torch.cat([torch.sigmoid(head) for head in x.unbind(2)], -1)


def in_rows(op: Op, **expected: Any) -> Case:
    """An operator on channels that are 4 rows of 4 entries for more than a moment."""

    def inner(x: Tensor) -> Tensor:
        y = torch.relu(x.unflatten(-1, (4, 4)))
        return torch.sigmoid(op(y) * 2).flatten(2)

    return tokens(inner, channels=16, **expected)


def joined(*parts: Tensor) -> Tensor:
    return torch.cat(parts, -1)


PARTS = {
    "slice": picture(lambda x: x[:, 2:7]),
    "slice_from_the_end": picture(lambda x: torch.cat([x[:, -3:], x[:, :-3]], 1)),
    "slice_of_places": picture(lambda x: x[:, :, 1:-1, ::2]),
    "slice_with_steps": picture(lambda x: torch.cat([x[:, 1::2], x[:, ::3]], 1)),
    "slice_with_steps_multiplied": picture(lambda x: x[:, ::2] * x[:, 1::2]),
    "slice_with_steps_after_a_split": vector(lambda x: x.view(-1, 4, 2)[:, ::2].flatten(1)),
    "slice_with_steps_in_rows": tokens(
        lambda x: torch.cat([split_heads(x, 2)[..., ::2], split_heads(x, 2)[..., 1::2]], -1)
        .transpose(1, 2).flatten(2)
    ),
    "narrow": picture(lambda x: x.narrow(1, 2, 5)),
    "narrow_of_places": picture(lambda x: x.narrow(2, 1, 4)),
    "select_of_places": picture(lambda x: x.select(2, 1).select(2, -1)),
    "select_of_a_channel": picture(lambda x: x + x[:, 2].unsqueeze(1)),
    "select_of_a_row": tokens(lambda x: x.view(*x.shape[:2], 2, 4)[:, :, 1]),
    "select_of_an_entry": in_rows(lambda x: x * x[..., 2:3].sigmoid()),
    "select_of_the_last_entry": in_rows(lambda x: x * x.select(-1, -1)[..., None].sigmoid()),
    "slice_of_the_first_entries": in_rows(lambda x: joined(x[..., :1].tanh(), x[..., 1:])),
    "slice_of_inner_entries": in_rows(lambda x: x[..., 1:3]),
    "slice_of_all_but_inner_entries": in_rows(lambda x: joined(x[..., :1], x[..., 2:])),
    "slice_of_rows": in_rows(lambda x: x[:, :, 1:3]),
    "narrow_of_inner_entries": in_rows(lambda x: x.narrow(3, 1, 2)),
    "slice_of_a_weight_with_steps": tokens(With(lambda x, w: F.linear(x, w[::2, 1:]), (8, 9)),
                                           free=(BEFORE, "op.p0[1]"), frozen="is cut in steps"),
    "slice_by_the_batch_size": vector(
        With(lambda x, p: x + p[: x.shape[0]], (9, 8)), free=(BEFORE, AFTER, "op.p0[1]")
    ),
    "split": picture(equal_parts),
    "split_of_sizes": picture(parts_by_schema_name),
    "split_unequal": picture(unequal_parts),
    "chunk": tokens(chunk_gate, channels=16),
    "chunk_of_uneven_size": picture(
        lambda x: torch.cat([torch.sigmoid(a) for a in x.chunk(3, 1)][::-1], 1)
    ),
    "chunk_of_places": picture(lambda x: sum(x.chunk(2, 3))),
    "tensor_split": picture(lambda x: torch.cat(torch.tensor_split(x, (1, 4), 1)[::-1], 1)),
    "tensor_split_of_sections": picture(lambda x: torch.cat(torch.tensor_split(x, 3, 1)[::-1], 1)),
    "tensor_split_of_places": picture(lambda x: torch.cat(x.tensor_split((1,), 2)[::-1], 2)),
    "unbind_of_places": picture(lambda x: torch.relu(sum(x.unbind(2)))[:, :, None]),
    "unbind_of_rows": tokens(lambda x: first_times_second(x.view(*x.shape[:2], 2, 4).unbind(2))),
    "unbind_of_entries": in_rows(lambda x: torch.stack(x.unbind(3)[::-1], 3), free=()),
    "unbind_of_heads": tokens(lambda x: head_by_head(x.view(*x.shape[:2], 2, 4))),
    "unbind_of_channels": tokens(lambda x: torch.stack(x.unbind(2)[::-1], 2), channels=4, free=(),
                                 frozen="a single channel is taken out by its index"),
}  # fmt: skip


def shuffled(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


REORDERED = {
    "flip": picture(lambda x: x.flip(1)),
    "flip_of_places": picture(lambda x: x.flip((2, 3))),
    "flip_in_rows": tokens(lambda x: split_heads(x, 2).flip(3).transpose(1, 2).flatten(2)),
    "roll": picture(lambda x: x.roll(3, 1)),
    "roll_by_all_channels": picture(lambda x: x.roll(8, 1)),
    "roll_of_places": picture(lambda x: x.roll((1, 2), (2, 3))),
    "roll_in_rows": tokens(lambda x: split_heads(x, 2).roll(1, 3).transpose(1, 2).flatten(2)),
    "roll_of_heads": tokens(lambda x: split_heads(x, 4).roll(1, 1).transpose(1, 2).flatten(2)),
    "repeat": picture(lambda x: x.repeat(1, 2, 1, 1)),
    "repeat_along_channels": picture(
        lambda x: x * x.sum(1, keepdim=True).sigmoid().repeat(1, 8, 1, 1)
    ),
    "repeat_of_places": picture(lambda x: x.repeat(1, 1, 2, 1)),
    "tile": picture(lambda x: x.tile(1, 3, 1, 1)),
    "repeat_interleave": picture(lambda x: x.repeat_interleave(2, dim=1)),
    "pixel_shuffle": picture(nn.PixelShuffle(2), channels=16),
    "pixel_unshuffle": picture(nn.PixelUnshuffle(2)),
    "im2col": picture(lambda x: F.unfold(x, 3, padding=1).transpose(1, 2)),
    "col2im": picture(lambda x: F.fold(F.unfold(x, 2).sigmoid(), (6, 6), 2)),
    "col2im_of_a_convolution": picture(
        nn.Sequential(nn.Conv2d(8, 24, 1), nn.Flatten(2), nn.Fold((12, 12), (2, 2), stride=2)),
        free=(BEFORE, AFTER, "op.0.weight[0]"),
    ),
    "unfold": picture(lambda x: x.unfold(2, 4, 2).sum(-1)),
    "diagonal": picture(lambda x: x * x.diagonal(0, 2, 3).unsqueeze(-1)),
    "diagonal_of_channels": tokens(
        lambda x: x[..., :6] + x.diagonal(1, 1, 2).unsqueeze(-1),
        free=(),
        frozen="is taken the diagonal of",
    ),
    "channel_shuffle": picture(nn.ChannelShuffle(2)),
    "channel_shuffle_into_single_ones": picture(nn.ChannelShuffle(8)),
    "channel_shuffle_by_view": picture(shuffled),
    "channel_shuffle_twice": picture(lambda x: shuffled(torch.relu(shuffled(x)))),
    "channel_shuffle_of_rolled": picture(lambda x: shuffled(x.roll(3, 1)).flip(1)),
    "channel_shuffle_of_tokens": tokens(
        lambda x: x.view(*x.shape[:2], 4, 2).transpose(2, 3).reshape(*x.shape[:2], 8)
    ),
}

two_convs = (nn.Conv2d(8, 6, 1), nn.Conv2d(8, 4, 1))
same_convs = (nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 1))

JOINED = {
    "cat": picture(Both(lambda a, b: torch.cat([a, b], 1), *two_convs)),
    "cat_of_places": picture(Both(lambda a, b: torch.cat([a, b], 2), *same_convs)),
    "cat_of_the_same": picture(lambda x: torch.cat([x, torch.relu(x), x], 1)),
    "cat_with_the_input": Case(
        lambda: DenseInput(), (normal(2, 3, 6, 6),), free=("before.weight[0]", "after.weight[1]")
    ),
    "concat": picture(Both(lambda a, b: torch.concat([a, b], 1), *two_convs)),
    "stack": picture(Both(lambda a, b: torch.stack([a, b], 2).sum(2), *same_convs)),
    "stack_then_flatten": picture(
        Both(lambda a, b: torch.stack([a, b], 1).flatten(1, 2), *same_convs)
    ),
    "stack_of_the_same": picture(lambda x: torch.stack([x, torch.sigmoid(x)], 2).flatten(1, 2)),
    "pad_of_channels": picture(lambda x: F.pad(x, (0, 0, 0, 0, 2, 4))),
    "pad_of_channels_with_ones": picture(lambda x: F.pad(x, (0, 0, 0, 0, 0, 4), value=1.0)),
    "pad_of_places": picture(lambda x: F.pad(x, (1, 2, 0, 1))),
    "pad_reflect": picture(lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect")),
    "pad_circular": picture(lambda x: F.pad(x, (1, 1, 1, 1), mode="circular")),
    "pad_crops_channels": picture(
        lambda x: F.pad(x, (0, 0, 0, 0, -1, 0)), free=(), frozen="is padded with its own entries"
    ),
    "constant_pad_nd": picture(lambda x: aten.constant_pad_nd.default(x, [1, 1, 0, 0, 0, 2], 0.5)),
}


class DenseInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 8, 1), nn.Conv2d(11, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(torch.cat([x, torch.relu(self.before(x))], 1))


def joined_with(constant: Op) -> Case:
    return picture(lambda x: torch.cat([x, constant(x)], 1))


CONSTANTS = {
    "zeros": joined_with(lambda x: torch.zeros(x.shape[0], 4, 6, 6)),
    "zeros_added": tokens(lambda x: x + torch.zeros(8)),
    "zeros_written": picture(lambda x: written_into(torch.zeros(x.shape[0], 8, 6, 6), x)),
    "ones": joined_with(lambda x: torch.ones(x.shape[0], 4, 6, 6)),
    "full": joined_with(lambda x: torch.full((x.shape[0], 4, 6, 6), 0.5)),
    "full_multiplied": tokens(lambda x: x * torch.full((6, 8), 0.5)),
    "empty": joined_with(lambda x: torch.empty(x.shape[0], 4, 6, 6).fill_(0.25)),
    "new_zeros": joined_with(lambda x: x.new_zeros(x.shape[0], 4, 6, 6)),
    "new_ones": joined_with(lambda x: x.new_ones((x.shape[0], 4, 6, 6))),
    "new_full": joined_with(lambda x: x.new_full((x.shape[0], 4, 6, 6), 2.0)),
    "zeros_like": joined_with(torch.zeros_like),
    "ones_like": joined_with(torch.ones_like),
    "full_like": joined_with(lambda x: torch.full_like(x, 0.5)),
}


def written_into(y: Tensor, x: Tensor) -> Tensor:
    y[:, 2:] = x[:, 2:]
    return torch.relu(y + x)


# --- contraction ---------------------------------------------------------------------------------


def einsum(equation: str, *shapes: Sequence[int]) -> With:
    return With(lambda x, *weights: torch.einsum(equation, x, *weights), *shapes)


class Attention(nn.Module):
    """Attention as a model writes it; `mix` gets queries, keys and values in heads."""

    def __init__(self, mix: Op, heads: int = 4, key_heads: int = 4, entries: int = 4) -> None:
        super().__init__()
        self.mix, self.heads, self.key_heads = mix, heads, key_heads
        self.q = nn.Linear(8, heads * entries)
        self.k = nn.Linear(8, key_heads * entries)
        self.v = nn.Linear(8, key_heads * entries)

    def forward(self, x: Tensor) -> Tensor:
        q = split_heads(self.q(x), self.heads)
        k, v = (split_heads(y, self.key_heads) for y in (self.k(x), self.v(x)))
        return join_heads(self.mix(q, k, v))


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return scores.softmax(-1) @ v


def in_the_batch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Heads folded into the batch: bmm and baddbmm, as older code does it."""
    flat = [y.reshape(-1, y.shape[2], y.shape[3]) for y in (q, k, v)]
    zero = torch.zeros(flat[0].shape[0], q.shape[2], q.shape[2])
    scores = torch.baddbmm(zero, flat[0], flat[1].transpose(1, 2), beta=0, alpha=0.5)
    return torch.bmm(scores.softmax(-1), flat[2]).view(q.shape)


def cosine(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(
        F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, scale=10.0
    )


def with_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * 0.5
    return torch.einsum("bhqk,bhkd->bhqd", scores.softmax(-1), v)


def turned(x: Tensor) -> Tensor:
    """Rotary positions on pairs (d, d + half), from constants."""
    half = x.shape[-1] // 2
    angle = torch.outer(torch.arange(float(x.shape[-2])), 0.5 ** torch.arange(float(half)))
    angle = torch.cat([angle, angle], -1)
    return x * angle.cos() + torch.cat([-x[..., half:], x[..., :half]], -1) * angle.sin()


def turned_in_pairs(x: Tensor) -> Tensor:
    """Rotary positions on neighbours (2 d, 2 d + 1)."""
    a, b = x[..., ::2], x[..., 1::2]
    angle = torch.outer(torch.arange(float(x.shape[-2])), 0.5 ** torch.arange(a.shape[-1]))
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


class Fused(nn.Module):
    """One projection for queries, keys and values. `layout`: which axis says which of the three."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout, self.qkv = layout, nn.Linear(8, 48)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        if self.layout == "chunk":
            q, k, v = (split_heads(y) for y in self.qkv(x).chunk(3, -1))
        elif self.layout == "heads first":
            q, k, v = self.qkv(x).view(b, n, 4, 3, 4).permute(3, 0, 2, 1, 4)
        else:
            q, k, v = self.qkv(x).view(b, n, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        return join_heads(F.scaled_dot_product_attention(q, k, v))


class SelfAttention(nn.Module):
    """nn.MultiheadAttention on one sequence."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, x, x, need_weights=False)[0]


def attention(mix: Op, **sizes: int) -> Case:
    return tokens(Attention(mix, **sizes), free=(BEFORE, AFTER, "op.q.weight[0]", "op.k.weight[0]"))


def sdpa(**options: Any) -> Op:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options)


class Relative(nn.Module):
    """Attention with a learned bias for each head and distance (Swin)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Attention(self.mix)
        self.table = nn.Parameter(torch.zeros(11, 4))
        self.register_buffer("distance", torch.arange(6)[:, None] - torch.arange(6) + 5)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bias = self.table[self.distance.view(-1)].view(6, 6, 4).permute(2, 0, 1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


ATTENTION = {
    "scaled_dot_product_attention": attention(sdpa()),
    "attention_causal": attention(sdpa(is_causal=True)),
    "attention_masked": attention(
        lambda q, k, v: sdpa(attn_mask=torch.ones(6, 6).tril().bool())(q, k, v)
    ),
    "attention_with_a_scale": attention(sdpa(scale=0.7)),
    "attention_grouped": attention(sdpa(enable_gqa=True), heads=6, key_heads=3),
    "attention_with_one_key_head": attention(sdpa(enable_gqa=True), heads=4, key_heads=1),
    "attention_grouped_by_repeating": attention(
        lambda q, k, v: sdpa()(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)),
        heads=6, key_heads=3,
    ),
    "attention_by_hand": attention(by_hand),
    "attention_in_the_batch": attention(in_the_batch),
    "attention_by_einsum": attention(with_einsum),
    "attention_cosine": attention(cosine),
    "attention_rotary": attention(lambda q, k, v: by_hand(turned(q), turned(k), v)),
    "attention_rotary_in_pairs": attention(
        lambda q, k, v: by_hand(turned_in_pairs(q), turned_in_pairs(k), v)
    ),
    "attention_rolled": attention(lambda q, k, v: by_hand(q.roll(1, 3), k.roll(1, 3), v)),
    "attention_of_rolled_heads": attention(lambda q, k, v: by_hand(q, k, v.roll(1, 1))),
    "attention_relative": tokens(Relative(), free=(BEFORE, AFTER, "op.inner.q.weight[0]")),
    "attention_fused": tokens(Fused("three first"), free=(BEFORE, AFTER, "op.qkv.weight[0]")),
    "attention_fused_heads_first": tokens(Fused("heads first"),
                                          free=(BEFORE, AFTER, "op.qkv.weight[0]")),
    "attention_fused_chunk": tokens(Fused("chunk"), free=(BEFORE, AFTER, "op.qkv.weight[0]")),
    "multihead_attention": tokens(
        SelfAttention(), free=(BEFORE, AFTER, "op.attend.in_proj_weight[0]")
    ),
    "multihead_attention_with_other_keys": Case(
        lambda: nn.MultiheadAttention(8, 2, kdim=6, vdim=5, batch_first=True),
        (normal(2, 4, 8), normal(2, 3, 6, seed=1), normal(2, 3, 5, seed=2)),
        free=("q_proj_weight[0]", "out_proj.weight[1]"),
    ),
    "transformer_encoder_layer": tokens(
        nn.TransformerEncoderLayer(8, 2, 12, batch_first=True),
        free=(BEFORE, AFTER, "op.linear1.weight[0]", "op.self_attn.in_proj_weight[0]"),
    ),
    "transformer_decoder_layer": Case(
        lambda: nn.TransformerDecoderLayer(8, 2, 12, batch_first=True, norm_first=True),
        (normal(2, 4, 8), normal(2, 3, 8, seed=1)),
        free=("linear1.weight[0]", "multihead_attn.in_proj_weight[0]"),
    ),
}  # fmt: skip

ALGEBRA = {
    "linear": tokens(nn.Linear(8, 6), free=(BEFORE, AFTER, "op.weight[0]")),
    "linear_without_bias": tokens(nn.Linear(8, 6, bias=False), free=(BEFORE, "op.weight[1]")),
    "linear_to_a_number": tokens(
        With(lambda x, w, v: x * F.linear(torch.relu(F.linear(x, w)), v)[..., None], (6, 8), (6,)),
        free=(BEFORE, AFTER, "op.p1[0]"),
    ),
    "matmul": tokens(With(lambda x, w: x @ w, (8, 6)), free=(BEFORE, AFTER, "op.p0[1]")),
    "matmul_with_a_vector": tokens(
        With(lambda x, w: x * (x @ w)[..., None], (8,)), free=(BEFORE, AFTER, "op.p0[0]")
    ),
    "mm": vector(With(lambda x, w: torch.mm(x, w), (8, 6)), free=(BEFORE, AFTER, "op.p0[1]")),
    "mv": vector(With(lambda x, w: x * torch.mv(x, w)[:, None], (8,))),
    "dot": vector(With(lambda x, v, w: x * torch.dot(v, w), (6,), (6,)),
                  free=(BEFORE, AFTER, "op.p0[0]")),
    "outer": vector(With(lambda x, v, w: x @ torch.outer(v, w), (8,), (6,)),
                    free=(BEFORE, AFTER, "op.p0[0]", "op.p1[0]")),
    "bmm": tokens(With(lambda x, w: torch.bmm(x, w.expand(x.shape[0], 8, 6)), (1, 8, 6)),
                  free=(BEFORE, AFTER)),
    "addmm": vector(With(lambda x, b, w: torch.addmm(b, x, w, beta=2, alpha=0.5), (6,), (8, 6)),
                    free=(BEFORE, AFTER, "op.p0[0]")),
    "baddbmm": tokens(
        With(lambda x, b, w: torch.baddbmm(b, x, w.expand(x.shape[0], 8, 6)), (1, 6), (1, 8, 6))
    ),
    "linear_attention": tokens(
        Attention(lambda q, k, v: F.relu(q) @ (F.relu(k).mT @ v)),
        free=(BEFORE, "op.q.weight[1]", "op.q.weight[0]", "op.v.weight[0]"),
    ),
    "einsum_linear": tokens(einsum("btc,oc->bto", (6, 8)), free=(BEFORE, AFTER, "op.p0[0]")),
    "einsum_of_places": tokens(einsum("btc,ut->buc", (4, 6))),
    "einsum_with_dots": picture(einsum("b c ..., o c -> b o ...", (6, 8)),
                                free=(BEFORE, AFTER, "op.p0[0]")),
    "einsum_without_arrow": vector(einsum("bc,co", (8, 6)), free=(BEFORE, AFTER, "op.p0[1]")),
    "einsum_of_three": tokens(einsum("btc,cr,ro->bto", (8, 4), (4, 6)),
                              free=(BEFORE, AFTER, "op.p0[1]", "op.p1[1]")),
    "einsum_of_rows": tokens(
        With(lambda x, w: torch.einsum("bthd,hde->bthe", x.view(*x.shape[:2], 2, 4), w)
             .flatten(2), (2, 4, 3)),
        free=(BEFORE, "op.p0[1]", "op.p0[2]"),
    ),
    "einsum_over_rows": tokens(
        With(lambda x, w: torch.einsum("bthd,hd->btd", x.view(*x.shape[:2], 2, 4), w), (2, 4)),
        free=(BEFORE, AFTER, "op.p0[1]"), frozen="is summed with an unlabelled axis",
    ),
    "einsum_transpose": tokens(lambda x: torch.einsum("btc->bct", x).transpose(1, 2)),
    "einsum_product": tokens(lambda x: torch.einsum("btc,btc->btc", x, x)),
    "einsum_norm": tokens(lambda x: x * torch.einsum("btc,btc->bt", x, x)[..., None]),
    "einsum_sum": tokens(lambda x: x + torch.einsum("btc->bt", x)[..., None]),
    "einsum_sum_of_rows": tokens(
        lambda x: x * torch.einsum("nhij->nih", split_heads(x, 2)).repeat_interleave(4, 2)
    ),
    "einsum_of_a_diagonal": vector(With(lambda x, w: x + torch.einsum("cc->c", w), (8, 8)),
                                   free=(), frozen="an einsum that takes a diagonal"),
    "einsum_summed_alone": tokens(einsum("btc,ou->bto", (6, 8)),
                                  free=(BEFORE, AFTER, "op.p0[0]", "op.p0[1]")),
    "einsum_diagonal": tokens(
        With(lambda x, w: torch.einsum("btc,cc->btc", x, w), (8, 8)), free=(), frozen="einsum"
    ),
}  # fmt: skip


SUMS = {
    "bilinear": tokens(
        With(lambda x, w, b: F.bilinear(x, torch.tanh(x), w, b), (6, 8, 8), (6,)),
        free=(BEFORE, AFTER, "op.p0[0]", "op.p1[0]"),
    ),
    "bilinear_of_two": vector(
        With(lambda x, v, w: F.bilinear(x, torch.relu(x @ v), w), (8, 5), (6, 8, 5)),
        free=(BEFORE, AFTER, "op.p0[1]", "op.p1[2]"),
    ),
    "cdist": tokens(With(lambda x, p: torch.cdist(x, p[None]).exp(), (6, 8)),
                    free=(BEFORE, AFTER, "op.p0[0]", "op.p0[1]")),
    "cdist_of_order_one": tokens(With(lambda x, p: torch.cdist(x, p[None], p=1.0), (6, 8)),
                                 free=(BEFORE, AFTER, "op.p0[0]", "op.p0[1]")),
    "cosine_similarity": tokens(
        With(lambda x, w: x * F.cosine_similarity(x, torch.exp(x @ w), dim=-1)[..., None], (8, 8))
    ),
    "cosine_similarity_of_places": tokens(lambda x: F.cosine_similarity(x, x.sin() + 1, dim=1)),
    "sum": picture(lambda x: x.sum((2, 3))),
    "sum_of_all": picture(lambda x: x + x.sigmoid().sum() / 100),
    "sum_of_channels": tokens(lambda x: x + x.sigmoid().sum(-1, keepdim=True)),
    "sum_of_products": tokens(lambda x: x * (x * x.cos()).exp().sum(-1).unsqueeze(-1)),
    "sum_of_rows": tokens(lambda x: x.view(*x.shape[:2], 2, 4).sum(2)),
    "sum_of_entries": tokens(lambda x: (split_heads(x, 4).exp().sum(-1, keepdim=True)
                                        * split_heads(x, 4)).transpose(1, 2).flatten(2)),
    "sum_of_truth_values": tokens(lambda x: x * (x >= 0).sum(-1, keepdim=True)),
    "nansum": picture(lambda x: x.nansum((2, 3))),
    "length_of_vectors": tokens(lambda x: x * x.norm(dim=-1).unsqueeze(-1)),
}  # fmt: skip


def convolution(layer: nn.Module, make: Op = picture, weight: int = 0, **options: Any) -> Case:
    """A convolution in the middle: its input and its output channels can go."""
    return make(layer, free=(BEFORE, AFTER, f"op.weight[{weight}]"), **options)


CONVOLUTIONS = {
    "conv1d": convolution(nn.Conv1d(8, 6, 3, dilation=2), sound),
    "conv2d": convolution(nn.Conv2d(8, 6, 3, stride=2)),
    "conv3d": convolution(nn.Conv3d(8, 6, 3), volume),
    "conv1d_same": convolution(nn.Conv1d(8, 6, 3, padding="same"), sound),
    "conv2d_same": convolution(nn.Conv2d(8, 6, (3, 2), padding="same")),
    "conv3d_same": convolution(nn.Conv3d(8, 6, 3, padding="same"), volume),
    "conv2d_grouped_same": convolution(nn.Conv2d(8, 12, 3, padding="same", groups=4)),
    "conv2d_reflect": convolution(nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect")),
    "conv1d_grouped": convolution(nn.Conv1d(8, 4, 3, groups=2), sound),
    "conv2d_grouped": convolution(nn.Conv2d(8, 12, 3, groups=4)),
    "conv2d_grouped_to_one_each": convolution(nn.Conv2d(8, 2, 3, groups=2)),
    "conv3d_grouped": convolution(nn.Conv3d(8, 8, 1, groups=2, bias=False), volume),
    "conv2d_depthwise": convolution(nn.Conv2d(8, 8, 3, groups=8)),
    "conv1d_depthwise": convolution(nn.Conv1d(8, 8, 3, groups=8), sound),
    "conv2d_depthwise_twofold": convolution(nn.Conv2d(8, 16, 3, groups=8)),
    "conv_transpose1d": convolution(nn.ConvTranspose1d(8, 6, 3, stride=2), sound, 1),
    "conv_transpose2d": convolution(nn.ConvTranspose2d(8, 6, 2, stride=2), picture, 1),
    "conv_transpose3d": convolution(nn.ConvTranspose3d(8, 6, 2), volume, 1),
    "conv_transpose1d_grouped": convolution(nn.ConvTranspose1d(8, 6, 3, groups=2), sound, 1),
    "conv_transpose2d_grouped": convolution(nn.ConvTranspose2d(8, 8, 2, groups=4), picture, 1),
    "conv_transpose2d_depthwise": picture(nn.ConvTranspose2d(8, 8, 2, groups=8)),
    "conv_transpose3d_grouped": convolution(nn.ConvTranspose3d(8, 6, 2, groups=2), volume, 1),
    "convolution": picture(
        With(lambda x, w: aten.convolution.default(
            x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 2), (6, 4, 3, 3)),
        free=(BEFORE, AFTER, "op.p0[0]"),
    ),
    "convolution_transposed": picture(
        With(lambda x, w: aten.convolution.default(
            x, w, None, [2, 2], [0, 0], [1, 1], True, [1, 1], 1), (8, 6, 3, 3)),
        free=(BEFORE, AFTER, "op.p0[1]"),
    ),
    "conv_of_conv_grouped_twice": picture(
        nn.Sequential(nn.Conv2d(8, 8, 1, groups=4), nn.ReLU(), nn.Conv2d(8, 8, 1, groups=2)),
        free=(BEFORE, AFTER, "op.0.weight[0]"),
    ),
}  # fmt: skip

# --- norms and statistics ------------------------------------------------------------------------


class RMSNorm(nn.Module):
    """Written out, as in LLaMA, with its casts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        square = wide.pow(2).mean(-1, keepdim=True)
        return self.weight * (wide * torch.rsqrt(square + 1e-6)).to(x.dtype)


class LayerNorm(nn.Module):
    """Written out with a mean and a variance."""

    def __init__(self, spread: Op) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))
        self.spread = spread

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x - x.mean(-1, keepdim=True)) / self.spread(x) + self.bias


def layer_norm(spread: Op) -> Case:
    return tokens(LayerNorm(spread), free=(BEFORE, AFTER, "op.weight[0]"))


def normed(norm: nn.Module, make: Op = picture) -> Case:
    return make(norm, free=(BEFORE, AFTER, "op.weight[0]"))


NORMS = {
    "batch_norm": normed(nn.BatchNorm2d(8)),
    "batch_norm_without_weight": picture(nn.BatchNorm2d(8, affine=False)),
    "batch_norm_of_the_batch": normed(nn.BatchNorm2d(8, track_running_stats=False)),
    "batch_norm_of_vectors": normed(nn.BatchNorm1d(8), vector),
    "batch_norm_of_volumes": normed(nn.BatchNorm3d(8), volume),
    "instance_norm": normed(nn.InstanceNorm2d(8, affine=True)),
    "instance_norm_plain": picture(nn.InstanceNorm2d(8)),
    "instance_norm_with_statistics": normed(
        nn.InstanceNorm1d(8, affine=True, track_running_stats=True), sound
    ),
    "layer_norm": normed(nn.LayerNorm(8), tokens),
    "layer_norm_plain": tokens(nn.LayerNorm(8, elementwise_affine=False)),
    "layer_norm_of_pictures": picture(nn.LayerNorm((8, 6, 6))),
    "layer_norm_of_places": picture(nn.LayerNorm(6)),
    "layer_norm_channels_last": picture(With(
        lambda x, w, b: F.layer_norm(x.permute(0, 2, 3, 1), (8,), w, b).permute(0, 3, 1, 2),
        (8,), (8,))),
    "rms_norm": normed(nn.RMSNorm(8), tokens),
    "rms_norm_with_eps": normed(nn.RMSNorm(8, eps=1e-3), tokens),
    "group_norm": normed(nn.GroupNorm(4, 8)),
    "group_norm_plain": picture(nn.GroupNorm(2, 8, affine=False)),
    "group_norm_of_one_group": normed(nn.GroupNorm(1, 8)),
    "group_norm_of_single_channels": normed(nn.GroupNorm(8, 8)),
    "group_norm_of_vectors": normed(nn.GroupNorm(2, 8), vector),
    "norm_by_hand_rms": tokens(RMSNorm(), free=(BEFORE, AFTER, "op.weight[0]")),
    "norm_by_hand_var": layer_norm(
        lambda x: (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    ),
    "norm_by_hand_var_correction": layer_norm(
        lambda x: (x.var(-1, keepdim=True, correction=1) + 1e-5).sqrt()
    ),
    "norm_by_hand_std": layer_norm(lambda x: x.std(-1, keepdim=True, unbiased=True) + 1e-5),
    "norm_by_hand_std_of_few": vector(
        lambda x: ((y := x.view(-1, 2, 4)) / (y.std(2, keepdim=True) + 1e-1)).flatten(1)
    ),
    "norm_by_hand_std_correction": layer_norm(
        lambda x: x.std(-1, keepdim=True, correction=0) + 1e-5
    ),
    "normalize": tokens(lambda x: F.normalize(x, dim=-1)),
    "normalize_of_order_one": tokens(lambda x: F.normalize(x, p=1, dim=-1)),
    "vector_norm": tokens(lambda x: x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)),
    "norm_by_schema_name": tokens(
        lambda x: x / aten.norm.ScalarOpt_dim(x, 2, [-1], True)
    ),
    "norm_by_schema_name_and_dtype": tokens(
        lambda x: x / aten.norm.ScalarOpt_dim_dtype(x, 2, [-1], True, dtype=x.dtype)
    ),
    "norm_of_places": tokens(lambda x: x / x.norm(dim=1, keepdim=True)),
    "response_norm": tokens(lambda x: x * torch.sigmoid(x.mean(-1, keepdim=True))),
    "channel_attention": picture(
        With(lambda x, w, v: x * torch.sigmoid(
            F.linear(F.relu(F.linear(x.mean((2, 3)), w)), v))[:, :, None, None], (4, 8), (8, 4)),
        free=(BEFORE, AFTER, "op.p0[0]"),
    ),
    "mean_of_places": picture(lambda x: x.mean((2, 3))),
    "mean_of_channels": picture(
        lambda x: torch.cat([x, x.mean(1, keepdim=True)], 1), free=(), frozen="is reduced by mean"
    ),
    "mean_of_all": picture(lambda x: x + x.mean(), free=(), frozen="is reduced by mean"),
    "mean_of_rows": tokens(lambda x: x.view(*x.shape[:2], 2, 4).mean(2)),
    "std_of_channels": tokens(
        lambda x: x.std(-1).unsqueeze(-1) + x, free=(), frozen="is reduced by std"
    ),
}  # fmt: skip

# --- reductions, pooling, interpolation ----------------------------------------------------------


def first(op: Op) -> Op:
    """The first result of an operator that gives several."""
    return lambda x: op(x)[0]


def flags(op: Op) -> Op:
    """An operator on truth values, weighing what it looked at."""
    return lambda x: x * op(x > 0)


REDUCED = {
    "softmax": picture(lambda x: x.softmax(3)),
    "softmax_of_channels": tokens(lambda x: x.softmax(-1), free=(),
                                  frozen="is needed whole by softmax"),
    "_softmax": picture(lambda x: aten._softmax.default(x, 2, False)),
    "log_softmax": picture(lambda x: x.log_softmax(3)),
    "_log_softmax": picture(lambda x: aten._log_softmax.default(x, 2, False)),
    "prod": picture(lambda x: x.prod(3).sum(2)),
    "prod_of_all": vector(lambda x: x * x.prod(), free=(), frozen="is needed whole by prod"),
    "amax": picture(lambda x: x.amax((2, 3))),
    "amin": picture(lambda x: x.amin((2, 3), keepdim=True)),
    "aminmax": picture(lambda x: torch.sub(*torch.aminmax(x, dim=3, keepdim=True))),
    "max": picture(lambda x: x * x.max(3, keepdim=True)[0]),
    "max_of_all": picture(lambda x: x - x.max(), free=(), frozen="is needed whole by max"),
    "min": picture(lambda x: x.min(3)[0].min(2)[0]),
    "min_of_all": picture(lambda x: x - x.min(), free=(), frozen="is needed whole by min"),
    "argmax": picture(lambda x: x * x.argmax(3, keepdim=True)),
    "argmin": picture(lambda x: x * x.argmin(3, keepdim=True)),
    "any": picture(flags(lambda x: x.any(3, keepdim=True))),
    "any_of_several": picture(flags(lambda x: x.any((2, 3), keepdim=True))),
    "any_of_all": picture(flags(torch.any), free=(), frozen="is needed whole by any"),
    "all": picture(flags(lambda x: x.all(3, keepdim=True))),
    "all_of_several": picture(flags(lambda x: x.all((2, 3), keepdim=True))),
    "all_of_all": picture(flags(torch.all), free=(), frozen="is needed whole by all"),
    "count_nonzero": picture(lambda x: x * (x > 0).count_nonzero((2, 3))[..., None, None]),
    "count_nonzero_of_all": picture(lambda x: x * (x > 0).count_nonzero(), free=(),
                                    frozen="is needed whole by count_nonzero"),
    "sort": picture(lambda x: x.sort(3)[0]),
    "sort_stable": picture(lambda x: x.sort(dim=3, stable=True)[0]),
    "argsort": picture(lambda x: x * x.argsort(3)),
    "argsort_stable": picture(lambda x: x * x.argsort(dim=3, stable=True)),
    "topk": picture(lambda x: x.topk(2, 3)[0]),
    "topk_of_channels": tokens(first(lambda x: x.topk(3, -1)), free=(),
                               frozen="is needed whole by topk"),
    "cumsum": picture(lambda x: x.cumsum(3)),
    "cumprod": picture(lambda x: x.cumprod(3)),
    "cummax": picture(first(lambda x: x.cummax(3))),
    "logcumsumexp": picture(lambda x: x.logcumsumexp(3)),
    "logsumexp": picture(lambda x: x.logsumexp((2, 3))),
    "median": picture(lambda x: x.median(3, keepdim=True)[0] * x),
    "median_of_all": picture(lambda x: x - x.median(), free=(), frozen="is needed whole by median"),
    "var_mean": picture(lambda x: torch.add(*torch.var_mean(x, (2, 3), unbiased=False))),
    "var_mean_correction": picture(lambda x: torch.add(*torch.var_mean(x, (2, 3), correction=0))),
    "var_mean_by_schema_name": picture(lambda x: aten.var_mean.default(x)[0] * x, free=(),
                                       frozen="is needed whole by var_mean"),
    "var_mean_of_all": picture(lambda x: x * torch.var_mean(x)[0], free=(),
                               frozen="is needed whole by var_mean"),
    "std_mean": picture(lambda x: torch.add(*torch.std_mean(x, (2, 3), unbiased=True))),
    "std_mean_correction": picture(lambda x: torch.add(*torch.std_mean(x, (2, 3), correction=1))),
    "std_mean_by_schema_name": picture(lambda x: aten.std_mean.default(x)[0] * x, free=(),
                                       frozen="is needed whole by std_mean"),
    "std_mean_of_all": picture(lambda x: x * torch.std_mean(x)[1], free=(),
                               frozen="is needed whole by std_mean"),
    "var_of_places": picture(lambda x: x.var((2, 3))),
    "std_of_places": picture(lambda x: x.std((2, 3))),
}  # fmt: skip

upsampled = {"scale_factor": 2}

POOLED = {
    "avg_pool1d": sound(nn.AvgPool1d(2)),
    "max_pool1d": sound(nn.MaxPool1d(2)),
    "max_pool1d_with_indices": sound(lambda x: F.max_pool1d(x, 2, return_indices=True)[0]),
    "adaptive_avg_pool1d": sound(nn.AdaptiveAvgPool1d(3)),
    "adaptive_max_pool1d": sound(nn.AdaptiveMaxPool1d(3)),
    "upsample_nearest1d": sound(nn.Upsample(**upsampled)),
    "upsample_nearest1d_to": sound(lambda x: aten.upsample_nearest1d.default(x, [11])),
    "upsample_linear1d": sound(nn.Upsample(**upsampled, mode="linear")),
    "upsample_linear1d_to": sound(lambda x: aten.upsample_linear1d.default(x, [11], False)),
    "reflection_pad1d": sound(lambda x: aten.reflection_pad1d.default(x, [1, 2])),
    "replication_pad1d": sound(lambda x: aten.replication_pad1d.default(x, [1, 2])),
    "avg_pool2d": picture(nn.AvgPool2d(2)),
    "max_pool2d": picture(nn.MaxPool2d(3, 2, 1)),
    "max_pool2d_with_indices": picture(lambda x: F.max_pool2d(x, 2, return_indices=True)[0]),
    "adaptive_avg_pool2d": picture(nn.AdaptiveAvgPool2d((2, 3))),
    "_adaptive_avg_pool2d": picture(lambda x: aten._adaptive_avg_pool2d.default(x, [2, 3])),
    "adaptive_max_pool2d": picture(nn.AdaptiveMaxPool2d(2)),
    "upsample_nearest2d": picture(nn.Upsample(**upsampled)),
    "upsample_nearest2d_to": picture(lambda x: aten.upsample_nearest2d.default(x, [9, 8])),
    "upsample_bilinear2d": picture(nn.Upsample(**upsampled, mode="bilinear")),
    "upsample_bilinear2d_to": picture(
        lambda x: aten.upsample_bilinear2d.default(x, [9, 8], False)
    ),
    "upsample_bicubic2d": picture(nn.Upsample((9, 8), mode="bicubic")),
    "upsample_bicubic2d_to": picture(lambda x: aten.upsample_bicubic2d.default(x, [9, 8], True)),
    "upsample_bilinear2d_aa": picture(
        lambda x: F.interpolate(x, (3, 4), mode="bilinear", antialias=True)
    ),
    "upsample_bilinear2d_aa_to": picture(
        lambda x: aten._upsample_bilinear2d_aa.default(x, [3, 4], False)
    ),
    "upsample_bicubic2d_aa": picture(
        lambda x: F.interpolate(x, (3, 4), mode="bicubic", antialias=True)
    ),
    "upsample_bicubic2d_aa_to": picture(
        lambda x: aten._upsample_bicubic2d_aa.default(x, [3, 4], False)
    ),
    "upsample_nearest_exact2d": picture(nn.Upsample((9, 8), mode="nearest-exact")),
    "upsample_nearest_exact2d_to": picture(
        lambda x: aten._upsample_nearest_exact2d.default(x, [9, 8])
    ),
    "grid_sampler": picture(
        Fixed(lambda x, at: F.grid_sample(x, at[: x.shape[0]], align_corners=False),
              normal(8, 4, 4, 2))
    ),
    "grid_sampler_2d": picture(
        Fixed(lambda x, at: aten.grid_sampler_2d.default(x, at[: x.shape[0]], 0, 0, False),
              normal(8, 4, 4, 2))
    ),
    "max_unpool2d": picture(
        lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)
    ),
    "max_unpool3d": volume(
        lambda x: F.max_unpool3d(*F.max_pool3d(x, 2, return_indices=True), 2)
    ),
    "reflection_pad2d": picture(lambda x: aten.reflection_pad2d.default(x, [1, 1, 2, 2])),
    "replication_pad2d": picture(lambda x: aten.replication_pad2d.default(x, [1, 1, 2, 2])),
    "avg_pool3d": volume(nn.AvgPool3d(2)),
    "max_pool3d": volume(nn.MaxPool3d(2)),
    "max_pool3d_with_indices": volume(lambda x: F.max_pool3d(x, 2, return_indices=True)[0]),
    "adaptive_avg_pool3d": volume(nn.AdaptiveAvgPool3d(2)),
    "upsample_nearest3d": volume(nn.Upsample(**upsampled)),
    "upsample_nearest3d_to": volume(lambda x: aten.upsample_nearest3d.default(x, [5, 6, 5])),
    "upsample_trilinear3d": volume(nn.Upsample(**upsampled, mode="trilinear")),
    "upsample_trilinear3d_to": volume(
        lambda x: aten.upsample_trilinear3d.default(x, [5, 6, 5], False)
    ),
    "reflection_pad3d": volume(lambda x: aten.reflection_pad3d.default(x, [1, 1, 1, 1, 1, 1])),
    "replication_pad3d": volume(lambda x: aten.replication_pad3d.default(x, [1, 1, 1, 1, 1, 1])),
    "avg_pool1d_of_channels": tokens(
        lambda x: F.avg_pool1d(x, 2), free=(), frozen="is a spatial axis"
    ),
    "local_response_norm": picture(
        nn.LocalResponseNorm(3), free=(), frozen="is a spatial axis at op"
    ),
}  # fmt: skip

# --- look-ups ------------------------------------------------------------------------------------


class Embedded(nn.Module):
    """Words -> vectors -> scores. `tied`: the scores use the same table."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.inside = nn.Linear(8, 12)
        self.back = nn.Linear(12, 8)
        self.after = nn.Linear(8, 20)
        if tied:
            self.after.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        return self.after(x + self.back(torch.relu(self.inside(x))))


class Detour(nn.Module):
    """Two results: one of a layer whose channels meet an odd operator, one of a plain network."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        self.op, self.odd = op, nn.Linear(5, 8)
        self.before, self.after = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.op(self.odd(x)), self.after(torch.relu(self.before(x)))


order = torch.tensor([5, 2, 2, 0])

INDEXED = {
    "embedding": Case(
        Embedded, (words(20, 2, 6),), free=("table.weight[1]", "after.weight[1]"),
        frozen="is looked up by index",
    ),
    "embedding_tied": Case(
        lambda: Embedded(tied=True), (words(20, 2, 6),),
        free=("after.weight[1]", "inside.weight[1]"), frozen="is looked up by index",
    ),
    "index": picture(Fixed(lambda x, at: x[:, :, at], order)),
    "index_of_channels": picture(Fixed(lambda x, at: x[:, at], order)),
    "index_of_channels_from_the_end": picture(Fixed(lambda x, at: x[:, at], order - 8)),
    "index_of_all_channels": picture(Fixed(lambda x, at: x[:, at] * x, torch.arange(8))),
    "index_of_channels_again": picture(Fixed(lambda x, at: x[:, at], torch.tensor([3, 3, 1, 0]))),
    "index_of_one_channel": picture(
        Fixed(lambda x, at: x * x[:, at], torch.tensor([3])), free=(),
        frozen="is looked up by index",
    ),
    "index_of_rows": tokens(
        Fixed(lambda x, at: x.view(*x.shape[:2], 4, 2)[:, :, at].flatten(2), order[:4] % 4),
        frozen="", free=(BEFORE, AFTER),
    ),
    "index_of_channels_by_data": tokens(
        lambda x: x[..., torch.arange(8).flip(0)], free=(), frozen="is looked up by index"
    ),
    "index_by_a_mask_of_two_axes": tokens(
        lambda x: x * x[x.detach().mean(-1) > -9].mean(0), free=(), frozen="is reduced by mean"
    ),
    "index_by_a_given_mask": Case(
        lambda: ByMask(), (normal(2, 6, 5), normal(2, 6, seed=1) > 0),
    ),
    "index_of_two_axes": picture(Fixed(lambda x, at: x[:, :, at, at].mean(2), order)),
    "index_of_axes_apart": tokens(
        Fixed(lambda x, at: x.view(*x.shape[:2], 2, 4)[:, at, :, at], torch.tensor([1, 3, 0]))
    ),
    "index_select": picture(Fixed(lambda x, at: x.index_select(3, at), order)),
    "index_select_of_channels": picture(Fixed(lambda x, at: x.index_select(1, at), order)),
    "gather": picture(lambda x: x.gather(3, x.argsort(3))),
    "gather_of_chosen_tokens": tokens(
        lambda x: x.gather(1, x.sum(-1).topk(3, 1)[1].unsqueeze(-1).expand(-1, -1, 8))
    ),
    "gather_of_fewer_channels": picture(
        lambda x: x.gather(3, x.argsort(3)[:, :4]), free=(), frozen="is met by fewer positions"
    ),
    "gather_of_channels": tokens(
        lambda x: x.gather(2, x.argsort(2)), free=(), frozen="is needed whole by argsort"
    ),
    "scatter": tokens(lambda x: x.scatter(1, x.argsort(1)[:, :2], 0.5)),
    "scatter_of_source": tokens(lambda x: x.scatter(1, x.argsort(1), torch.sigmoid(x))),
    "scatter_reduce_by_flag": tokens(
        lambda x: x.scatter(1, x.argsort(1), torch.sigmoid(x), reduce="add")
    ),
    "scatter_value_reduce_by_flag": tokens(
        lambda x: x.scatter(1, x.argsort(1), 0.5, reduce="multiply")
    ),
    "scatter_add": tokens(lambda x: x.scatter_add(1, x.argsort(1), torch.sigmoid(x))),
    "scatter_reduce": tokens(
        lambda x: x.scatter_reduce(1, x.argsort(1), torch.sigmoid(x), reduce="amax")
    ),
    "index_add": tokens(
        Fixed(lambda x, at: x.index_add(1, at, torch.sigmoid(x[:, :4])), torch.tensor([1, 1, 5, 0]))
    ),
    "index_copy": tokens(
        Fixed(lambda x, at: x.index_copy(1, at, torch.sigmoid(x[:, :2])), torch.tensor([1, 5]))
    ),
    "index_fill": tokens(Fixed(lambda x, at: x.index_fill(1, at, 0.5), torch.tensor([1, 5]))),
    "index_put": tokens(
        Fixed(lambda x, at: aten.index_put(x, [None, at], x[:, :2].sigmoid()), torch.tensor([1, 5]))
    ),
    "index_put_in_place": tokens(lambda x: put_in_place(x)),
    "embedding_bag": Case(
        lambda: nn.Sequential(nn.EmbeddingBag(20, 8), nn.Linear(8, 3)), (words(20, 2, 6),),
        free=("0.weight[1]", "1.weight[1]"), frozen="is looked up by index",
    ),
    "embedding_bag_of_maxima": Case(
        lambda: nn.Sequential(nn.EmbeddingBag(20, 8, mode="max"), nn.Linear(8, 3)),
        (words(20, 2, 6),), free=("0.weight[1]", "1.weight[1]"), frozen="is looked up by index",
    ),
    "gather_of_constants": picture(
        Fixed(lambda x, table, at: x + table.gather(0, at), normal(4, 6), words(4, 6, 6))
    ),
    "one_hot": tokens(Fixed(lambda x, at: F.one_hot(at, 6).to(x.dtype) @ x, order)),
    "arange": tokens(lambda x: x * torch.arange(6.0)[:, None]),
    "arange_of_channels": tokens(
        lambda x: x * torch.arange(8.0), free=(), frozen="meets an unlabelled axis in mul"
    ),
    "arange_from": tokens(lambda x: x * torch.arange(1.0, 7.0)[:, None]),
    "arange_with_steps": tokens(lambda x: x * torch.arange(0.0, 12.0, 2.0)[:, None]),
    "linspace": tokens(lambda x: x * torch.linspace(0.0, 1.0, 6)[:, None]),
    "eye": tokens(lambda x: torch.eye(6) @ x),
    "tril": tokens(lambda x: torch.ones(6, 6).tril() @ x),
    "triu": tokens(lambda x: torch.ones(6, 6).triu() @ x),
    "scalar_tensor": tokens(lambda x: x * aten.scalar_tensor.default(0.5)),
    "randn": tokens(lambda x: x + torch.randn(6, 1), random=True),
    "rand": tokens(lambda x: x + torch.rand(6, 1), random=True),
    "item": tokens(lambda x: x * x.mean().item(), free=(), frozen="is reduced by mean"),
    "nonzero": Case(
        lambda: Detour(lambda x: torch.nonzero(x > 0)), (normal(2, 5),), free=(AFTER,),
        frozen="is an argument of nonzero",
    ),
    "masked_select": Case(
        lambda: Detour(lambda x: x.masked_select(x > 0)), (normal(2, 5),), free=(AFTER,),
        frozen="is an argument of masked_select",
    ),
    "index_by_mask": Case(
        lambda: Detour(lambda x: x[:, torch.tensor([True, False] * 4)]), (normal(2, 5),),
        free=(AFTER,), frozen="is looked up by index",
    ),
    "bucketize": tokens(
        Fixed(lambda x, edges: x * torch.bucketize(x, edges), torch.tensor([-1.0, 0.0, 1.0])),
        free=(), frozen="is an argument of bucketize",
    ),
}  # fmt: skip


class ByMask(nn.Module):
    """A mask over batch and places chooses rows of channels, and writes into them."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = self.before(x)
        chosen = self.after(x[mask])
        y = torch.relu(x)
        y[mask] = -0.5
        return chosen, self.after(y)


def put_in_place(x: Tensor) -> Tensor:
    y = torch.relu(x)
    y[:, torch.tensor([4, 0])] = torch.sigmoid(x[:, 2:4])
    return y


# --- recurrent -----------------------------------------------------------------------------------


ONE_UNIT = "is of the only unit of a recurrent layer"


class Recurrent(nn.Module):
    """Any recurrent layer; `last` reads the final hidden state instead of the sequence."""

    def __init__(self, layer: nn.Module, last: bool = False) -> None:
        super().__init__()
        self.layer, self.last = layer, last

    def forward(self, x: Tensor) -> Tensor:
        y, state = self.layer(x)
        hidden = state[0] if isinstance(state, tuple) else state
        return hidden[-1] if self.last else y


def recurrent(layer: nn.Module, last: bool = False) -> Case:
    return tokens(
        Recurrent(layer, last), length=3, free=(BEFORE, AFTER, "op.layer.weight_hh_l0[1]")
    )


class TwoSteps(nn.Module):
    """A cell, unrolled by hand."""

    def __init__(self, cell: nn.Module, prepared: Op = torch.clone) -> None:
        super().__init__()
        self.cell, self.prepared = cell, prepared

    def forward(self, x: Tensor) -> Tensor:
        x = self.prepared(x)
        size: Any = self.cell.hidden_size
        h = torch.zeros(x.shape[0], size)
        state: Any = (h, h) if isinstance(self.cell, nn.LSTMCell) else h
        for step in range(2):
            state = self.cell(x[:, step], state)
        return state[0] if isinstance(state, tuple) else state


def over_ones(x: Tensor) -> Tensor:
    """All but the first step of each sample, written over ones."""
    ones = x.new_ones(x.shape)
    ones[:, 1:] = x[:, 1:]
    return ones


class WithState(nn.Module):
    """A recurrent layer whose first state is learned, for each sample of the batch."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.last = layer, nn.Linear(8, 3)
        self.start = nn.Parameter(torch.zeros(1, 2, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x, self.start)[0])


class Written(nn.Module):
    """All but the first step, written over zeros."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.new_zeros(x.shape[0], 3, 8)
        y[:, 1:] = x[:, 1:]
        return y


RECURRENT = {
    "lstm": recurrent(nn.LSTM(8, 6, batch_first=True)),
    "lstm_of_two_layers_both_ways": recurrent(
        nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True, bias=False)
    ),
    "lstm_of_what_was_written": tokens(
        nn.Sequential(Written(), Recurrent(nn.LSTM(8, 6, batch_first=True))), length=3,
        free=(BEFORE, AFTER, "op.1.layer.weight_hh_l0[1]"),
    ),
    "lstm_time_first": recurrent(nn.LSTM(8, 6)),
    "lstm_of_one_unit": tokens(
        Recurrent(nn.LSTM(8, 1, batch_first=True)), free=(BEFORE,), frozen=ONE_UNIT
    ),
    "lstm_last_state": recurrent(nn.LSTM(8, 6, 2, batch_first=True), last=True),
    "lstm_projected": tokens(
        Recurrent(nn.LSTM(8, 6, proj_size=4, batch_first=True)), length=3,
        free=(BEFORE, AFTER, "op.layer.weight_hr_l0[0]"),
        frozen="has to stay wider than the projection",
    ),
    "lstm_projected_twice_both_ways": tokens(
        Recurrent(nn.LSTM(8, 6, 2, proj_size=4, batch_first=True, bidirectional=True, bias=False)),
        length=3, free=(BEFORE, AFTER, "op.layer.weight_hr_l1[0]"),
        frozen="has to stay wider than the projection",
    ),
    "gru": recurrent(nn.GRU(8, 6, batch_first=True)),
    "gru_of_two_layers_both_ways": recurrent(
        nn.GRU(8, 6, 2, batch_first=True, bidirectional=True)
    ),
    "gru_last_state": recurrent(nn.GRU(8, 6, batch_first=True, bidirectional=True), last=True),
    "rnn_tanh": recurrent(nn.RNN(8, 6, batch_first=True)),
    "rnn_relu": recurrent(nn.RNN(8, 6, 2, nonlinearity="relu")),
    "gru_cell": tokens(TwoSteps(nn.GRUCell(8, 6)), free=(BEFORE, AFTER, "op.cell.weight_hh[1]")),
    "gru_cell_of_one_unit": tokens(
        TwoSteps(nn.GRUCell(8, 1)), free=(BEFORE,), frozen=ONE_UNIT
    ),
    "gru_cell_of_a_constant": tokens(TwoSteps(nn.GRUCell(8, 6), over_ones)),
    "gru_with_a_learned_state": Case(
        lambda: WithState(nn.GRU(5, 8)), (normal(4, 2, 5),), free=("last.weight[1]",)
    ),
    "lstm_cell": tokens(TwoSteps(nn.LSTMCell(8, 6, bias=False)),
                        free=(BEFORE, AFTER, "op.cell.weight_hh[1]")),
    "rnn_tanh_cell": tokens(TwoSteps(nn.RNNCell(8, 6)), free=(BEFORE, AFTER)),
    "rnn_relu_cell": tokens(TwoSteps(nn.RNNCell(8, 6, nonlinearity="relu")), free=(BEFORE, AFTER)),
}  # fmt: skip

# --- elementwise ---------------------------------------------------------------------------------


def operand(op: Op) -> Case:
    """An operator of the channels and a parameter that lies along them."""
    return picture(With(op, (8, 1, 1)), free=(BEFORE, AFTER, "op.p0[0]"))


ELEMENTWISE = {
    "relu": picture(F.relu),
    "relu_": picture(F.relu_),
    "gelu": picture(F.gelu),
    "silu": picture(F.silu),
    "sigmoid": picture(torch.sigmoid),
    **{
        name: picture(lambda x, step=step: x * step(2 * x))
        for name, step in {
            "round": torch.round, "floor": torch.floor, "ceil": torch.ceil, "trunc": torch.trunc,
            "sign": torch.sign, "sgn": torch.sgn, "fix": torch.fix,
        }.items()
    },
    "round_to_decimals": picture(lambda x: x.round(decimals=1)),
    "heaviside": picture(lambda x: x * torch.heaviside(x, x.new_ones(()))),
    "elu": picture(F.elu),
    "mish": picture(F.mish),
    "erf": picture(torch.erf),
    "exp": picture(lambda x: (-x.abs()).exp()),
    "clamp": picture(lambda x: x.clamp(-1, 1)),
    "add": operand(torch.add),
    "add_": operand(lambda x, p: x.add_(p)),
    "add_to_itself": picture(lambda x: x + torch.relu(x)),
    "mul": operand(torch.mul),
    "mul_": operand(lambda x, p: x.mul_(p)),
    "sub": operand(torch.sub),
    "div": operand(lambda x, p: x / (p.abs() + 1)),
    "copy": picture(lambda x: aten.copy.default(x, torch.relu(x))),
    "copy_": picture(lambda x: torch.relu(x).copy_(torch.sigmoid(x))),
    "copy_into_a_slice": picture(lambda x: written(x)),
    "copy_into_every_second": picture(lambda x: written_in_steps(x), free=(),
                                      frozen="is cut in steps"),
    "copy_after_every_second_was_taken": picture(lambda x: taken_before(x), free=(),
                                                 frozen="is cut in steps"),
    "copy_into_a_shuffle": picture(lambda x: shuffled(x).mul_(2)),
    "masked_fill": picture(lambda x: x.masked_fill(x > 0, 0.5)),
    "masked_fill_of_tensor": picture(lambda x: x.masked_fill(x > 0, torch.tensor(0.5))),
    "masked_fill_": picture(lambda x: x.masked_fill_(x > 0, 0.5)),
    "where": operand(lambda x, p: torch.where(x > 0, x, p)),
    "where_other": picture(lambda x: torch.where(x > 0, x, 0.25)),
    "where_self": picture(lambda x: torch.where(x > 0, 0.25, x)),
    "where_numbers": picture(lambda x: x * torch.where(x > 0, 0.25, 1.5)),
    "floor_divide": operand(lambda x, p: x // (p.abs() + 1)),
    "division_by_nothing": operand(lambda x, p: x / p),
    "floor_divide_by_number": picture(lambda x: aten.floor_divide.Scalar(x, 0.5)),
    "relu6": picture(aten.relu6.default),
    "leaky_relu": picture(nn.LeakyReLU(0.2)),
    "selu": picture(F.selu),
    "hardswish": picture(F.hardswish),
    "hardswish_": picture(nn.Hardswish(inplace=True)),
    "hardsigmoid": picture(F.hardsigmoid),
    "hardtanh": picture(nn.ReLU6()),
    "rrelu": picture(nn.RReLU()),
    "softplus": picture(F.softplus),
    "log_sigmoid": picture(F.logsigmoid),
    "fill": picture(lambda x: x * aten.fill.Scalar(x, 0.5)),
    "fill_": picture(lambda x: x * torch.relu(x).fill_(0.5)),
    "bernoulli": picture(lambda x: x * torch.bernoulli(torch.sigmoid(x)), random=True),
    "rand_like": picture(lambda x: x + torch.rand_like(x), random=True),
    "randn_like": picture(lambda x: x + torch.randn_like(x), random=True),
    "lerp": operand(lambda x, p: torch.lerp(x, p, 0.3)),
    "lerp_of_tensors": operand(lambda x, p: torch.lerp(x, torch.relu(x), p)),
    "nan_to_num": picture(torch.nan_to_num),
    "addcmul": operand(lambda x, p: torch.addcmul(x, x, p, value=0.5)),
    "addcdiv": operand(lambda x, p: torch.addcdiv(x, x, p.abs() + 1)),
    "rsub": operand(lambda x, p: torch.rsub(x, p)),
    "rsub_from_number": picture(lambda x: 1 - x),
    "square": picture(torch.square),
    "true_divide": operand(lambda x, p: torch.true_divide(x, p.abs() + 1)),
    "true_divide_by_number": picture(lambda x: aten.true_divide.Scalar(x, 3.0)),
    "clip": picture(lambda x: x.clip(-1, 1)),
    "clip_of_tensors": operand(lambda x, p: x.clip(p - 1, p + 1)),
    "maximum": operand(torch.maximum),
    "minimum": operand(torch.minimum),
    "pow": picture(lambda x: x**2),
    "pow_of_tensors": operand(lambda x, p: x.abs() ** p),
    "pow_of_number": picture(lambda x: 2.0**x),
    "float_power": picture(lambda x: x.float_power(2).to(x.dtype)),
    "float_power_of_tensors": operand(lambda x, p: x.abs().float_power(p).to(x.dtype)),
    "float_power_of_number": picture(lambda x: torch.float_power(2.0, x).to(x.dtype)),
    "arctan2": operand(torch.arctan2),
    "logical_not": picture(lambda x: x * (x > 0).logical_not()),
    "isfinite": picture(lambda x: x * x.isfinite()),
    "prelu": picture(nn.PReLU(8), free=(BEFORE, AFTER, "op.weight[0]")),
    "prelu_of_one_slope": picture(nn.PReLU()),
    "_prelu_kernel": operand(lambda x, p: aten._prelu_kernel.default(x, p[None])),
    "glu": tokens(nn.GLU(), channels=16),
    "glu_of_channels": picture(nn.GLU(1), channels=16),
    "meets_the_input": Case(
        lambda: MeetsInput(), (normal(2, 3, 6, 6),), free=("before.weight[0]",),
        frozen="meets an unlabelled axis in add",
    ),
}  # fmt: skip


def written(x: Tensor) -> Tensor:
    y = torch.relu(x)
    y[:, :4] = torch.sigmoid(x[:, 4:])
    return y


def written_in_steps(x: Tensor) -> Tensor:
    y = torch.relu(x)
    y[:, ::2] = torch.sigmoid(x[:, ::2])
    return y


def taken_before(x: Tensor) -> Tensor:
    y = torch.sigmoid(x)
    half = y[:, ::2]
    y.mul_(2)
    return half


class MeetsInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.back, self.after = (
            nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1), nn.Conv2d(3, 4, 1))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.after(x + self.back(torch.relu(self.before(x))))


# --- networks that are more than one operator ----------------------------------------------------


class WeightNorm(nn.Module):
    """before with weight normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
        self.after = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(torch.relu(self.before(x)))


def standardised(x: Tensor, weight: Tensor, gain: Tensor) -> Tensor:
    """A convolution whose filters are batch-normed before they are used."""
    flat = weight.reshape(1, weight.shape[0], -1)
    filters = F.batch_norm(flat, None, None, gain, training=True, momentum=0.0)
    return F.conv2d(x, filters.reshape_as(weight))


class Shared(nn.Module):
    """One layer called twice: its input and output channels are the same."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.middle, self.after = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(torch.relu(self.middle(torch.relu(self.middle(self.before(x))))))


class Residual(nn.Module):
    """before -> x + back(body(x)) -> after"""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.body = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3, padding=1)
        self.norm, self.back = nn.BatchNorm2d(6), nn.Conv2d(6, 8, 1)
        self.after = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        x = x + self.back(F.relu(self.norm(self.body(x)), inplace=True))
        return self.after(x.mean((2, 3)))


class Transposed(nn.Module):
    """An autoencoder: the decoder reads the encoder's weight the other way round."""

    def __init__(self, views: bool) -> None:
        super().__init__()
        self.before, self.inside = nn.Linear(5, 8), nn.Linear(8, 8, bias=False)
        self.out, self.after = nn.Linear(8, 8, bias=False), nn.Linear(8, 3)
        self.views = views
        if views:  # a parameter of its own that shares the memory
            self.out.weight = nn.Parameter(self.inside.weight.t())

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.inside(self.before(x)))
        x = self.out(x) if self.views else F.linear(x, self.inside.weight.t())
        return self.after(torch.sigmoid(x))


class SqueezeExcite(nn.Module):
    """Channels weighed by a small network of their means; sigmoid makes something of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.reduce, self.raise_ = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.after = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.before(x))
        gate = F.adaptive_avg_pool2d(x, 1)
        gate = torch.sigmoid(self.raise_(F.silu(self.reduce(gate))))
        return self.after(x * gate)


class Recast(nn.Module):
    """Gradient mode is switched inside; torch.export makes a graph of its own of that part."""

    def __init__(self, mode: Op) -> None:
        super().__init__()
        self.mode, self.before, self.after = mode, nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        with self.mode():
            x = torch.relu(x) * 2
        return self.after(x)


class Branching(nn.Module):
    """torch.cond: two graphs inside the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.middle, self.after = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cond(x.sum() > 0, torch.sin, torch.cos, (self.before(x),))
        return self.after(torch.relu(self.middle(y)))


NETWORKS = {
    "weight_norm": Case(WeightNorm, (normal(2, 3, 6, 6),), free=("before.bias[0]", AFTER)),
    "weight_norm_of_filters": picture(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 6, 3)),
        free=(BEFORE, AFTER, "op.parametrizations.weight.original1[1]"),
    ),
    "weight_norm_of_taps": sound(
        nn.utils.parametrizations.weight_norm(nn.Conv1d(8, 8, 3, groups=2), dim=2),
        free=(BEFORE, AFTER, "op.parametrizations.weight.original1[1]"),
    ),
    "standardised_weight": picture(
        With(standardised, (6, 8, 3, 3), (6,)), free=(BEFORE, AFTER, "op.p0[1]", "op.p1[0]")
    ),
    "shared_twice": Case(Shared, (normal(2, 5),), free=(BEFORE, AFTER, "middle.weight[0]")),
    "residual_block": Case(
        Residual, (normal(2, 3, 6, 6),), free=(BEFORE, AFTER, "norm.weight[0]")
    ),
    "tied_transposed": Case(
        lambda: Transposed(views=False), (normal(2, 5),), free=(BEFORE, AFTER, "inside.weight[0]")
    ),
    "tied_transposed_by_memory": Case(
        lambda: Transposed(views=True), (normal(2, 5),), free=(BEFORE, AFTER, "inside.weight[0]")
    ),
    "squeeze_excite": Case(
        SqueezeExcite, (normal(2, 3, 6, 6),), free=(BEFORE, AFTER, "reduce.weight[0]")
    ),
    "gradients_off": Case(lambda: Recast(torch.no_grad), (normal(2, 5),)),
    "gradients_on": Case(lambda: Recast(torch.enable_grad), (normal(2, 5),)),
    "branches": Case(
        Branching, (normal(2, 5),), free=("middle.weight[0]", AFTER),
        frozen="no coupling rule for cond",
    ),
    "fft": tokens(lambda x: torch.fft.rfft(x, dim=1).abs(), free=(),
                  frozen="no coupling rule for aten.fft_rfft.default at passes/cases.py:"),
    "tensordot": tokens(With(lambda x, w: torch.tensordot(x, w, dims=1), (8, 6)),
                        free=(BEFORE, AFTER, "op.p0[1]")),
    "inner": tokens(With(torch.inner, (6, 8)), free=(BEFORE, AFTER, "op.p0[0]")),
    "diff": tokens(lambda x: x.diff(dim=1)),
    "rot90": picture(lambda x: torch.rot90(x, 1, (2, 3))),
    "custom_op": tokens(lambda x: torch.ops.compressor_tests.mystery(x), free=(),
                        frozen="no coupling rule for compressor_tests.mystery.default"),
}  # fmt: skip


@torch.library.custom_op("compressor_tests::mystery", mutates_args=())
def mystery(x: Tensor) -> Tensor:
    """An operator that nobody has heard of."""
    return x.flip(-1) * 2


@mystery.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


FAMILIES = (
    SAME, VIEWS, PARTS, REORDERED, JOINED, CONSTANTS, ATTENTION, ALGEBRA, SUMS, CONVOLUTIONS,
    NORMS, REDUCED, POOLED, INDEXED, RECURRENT, ELEMENTWISE, NETWORKS,
)  # fmt: skip
CASES: dict[str, Case] = {name: case for family in FAMILIES for name, case in family.items()}
