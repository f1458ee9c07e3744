"""Layer by layer: the small network is refitted while it runs beside the original.

weights      least squares from its inputs there to its outputs in the original
wide layers  one map of channels, which all kernel taps share: there are too many columns
recurrent    the weights that read the input of the first layer
batch norm   one scale and one shift a channel (`operators/batch_norm.py`)

What an activation behind a layer cuts off, on both sides, is no error (`activation_aware.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

from ..calibration.lockstep import Chunk, Room, Strand
from ..calibration.regression_views import norm_of, recurrent, view
from ..coupling.groups import Coupling
from ..coupling.sizes import Sizes
from ..ir.labels import Value
from ..ir.modes import trains
from ..ir.program import Program, by_name, fetch, shape_of, where
from ..operators import row_of
from ..operators.batch_norm import Norm, Sums
from ..operators.kernels import ADDITION, nothing
from ..operators.movement import same
from ..operators.regressions import Contraction, Convolution, View
from ..planning.choice import Plan
from .activation_aware import KEPT, Drawn, Rows, ends, spread, through
from .least_squares import Fit, Moments, fit

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


@dataclass(frozen=True)
class Path:
    """From a layer to the activation behind it, through at most one batch norm and one sum."""

    norm: Norm | None
    other: Node | None
    """The other operand of the sum."""
    flat: tuple[float, float] | None = None
    """Between which numbers the activation is not flat."""


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
        rows: int = ROWS,
        memory: int | None = None,
        kept: int = KEPT,
    ) -> None:
        """`rows` to fit for each column, at most; `kept` is the bytes of rows that are kept.

        Chunks run together from the start, or, with `memory` in bytes, as soon as it has room for
        their inputs and activations.
        """
        modules = plan.coupling.program.module, small.module
        largest = max(chunks, key=lambda chunk: chunk.samples)
        self._kept, self._waiting = kept, list(chunks)
        self._room: Room | None = None
        if memory is not None:
            self._room = Room.of(modules, plan.coupling.program, largest, memory)
        self.small, self._flags, self.statistics, self._each = small, held, statistics, rows
        self.coupling: Coupling = plan.coupling
        self.sizes: Sizes = plan.sizes
        self.teacher = Strand(plan.coupling.program.module, (), original=True)
        self.pupil = Strand(small.module, ())
        self.layers: list[Layer] = []
        self.moments = 0
        """Bytes that rows of one layer and their moments took, at most."""
        self.bytes = 0
        """What that, inputs and activations took, at most, where it is known how much is held."""
        self._settled: set[str] = set()
        """Means of norms that took the bias of the layer before them."""
        self._random = torch.Generator().manual_seed(0)
        self._tensors = small.tensors()
        self._uses = _uses(small)
        self._admit()

    @property
    def held(self) -> list[bool]:
        """Which of the chunks that run are held out."""
        return self._flags[: self.pupil.count]

    def _admit(self) -> None:
        """Let chunks join that there is room for; one to fit to and one to judge by, always."""
        count, end, most = self.pupil.count, len(self.teacher.nodes) - 1, len(self._flags)
        places = (end if self.statistics else self.teacher.at, self.pupil.at)
        if self._room is not None:
            least = max(self._flags.index(True), self._flags.index(False)) + 1
            most = max(self._room.count(*places, chunks=most), least)
        joining = self._waiting[: max(most - count, 0)]
        self._waiting = self._waiting[len(joining) :]
        for chunk in joining:
            self.teacher.join(chunk)
            self.pupil.join(chunk)
        if self._room is not None:
            held = self._room.taken(*places, running=self.pupil.count, chunks=len(self._flags))
            self.bytes = max(self.bytes, held + self.moments)

    @torch.no_grad()
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
        self._admit()

    # --- layers ---------------------------------------------------------------------------------

    def _layer(self, node: Node, twin: Node) -> None:
        kind = getattr(node.target, "_schema", None)
        if kind is None:
            return
        inner = recurrent(node, self._tensors)
        if inner:
            self._recurrent(inner, node, twin)
            return
        val = twin.meta.get("val")
        found = view(node, self._tensors, len(shape_of(twin))) if isinstance(val, Tensor) else ""
        if found == "":
            return
        kind = kind.name.removeprefix("aten::")
        why = found if isinstance(found, str) else self._unfit(found, twin)
        if why or isinstance(found, str):
            self.layers.append(Layer(where(twin), kind, 0, 0, 0, 0, why))
            return
        self._stop_before(node, twin)
        columns = found.matrix(self._tensors[str(found.weight.target)].detach()).shape[2]
        if columns > COLUMNS:
            self._wide(found, twin, kind, columns)
            return
        self.teacher.advance(self.teacher.place[twin.name] + 1)
        self._solve(
            found, where(twin), kind, self._path(node), lambda chunk: self._cut(chunk, twin)
        )

    def _unfit(self, found: View, twin: Node) -> str:
        shared = [n for n in (found.weight, found.bias) if n and self._uses[str(n.target)] > 1]
        if shared:
            return f"{shared[0].target} is used in several places"
        if not isinstance(self.coupling.trace.results[twin], Value):
            return "its result has several parts"
        return ""

    def _solve(
        self, found: View, name: str, kind: str, path: "Path", target: Callable[[int], Tensor]
    ) -> None:
        weight = self._tensors[str(found.weight.target)]
        bias = None if found.bias is None else self._tensors[str(found.bias.target)]
        start = found.matrix(weight.detach())
        blocks, outputs, columns = start.shape
        rows, held = Moments(blocks, columns, outputs), Moments(blocks, columns, outputs)
        wanted, number = self._wanted(columns), len(self.layers)

        def draw(chunk: int) -> Rows:
            random = torch.Generator().manual_seed((number << 32) + chunk)
            return self._rows(found, path, chunk, wanted, target(chunk), random)

        drawn = draw if path.flat is None else Drawn(draw, self._kept)
        for chunk, out in enumerate(self.held):
            u, y, *_ = drawn(chunk)
            (held if out else rows).add(u, y)
        kept = drawn.bytes if isinstance(drawn, Drawn) else 0
        self.moments = max(self.moments, rows.bytes + held.bytes + kept)
        own = torch.zeros(blocks, outputs) if bias is None else bias.detach().reshape(-1)
        free = path.norm is not None or (bias is not None and bias.numel() == blocks * outputs)
        if own.numel() != blocks * outputs:
            own = own.expand(blocks, outputs)
        own, present = own.reshape(blocks, outputs), path.norm is None
        result, far = fit(rows, held, start, own, free=free, present=present), held.spread()
        if path.flat is not None:
            result = through(drawn, self.held, (rows, held), (start, own), result,
                             free=free, present=present)  # fmt: skip
            far = spread(drawn, self.held)
        self._note(name, kind, result, far, columns)
        if result.after < result.before:
            weight.data.copy_(found.folded(result.weight, weight))
            if bias is not None and free:
                bias.data.copy_(result.bias.reshape(bias.shape))
            if path.norm is not None and path.flat is not None:
                self._settle(path.norm, result, bias is None)

    def _settle(self, norm: Norm, result: Fit, without: bool) -> None:
        """The norm stays as the fit took it for; its mean takes the bias of a layer `without`."""
        if without:
            mean = self._tensors[norm.mean]
            mean.data.sub_(result.bias.reshape(mean.shape))
        self._settled.add(norm.mean)

    def _wanted(self, columns: int) -> int:
        """Rows to look at of each chunk."""
        return max(self._each * columns, LEAST_ROWS) // max(self.held.count(False), 1) + 1

    # --- wide layers, and recurrent ones ----------------------------------------------------------

    def _wide(self, found: View, twin: Node, kind: str, columns: int) -> None:
        """The best map from the channels that stay to all that were, folded into the weights."""
        name = where(twin)
        source = self._twin(found.x)
        value = None if source is None else self.coupling.trace.results[source]
        weight = self._tensors[str(found.weight.target)]
        place = 0 if isinstance(found, Convolution) and found.transposed else 1
        channels = weight.shape[place]
        plain = isinstance(found, Convolution) and found.groups == 1 and channels <= COLUMNS
        if not plain or not isinstance(value, Value) or source is None:
            why = f"it has {columns} columns, more than can be solved"
            self.layers.append(Layer(name, kind, 0, 0, 0, columns, why))
            return
        assert isinstance(found, Convolution)
        axis = value.rank - found.rank - 1
        stays = self.sizes.kept(value, axis)
        start = torch.eye(len(stays))[:, stays][None]
        rows, held = (Moments(1, channels, len(stays)) for _ in range(2))
        for chunk, out in enumerate(self.held):
            u, y = (
                one.movedim(axis, -1).flatten(0, -2)
                for one in (self.pupil.value(chunk, found.x), self.teacher.value(chunk, source))
            )
            picked = torch.randint(len(u), (self._wanted(channels),), generator=self._random)
            (held if out else rows).add(u[picked][None], y[picked][None])
        self.moments = max(self.moments, rows.bytes + held.bytes)
        result = fit(rows, held, start, torch.zeros(1, len(stays)), free=True)
        self._note(name, kind, result, held.spread(), columns)
        if result.after < result.before:
            self._fold(found, weight, place, result)

    def _fold(self, found: View, weight: Tensor, place: int, result: Fit) -> None:
        """The original's weights, times the map of channels."""
        own = str(found.weight.target)
        whole = self.coupling.program.tensors()[own].detach().double()
        kept = self.sizes.kept(self.coupling.state[own], 1 - place)
        whole = whole.index_select(1 - place, torch.nonzero(kept)[:, 0]).movedim(place, 0)
        mapped = torch.tensordot(result.weight[0].T, whole, 1)
        weight.data.copy_(mapped.movedim(0, place))
        if found.bias is not None:
            summed = whole.flatten(2).sum(2) if whole.dim() > 2 else whole
            shift = result.bias[0] @ summed
            self._tensors[str(found.bias.target)].data.add_(shift)

    def _recurrent(self, inner: list[Contraction], node: Node, twin: Node) -> None:
        """What the first layer reads, in each direction; what it remembers stays as it is."""
        self._stop_before(node, twin)
        kind = node.target._schema.name.removeprefix("aten::")  # type: ignore[union-attr]
        source = self._twin(inner[0].x)
        assert source is not None
        for found in inner:
            name = f"{where(twin)} {found.weight.target}"
            shared = [n for n in (found.weight, found.bias) if n and self._uses[str(n.target)] > 1]
            if shared:
                why = f"{shared[0].target} is used in several places"
                self.layers.append(Layer(name, kind, 0, 0, 0, 0, why))
                continue
            own = str(found.weight.target)
            kept = self.sizes.kept(self.coupling.state[own], 0)
            tensors = self.coupling.program.tensors()
            weight = tensors[own].detach()[kept]
            bias = None if found.bias is None else tensors[str(found.bias.target)].detach()[kept]

            def target(chunk: int, weight: Tensor = weight, bias: Tensor | None = bias) -> Tensor:
                return F.linear(self.teacher.value(chunk, source), weight, bias)

            self._solve(found, name, kind, Path(None, None), target)

    def _note(self, name: str, kind: str, result: Fit, far: float, columns: int) -> None:
        """`far` is how far the targets are from their mean, as a mean square."""
        far = far or 1.0
        why = "" if result.after < result.before else "no refit is better on held-out inputs"
        self.layers.append(
            Layer(
                name,
                kind,
                result.before / far,
                result.after / far,
                result.ridge,
                columns,
                why,
            )
        )

    def _rows(
        self,
        found: View,
        path: "Path",
        chunk: int,
        wanted: int,
        y: Tensor,
        random: torch.Generator,
    ) -> Rows:
        """Some rows of one chunk: inputs of the small network, targets of the original."""
        x = self.pupil.value(chunk, found.x)
        count = found.count(y)
        few = torch.randint(count, (wanted,), generator=random)
        picked = slice(None) if count <= wanted else few
        u = found.rows(x, y.shape, picked)
        target = found.targets(y, picked).double()
        if path.other is not None:
            gap = found.targets(self._gap(chunk, path.other), picked).double()
            if path.norm is not None:
                axis = gap.shape[0] * gap.shape[-1]
                gap = gap * self._undone(path.norm).reshape(gap.shape[0], 1, axis // gap.shape[0])
            target = target + gap
        if path.flat is None:
            return Rows(u, target)
        target = target.to(u.dtype)
        moved = 0.0 if path.other is None else self.pupil.value(chunk, path.other)
        moved = found.targets(moved, picked) if isinstance(moved, Tensor) else moved
        scale = shift = None
        if path.norm is not None:
            each = (target.shape[0], 1, target.shape[2])
            scale = path.norm.scale(self._tensors).reshape(each)
            shift = path.norm.shift(self._tensors).reshape(each)
        return Rows(u, target, *ends(path.flat, moved, scale, shift, target))

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
            elif row_of(user).fusion == ADDITION:
                other = self._other(user, at, node)
                after = next(iter(user.users)) if other and len(user.users) == 1 else None
                return Path(norm, other, self._flat(after, norm))
            elif not _passes_on(user):
                return Path(norm, None, self._flat(user, norm))
            at = user
        return Path(norm, None)

    def _flat(self, node: Node | None, norm: Norm | None) -> tuple[float, float] | None:
        """Between which numbers an activation is not flat. None where what stands before it cannot
        be taken for what it is: a norm that others use has to follow them all."""
        if node is None or (norm is not None and self._shared(norm)):
            return None
        found = row_of(node).flat
        return None if found is None else found(node)

    def _shared(self, norm: Norm) -> bool:
        return any(self._uses[name] > 1 for name in norm.statistics)

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
        if norm.mean in self._settled:
            return
        if self._shared(norm):
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
    """Whether a call hands its input on as it is: a copy, or dropout in eval mode."""
    row = row_of(node)
    kinds = {one.meta["val"].dtype for one in (node, *node.all_input_nodes) if row.move is same}
    return row.kernel is nothing and len(kinds) == 1 and not trains(node)


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
