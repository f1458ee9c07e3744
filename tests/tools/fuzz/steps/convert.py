"""Steps from one kind of stream to another, the inputs, and what reads the ends."""

from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .table import Do, Options, StepKind, StepTable, Stream, one_of, param, pure, wide

aten = torch.ops.aten
PICTURES = ("sound", "image", "volume")


def to_tokens(x: Stream, *, fn: str) -> nn.Module:
    if fn == "flatten":
        return pure(lambda a: a.flatten(2).transpose(1, 2))
    if fn == "reshape":
        return pure(lambda a: a.movedim(1, -1).reshape(a.shape[0], -1, a.shape[1]))
    return pure(lambda a: a.reshape(a.shape[0], x.channels, -1).permute(0, 2, 1))


def to_image(x: Stream, *, fn: str) -> nn.Module:
    h, w = sides(x.shape[1])
    if fn == "view":
        return pure(lambda a: a.transpose(1, 2).reshape(-1, x.channels, h, w))
    return pure(lambda a: a.unflatten(1, (h, w)).permute(0, 3, 1, 2))


def sides(n: int) -> tuple[int, int]:
    """The most square picture with n places."""
    h = max(d for d in range(1, int(n**0.5) + 1) if n % d == 0)
    return h, n // h


def to_vector(x: Stream, *, fn: str) -> nn.Module:
    places = tuple(a for a in range(1, x.value.dim()) if a != x.axis)
    return pure({
        "mean": lambda a: a.mean(places),
        "max": lambda a: a.amax(places),
        "sum": lambda a: a.sum(places) * 0.2,
        "prod": lambda a: a.tanh().prod(places[0]).flatten(1),
        "squeeze": lambda a: squeezed(a.mean(places, keepdim=True), places),
        "squeeze_each": lambda a: squeezed_each(a.mean(places, keepdim=True), places),
        "squeeze_all": lambda a: a.mean(places, keepdim=True).squeeze(),
        "flatten": lambda a: a.flatten(1),
        "view": lambda a: a.reshape(a.shape[0], -1),
    }[fn])  # fmt: skip


def squeezed(a: Tensor, places: tuple[int, ...]) -> Tensor:
    return a.squeeze(places)


def squeezed_each(a: Tensor, places: tuple[int, ...]) -> Tensor:
    for axis in reversed(places):
        a = a.squeeze(axis)
    return a


def to_vector_options(rng: Random, x: Stream) -> Options:
    names = ["mean", "mean", "max", "sum", "squeeze", "squeeze_each", "squeeze_all"]
    if torch.Size(x.shape[1:]).numel() <= 128:
        names += ["flatten", "view", "prod"]
    return {"fn": rng.choice(names)}


def from_vector(x: Stream, *, channels: int, size: int, kind: str) -> nn.Module:
    """A linear layer whose result is viewed as a picture, a sound or tokens."""
    shape = {
        "image": (channels, size, size),
        "sound": (channels, size * size),
        "tokens": (size + 2, channels),
    }[kind]
    layer = nn.Linear(x.channels, torch.Size(shape).numel())
    return Do(lambda m, a: m.layer(a).view(-1, *shape), layer=layer)


def sizes(kind: str) -> Any:
    return lambda rng, x: {"channels": rng.choice([4, 5, 6, 8]), "size": rng.choice([2, 3]),
                           "kind": kind}  # fmt: skip


def to_sound(x: Stream) -> nn.Module:
    return pure(lambda a: a.flatten(2)) if x.axis == 1 else pure(lambda a: a.mT)


def sound_to_image(x: Stream, *, depth: bool) -> nn.Module:
    return pure(lambda a: a.unsqueeze(2)) if depth else pure(
        lambda a: a.view(-1, x.channels, *sides(x.shape[2])))  # fmt: skip


def to_volume(x: Stream, *, depth: int) -> nn.Module:
    """Part of the channels become places; with depth 1 none do."""
    return pure(lambda a: a.unflatten(1, (-1, depth)))


def deep(rng: Random, x: Stream) -> Options:
    return {"depth": rng.choice([1, 1, *(d for d in (2, 3, 4) if x.channels % d == 0)])}


def volume_to_image(x: Stream, *, fn: str) -> nn.Module:
    return pure((lambda a: a.flatten(1, 2)) if fn == "flatten" else (lambda a: a.mean(2)))


def pixel_shuffle(x: Stream) -> nn.Module:
    return nn.PixelShuffle(2)


def pixel_unshuffle(x: Stream) -> nn.Module:
    return nn.PixelUnshuffle(2)


# --- algebra on vectors --------------------------------------------------------------------------

