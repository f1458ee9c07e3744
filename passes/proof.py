"""Removing equals silencing.

    reference   the original graph, every parameter element of a removed channel set to zero
    small       the graph after the surgery

Both run in float64 on the same inputs and must agree to 1e-9, once with the weights of the user and
once with all of them stirred, at another batch size: no branch that is silent by itself hides a
mistake. The reference is in `silence.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter
from torch.utils import _pytree as pytree

from .contract import apply
from .errors import UsageError, WrongError
from .plan import Plan
from .program import Program, where
from .shrink import Shrink
from .silence import Silenced, silenced
from .state import as_it_is, float64_by_default, forget, in_float64, widened
from .stirring import Called, other_batch, stirred
from .valueless import require_values

TOLERANCE = 1e-9
TOLERANCE_FLOAT32 = 1e-4
"""Only where the model cannot run in float64; the report then says so."""


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

    @property
    def holds(self) -> bool:
        return self.max_rel <= self.tolerance


def prove(
    plan: Plan, small: Program, inputs: Sequence[Called], other: Called | None = None
) -> Proof:
    """Compare the small program with the silenced original on every (args, kwargs) of `inputs`.

    It is compared once more with other weights, on `other` (by default the last of the inputs).
    Raises WrongError that names the smallest set of groups which shows the difference.
    """
    require_values(plan.coupling.program.tensors().values(), "a proof")
    proof = compare_twice(plan, small, inputs, other)
    if not proof.holds:
        _refuse_chance(plan.coupling.program, inputs)
        guilty = _bisect(plan, inputs, other)
        raise WrongError(
            f"the surgery is wrong: relative error {proof.max_rel:.2g} (limit {proof.tolerance:g})",
            where="; ".join(guilty) or "only the whole plan shows it",
            why="removing these channels is not the same as silencing them",
            hint="keep them with --ignore and report the model: this is a bug in the compressor",
        )
    return proof


def _refuse_chance(program: Program, inputs: Sequence[tuple[Any, Mapping[str, Any]]]) -> None:
    """Raise UsageError for a model that gives other outputs each time: nothing can be compared."""
    leaves = pytree.tree_leaves(inputs[0])
    runner = Interpreter(program.module)
    with torch.no_grad():
        first, second = (
            _tensors(runner.run(*_fresh(leaves), enable_io_processing=False)) for _ in range(2)
        )
    if any(not torch.equal(a, b) for a, b in zip(first, second, strict=True)):
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
    weights = stirred(program)
    given = inputs[-1] if other is None else other
    try:
        again = compare(plan, small, [other_batch(program, given)], weights)
    except (RuntimeError, IndexError):  # the original runs at its own batch size only
        again = compare(plan, small, [given], weights)
    return max(own, again, key=lambda proof: proof.max_rel)


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
    try:
        with float64_by_default():
            absolute, relative = _difference(plan, small, inputs, tensors, in_float64, widened)
    except (RuntimeError, NotImplementedError) as error:
        if "not implemented for" not in str(error):
            raise
        absolute, relative = _difference(plan, small, inputs, tensors, as_it_is, lambda leaf: leaf)
        return Proof(absolute, relative, "float32", TOLERANCE_FLOAT32, inexact)
    return Proof(absolute, relative, "float64", TOLERANCE, inexact)


def _difference(
    plan: Plan,
    small: Program,
    inputs: Sequence[tuple[Any, Mapping[str, Any]]],
    tensors: Mapping[str, Tensor] | None,
    copy: Callable[..., GraphModule],
    convert: Callable[[Any], Any],
) -> tuple[float, float]:
    coupling, sizes = plan.coupling, plan.sizes
    silent = copy(coupling.program, silenced(coupling, sizes, tensors))
    wanted = list(_outputs(Silenced(coupling, sizes, silent), inputs, convert))
    forget(silent)  # two networks in double precision need not be in memory together
    own = {name: sizes.cut(one, coupling.state[name]) for name, one in (tensors or {}).items()}
    candidate = copy(small, {**small.tensors(), **own})
    found = _outputs(Interpreter(candidate), inputs, convert)
    absolute = relative = 0.0
    try:
        for theirs, ours in zip(wanted, found, strict=True):
            for a, b in zip(theirs, ours, strict=True):
                gaps = _gap(a, b)
                absolute, relative = max(absolute, gaps[0]), max(relative, gaps[1])
    except (RuntimeError, IndexError) as error:
        if "not implemented for" in str(error):
            raise
        return float("inf"), float("inf")  # it does not even run
    finally:
        forget(candidate)
    return absolute, relative


def _outputs(
    runner: Interpreter,
    inputs: Sequence[tuple[Any, Mapping[str, Any]]],
    convert: Callable[[Any], Any],
) -> Iterator[list[Tensor]]:
    for given in inputs:
        leaves = [convert(leaf) for leaf in pytree.tree_leaves(given)]
        with torch.no_grad():
            yield _tensors(runner.run(*_fresh(leaves), enable_io_processing=False))


def _fresh(leaves: list[Any]) -> list[Any]:
    """Copies, for networks that write into their inputs."""
    return [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]


def _tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def _gap(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Largest difference, absolute and relative; infinite where shapes, types or NaNs differ."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf"), float("inf")
    if a.numel() == 0:
        return 0.0, 0.0
    if not a.is_floating_point():
        return (1.0, float("inf")) if bool((a != b).any()) else (0.0, 0.0)
    if not torch.equal(torch.isfinite(a), torch.isfinite(b)):
        return float("inf"), float("inf")
    a, b = (torch.nan_to_num(t, nan=0.0, posinf=0.0, neginf=0.0) for t in (a, b))
    gap, size = (a - b).abs(), a.abs()
    return float(gap.max()), _relative(gap, size)


_LEAST = {torch.float64: 1e-3}
"""Share of the largest output below which an output counts as that large: it may be a difference
of large ones. In single precision only the largest counts."""


def _relative(gap: Tensor, size: Tensor) -> float:
    """The largest difference, over the magnitude of its own slice along every axis."""
    largest = float(size.max())
    if not largest:
        return float(gap.max())
    worst = float(gap.max()) / largest
    least = _LEAST.get(gap.dtype, 1.0) * largest
    for axis in range(gap.dim()):
        far, high = (one.movedim(axis, 0).flatten(1) if one.dim() > 1 else one[:, None]
                     for one in (gap, size))  # fmt: skip
        worst = max(worst, float((far.amax(1) / (high.amax(1) + least)).max()))
    return worst


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

    if not fails(parts):
        return []
    size = 2
    while len(parts) > 1:  # delta debugging (Zeller, "Yesterday, my program worked", 1999)
        step = max(len(parts) // size, 1)
        pieces = [parts[i : i + step] for i in range(0, len(parts), step)]
        for piece in pieces:
            rest = [part for part in parts if all(part is not one for one in piece)]
            if fails(piece):
                parts, size = piece, 2
                break
            if rest and fails(rest):
                parts, size = rest, max(size - 1, 2)
                break
        else:
            if step == 1:
                break
            size = min(len(parts), size * 2)
    return [name for name, _ in parts]
