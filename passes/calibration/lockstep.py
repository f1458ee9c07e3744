"""Two networks side by side, node by node, over all calibration inputs at once.

    chunk 1   conv1 bn1 relu | conv2
    chunk 2   conv1 bn1 relu | conv2        everything before the bar is done, of every chunk;
    chunk 3   conv1 bn1 relu | conv2        conv2 may get other weights before it runs

So each layer can be solved on what the layers before it, already repaired, give. What is kept are
the values that are needed later, at the bar: one frontier for each chunk.

Frontiers are large at the first layers of a network on pictures, where one picture has thousands of
rows, and small at the last ones, where it has one. So chunks join at the bar where there is `Room`
for them: what is before it runs once for each chunk, whenever that joins.
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from ..base.errors import UsageError
from ..ir.leaves import fresh, tensors
from ..ir.program import Program, shares_batch
from .overflow import refuse_nan, refuse_overflow

CHUNK = 32
"""Samples that run together, at most, where the batch size is free."""

SHARE = 6
"""Of the samples one in so many is held out, at least."""

LEAST = 32
"""Samples that are held out, at least, unless that is more than half of them."""

PIECES = 12
"""Chunks that run together at the first layers, where samples can be told apart and memory has room
for as many of them."""


@dataclass(frozen=True)
class Chunk:
    """Some calibration inputs: the leaves of a call, as the graph takes them."""

    leaves: tuple[Any, ...]
    samples: int
    key: int
    """Of their contents: the same inputs are held out in whatever order they come."""
    loss: Callable[[Any], Tensor] | None = None
    """Of the outputs, for gradients; None for the distance from the original's own."""
    batch: int = 0
    """Number of the batch that it was part of, from 1."""


