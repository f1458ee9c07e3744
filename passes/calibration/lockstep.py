"""Two networks side by side, node by node, over all calibration inputs at once.

    chunk 1   conv1 bn1 relu | conv2
    chunk 2   conv1 bn1 relu | conv2        everything before the bar is done, of every chunk;
    chunk 3   conv1 bn1 relu | conv2        conv2 may get other weights before it runs

So each layer can be solved on what the layers before it, already repaired, give. What is kept are
the values that are needed later, at the bar: one frontier for each chunk.
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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
"""Every so manieth chunk is held out."""


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
            found = _first(found, count)
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


def held_out(count: int, share: int = SHARE) -> list[bool]:
    """Which of so many chunks are held out: every so manieth."""
    step = min(share, count)
    return [index % step == step - 1 for index in range(count)]


class Strand:
    """One network, run over all chunks; every chunk stands before the same node."""

    def __init__(
        self, module: GraphModule, chunks: Sequence[Chunk], *, original: bool = False
    ) -> None:
        """Of an `original`, layers have to give finite numbers, and outputs no NaN."""
        self._module, self._original = module, original
        self._batches = [chunk.batch for chunk in chunks]
        self.nodes: list[Node] = list(module.graph.nodes)
        self.place = {node.name: index for index, node in enumerate(self.nodes)}
        self.at = 0
        self.outputs: list[list[Tensor]] = []
        self._runs = [Interpreter(module) for _ in chunks]
        for run, chunk in zip(self._runs, chunks, strict=True):
            run.args_iter = iter(fresh(chunk.leaves))

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


def frontier(module: GraphModule, chunk: Chunk) -> int:
    """The most bytes that a chunk ever keeps on its way through a network."""
    strand = Strand(module, [chunk])
    most = 0
    for stop in range(1, len(strand.nodes)):
        strand.advance(stop)
        most = max(most, strand.held(0))
    return most
