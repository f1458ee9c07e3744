"""Attention in the spellings in which it is written."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models._random import normal

from .frames import WIDTH, network, of_family, picture, sentence

HEADS, ENTRIES, LENGTH = 4, 8, 12


def heads(x: Tensor, count: int = HEADS) -> Tensor:
    """[batch, length, channels] -> [batch, heads, length, entries]"""
    return x.view(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


class Attend(nn.Module):
    """Queries, keys, values, and a projection; `mix` is what a subclass writes."""

    def __init__(self, key_heads: int = HEADS) -> None:
        super().__init__()
        self.key_heads = key_heads
        self.q = nn.Linear(WIDTH, HEADS * ENTRIES)
        self.k = nn.Linear(WIDTH, key_heads * ENTRIES)
        self.v = nn.Linear(WIDTH, key_heads * ENTRIES)
        self.out = nn.Linear(HEADS * ENTRIES, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q = heads(self.q(x))
        k, v = heads(self.k(x), self.key_heads), heads(self.v(x), self.key_heads)
        return x + self.out(joined(self.mix(q, k, v)))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q @ k.transpose(-2, -1)) * ENTRIES**-0.5
        return scores.softmax(dim=-1) @ v


class Causal(Attend):
    """The future is masked with masked_fill and tril."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n = q.shape[-2]
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
        past = torch.tril(torch.ones(n, n, dtype=torch.bool))
        scores = scores.masked_fill(~past, float("-inf"))
        return F.softmax(scores, dim=-1) @ v


