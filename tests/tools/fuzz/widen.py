"""How each kind of step is written into a wider one: its options, and where the living weights are.

conv        weight [out, in]    rows of dead outputs are random, columns of dead inputs zero
batch norm  weight [in]         random for dead channels
attention   q, k, v, out        a whole dead head, which the output projection does not read
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from tests.tools.fuzz.network import Unfit
from tests.tools.fuzz.steps.table import Options, Stream

Axis = tuple[str, int]
"""A weight of a step, by its name there, and one of its dimensions."""
Mask = Callable[[int], tuple[int, Tensor]]
"""The size of a wider axis, and its living positions, for a number of channels."""


@dataclass(frozen=True)
class Source:
    """A stream that a step reads: narrow, wide, and which channels of the wide one live."""

    narrow: Stream
    wide: Stream
    alive: Tensor


@dataclass(frozen=True)
class Widened:
    """The options of the wider step; living positions along the axes of its weights."""

    options: Options
    made: dict[Axis, Tensor] = field(default_factory=dict)
    """Axes of what a step gives: random where they are dead."""
    read: dict[Axis, Tensor] = field(default_factory=dict)
    """Axes of what it takes: zero where they are dead."""

    @property
    def axes(self) -> dict[Axis, Tensor]:
        return {**self.made, **self.read}


def write(wide: nn.Module, narrow: nn.Module, widened: Widened) -> None:
    """Put the weights of the narrow step at the living positions of the wide one's."""
    target = wide.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in narrow.state_dict().items():
            place = target[name]
            alive = [widened.axes.get((name, d), torch.arange(n)) for d, n in
                     enumerate(place.shape)]  # fmt: skip
            if [len(one) for one in alive] != list(tensor.shape):
                raise Unfit(f"{name} does not fit")
            for dim, positions in enumerate(alive):
                if (name, dim) in widened.read:
                    place.index_fill_(dim, dead(positions, place.shape[dim]), 0.0)
            if alive:
                place[torch.meshgrid(*alive, indexing="ij")] = tensor
            else:
                place.copy_(tensor)


def dead(alive: Tensor, size: int) -> Tensor:
    flags = torch.ones(size, dtype=torch.bool)
    flags[alive] = False
    return flags.nonzero().flatten()


def layer(name: str, alive: Tensor, dim: int = 0) -> dict[Axis, Tensor]:
    """Weight along `dim`, and the bias where there is one."""
    return {(f"{name}weight", dim): alive, (f"{name}bias", 0): alive}


# --- one function a kind of step -----------------------------------------------------------------


def conv(options: Options, mask: Mask, x: Source) -> Widened:
    groups, c = options.get("groups", 1), x.narrow.channels
    if groups == 1:
        size, alive = mask(options["width"])
        return Widened({**options, "width": size}, layer("", alive), {("weight", 1): x.alive})
    if groups == c:
        times = options["width"] // c
        made = (x.alive[:, None] * times + torch.arange(times)).flatten()
        wide = {"groups": x.wide.channels, "width": x.wide.channels * times}
        return Widened({**options, **wide}, layer("", made))
    inside = in_rows(x, groups)
    extra = options["width"] // groups + 1
    rows = torch.arange(groups)[:, None] * extra
    made = (rows + torch.arange(extra - 1)).flatten()
    return Widened({**options, "width": extra * groups}, layer("", made), {("weight", 1): inside})


