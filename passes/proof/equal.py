"""Removing equals silencing.

    reference   the original graph, every parameter element of a removed channel set to zero
    small       the graph after the surgery

Both run in float64 on the same inputs and must agree to 1e-9, once with the weights of the user and
once with all of them stirred, at another batch size: no branch that is silent by itself hides a
mistake. The reference is in `silenced_reference.py`; what "agree" means is in `ir/compare.py`.

Differences are over the largest number of their slice, along every axis, plus a thousandth of the
largest of the output. So there is a floor: in a slice that is a millionth of that largest number a
mistake of a millionth is just seen, and what is below 1e-12 of the largest number never is.

An output that never changes with the inputs says nothing. Other inputs and other weights are then
tried; of flags and whole numbers the last numbers before them are compared too
(`steps_of_numbers.py`). Where no output says anything there is no proof.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from ..base.errors import UsageError, WrongError
from ..base.minimise import runs, smallest
from ..calibration.steps_of_numbers import loose, output_names, output_nodes, sources
from ..ir.compare import APART, LEAST, Gap, Output, Seen, gap, merged, refuse_nothing, worst
from ..ir.dtypes import array, as_it_is, float64_by_default, forget, in_float64, widened
from ..ir.fake_weights import require_values
from ..ir.labels import Value
from ..ir.leaves import fresh, tensors
from ..ir.pass_base import apply
from ..ir.program import Program, where
from ..planning.choice import Plan
from ..transforms.prune import Shrink
from .random_weights import Called, moved, other_batch, stirred
from .silenced_reference import Silenced, silenced

TOLERANCE = 1e-9
TOLERANCE_FLOAT32 = 1e-4
"""Only where the model cannot run in float64; the report then says so."""

SCALES = (4.0, 1 / 16, -1.0, 64.0, 1e-3)
"""Of the inputs, tried in turn while some output does not change with them."""


@dataclass(frozen=True)
class Proof:
    """How far the small network is from the silenced original."""

    max_abs: float
    max_rel: float
    """Largest difference over the magnitude of what lies around it in the same output."""
    dtype: str
    tolerance: float
    inexact: tuple[str, ...]
    """Norms whose statistics now run over fewer channels, by the user's module path and line."""
    outputs: tuple[Output, ...] = ()
    """The same for each output, and where nothing was compared."""

    @property
    def holds(self) -> bool:
        return self.max_rel <= self.tolerance


def prove(
    plan: Plan, small: Program, inputs: Sequence[Called], other: Called | None = None
) -> Proof:
    """Compare the small program with the silenced original on every (args, kwargs) of `inputs`.

    It is compared once more with other weights, on `other` (by default the last of the inputs).
    Raises WrongError that names the smallest set of groups which shows the difference, SilentError
    where no output says anything.
    """
    require_values(plan.coupling.program.tensors().values(), "a proof")
    proof = compare_twice(plan, small, inputs, other)
    if proof.holds and any(one.why for one in proof.outputs):
        proof = _searched(proof, plan, small, inputs[-1] if other is None else other)
    if not proof.holds:
        _refuse_chance(plan.coupling.program, inputs)
        guilty = _bisect(plan, inputs, other)
        raise WrongError(
            f"the surgery is wrong: relative error {proof.max_rel:.2g} (limit {proof.tolerance:g})",
            where="; ".join(guilty) or "only the whole plan shows it",
            why="removing these channels is not the same as silencing them",
            hint="keep them with --ignore and report the model: this is a bug in the compressor",
        )
    refuse_nothing(proof.outputs, "the proof")
    return proof


def _refuse_chance(program: Program, inputs: Sequence[tuple[Any, Mapping[str, Any]]]) -> None:
    """Raise UsageError for a model that gives other outputs each time: nothing can be compared."""
    leaves = pytree.tree_leaves(inputs[0])
    runner = Interpreter(program.module)
    with torch.no_grad():
        first, second = (
            [*map(array, tensors(runner.run(*fresh(leaves), enable_io_processing=False)))]
            for _ in range(2)
        )
    if worst(first, second):
        raise UsageError(
            "the model gives other outputs each time it runs on the same inputs",
            why="random numbers are drawn in its forward, in eval mode too",
            hint="draw them only while training, or take them as an input",
        )


def compare_twice(
    plan: Plan, small: Program, inputs: Sequence[Called], other: Called | None = None
) -> Proof:
    """The largest difference between small and silenced: as they are, then with other weights."""
    own = compare(plan, small, inputs)
    if not own.holds:
        return own
    program = plan.coupling.program
    given = inputs[-1] if other is None else other
    larger = other_batch(program, given)
    tried = ([larger, moved(larger, 0.5)], [larger], [given, moved(given, 0.5)])
    for calls in tried:
        try:
            return _both(own, compare(plan, small, calls, stirred(program)))
        except NOT_A_CALL:  # the original runs at its own batch size, or on such inputs, only
            continue
    return _both(own, compare(plan, small, [given], stirred(program)))


