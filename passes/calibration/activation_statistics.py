"""What every layer reads, and how much what it gives matters: one pass over calibration inputs.

    cov      covariance of the columns that a weight is multiplied with, as far as
             halves of the inputs agree about it (`shrinkage.py`)               (forward)
    energy   Σ over outputs o of  gain_o · weight_o weight_oᵀ                   (the weights)
    gain_o   mean over inputs of (d loss / d result_o)², summed over positions  (backward)
    made     what silencing a result costs: its product with its gradient, squared

Rows of a result that the loss does not depend on (padding, what attention masks) do not count.

Errors at the positions of one input add up where they, and the gradients, are alike: before a mean
over positions, all of them do. So the variance of means over positions counts with the gradient of
the mean, and the rest with that of the rest.

With small errors δ in a result, the loss rises by half the mean of (Σ gradient · δ)²: so errors of
all layers are told in the same unit. The loss is that of the original against its own outputs:
the squared difference over their variance. The mean square of its gradient in a random direction is
its curvature (Gauss and Newton's), and needs no labels. Of class scores the logits count, not the
probabilities: on the inputs that a network was trained with those are saturated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from ..coupling.groups import Coupling
from ..ir.labels import Value
from ..ir.leaves import fresh
from ..ir.program import shape_of
from ..operators.regressions import Contraction, Convolution, View
from .divergence import is_scores
from .lockstep import Chunk
from .overflow import refuse_nan, refuse_overflow
from .regression_views import view
from .shrinkage import shrunk

ROWS = 50
"""Rows to measure a covariance with, for each column."""

LEAST_ROWS = 4096


@dataclass(eq=False)
class Reading:
    """One block of what a layer reads. A column is a channel: kernel taps count together."""

    classes: Tensor
    """Class of every column: int64 [columns]."""
    made: tuple[tuple[Tensor, Tensor], ...]
    """Classes of the results that each layer makes of this, and what silencing them costs."""
    cov: Tensor
    """float64 [columns, columns]"""
    energy: Tensor
    """float64 [columns, columns]"""
    norm: Tensor
    """Root of the mean square of every column: float64 [columns], and so on below."""
    magnitude: Tensor
    """Mean of the absolute values."""
    alive: Tensor
    """How often it is not zero."""
    absolute: Tensor
    """Sum of the absolute weights that read it."""

    @property
    def results(self) -> Tensor:
        """Classes of all results that are made of this."""
        return torch.cat([classes for classes, _ in self.made])


def readings(
    coupling: Coupling, chunks: Sequence[Chunk], seed: int = 0, *, original: bool = True
) -> list[Reading]:
    """Everything that the layers read, from these inputs.

    Raises UsageError where an `original` computes no finite numbers.
    """
    program = coupling.program
    tensors = program.tensors()
    layers: dict[Node, View] = {}
    for node in program.calls():
        if isinstance(node.meta.get("val"), Tensor):
            found = view(node, tensors, len(shape_of(node)))
            if isinstance(found, View):
                layers[node] = found
    probe = _Probe(program.module, layers, seed, original)
    for chunk in chunks:
        probe.measure(chunk, len(chunks))
    samples = sum(chunk.samples for chunk in chunks)
    merged: dict[tuple[Node, int], list[Reading]] = {}
    for node, layer in layers.items():
        if node not in probe.gains:  # a branch that did not run
            continue
        for block, reading in enumerate(_blocks(coupling, layer, probe, samples)):
            merged.setdefault((layer.x, block), []).append(reading)
    result: list[Reading] = []
    for alike in merged.values():  # queries, keys and values read the same
        first, *others = alike
        for other in others:
            if torch.equal(first.classes, other.classes):
                first.energy += other.energy
                first.absolute += other.absolute
                first.made += other.made
            else:
                result.append(other)
        result.append(first)
    return result


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums over rows [blocks, n, columns]."""

    count: int
    total: Tensor
    square: Tensor
    """Of products of columns, and so below of magnitudes, and of how many are not 0."""
    magnitude: Tensor
    alive: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> "_Sums":
        """Those of some rows, in float64."""
        return cls(
            rows.shape[1], rows.sum(1), rows.mT @ rows, rows.abs().sum(1), (rows != 0).sum(1)
        )

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(*(a + b for a, b in zip(_fields(self), _fields(other), strict=True)))

    def covariance(self) -> Tensor:
        """float64 [blocks, columns, columns]; 0 where there are no rows."""
        count = max(self.count, 1)
        mean = self.total / count
        return self.square / count - mean[..., None] * mean[:, None]


def _fields(sums: _Sums) -> tuple[Any, ...]:
    return sums.count, sums.total, sums.square, sums.magnitude, sums.alive