class Alibi(Attend):
    """A slope for each head, times the distance."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("slopes", 2.0 ** -torch.arange(1.0, HEADS + 1))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        at = torch.arange(q.shape[-2])
        bias = -(at[:, None] - at).abs() * self.slopes[:, None, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


class Relative(Attend):
    """A learned bias for each head and distance, looked up in a table (Swin, T5)."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(2 * LENGTH - 1, HEADS))
        at = torch.arange(LENGTH)
        self.register_buffer("index", at[:, None] - at + LENGTH - 1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bias = self.table[self.index.view(-1)].view(LENGTH, LENGTH, -1).permute(2, 0, 1)
        scores = q @ k.mT * ENTRIES**-0.5 + bias.contiguous().unsqueeze(0)
        return scores.softmax(-1) @ v


class Cosine(Attend):
    """Normalised queries and keys, with a temperature for each head (Swin v2)."""

    def __init__(self) -> None:
        super().__init__()
        self.heat = nn.Parameter(torch.zeros(HEADS, 1, 1))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        return (scores * self.heat.clamp(max=4.6).exp()).softmax(-1) @ v


class Talking(Attend):
    """Heads are mixed before and after the softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(HEADS, HEADS), nn.Linear(HEADS, HEADS)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q @ k.mT * ENTRIES**-0.5
        scores = self.before(scores.permute(0, 2, 3, 1)).softmax(2)
        return self.after(scores).permute(0, 3, 1, 2) @ v


class LinearAttention(Attend):
    """No softmax: keys and values are summed first."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = F.elu(q) + 1, F.elu(k) + 1
        summed = k.transpose(-2, -1) @ v
        scale = 1 / (q * k.sum(dim=-2, keepdim=True)).sum(dim=-1, keepdim=True)
        return q @ summed * scale


class CrossCovariance(Attend):
    """Attention between entries instead of tokens (XCiT)."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = F.normalize(q, dim=-2), F.normalize(k, dim=-2)
        return (v @ (k.mT @ q).softmax(-2)).contiguous()


class Rotary(Attend):
    """Grouped queries with rotary positions (LLaMA)."""

    def __init__(self) -> None:
        super().__init__(key_heads=2)
        self.register_buffer("frequency", 100.0 ** (-torch.arange(0, ENTRIES, 2) / ENTRIES))

    def turn(self, x: Tensor) -> Tensor:
        angle = torch.outer(torch.arange(float(x.shape[-2])), self.frequency)
        angle = torch.cat([angle, angle], -1)
        a, b = x.chunk(2, -1)
        return x * angle.cos() + torch.cat([-b, a], -1) * angle.sin()

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (y.repeat_interleave(HEADS // 2, 1) for y in (self.turn(k), v))
        return F.scaled_dot_product_attention(self.turn(q), k, v, is_causal=True)


class OneKey(Attend):
    """One head of keys and values for all queries (multi-query)."""

    def __init__(self) -> None:
        super().__init__(key_heads=1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k.expand_as(q), v.expand_as(q))


class Einsums(Attend):
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.einsum("bhid,bhjd->bhij", q, k) / ENTRIES**0.5
        return torch.einsum("...ij,...jd->...id", scores.softmax(-1), v)


class InTheBatch(Attend):
    """Heads are folded into the batch, for baddbmm and bmm."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        flat = [y.reshape(-1, y.shape[2], y.shape[3]) for y in (q, k, v)]
        none = torch.zeros(1, 1, 1)
        scores = torch.baddbmm(none, flat[0], flat[1].mT, beta=0, alpha=ENTRIES**-0.5)
        return torch.bmm(scores.softmax(-1), flat[2]).view(q.shape)


class Fused(nn.Module):
    """One projection for all three, cut by a view or by chunks (ViT)."""

    def __init__(self, chunks: bool) -> None:
        super().__init__()
        self.chunks, self.scale = chunks, (WIDTH // HEADS) ** -0.5
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(self.norm(x))
        if self.chunks:
            q, k, v = (heads(y) for y in qkv.chunk(3, dim=-1))
        else:
            q, k, v = qkv.reshape(b, n, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
        scores = (q * self.scale) @ k.transpose(-2, -1)
        return x + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))


class Conv1D(nn.Module):
    """A linear layer with its weight the other way round (GPT-2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.weight = nn.Parameter(torch.zeros(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.size()[:-1], self.outputs)
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(shape)


class GPT2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend, self.out = Conv1D(WIDTH, 3 * WIDTH), Conv1D(WIDTH, WIDTH)
        self.raise_, self.lower = Conv1D(WIDTH, 4 * WIDTH), Conv1D(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads(y) for y in self.attend(x).split(WIDTH, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(joined(y))
        return x + self.lower(F.gelu(self.raise_(x), approximate="tanh"))


class Module(nn.Module):
    """nn.MultiheadAttention of a sequence with itself; masks and biases by options."""

    def __init__(self, masked: bool = False, **options: bool) -> None:
        super().__init__()
        self.masked, self.weights = masked, options.pop("weights", False)
        self.attend = nn.MultiheadAttention(WIDTH, HEADS, **options)

    def forward(self, x: Tensor) -> Tensor:
        past = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1) if self.masked else None
        if not self.attend.batch_first:
            x = x.transpose(0, 1)
        y, shares = self.attend(x, x, x, attn_mask=past, need_weights=self.weights)
        y = y if shares is None else y + shares.mean(-1, keepdim=True)
        return y if self.attend.batch_first else y.transpose(0, 1)


class Crossed(nn.Module):
    """One sequence looks at another, some of which is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(12, WIDTH), nn.Linear(12, WIDTH)
        self.attend = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor, other: Tensor, padding: Tensor) -> Tensor:
        q, k = self.left(x), self.right(other)
        y, _ = self.attend(q, k, k, key_padding_mask=padding, need_weights=False)
        return self.head(q + y)


class Latents(nn.Module):
    """A few learned queries read the sequence (Perceiver), which then reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.zeros(1, 5, WIDTH))
        self.q, self.kv, self.out = (nn.Linear(WIDTH, n * WIDTH) for n in (1, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        q = heads(self.q(self.latent).expand(x.shape[0], -1, -1))
        k, v = (heads(y) for y in self.kv(x).chunk(2, -1))
        read = joined(F.scaled_dot_product_attention(q, k, v))
        return self.out(x + read.mean(1, keepdim=True))


class Pooled(nn.Module):
    """A score for every token; the sum of all, weighed by their softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.score(x).softmax(dim=1)
        return x + (weight.transpose(1, 2) @ x)


class NonLocal(nn.Module):
    """Every pixel looks at every other (non-local network)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta, self.phi, self.g = (nn.Conv2d(WIDTH, 16, 1) for _ in range(3))
        self.out = nn.Conv2d(16, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        theta, phi, g = (y(x).view(b, 16, -1) for y in (self.theta, self.phi, self.g))
        scores = torch.bmm(theta.transpose(1, 2), phi).softmax(-1)
        return x + self.out(torch.bmm(g, scores.transpose(1, 2)).view(b, 16, h, w))


class Axial(nn.Module):
    """Attention along rows, then along columns, which are folded into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns = Attend(), Attend()

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        x = self.rows(x.permute(0, 2, 3, 1).reshape(b * h, w, c)).view(b, h, w, c)
        x = self.columns(x.transpose(1, 2).reshape(b * w, h, c)).view(b, w, h, c)
        return x.permute(0, 3, 2, 1)