NOT_A_CALL = (RuntimeError, IndexError, ValueError)
"""What a network raises for inputs that it cannot take."""


def _searched(proof: Proof, plan: Plan, small: Program, given: Called) -> Proof:
    """The proof after other inputs and other weights, until every output changes with them."""
    program = plan.coupling.program
    for seed, scale in enumerate(SCALES, 1):
        calls = [moved(given, scale, seed), moved(given, scale / 2, seed + 1)]
        for weights in (None, stirred(program, seed)):
            try:
                proof = _both(proof, compare(plan, small, calls, weights))
            except NOT_A_CALL:  # not inputs for this network
                continue
            if not proof.holds or not any(one.why for one in proof.outputs):
                return proof
    return proof


def _both(first: Proof, second: Proof) -> Proof:
    worst = max(first, second, key=lambda proof: proof.max_rel)
    return replace(worst, outputs=merged([first.outputs, second.outputs]))


def compare(
    plan: Plan,
    small: Program,
    inputs: Sequence[tuple[Any, Mapping[str, Any]]],
    tensors: Mapping[str, Tensor] | None = None,
) -> Proof:
    """The largest difference between small and silenced, in float64 where the model can.

    `tensors`: other weights of the original; those of the small network are cut from them.
    """
    coupling = plan.coupling
    sizes = plan.sizes
    inexact = tuple(
        dict.fromkeys(
            where(node)
            for node in coupling.trace.calls
            if node in coupling.inexact
            and sizes.shape(coupling.trace.calls[node].x) != coupling.trace.calls[node].x.shape
        )
    )
    before = sources(coupling.program.module, fresh(pytree.tree_leaves(inputs[0])))
    try:
        with float64_by_default():
            double = _Comparison(plan, before, inputs, in_float64, widened, TOLERANCE)
            outputs = double.run(small, tensors)
    except (RuntimeError, NotImplementedError) as error:
        if "not implemented for" not in str(error):
            raise
        single = _Comparison(plan, before, inputs, as_it_is, lambda leaf: leaf, TOLERANCE_FLOAT32)
        return _proof(single.run(small, tensors), "float32", TOLERANCE_FLOAT32, inexact)
    return _proof(outputs, "float64", TOLERANCE, inexact)


def _proof(
    outputs: tuple[Output, ...], dtype: str, tolerance: float, inexact: tuple[str, ...]
) -> Proof:
    absolute = max((one.max_abs for one in outputs), default=0.0)
    relative = max((one.max_rel for one in outputs), default=0.0)
    return Proof(absolute, relative, dtype, tolerance, inexact, outputs)