VECTORS = {
    "mm": lambda m, a: torch.mm(a, m.w.t()),
    "mv": lambda m, a: a * torch.mv(a, m.v)[:, None].tanh(),
    "dot": lambda m, a: a * torch.dot(m.u, m.r),
    "outer": lambda m, a: a @ torch.outer(m.v, m.u),
    "addmm": lambda m, a: torch.addmm(m.u, a, m.w.t(), beta=2, alpha=0.5),
    "linear_to_a_number": lambda m, a: a * F.linear(a, m.v)[:, None].tanh(),
    "t": lambda m, a: a.t().relu().t(),
    "T": lambda m, a: a.T.tanh().T,
    "unsafe_view": lambda m, a: aten._unsafe_view.default(a, [a.shape[0], 1, a.shape[1]])[:, 0],
    "view_as": lambda m, a: a.unsqueeze(2).view_as(a),
    "reshape_as": lambda m, a: a.unsqueeze(1).reshape_as(a),
    "expand_as": lambda m, a: F.linear(a, m.v)[:, None].expand_as(a) + a,
    "einsum": lambda m, a: torch.einsum("bc,oc->bo", a, m.w),
    "einsum_without_arrow": lambda m, a: torch.einsum("bc,oc", a, m.w),
    "einsum_of_three": lambda m, a: torch.einsum("bc,oc,o->bo", a, m.w, m.u),
    "einsum_norm": lambda m, a: a * torch.einsum("bc,bc->b", a, a)[:, None].tanh(),
}


def vectors(x: Stream, *, fn: str, width: int) -> nn.Module:
    c = x.channels
    return Do(VECTORS[fn], w=param(width, c), v=param(c), u=param(width), r=param(width))


# --- inputs and heads ----------------------------------------------------------------------------


def embed(x: Stream, *, width: int) -> nn.Module:
    """Words to vectors."""
    return nn.Embedding(int(x.value.max()) + 3, width)


def bag(x: Stream, *, width: int, mode: str) -> nn.Module:
    """The sum, mean or maximum of the vectors of all words."""
    return nn.EmbeddingBag(int(x.value.max()) + 3, width, mode=mode)


def head(x: Stream, *, how: str, width: int = 3) -> nn.Module:
    """What reads the end of a stream: an output. `raw` gives the stream itself."""
    if how == "raw":
        return nn.Identity()
    if how == "flatten":
        return nn.Sequential(nn.Flatten(1), nn.Linear(torch.Size(x.shape[1:]).numel(), width))
    if how == "each":
        return Do(lambda m, a: m.layer(a.movedim(x.axis, -1)), layer=nn.Linear(x.channels, width))
    places = tuple(a for a in range(1, x.value.dim()) if a != x.axis)
    return Do(lambda m, a: m.layer(a.mean(places) if places else a),
              layer=nn.Linear(x.channels, width))  # fmt: skip


def odd_head(x: Stream, *, fn: str) -> nn.Module:
    """Results whose size depends on the numbers."""
    return pure(torch.nonzero if fn == "nonzero" else lambda a: a.masked_select(a > 0))


HEADS = ("mean", "mean", "mean", "flatten", "each", "raw")

STEPS: StepTable = {
    "to_tokens": StepKind(to_tokens, one_of(["flatten", "reshape", "view"]), takes=PICTURES,
                          gives="tokens", weight=3),
    "to_image": StepKind(to_image, one_of(["view", "unflatten"]), takes=("tokens",),
                         gives="image", weight=1.5),
    "to_vector": StepKind(to_vector, to_vector_options, takes=(*PICTURES, "tokens"),
                          gives="vector", weight=4),
    "vector_to_image": StepKind(from_vector, sizes("image"), takes=("vector",), gives="image"),
    "vector_to_sound": StepKind(from_vector, sizes("sound"), takes=("vector",), gives="sound"),
    "vector_to_tokens": StepKind(from_vector, sizes("tokens"), takes=("vector",),
                                 gives="tokens"),
    "to_sound": StepKind(to_sound, takes=("image", "volume", "tokens"), gives="sound"),
    "sound_to_image": StepKind(sound_to_image, lambda r, x: {"depth": r.random() < 0.5},
                               takes=("sound",), gives="image"),
    "to_volume": StepKind(to_volume, deep, takes=("image",), gives="volume"),
    "volume_to_image": StepKind(volume_to_image, one_of(["flatten", "mean"]), takes=("volume",),
                                gives="image", weight=2),
    "pixel_shuffle": StepKind(
        pixel_shuffle, lambda r, x: {} if x.channels % 4 == 0 and x.places[0] <= 4 else None,
        takes=("image",), weight=4),
    "pixel_unshuffle": StepKind(
        pixel_unshuffle, lambda r, x: None if x.channels > 12 or any(n % 2 for n in x.places)
        else {}, takes=("image",), weight=2),
    "vectors": StepKind(vectors, lambda r, x: {**one_of(VECTORS)(r, x), **wide(r, x)},
                        takes=("vector",), weight=11),
}  # fmt: skip
ENDS: StepTable = {
    "head": StepKind(
        head, lambda r, x: {"how": r.choice(HEADS), "width": r.choice([2, 3, 5])}, gives="end"
    ),
    "odd_head": StepKind(odd_head, one_of(["nonzero", "masked_select"]), gives="end"),
}
WORDS: StepTable = {
    "embed": StepKind(embed, wide, takes=("words",), gives="tokens"),
    "bag": StepKind(
        bag,
        lambda r, x: {**wide(r, x), "mode": r.choice(["sum", "mean", "max"])},
        takes=("words",),
        gives="vector",
    ),
}