def sampled(
    calls: Iterable[tuple[Any, Any]],
    program: Program,
    most: int = CHUNK,
    limit: Callable[[Chunk], int] | None = None,
) -> tuple[list[Chunk], int]:
    """Chunks of at most `most` samples, `SHARE` of them where possible; how many were given.

    Of more chunks than `limit` says (asked with the first) those with the smallest keys are taken,
    and the others forgotten on the way: the same ones in whatever order they come. Raises
    UsageError where there is only one chunk: some have to be held out.
    """
    examples = pytree.tree_leaves((program.args, dict(program.kwargs)))
    flags = [shares_batch(example, program.batch) for example in examples]
    found: list[Chunk] = []
    given, count = 0, None
    for number, (args, kwargs) in enumerate(calls, 1):
        leaves = tuple(pytree.tree_leaves((args, dict(kwargs))))
        given += _samples(leaves, flags)
        found += _parts(leaves, flags, most, number)
        if limit is not None and count is None:
            count = max(limit(found[0]), 2)
        if count is not None and len(found) >= 2 * count:
            found = [_owned(chunk) for chunk in _first(found, count)]
    found = _first(found, len(found) if count is None else count)
    if len(found) < SHARE:
        size = max(sum(chunk.samples for chunk in found) // SHARE, 1)
        pieces = [
            part for chunk in found for part in _parts(chunk.leaves, flags, size, chunk.batch)
        ]
        found = _first(pieces, len(pieces))
    if len(found) < 2:
        raise UsageError(
            "one calibration input is too few",
            why="weights are fitted to some, and judged by others",
            hint="some hundred are a good start",
        )
    return found, given


def _owned(chunk: Chunk) -> Chunk:
    """The same, without the rest of the batch that it was part of."""
    leaves = (leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in chunk.leaves)
    return replace(chunk, leaves=tuple(leaves))


def smaller(chunks: Sequence[Chunk], program: Program, size: int) -> list[Chunk]:
    """The same samples in chunks of at most so many, where they can be told apart."""
    examples = pytree.tree_leaves((program.args, dict(program.kwargs)))
    flags = [shares_batch(example, program.batch) for example in examples]
    found = [part for one in chunks for part in _parts(one.leaves, flags, size, one.batch)]
    return _first(found, len(found))


def _first(chunks: list[Chunk], count: int) -> list[Chunk]:
    return sorted(chunks, key=lambda chunk: chunk.key)[:count]


def _samples(leaves: Sequence[Any], flags: Sequence[bool]) -> int:
    return next((len(leaf) for leaf, flag in zip(leaves, flags, strict=True) if flag), 1)


def _parts(leaves: tuple[Any, ...], flags: Sequence[bool], size: int, batch: int) -> list[Chunk]:
    if not any(flags):
        return [Chunk(leaves, 1, _key(leaves), batch=batch)]
    pairs = list(zip(leaves, flags, strict=True))
    found = []
    for at in range(0, _samples(leaves, flags), size):
        part = tuple(leaf[at : at + size] if flag else leaf for leaf, flag in pairs)
        found.append(Chunk(part, _samples(part, flags), _key(part), batch=batch))
    return found


def _key(leaves: Sequence[Any]) -> int:
    key = 0
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            flat = leaf.detach().cpu().reshape(-1).view(torch.uint8)
            key = zlib.crc32(flat.numpy().tobytes(), key)
    return key


def held_out(chunks: Sequence[Chunk], share: int = SHARE, least: int = LEAST) -> list[bool]:
    """Which chunks are held out: every so manieth, the first one of them.

    Those are one in `share` samples, and `least` of them where that is no more than half.
    """
    total = sum(chunk.samples for chunk in chunks)
    wanted = max(total / share, min(least, total / 2))
    flags: list[bool] = []
    seen = held = 0
    for chunk in chunks:
        seen += chunk.samples
        out = held < wanted * seen / total and held + chunk.samples <= total / 2
        held += chunk.samples if out else 0
        flags.append(out)
    return flags


class Strand:
    """One network, run over all chunks; every chunk stands before the same node."""

    def __init__(
        self, module: GraphModule, chunks: Sequence[Chunk], *, original: bool = False
    ) -> None:
        """Of an `original`, layers have to give finite numbers, and outputs no NaN."""
        self._module, self._original = module, original
        self._batches: list[int] = []
        self.nodes: list[Node] = list(module.graph.nodes)
        self.place = {node.name: index for index, node in enumerate(self.nodes)}
        self.at = 0
        self.outputs: list[list[Tensor]] = []
        self._runs: list[Interpreter] = []
        for chunk in chunks:
            self.join(chunk)

    @property
    def count(self) -> int:
        """How many chunks run."""
        return len(self._runs)

    def join(self, chunk: Chunk) -> None:
        """One chunk more, up to where the others are."""
        run = Interpreter(self._module)
        run.args_iter = iter(fresh(chunk.leaves))
        for node in self.nodes[: self.at]:
            self._step(run, node, chunk.batch)
        self._runs.append(run)
        self._batches.append(chunk.batch)

    def value(self, chunk: int, node: Node) -> Any:
        """What a node gave, or a literal argument."""
        return self._runs[chunk].env[node]

    def advance(self, stop: int | None = None) -> None:
        """Run every chunk up to the node of this number, not included; by default to the end."""
        stop = len(self.nodes) if stop is None else stop
        for node in self.nodes[self.at : stop]:
            for run, batch in zip(self._runs, self._batches, strict=True):
                self._step(run, node, batch)
        self.at = max(self.at, stop)

    def _step(self, run: Interpreter, node: Node, batch: int) -> None:
        with torch.no_grad():
            run.env[node] = run.run_node(node)
        if self._original:
            refuse_overflow(node, run.env[node], batch)
        if node.op == "output":
            if self._original:
                refuse_nan(self._module, run.env[node], batch)
            self.outputs.append(tensors(run.env[node]))
        for done in run.user_to_last_uses.get(node, []):
            run.env.pop(done, None)

    def held(self, chunk: int) -> int:
        """Bytes of results that a chunk keeps for later."""
        stored = {
            leaf.untyped_storage().data_ptr(): leaf.untyped_storage().nbytes()
            for node, value in self._runs[chunk].env.items()
            if node.op == "call_function"
            for leaf in tensors(value)
        }
        return sum(stored.values())


def outputs(module: GraphModule, chunks: Sequence[Chunk]) -> list[list[Tensor]]:
    """What a network gives for every chunk, one after another."""
    found = []
    for chunk in chunks:
        strand = Strand(module, [chunk])
        strand.advance()
        found += strand.outputs
    return found


@dataclass(frozen=True)
class Room:
    """How many chunks can run through networks side by side, at each place of theirs."""

    memory: int
    """Bytes."""
    samples: int
    """Of each chunk."""
    inputs: float
    """Bytes that a sample is."""
    later: tuple[tuple[float, ...], ...]
    """Of each network, and each place of it, the most bytes that a sample keeps from there on."""

    @classmethod
    def of(
        cls, modules: Sequence[GraphModule], program: Program, chunk: Chunk, memory: int
    ) -> "Room":
        """For chunks like this one of calls of `program`: two samples of it are run."""
        some = smaller([chunk], program, 2)[0]
        inputs = sum(leaf.nbytes for leaf in some.leaves if isinstance(leaf, Tensor))
        later = (_frontiers(module, some) for module in modules)
        each = tuple(tuple(most / some.samples for most in own) for own in later)
        return cls(memory, chunk.samples, inputs / some.samples, each)

    def bytes(self, *places: int) -> float:
        """What a sample keeps, at most, from these places of the networks on."""
        return sum(own[place] for own, place in zip(self.later, places, strict=True))

    def count(self, *places: int, chunks: int = 0) -> int:
        """How many can run from these places on, beside the inputs of so many `chunks`."""
        left = self.memory - chunks * self.samples * self.inputs
        return int(left / self.samples / max(self.bytes(*places), 1.0))

    def taken(self, *places: int, running: int, chunks: int) -> int:
        """Bytes that chunks which are `running` take from these places on, and inputs of all."""
        return int(self.samples * (chunks * self.inputs + running * self.bytes(*places)))

    @property
    def total(self) -> int:
        """How many can come to the end: their inputs take half of the memory at most."""
        last = self.count(*(len(own) - 1 for own in self.later))
        return min(int(self.memory / 2 / self.samples / max(self.inputs, 1.0)), last // 2)

    @property
    def piece(self) -> int:
        """Samples of a chunk of which `PIECES` can run together from the start."""
        most = self.memory / 2 / PIECES / max(self.bytes(*(0 for _ in self.later)), 1.0)
        return max(min(int(most), self.samples), 1)


def fitting(chunks: list[Chunk], program: Program, room: Room) -> list[Chunk]:
    """The same samples in chunks of which enough can run together."""
    if max(chunk.samples for chunk in chunks) > room.piece:
        return smaller(chunks, program, room.piece)
    return chunks


def _frontiers(module: GraphModule, chunk: Chunk) -> list[int]:
    strand = Strand(module, [chunk])
    held = [0]
    for stop in range(1, len(strand.nodes)):
        strand.advance(stop)
        held.append(strand.held(0))
    most = list(accumulate(reversed(held), max))
    return most[::-1]