class _Comparison:
    """Small beside silenced, output by output, in one precision."""

    def __init__(
        self,
        plan: Plan,
        before: Sequence[tuple[str, ...]],
        inputs: Sequence[Called],
        copy: Callable[..., GraphModule],
        convert: Callable[[Any], Any],
        limit: float,
    ) -> None:
        self._plan, self._copy, self._limit = plan, copy, limit
        self._leaves = [[convert(leaf) for leaf in pytree.tree_leaves(one)] for one in inputs]
        self._least = LEAST if limit == TOLERANCE else 1.0  # in float32 only the largest counts
        self._before = before
        known = dict.fromkeys(name for names in before for name in names)
        results = {node.name: value for node, value in plan.coupling.trace.results.items()}
        values = {name: results.get(name) for name in known}
        self._values = {n: value for n, value in values.items() if isinstance(value, Value)}
        self._names = output_names(plan.coupling.program.module)

    def _kept(self, name: str, result: Tensor) -> Tensor | None:
        """What stays of a result of the original; None where it has no such axes now: heads that
        are folded into a batch of another size."""
        sizes = self._plan.sizes
        value = self._values[name]
        fits = result.dim() == value.rank and all(
            size == now or sizes.extent(value, axis) == size
            for axis, (size, now) in enumerate(zip(value.shape, result.shape, strict=True))
        )
        return sizes.cut(result, value) if fits else None

    def run(self, small: Program, tensors: Mapping[str, Tensor] | None) -> tuple[Output, ...]:
        """What came of each output."""
        coupling, sizes = self._plan.coupling, self._plan.sizes
        silent = self._copy(coupling.program, silenced(coupling, sizes, tensors))
        names = {node.name for node in small.module.graph.nodes}
        probes = [name for name in self._values if name in names]
        _also(silent, probes)
        wanted = list(_outputs(Silenced(coupling, sizes, silent), self._leaves))
        forget(silent)  # two networks in double precision need not be in memory together
        own = {name: sizes.cut(one, coupling.state[name]) for name, one in (tensors or {}).items()}
        candidate = self._copy(small, {**small.tensors(), **own})
        _also(candidate, probes)
        try:
            return self._compared(wanted, candidate, probes)
        except (RuntimeError, IndexError) as error:
            if "not implemented for" in str(error):
                raise
            # it does not even run
            return (Output("the network", float("inf"), float("inf")),)
        finally:
            forget(candidate)

    def _compared(
        self, wanted: list[list[Any]], candidate: GraphModule, probes: list[str]
    ) -> tuple[Output, ...]:
        count = len(self._names)
        names = [*self._names, *probes]
        gaps = [[Gap(0.0, 0.0, 0.0)] for _ in names]
        seen = [Seen() for _ in names]
        tensors: set[int] = set()
        found = _outputs(Interpreter(candidate), self._leaves)
        for leaves, theirs, ours in zip(self._leaves, wanted, found, strict=True):
            for place, (a, b) in enumerate(zip(theirs, ours, strict=True)):
                kept = self._kept(names[place], a) if place >= count else a
                if not isinstance(kept, Tensor):
                    continue
                a = kept
                tensors.add(place)
                seen[place].add(array(a))
                far = self._gap(a, b)
                if far == APART and place < count and self._before[place]:
                    far = self._flips(candidate, leaves, place, a, b)
                gaps[place].append(far)
        made = {place: Output(name, max(one.absolute for one in gaps[place]),
                              max(one.slices for one in gaps[place]), seen[place].why)
                for place, name in enumerate(names) if place in tensors}  # fmt: skip
        probed = {name: made[count + place] for place, name in enumerate(probes)
                  if count + place in made}  # fmt: skip
        return tuple(self._with_probes(made[p], self._before[p], probed)
                     for p in sorted(tensors) if p < count)  # fmt: skip

    def _gap(self, a: Tensor, b: Any) -> Gap:
        if not isinstance(b, Tensor) or a.dtype != b.dtype:
            return APART
        return gap(array(a), array(b), least=self._least)

    def _flips(
        self, candidate: GraphModule, leaves: list[Any], place: int, a: Tensor, b: Any
    ) -> Gap:
        """No difference where nothing but rounding decides about the entries that differ."""
        if not isinstance(b, Tensor) or a.dtype != b.dtype or a.shape != b.shape:
            return APART
        free = loose(candidate, leaves, self._before[place], self._limit)[place]
        same = free is not None and not bool(((a != b).cpu() & ~free).any())
        return Gap(0.0, 0.0, 0.0) if same else APART

    def _with_probes(
        self, one: Output, before: tuple[str, ...], probed: Mapping[str, Output]
    ) -> Output:
        """An output that is a step, with what the numbers before it say."""
        mine = [probed[name] for name in before if name in probed]
        if not mine:
            return one
        said = any(not probe.why for probe in mine)
        return replace(
            one,
            max_abs=max(one.max_abs, *(probe.max_abs for probe in mine)),
            max_rel=max(one.max_rel, *(probe.max_rel for probe in mine)),
            why="" if said else one.why,
            note="the numbers before it were compared as well" if said else "",
        )


def _also(module: GraphModule, names: Sequence[str]) -> None:
    """Let a graph give these results as well, behind its own."""
    output = next(node for node in module.graph.nodes if node.op == "output")
    nodes: dict[str, Node] = {node.name: node for node in module.graph.nodes}
    output.args = ((*output_nodes(module), *(nodes[name] for name in names)),)


def _outputs(runner: Interpreter, inputs: Sequence[list[Any]]) -> Iterator[list[Any]]:
    for leaves in inputs:
        with torch.no_grad():
            result = runner.run(*fresh(leaves), enable_io_processing=False)
        yield pytree.tree_leaves(result)


def _bisect(plan: Plan, inputs: Sequence[Called], other: Called | None) -> list[str]:
    """Names of the smallest set of groups that shows the difference: single ones, else halves."""
    coupling = plan.coupling
    members = [(group.name, torch.cat(group.cells)) for group in coupling.groups]
    parts = [(name, own[torch.isin(own, plan.channels)]) for name, own in members]
    parts = [(name, own) for name, own in parts if len(own)]

    def fails(some: list[tuple[str, Tensor]]) -> bool:
        channels = torch.cat([own for _, own in some]).sort().values
        part = Plan(coupling, plan.budget, channels)
        small = apply(Shrink(part), coupling.program).program
        return not compare_twice(part, small, inputs, other).holds

    def smaller(some: list[tuple[str, Tensor]]) -> Iterator[list[tuple[str, Tensor]]]:
        for piece in runs(some):
            if len(piece) < len(some):
                yield list(piece)
                yield [one for one in some if all(one is not other for other in piece)]

    return [name for name, _ in smallest(parts, smaller, fails)[0]] if fails(parts) else []
