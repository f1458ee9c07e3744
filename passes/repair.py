"""Repair without training: every layer refitted, in closed form, to what the original computed.

    for each layer of the small network, in the order in which they run:
        weights      least squares from its inputs there to its outputs in the original
        batch norm   one scale and one shift a channel, to the same end

The inputs are those of the small network as repaired so far. The target carries what the layers
before could not mend: before ``+ shortcut`` it is the original's sum less the small network's own
shortcut. Everything is judged on inputs that nothing was fitted to, layer by layer and as a whole.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import Node

from .agreement import divergence
from .contract import PassResult, apply
from .coupling import Coupling
from .duet import Chunk, Strand, clone, frontier, held_out, sampled
from .errors import ContractError
from .labels import Value
from .norms import Norm, Sums, norm_of
from .plan import Plan
from .program import Program, fetch, shape_of, where
from .regress import Fit, Moments, fit
from .sizes import Sizes
from .valueless import require_values
from .views import View, by_name, view

aten = torch.ops.aten

COLUMNS = 6000
"""A layer with more is solved by channels, all of whose kernel taps move together."""

ROWS = 100
"""Rows to fit, for each column."""

LEAST_ROWS = 4096


@dataclass(frozen=True)
class Layer:
    """One layer that was looked at."""

    name: str
    kind: str
    before: float
    """Held-out error as sliced, relative to the spread of what the original gives there."""
    after: float
    ridge: float
    columns: int
    why: str = ""
    """Why it was left as it was; empty where it was refitted."""


@dataclass(frozen=True, eq=False)
class Repaired(PassResult):
    """A repaired program, and how it came about."""

    layers: tuple[Layer, ...] = ()
    chosen: str = ""
    """"refit", "statistics" (batch norms alone), or "sliced": whichever agrees best."""
    divergences: Mapping[str, float] = field(default_factory=dict)
    """How far each of them is from the original on the held-out inputs."""
    samples: Mapping[str, int] = field(default_factory=dict)
    """Inputs that were given, used and held out."""
    bytes: int = 0
    """The most that activations and moments took together."""


@dataclass(frozen=True, eq=False)
class Repair:
    """Refit the small program of `plan` on calibration inputs: pairs (args, kwargs).

    `memory` bounds the bytes of activations: inputs beyond it are not used.
    """

    plan: Plan
    calls: Iterable[tuple[Any, Any]]
    memory: int = 1 << 30
    name: ClassVar[str] = "repair"

    def requires(self, before: Program) -> None:
        coupling, sizes = self.plan.coupling, self.plan.sizes
        own = before.tensors()
        require_values(own.values(), "repairing a network")
        for name, value in coupling.state.items():
            if name in own and tuple(own[name].shape) != sizes.shape(value):
                raise ContractError(f"{name} is not as this plan cuts it")

    def run(self, before: Program) -> Repaired:
        original = self.plan.coupling.program
        each = [0]

        def limit(chunk: Chunk) -> int:
            each[0] = frontier(original.module, chunk) + frontier(before.module, chunk)
            return self.memory // max(each[0], 1)

        chunks, given = sampled(self.calls, original, limit=limit)
        held = held_out(len(chunks))
        refit = Duet(self.plan, clone(before), chunks, held)
        refit.run()
        wanted = refit.teacher.outputs
        tried = {"refit": (refit.small, refit.pupil.outputs)}
        if any(norm_of(node) for node in before.calls()):
            plain = Duet(self.plan, clone(before), chunks, held, statistics=True)
            plain.run()
            tried["statistics"] = (plain.small, plain.pupil.outputs)
        sliced = Strand(before.module, [c for c, out in zip(chunks, held, strict=True) if out])
        sliced.advance()
        judged = [one for one, out in zip(wanted, held, strict=True) if out]
        found = {"sliced": divergence(judged, sliced.outputs)}
        for name, (_, outputs) in tried.items():
            own = [one for one, out in zip(outputs, held, strict=True) if out]
            found[name] = divergence(judged, own)
        best = min(found, key=lambda name: found[name])
        program = tried[best][0] if best in tried else before
        return Repaired(
            program,
            tuple(_line(layer) for layer in refit.layers if not layer.why)
            if best == "refit"
            else (),
            tuple(refit.layers),
            best,
            found,
            {
                "given": given,
                "used": sum(chunk.samples for chunk in chunks),
                "held_out": sum(c.samples for c, out in zip(chunks, held, strict=True) if out),
            },
            each[0] * len(chunks) + refit.moments,
        )

    def ensures(self, before: Program, after: Program) -> None:
        old, new = before.tensors(), after.tensors()
        if old.keys() != new.keys():
            raise ContractError("the repair made or lost tensors")
        for name, tensor in new.items():
            if tensor.shape != old[name].shape or tensor.dtype != old[name].dtype:
                raise ContractError(f"{name} changed its form in the repair")
            floating = tensor.is_floating_point()
            if floating and bool((~torch.isfinite(tensor) & torch.isfinite(old[name])).any()):
                raise ContractError(f"{name} is not finite after the repair")


def mend(step: Repair, small: Program) -> Repaired:
    """Run the pass with its checks, as `apply` does."""
    result = apply(step, small)
    assert isinstance(result, Repaired)
    return result


def _line(layer: Layer) -> str:
    return f"{layer.name}: error {layer.before:.3g} -> {layer.after:.3g}"


@dataclass(frozen=True)
class Path:
    """From a layer to the sum that it goes into, through at most one batch norm."""

    norm: Norm | None
    other: Node | None


class Duet:
    """The original and the small network side by side; the small one is repaired on the way."""

    def __init__(
        self,
        plan: Plan,
        small: Program,
        chunks: list[Chunk],
        held: list[bool],
        *,
        statistics: bool = False,
    ) -> None:
        self.small, self.held, self.statistics = small, held, statistics
        self.coupling: Coupling = plan.coupling
        self.sizes: Sizes = plan.sizes
        self.teacher = Strand(plan.coupling.program.module, chunks)
        self.pupil = Strand(small.module, chunks)
        self.layers: list[Layer] = []
        self.moments = 0
        self._random = torch.Generator().manual_seed(0)
        self._tensors = small.tensors()
        self._uses = _uses(small)

    def run(self) -> None:
        """Both to the end. With `statistics` only batch norms change, to their own moments."""
        for node in self.pupil.nodes:
            twin = self._twin(node)
            if twin is None or node.op != "call_function":
                continue
            norm = norm_of(node)
            if norm is not None:
                self._stop_before(node, twin)
                self._norm(norm, twin)
            elif not self.statistics:
                self._layer(node, twin)
        if not self.statistics:
            self.teacher.advance()
        self.pupil.advance()

    def _twin(self, node: Node) -> Node | None:
        place = self.teacher.place.get(node.name)
        return None if place is None else self.teacher.nodes[place]

    def _stop_before(self, node: Node, twin: Node) -> None:
        self.pupil.advance(self.pupil.place[node.name])
        if not self.statistics:
            self.teacher.advance(self.teacher.place[twin.name])

    # --- layers ---------------------------------------------------------------------------------

    def _layer(self, node: Node, twin: Node) -> None:
        val = twin.meta.get("val")
        found = view(node, self._tensors, len(shape_of(twin))) if isinstance(val, Tensor) else ""
        if found == "":
            return
        kind = node.target._schema.name.removeprefix("aten::")  # type: ignore[union-attr]
        if isinstance(found, View):
            why = self._unfit(found, twin)
            if not why:
                self._stop_before(node, twin)
                self.teacher.advance(self.teacher.place[twin.name] + 1)
                self._solve(found, twin, kind)
                return
        else:
            why = found
        self.layers.append(Layer(where(twin), kind, 0, 0, 0, 0, why))

    def _unfit(self, found: View, twin: Node) -> str:
        shared = [n for n in (found.weight, found.bias) if n and self._uses[str(n.target)] > 1]
        if shared:
            return f"{shared[0].target} is used in several places"
        if not isinstance(self.coupling.trace.results[twin], Value):
            return "its result has several parts"
        return ""

    def _solve(self, found: View, twin: Node, kind: str) -> None:
        weight = self._tensors[str(found.weight.target)]
        bias = None if found.bias is None else self._tensors[str(found.bias.target)]
        path = self._path(found.node)
        start = found.matrix(weight.detach())
        blocks, outputs, columns = start.shape
        if columns > COLUMNS:
            self.layers.append(
                Layer(where(twin), kind, 0, 0, 0, columns, "it has too many columns")
            )
            return
        rows, held = Moments(blocks, columns, outputs), Moments(blocks, columns, outputs)
        wanted = max(ROWS * columns, LEAST_ROWS) // max(self.held.count(False), 1) + 1
        for chunk, out in enumerate(self.held):
            u, y = self._rows(found, twin, path, chunk, wanted)
            (held if out else rows).add(u, y)
        self.moments = max(self.moments, rows.bytes + held.bytes)
        own = torch.zeros(blocks, outputs) if bias is None else bias.detach().reshape(-1)
        free = path.norm is not None or (bias is not None and bias.numel() == blocks * outputs)
        if own.numel() != blocks * outputs:
            own = own.expand(blocks, outputs)
        result = fit(rows, held, start, own.reshape(blocks, outputs), free=free,
                     present=path.norm is None)  # fmt: skip
        self._note(where(twin), kind, result, held, columns)
        if result.after < result.before:
            weight.data.copy_(found.folded(result.weight, weight))
            if bias is not None and free:
                bias.data.copy_(result.bias.reshape(bias.shape))

    def _note(self, name: str, kind: str, result: Fit, held: Moments, columns: int) -> None:
        spread = held.spread() or 1.0
        why = "" if result.after < result.before else "no refit is better on held-out inputs"
        self.layers.append(
            Layer(
                name,
                kind,
                result.before / spread,
                result.after / spread,
                result.ridge,
                columns,
                why,
            )
        )

    def _rows(
        self, found: View, twin: Node, path: Path, chunk: int, wanted: int
    ) -> tuple[Tensor, Tensor]:
        """Some rows of one chunk: inputs of the small network, targets of the original."""
        y = self._cut(chunk, twin)
        x = self.pupil.value(chunk, found.x)
        count = found.count(y)
        few = torch.randint(count, (wanted,), generator=self._random)
        picked = torch.arange(count) if count <= wanted else few
        u = found.rows(x, y.shape, picked)
        target = found.targets(y, picked).double()
        if path.other is not None:
            gap = found.targets(self._gap(chunk, path.other), picked).double()
            if path.norm is not None:
                axis = gap.shape[0] * gap.shape[-1]
                gap = gap * self._undone(path.norm).reshape(gap.shape[0], 1, axis // gap.shape[0])
            target = target + gap
        return u, target

    def _cut(self, chunk: int, twin: Node) -> Tensor:
        """What the original gave at a node, of the channels that stay."""
        value = self.coupling.trace.results[twin]
        return self.sizes.cut(self.teacher.value(chunk, twin), value)

    def _gap(self, chunk: int, other: Node) -> Tensor:
        """What the other operand of the sum lacks."""
        twin = self._twin(other)
        assert twin is not None
        missing: Tensor = self._cut(chunk, twin) - self.pupil.value(chunk, other)
        return missing

    def _undone(self, norm: Norm) -> Tensor:
        """What a norm divides by, over what it multiplies with; 0 where it passes nothing on."""
        scale = norm.scale(self._tensors).double()
        return torch.where(scale.abs() > 1e-6, 1 / scale, 0.0)

    def _path(self, node: Node) -> Path:
        """The batch norm behind a layer, and the shortcut that is added to it."""
        norm: Norm | None = None
        at = node
        for _ in range(6):
            if len(at.users) != 1:
                return Path(norm, None)
            user = next(iter(at.users))
            here = norm_of(user)
            if here is not None and here.x is at and norm is None:
                norm = here
            elif user.target in (aten.add.Tensor, aten.add_.Tensor):
                return Path(norm, self._other(user, at, node))
            elif not _passes_on(user):
                return Path(norm, None)
            at = user
        return Path(norm, None)

    def _other(self, total: Node, at: Node, node: Node) -> Node | None:
        """The other operand of a sum, where it is there before `node` in both networks."""
        given = by_name(total)
        operands = [given["self"], given["other"]]
        others = [one for one in operands if one is not at]
        if len(others) != 1 or not isinstance(others[0], Node) or given.get("alpha", 1) != 1:
            return None
        other, twin, twins = others[0], self._twin(others[0]), self._twin(node)
        if (
            twin is None
            or twins is None
            or self.pupil.place[other.name] > self.pupil.place[node.name]
        ):
            return None
        if not isinstance(twin.meta.get("val"), Tensor) or shape_of(twin) != shape_of(twins):
            return None
        return other

    # --- batch norms ----------------------------------------------------------------------------

    def _norm(self, norm: Norm, twin: Node) -> None:
        if any(self._uses[name] > 1 for name in norm.statistics):
            why = f"{norm.statistics[0]} is used in several places"
            self.layers.append(Layer(where(twin), "batch_norm", 0, 0, 0, 0, why))
            return
        there = norm_of(twin)
        assert there is not None
        fitted, held = Sums(), Sums()
        other = None if self.statistics else self._path_behind(norm)
        for chunk, out in enumerate(self.held):
            x = self.pupil.value(chunk, norm.x)
            if self.statistics:
                fitted.add(x, x)
                continue
            target = self._cut(chunk, there.x)
            if other is not None:
                undone = self._undone(norm).to(x.dtype)
                view = [-1 if axis == 1 else 1 for axis in range(x.dim())]
                target = target + self._gap(chunk, other) * undone.reshape(view)
            (held if out else fitted).add(x, target)
        if self.statistics:
            norm.measure(self._tensors, fitted)
            return
        before, after = norm.follow(self._tensors, fitted, held)
        why = "" if after < before else "no other statistics are better on held-out inputs"
        self.layers.append(Layer(where(twin), "batch_norm", before, after, 0, 1, why))

    def _path_behind(self, norm: Norm) -> Node | None:
        return self._path(norm.node).other


def _passes_on(node: Node) -> bool:
    """Whether a call hands its input on as it is."""
    if node.target in (aten.alias.default, aten.clone.default, aten.contiguous.default):
        return True
    dropped = node.target in (aten.dropout.default, aten.dropout_.default)
    return dropped and not by_name(node).get("train")


def _uses(program: Program) -> dict[str, int]:
    """How many calls read each tensor, under whatever name."""
    names: dict[int, list[str]] = {}
    count: dict[str, int] = {}
    for node in program.module.graph.nodes:
        if node.op == "get_attr":
            tensor = fetch(program.module, str(node.target))
            names.setdefault(id(tensor), []).append(str(node.target))
            count[str(node.target)] = count.get(str(node.target), 0) + len(node.users)
    return {name: sum(count[one] for one in set(own)) for own in names.values() for name in own}