class _Probe(Interpreter):
    """Runs the original with gradients, and sums up what goes by."""

    def __init__(
        self, module: GraphModule, layers: dict[Node, View], seed: int, original: bool
    ) -> None:
        super().__init__(module)
        self._graph_module = module
        self.layers = layers
        self.gains: dict[Node, Tensor] = {}
        self.sums: dict[Node, list[_Sums]] = {}
        """Of every second sample, and of the others."""
        self._random = torch.Generator().manual_seed(seed)
        self._nudges: dict[Node, Tensor] = {}
        self._seen: dict[Node, tuple[Tensor, Tensor]] = {}
        self.silenced: dict[Node, Tensor] = {}
        self._share = self._samples = 1
        self._original, self._batch, self._before = original, 0, 0
        self.spreads: dict[Node, list[Any]] = {}
        """Samples, and sums of the means over positions and of squares, whole and of the means."""

    def measure(self, chunk: Chunk, count: int) -> None:
        """One chunk forwards and backwards."""
        self._nudges, self._seen, self._share, self._samples = {}, {}, count, chunk.samples
        self._batch = chunk.batch
        with torch.enable_grad():
            outputs = self.run(*fresh(chunk.leaves), enable_io_processing=False)
            if self._original:
                refuse_nan(self._graph_module, outputs, chunk.batch)
            loss = own_loss(outputs, self._random)
        nodes = list(self._nudges)
        nudges = [self._nudges[node] for node in nodes]
        grads: Sequence[Tensor | None] = [None] * len(nodes)
        if loss is not None and nudges:
            grads = torch.autograd.grad(loss, nudges, allow_unused=True)
        for node, nudge, grad in zip(nodes, nudges, grads, strict=True):
            layer = self.layers[node]
            grad = torch.zeros_like(nudge) if grad is None else grad
            x, result = self._seen[node]
            every = torch.arange(layer.count(grad))
            rows = layer.targets(grad, every).double()
            self.gains[node] = self.gains.get(node, 0) + self._gain(rows)
            parts = self._positions(rows * layer.targets(result, every).double())
            silenced = parts.sum(2).square().sum(1)
            self.silenced[node] = self.silenced.get(node, 0) + silenced
            self._see(node, layer, x, counted(rows) if _by_position(layer) else None)
        self._before += chunk.samples

    def _positions(self, rows: Tensor) -> Tensor:
        """Rows by samples and positions: [blocks, samples, positions, outputs]."""
        samples = self._samples if rows.shape[1] % self._samples == 0 else rows.shape[1]
        parts: Tensor = rows.unflatten(1, (samples, -1))
        return parts

    def _gain(self, rows: Tensor) -> Tensor:
        """Squared gradients, [2, blocks, outputs]: of the mean over positions, and of the rest."""
        parts = self._positions(rows)
        whole = parts.sum(2).square().sum(1)
        rest = parts.square().sum((1, 2)) - whole / parts.shape[2]
        return torch.stack([whole, rest.clamp(min=0)])

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if self._original:
            refuse_overflow(n, result, self._batch)
        layer = self.layers.get(n)
        if layer is not None:
            self._seen[n] = self.env[layer.x].detach(), result.detach()
            nudge = torch.zeros_like(result, requires_grad=True)
            self._nudges[n] = nudge
            result = result + nudge
        return result

    def common(self, node: Node) -> Tensor:
        """Which share of the variance of what a layer reads is that of means over positions."""
        if node not in self.spreads:
            return torch.ones(1, dtype=torch.float64)
        count, total, square, every = self.spreads[node]
        mean = (total / count).square()
        between = (square / count - mean).clamp(min=0).sum(1)
        found: Tensor = (between / (every / count - mean).sum(1).clamp(min=1e-30)).clamp(max=1)
        return found

    def _see(self, node: Node, layer: View, x: Tensor, rows: Tensor | None) -> None:
        """Sums over what a layer reads; `rows` says which of its rows count."""
        every = columns_of(layer, x)
        rows = rows if rows is not None and rows.shape == every.shape[1:2] else None
        if every.shape[1] % self._samples == 0:
            parts = every.unflatten(1, (self._samples, -1))
            flags = torch.ones(parts.shape[1:3]) if rows is None else rows.view(parts.shape[1:3])
            flags = flags.to(every)[None, :, :, None]
            count = flags.sum(2).clamp(min=1)
            means = ((parts * flags).sum(2) / count).double()
            squares = ((parts.square() * flags).sum(2) / count).double()
            seen = [self._samples, means.sum(1), means.square().sum(1), squares.sum(1)]
            known = self.spreads.get(node, [0, 0, 0, 0])
            self.spreads[node] = [a + b for a, b in zip(known, seen, strict=True)]
        sample = torch.arange(every.shape[1]) * self._samples // every.shape[1] + self._before
        if rows is not None:
            every, sample = every[:, rows], sample[rows]
        wanted = max(ROWS * every.shape[2], LEAST_ROWS) // self._share + 1
        if every.shape[1] > wanted:
            some = torch.randint(every.shape[1], (wanted,), generator=self._random)
            every, sample = every[:, some], sample[some]
        halves = [_Sums.of(every[:, sample % 2 == half].double()) for half in (0, 1)]
        if node in self.sums:
            halves = [a + b for a, b in zip(self.sums[node], halves, strict=True)]
        self.sums[node] = halves