def in_rows(x: Source, rows: int) -> Tensor:
    """Living positions inside every row of the channels, where they are the same in all."""
    if x.wide.channels % rows:
        raise Unfit("uneven rows")
    inside = (x.alive % (x.wide.channels // rows)).reshape(rows, -1)
    row = x.alive.reshape(rows, -1) // (x.wide.channels // rows)
    same = bool((row == torch.arange(rows)[:, None]).all()) and bool((inside == inside[0]).all())
    if not same:
        raise Unfit("rows live in different places")
    return inside[0]


def conv_transposed(options: Options, mask: Mask, x: Source) -> Widened:
    if options["groups"] != 1:
        raise Unfit("groups")
    size, alive = mask(options["width"])
    return Widened({**options, "width": size}, layer("", alive, 1), {("weight", 0): x.alive})


def linear(options: Options, mask: Mask, x: Source) -> Widened:
    size, alive = mask(options["width"])
    wide = {**options, "width": size}
    if options["how"] == "matmul":
        return Widened(wide, {("w", 1): alive}, {("w", 0): x.alive})
    if options["how"] == "einsum":
        return Widened(wide, {("w", 0): alive}, {("w", 1): x.alive})
    name = "" if x.narrow.axis == x.narrow.value.dim() - 1 else "layer."
    return Widened(wide, layer(name, alive), {(f"{name}weight", 1): x.alive})


def embed(options: Options, mask: Mask, x: Source) -> Widened:
    size, alive = mask(options["width"])
    return Widened({**options, "width": size}, {("weight", 1): alive})


def norm(options: Options, mask: Mask, x: Source) -> Widened:
    if options["fn"] not in ("batch", "instance"):
        raise Unfit("statistics over channels")
    name = "layer." if x.narrow.axis != 1 else ""
    stats = {(f"{name}running_{what}", 0): x.alive for what in ("mean", "var")}
    return Widened(options, {**layer(name, x.alive), **stats})


def prelu(options: Options, mask: Mask, x: Source) -> Widened:
    if options["shared"]:
        return Widened(options)
    return Widened(options, {("weight", 0): x.alive, ("layer.weight", 0): x.alive})


def with_param(options: Options, mask: Mask, x: Source) -> Widened:
    return Widened(options, {("p", x.narrow.axis - 1): x.alive})


def excite(options: Options, mask: Mask, x: Source) -> Widened:
    size, inner = mask(options["width"])
    made = {**layer("down.", inner), **layer("up.", x.alive)}
    return Widened({**options, "width": size}, made,
                   {("down.weight", 1): x.alive, ("up.weight", 1): inner})  # fmt: skip


def feed_forward(options: Options, mask: Mask, x: Source) -> Widened:
    size, inner = mask(options["width"])
    up = torch.cat([inner, inner + size]) if options["fn"] == "chunked" else inner
    made = {**layer("up.", up), **layer("gate.", inner), **layer("down.", x.alive)}
    read = {("up.weight", 1): x.alive, ("gate.weight", 1): x.alive, ("down.weight", 1): inner}
    return Widened({**options, "width": size}, made, read)


def one_gate(options: Options, mask: Mask, x: Source) -> Widened:
    return Widened(options, read={("layer.weight", 1): x.alive})


def attention(options: Options, mask: Mask, x: Source) -> Widened:
    """One dead head more, anywhere among them."""
    heads, d = options["heads"], options["entries"]
    if options.get("key_heads") or heads < 2:
        raise Unfit("heads that share keys")
    size, alive = mask(heads)
    rows = (alive[:, None] * d + torch.arange(d)).flatten()
    where = torch.arange(3 * size * d)
    three = {
        "heads first": where.view(size, 3, d)[alive],
        "chunk of heads": where.view(size, 3 * d)[alive],
    }.get(options["layout"], where.view(3, size, d)[:, alive])
    made = {**layer("qkv.", three.flatten()), **layer("out.", x.alive)}
    for name in "qkv":
        made |= layer(f"{name}.", rows)
    if not options["residual"]:
        made |= layer("out.", rows)
    read = {(f"{name}.weight", 1): x.alive for name in ("q", "k", "v", "qkv")}
    read[("out.weight", 1)] = rows
    return Widened({**options, "heads": size}, made, read)


def recurrent(options: Options, mask: Mask, x: Source) -> Widened:
    if options["layers"] != 1 or options["both"]:
        raise Unfit("several layers")
    size, alive = mask(options["width"])
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[options["fn"]]
    rows = torch.cat([alive + size * gate for gate in range(gates)])
    made = {(f"layer.{name}_l0", 0): rows
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}  # fmt: skip
    read = {("layer.weight_ih_l0", 1): x.alive, ("layer.weight_hh_l0", 1): alive}
    return Widened({**options, "width": size}, made, read)


def row_product(options: Options, mask: Mask, x: Source) -> Widened:
    return Widened(options, read={("w", 1): in_rows(x, options["count"])})


def positions(options: Options, mask: Mask, x: Source) -> Widened:
    last = {"class token": 2, "sliced": 2}.get(options["fn"], 1)
    return Widened(options, {("table", last): x.alive, ("token", 2): x.alive,
                             ("table.weight", 1): x.alive})  # fmt: skip


def split(options: Options, mask: Mask, x: Source) -> Widened:
    """Cut between the same living channels; dead ones go to either side."""
    ends = torch.tensor(options["sizes"]).cumsum(0)[:-1]
    cuts = [0, *x.alive[ends].tolist(), x.wide.channels]
    sizes = [b - a for a, b in pairwise(cuts)]
    return Widened({**options, "sizes": sizes})


def head(options: Options, mask: Mask, x: Source) -> Widened:
    if options["how"] != "flatten":
        return Widened(options, read={("layer.weight", 1): x.alive})
    places = torch.arange(torch.Size(x.wide.shape[1:]).numel()).view(x.wide.shape[1:])
    alive = places.index_select(x.wide.axis - 1, x.alive).flatten()
    return Widened(options, read={("1.weight", 1): alive})


def plain(options: Options, mask: Mask, *sources: Source) -> Widened:
    """Neither weights nor options count channels."""
    return Widened(options)


PLAIN = (
    "unary", "binary", "cat", "cat_places", "chunk", "glu", "slices", "orders", "longer", "shuffle",
    "rows", "fewer", "stack_of", "reduced", "pooled", "to_tokens", "to_image", "to_vector",
    "to_sound", "sound_to_image", "to_volume", "volume_to_image", "pixel_shuffle",
    "pixel_unshuffle", "in_time", "token_mixer", "place_linear",
)  # fmt: skip

WIDENED: dict[str, Callable[..., Widened]] = {
    **dict.fromkeys(PLAIN, plain),
    "attention": attention,
    "conv": conv,
    "conv_transposed": conv_transposed,
    "embed": embed,
    "excite": excite,
    "feed_forward": feed_forward,
    "head": head,
    "linear": linear,
    "norm": norm,
    "one_gate": one_gate,
    "param": with_param,
    "positions": positions,
    "prelu": prelu,
    "recurrent": recurrent,
    "row_product": row_product,
    "split": split,
}


def widen(op: str, options: Options, mask: Mask, sources: Sequence[Source]) -> Widened:
    """The wider step of a kind. Raises Unfit where there is none."""
    made: Any = WIDENED[op](options, mask, *sources)
    assert isinstance(made, Widened)
    return made
