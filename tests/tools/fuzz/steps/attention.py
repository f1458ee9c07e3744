"""Steps over sequences: attention in many layouts, recurrent layers, positions, and the like."""

from collections.abc import Callable
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .table import Do, Options, StepKind, StepTable, Stream, chained, one_of, param, some_of, wide

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values [B, heads, T, entries] -> [B, heads, T, entries]."""


def sdpa(**options: Any) -> Mix:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options)


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1) @ v


def in_the_batch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Heads folded into the batch: bmm and baddbmm, as older code does it."""
    flat = [y.reshape(-1, y.shape[2], y.shape[3]) for y in (q, k, v)]
    zero = torch.zeros(flat[0].shape[0], q.shape[2], k.shape[2])
    scores = torch.baddbmm(zero, flat[0], flat[1].transpose(1, 2), beta=0, alpha=0.5)
    return torch.bmm(scores.softmax(-1), flat[2]).view(v.shape)


def by_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * 0.5
    return torch.einsum("bhqk,bhkd->bhqd", scores.softmax(-1), v)


def cosine(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return sdpa(scale=5.0)(F.normalize(q, dim=-1), F.normalize(k, dim=-1), v)


def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mask = torch.ones(q.shape[2], q.shape[2]).tril().bool()
    return sdpa(attn_mask=mask)(q, k, v)


def masked_by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mask = torch.ones(q.shape[2], q.shape[2]).triu(1).bool()
    return (q @ k.mT * 0.5).masked_fill(mask, -1e4).softmax(-1) @ v


def relu_linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.relu(q) @ (F.relu(k).mT @ v) * 0.1


def across_channels(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Channels attend to one another (XCiT)."""
    scores = F.normalize(q, dim=2).mT @ F.normalize(k, dim=2)
    return v @ scores.softmax(-1)


def turned(x: Tensor) -> Tensor:
    """Rotary positions on pairs (d, d + half)."""
    half = x.shape[-1] // 2
    angle = torch.outer(torch.arange(float(x.shape[-2])), 0.5 ** torch.arange(float(half)))
    angle = torch.cat([angle, angle], -1)
    return x * angle.cos() + torch.cat([-x[..., half:], x[..., :half]], -1) * angle.sin()


def turned_in_pairs(x: Tensor) -> Tensor:
    """Rotary positions on neighbours (2 d, 2 d + 1)."""
    a, b = x[..., ::2], x[..., 1::2]
    angle = torch.outer(torch.arange(float(x.shape[-2])), 0.5 ** torch.arange(float(a.shape[-1])))
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


MIXES: dict[str, Mix] = {
    "sdpa": sdpa(),
    "causal": sdpa(is_causal=True),
    "scaled": sdpa(scale=0.7),
    "masked": masked,
    "masked_by_hand": masked_by_hand,
    "by_hand": by_hand,
    "in_the_batch": in_the_batch,
    "by_einsum": by_einsum,
    "cosine": cosine,
    "relu_linear": relu_linear,
    "across_channels": across_channels,
    "rotary": lambda q, k, v: by_hand(turned(q), turned(k), v),
    "rotary_in_pairs": lambda q, k, v: by_hand(turned_in_pairs(q), turned_in_pairs(k), v),
}


def heads_of(x: Tensor, heads: int) -> Tensor:
    """[B, T, C] -> [B, heads, T, entries]"""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def fused(qkv: Tensor, layout: str, heads: int, entries: int) -> list[Tensor]:
    """Queries, keys and values of one projection [B, T, 3 * heads * entries]."""
    b, n, _ = qkv.shape
    if layout == "chunk":
        return [heads_of(y, heads) for y in qkv.chunk(3, -1)]
    if layout == "split":
        return [heads_of(y, heads) for y in qkv.split(heads * entries, -1)]
    if layout == "heads first":
        return list(qkv.view(b, n, heads, 3, entries).permute(3, 0, 2, 1, 4))
    if layout == "chunk of heads":
        return list(qkv.view(b, n, heads, 3 * entries).transpose(1, 2).chunk(3, -1))
    return list(qkv.reshape(b, n, 3, heads, entries).permute(2, 0, 3, 1, 4).unbind(0))


def attention(
    x: Stream, *, heads: int, entries: int, mix: str, layout: str, key_heads: int = 0,
    residual: bool = True, out: bool = True,
) -> nn.Module:  # fmt: skip
    """Self-attention as models write it. `layout` is how queries, keys and values are projected."""
    width, few = heads * entries, key_heads or heads
    layers: dict[str, nn.Module] = {}
    if layout == "separate":
        layers["q"] = nn.Linear(x.channels, width)
        layers |= {name: nn.Linear(x.channels, few * entries, bias=name == "v") for name in "kv"}
    else:
        layers["qkv"] = nn.Linear(x.channels, 3 * width)
    if out:
        layers["out"] = nn.Linear(width, x.channels if residual else width)

    def run(m: Any, a: Tensor) -> Tensor:
        t = a.flatten(2).transpose(1, 2) if x.axis == 1 else a
        if layout == "separate":
            q = heads_of(m.q(t), heads)
            k, v = (heads_of(layer(t), few) for layer in (m.k, m.v))
            if few != heads:
                k, v = (y.repeat_interleave(heads // few, 1) for y in (k, v))
        else:
            q, k, v = fused(m.qkv(t), layout, heads, entries)
        y = joined(MIXES[mix](q, k, v))
        y = m.out(y) if out else y
        y = y.transpose(1, 2).reshape(a.shape[0], -1, *x.places) if x.axis == 1 else y
        return a + y if residual else y

    return Do(run, **layers)


def attending(rng: Random, x: Stream) -> Options:
    mix = rng.choice(list(MIXES))
    entries = rng.choice([4, 6] if "rotary" in mix else [2, 3, 4, 5])
    heads = rng.choice([1, 2, 3, 4])
    layout = rng.choice(["separate", "separate", "chunk", "split", "heads first",
                         "chunk of heads", "three first"])  # fmt: skip
    options: Options = {"heads": heads, "entries": entries, "mix": mix, "layout": layout}
    if layout == "separate" and heads in (2, 4) and rng.random() < 0.5:
        options["key_heads"] = heads // 2
    residual = rng.random() < 0.7
    return {**options, "residual": residual, "out": residual or rng.random() < 0.6}


def grouped(x: Stream, *, key_heads: int, times: int) -> nn.Module:
    """scaled_dot_product_attention with enable_gqa."""
    q, kv = nn.Linear(x.channels, key_heads * times * 4), nn.Linear(x.channels, key_heads * 8)

    def run(m: Any, a: Tensor) -> Tensor:
        k, v = (heads_of(y, key_heads) for y in m.kv(a).chunk(2, -1))
        y = F.scaled_dot_product_attention(heads_of(m.q(a), key_heads * times), k, v,
                                           enable_gqa=True)  # fmt: skip
        return joined(y)

    return Do(run, q=q, kv=kv)


def relative(x: Stream, *, heads: int) -> nn.Module:
    """Attention with a learned bias for each head and distance."""
    n = x.shape[1]
    distance = torch.arange(n)[:, None] - torch.arange(n) + n - 1

    def run(m: Any, a: Tensor) -> Tensor:
        q, k, v = fused(m.qkv(a), "three first", heads, 4)
        bias = m.table[m.distance.view(-1)].view(n, n, heads).permute(2, 0, 1)
        return a + m.out(joined(sdpa(attn_mask=bias)(q, k, v)))

    return Do(run, qkv=nn.Linear(x.channels, 12 * heads), out=nn.Linear(4 * heads, x.channels),
              table=param(2 * n - 1, heads), distance=distance)  # fmt: skip


def windows(x: Stream, *, heads: int, shift: int) -> nn.Module:
    """Attention inside 2 x 2 windows of a picture, rolled or not (Swin)."""
    c, (h, w) = x.channels, x.places

    def run(m: Any, a: Tensor) -> Tensor:
        y = a.permute(0, 2, 3, 1)
        y = y.roll((-shift, -shift), (1, 2)) if shift else y
        y = y.reshape(-1, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        q, k, v = fused(m.qkv(y), "three first", heads, 4)
        y = m.out(joined(by_hand(q, k, v)))
        y = y.view(-1, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, h, w, c)
        y = y.roll((shift, shift), (1, 2)) if shift else y
        return a + y.permute(0, 3, 1, 2)

    return Do(run, qkv=nn.Linear(c, 12 * heads), out=nn.Linear(4 * heads, c))


def multihead(x: Stream, *, heads: int, weights: bool) -> nn.Module:
    layer = nn.MultiheadAttention(x.channels, heads, batch_first=True)
    return Do(lambda m, a: m.layer(a, a, a, need_weights=weights)[0], layer=layer)


def some_heads(rng: Random, x: Stream) -> Options | None:
    divisors = x.divisors()
    return {"heads": rng.choice([1, *divisors])} if divisors else None


def encoder(x: Stream, *, heads: int, first: bool) -> nn.Module:
    return nn.TransformerEncoderLayer(x.channels, heads, 11, batch_first=True, norm_first=first)


def heads_and_flag(name: str) -> Callable[[Random, Stream], Options | None]:
    def draw(rng: Random, x: Stream) -> Options | None:
        heads = some_heads(rng, x)
        return heads and {**heads, name: rng.random() < 0.5}

    return draw


# --- recurrent -----------------------------------------------------------------------------------

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def recurrent(
    x: Stream, *, fn: str, width: int, layers: int, both: bool, relu: bool = False
) -> nn.Module:
    more = {"nonlinearity": "relu"} if relu else {}
    layer = LAYERS[fn](x.channels, width, layers, batch_first=True, bidirectional=both, **more)
    return Do(lambda m, a: m.layer(a)[0], layer=layer)


def last_state(x: Stream, *, fn: str, width: int, both: bool) -> nn.Module:
    layer = LAYERS[fn](x.channels, width, batch_first=True, bidirectional=both)

    def run(m: Any, a: Tensor) -> Tensor:
        _, state = m.layer(a)
        state = state[0] if isinstance(state, tuple) else state
        return state.transpose(0, 1).flatten(1) if both else state[-1]

    return Do(run, layer=layer)


def recurring(rng: Random, x: Stream) -> Options:
    fn = rng.choice(list(LAYERS))
    options = {"fn": fn, "width": rng.choice([3, 4, 5, 6, 7, 8]), "layers": rng.choice([1, 1, 2]),
               "both": rng.random() < 0.4}  # fmt: skip
    return {**options, "relu": rng.random() < 0.5} if fn == "rnn" else options


CELLS = {
    "gru": nn.GRUCell,
    "lstm": nn.LSTMCell,
    "rnn_tanh": nn.RNNCell,
    "rnn_relu": lambda c, width: nn.RNNCell(c, width, nonlinearity="relu"),
}


def cell(x: Stream, *, width: int, fn: str = "gru") -> nn.Module:
    """A cell, unrolled by hand for two steps."""

    def run(m: Any, a: Tensor) -> Tensor:
        zero = torch.zeros(a.shape[0], width)
        state: Any = (zero, zero) if fn == "lstm" else zero
        for step in range(2):
            state = m.cell(a[:, step], state)
        last: Tensor = state[0] if fn == "lstm" else state
        return last

    return Do(run, cell=CELLS[fn](x.channels, width))


# --- positions and the like ----------------------------------------------------------------------


def positions(x: Stream, *, fn: str) -> nn.Module:
    n, c = x.shape[1:]
    if fn == "class token":
        return Do(lambda m, a: torch.cat([m.token.expand(a.shape[0], -1, -1), a], 1)
                  + m.table, token=param(1, 1, c), table=param(1, n + 1, c))  # fmt: skip
    if fn == "sliced":
        return Do(lambda m, a: a + m.table[:, : a.shape[1]], table=param(1, n + 3, c))
    if fn == "embedding":
        return Do(lambda m, a: a + m.table(torch.arange(n)), table=nn.Embedding(n, c))
    return Do(lambda m, a: a + m.table, table=param(n, c))


TIME = {
    "arange": lambda a: a * torch.arange(float(a.shape[1]))[:, None] * 0.3,
    "arange_from": lambda a: a + torch.arange(1.0, a.shape[1] + 1.0)[:, None] * 0.3,
    "arange_with_steps": lambda a: a + torch.arange(0.0, 2.0 * a.shape[1], 2.0)[:, None] * 0.1,
    "linspace": lambda a: a * torch.linspace(0.2, 1.0, a.shape[1])[:, None],
    "eye": lambda a: (torch.eye(a.shape[1]) * 0.7) @ a,
    "tril": lambda a: torch.ones(a.shape[1], a.shape[1]).tril() @ a * 0.3,
    "triu": lambda a: torch.ones(a.shape[1], a.shape[1]).triu() @ a * 0.3,
    "scalar": lambda a: a * torch.ops.aten.scalar_tensor.default(0.5),
    "randn": lambda a: a + torch.randn(a.shape[1], 1) * 0,
    "rand": lambda a: a + torch.rand(a.shape[1], 1) * 0,
    "one_hot": lambda a: F.one_hot(torch.tensor([1, 0, 2]), a.shape[1]).to(a.dtype) @ a,
    "gram": lambda a: torch.bmm(a, torch.bmm(a.mT, a)) * 0.05,
    "scores": lambda a: (a @ a.mT * 0.3).softmax(-1) @ a,
    "shifted": lambda a: torch.cat([a[:, 1:], a[:, :1]], 1),
    "difference": lambda a: a[:, 1:] - a[:, :-1],
    "last": lambda a: a + a[:, -1:],
    "bucketize": lambda a: a * torch.bucketize(a.contiguous(), torch.tensor([-1.0, 0.0, 1.0])),
}


def in_time(x: Stream, *, fns: list[str]) -> nn.Module:
    return chained(TIME, fns)


def distances(x: Stream, *, width: int, order: float) -> nn.Module:
    """How near each token is to some learned ones."""
    return Do(lambda m, a: (-torch.cdist(a, m.known[None], p=order)).exp(),
              known=param(width, x.channels))  # fmt: skip


def token_mixer(x: Stream, *, width: int) -> nn.Module:
    """A network over the places of each channel (MLP-Mixer)."""
    n = x.shape[1]
    return Do(lambda m, a: a + m.down(F.gelu(m.up(a.transpose(1, 2)))).transpose(1, 2),
              up=nn.Linear(n, width), down=nn.Linear(width, n))  # fmt: skip


TOKENS = ("tokens",)

STEPS: StepTable = {
    "attention": StepKind(attention, attending, takes=("tokens", "image"), weight=8),
    "grouped": StepKind(grouped, lambda r, x: {"key_heads": r.choice([1, 2, 3]),
                                               "times": r.choice([2, 3])}, takes=TOKENS),
    "relative": StepKind(relative, lambda r, x: {"heads": r.choice([2, 3])}, takes=TOKENS),
    "windows": StepKind(windows, lambda r, x: None if x.places[0] % 2 or x.places[1] % 2 else {
        "heads": r.choice([2, 3]), "shift": r.choice([0, 1])}, takes=("image",), weight=1.5),
    "multihead": StepKind(multihead, heads_and_flag("weights"), takes=TOKENS, weight=1.5),
    "encoder": StepKind(encoder, heads_and_flag("first"), takes=TOKENS),
    "recurrent": StepKind(recurrent, recurring, takes=TOKENS, weight=3),
    "last_state": StepKind(last_state, lambda r, x: {
        "fn": r.choice(["gru", "lstm"]), "width": r.choice([4, 5, 6, 7]),
        "both": r.random() < 0.5}, takes=TOKENS, gives="vector"),
    "cell": StepKind(cell, lambda r, x: {"width": r.choice([5, 6]), **one_of(CELLS)(r, x)}
                     if x.shape[1] > 1 else None, takes=TOKENS, gives="vector", weight=3),
    "distances": StepKind(distances, lambda r, x: {"width": r.choice([4, 5, 7]),
                                                   "order": r.choice([1.0, 2.0])}, takes=TOKENS),
    "positions": StepKind(positions, one_of(["class token", "sliced", "embedding", "table"]),
                          takes=TOKENS, weight=2),
    "in_time": StepKind(in_time, lambda r, x: some_of(TIME, 3)(r, x) if x.shape[1] > 2 else None,
                        takes=TOKENS, weight=6),
    "token_mixer": StepKind(token_mixer, wide, takes=TOKENS),
}  # fmt: skip