def _by_position(layer: View) -> bool:
    """Whether each row of a result is made of one row of what the layer reads."""
    return not isinstance(layer, Convolution) or set(layer.given["weight_shape"][2:]) == {1}


def counted(rows: Tensor) -> Tensor | None:
    """Which rows of gradients [blocks, n, outputs] are not zero; None where all or none are."""
    found = (rows != 0).any(2).any(0)
    return None if bool(found.all()) or not bool(found.any()) else found


def columns_of(layer: View, x: Tensor) -> Tensor:
    """What a layer reads: [blocks, n, columns], pixels for a convolution."""
    if isinstance(layer, Convolution):
        flat = x.movedim(-layer.rank - 1, -1).flatten(0, -2)
        rows: Tensor = flat.unflatten(1, (layer.groups, -1)).movedim(1, 0)
        return rows
    assert isinstance(layer, Contraction)
    return layer.rows(x, (), torch.arange(layer.length(x)))


def own_loss(outputs: Any, random: torch.Generator) -> Tensor | None:
    """The loss of a network against its own outputs: one random direction of them."""
    parts = []
    for out in pytree.tree_leaves(outputs):
        if not isinstance(out, Tensor) or not out.requires_grad:
            continue
        out = torch.where(torch.isfinite(out), out, 0.0)  # what is masked, stays as it is
        noise = torch.randn(out.shape, generator=random).to(out)
        flat = out.detach().flatten(1) if out.dim() > 1 else out.detach().reshape(1, -1)
        if is_scores(out):  # what all classes share changes nothing
            noise = noise - noise.mean(1, keepdim=True)
            flat = flat - flat.mean(1, keepdim=True)
        spread = flat.var(0, correction=0).sum() if len(flat) > 1 else flat.square().sum()
        parts.append((out * noise).sum() / spread.clamp(min=1e-30).sqrt())
    return torch.stack(parts).sum() if parts else None


def _blocks(coupling: Coupling, layer: View, probe: _Probe, samples: int) -> list[Reading]:
    node = layer.node
    weight = coupling.program.tensors()[str(layer.weight.target)].detach().double()
    labels = coupling.state[str(layer.weight.target)]
    whole, rest = probe.gains[node] / (2 * samples)  # [blocks, outputs]
    common = probe.common(node)[:, None]
    gain = common * whole + (1 - common) * rest
    matrix = layer.matrix(weight)
    one, other = probe.sums[node]
    every = one + other
    count = every.count
    cov = shrunk(every.covariance(), one.covariance(), other.covariance())
    taps = matrix.shape[2] // cov.shape[2]
    parts = matrix.unflatten(2, (-1, taps))
    energy = torch.einsum("gict,gi,gidt->gcd", parts, gain, parts)
    silenced = probe.silenced[node] / (2 * samples)
    classes = column_classes(coupling, labels, layer)  # [blocks, outputs, columns * taps, 2]
    inputs = classes[0][:, 0, ::taps]
    outputs = classes[1][:, :, 0]
    return [
        Reading(
            inputs[block],
            ((outputs[block], silenced[block]),),
            cov[block],
            energy[block],
            (every.square[block].diagonal() / count).sqrt(),
            every.magnitude[block] / count,
            every.alive[block].double() / count,
            parts[block].abs().sum((0, 2)),
        )
        for block in range(len(matrix))
    ]


def column_classes(coupling: Coupling, labels: Value, layer: View) -> tuple[Tensor, Tensor]:
    """For each entry of the weight's matrix: the class of its column, and that of its result."""
    found = []
    for axes in layer.axes():
        own = torch.zeros(labels.shape, dtype=torch.long)
        for axis in axes:
            array = labels.on(axis)
            if array is not None:
                own = coupling.classes[array].expand(labels.shape)
        found.append(layer.matrix(own))
    return found[0], found[1]