class Halo(nn.Module):
    """Blocks of 4 x 4 pixels look at 8 x 8 around them (HaloNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv = nn.Conv2d(WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, 2 * WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q = self.q(x).view(b, HEADS, c // HEADS, h // 4, 4, w // 4, 4)
        q = q.permute(0, 1, 3, 5, 4, 6, 2).reshape(b, HEADS, -1, 16, c // HEADS)
        kv = F.pad(self.kv(x), (2, 2, 2, 2)).unfold(2, 8, 4).unfold(3, 8, 4)
        kv = kv.reshape(b, HEADS, 2 * c // HEADS, -1, 64).permute(0, 1, 3, 4, 2)
        k, v = kv.split([c // HEADS, c // HEADS], dim=-1)
        y = F.scaled_dot_product_attention(q, k, v)
        y = y.view(b, HEADS, h // 4, w // 4, 4, 4, c // HEADS)
        return y.permute(0, 1, 6, 2, 4, 3, 5).reshape(b, c, h, w)


class ShiftedWindows(nn.Module):
    """Windows of 4 x 4, shifted by half a window, masked where they wrap around (Swin)."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = Fused(chunks=False)
        part = (torch.arange(8) >= 4).long() + (torch.arange(8) >= 6).long()
        self.register_buffer("part", part[:, None] * 3 + part)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        x = torch.roll(x.permute(0, 2, 3, 1), (-2, -2), (1, 2))
        x = x.view(b, 2, 4, 2, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b * 4, 16, c)
        x = self.attend(x)
        x = x.view(b, 2, 2, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return torch.roll(x, (2, 2), (1, 2)).permute(0, 3, 1, 2)


class ReducedKeys(nn.Module):
    """Keys and values of a smaller picture (PVT), and a depthwise position encoding (CvT)."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.reduce, self.norm = nn.Conv2d(WIDTH, WIDTH, 2, 2), nn.LayerNorm(WIDTH)
        self.q, self.kv, self.out = (nn.Linear(WIDTH, n * WIDTH) for n in (1, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.place(x)
        b, c, h, w = x.shape
        small = self.norm(self.reduce(x).reshape(b, c, -1).permute(0, 2, 1))
        kv = self.kv(small).reshape(b, -1, 2, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
        q = heads(self.q(x.flatten(2).transpose(1, 2)))
        y = self.out(joined(F.scaled_dot_product_attention(q, kv[0], kv[1])))
        return y.transpose(1, 2).view(b, c, h, w)


def padding() -> Tensor:
    return torch.arange(7).expand(2, 7) >= torch.tensor([[5], [7]])


CASES = of_family(
    "attention",
    sentence("attention_by_hand", Attend),
    sentence("attention_causal", Causal),
    sentence("attention_alibi", Alibi),
    sentence("relative_position_bias", Relative),
    sentence("cosine_attention", Cosine),
    sentence("talking_heads", Talking),
    sentence("linear_attention", LinearAttention),
    sentence("cross_covariance", CrossCovariance),
    sentence("rotary_grouped_query", Rotary),
    sentence("multi_query", OneKey),
    sentence("attention_einsum", Einsums),
    sentence("attention_in_the_batch", InTheBatch),
    sentence("fused_qkv_view", lambda: Fused(chunks=False)),
    sentence("fused_qkv_chunk", lambda: Fused(chunks=True)),
    sentence("gpt2_block", GPT2),
    sentence("mha_batch_first", lambda: Module(batch_first=True)),
    sentence("mha_sequence_first", lambda: Module(masked=True)),
    sentence("mha_bias_kv", lambda: Module(batch_first=True, add_bias_kv=True)),
    sentence("mha_zero_attention", lambda: Module(batch_first=True, add_zero_attn=True)),
    sentence("mha_with_weights", lambda: Module(batch_first=True, weights=True)),
    network("mha_cross_padded", Crossed,
            (normal(2, 12, 12), normal(2, 7, 12, seed=1), padding())),
    sentence("latent_queries", Latents),
    sentence("attention_pooling", Pooled),
    picture("non_local", NonLocal),
    picture("axial_attention", Axial),
    picture("halo_attention", Halo),
    picture("shifted_windows", ShiftedWindows),
    picture("reduced_keys", ReducedKeys),
)  # fmt: skip
