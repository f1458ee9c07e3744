"""Removing equals silencing.

    reference   the original graph, every parameter element of a removed channel set to zero
    small       the graph after the surgery

Both run in float64 on the same inputs and must agree to 1e-9, once with the weights of the user and
once with all of them stirred, at another batch size: no branch that is silent by itself hides a
mistake.

Wherever silence stays silent (convolution, linear, batch norm, attention over tokens, elementwise,
pooling) nothing else is needed. Where it does not, the reference interprets the original call on
the kept part of its input, masked in place: statistics and sums over labelled channels,
and products of two activations. That path shares neither literals nor slicing with the surgery.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from .contract import apply
from .coupling import Coupling
from .errors import GateError, UsageError
from .interpret import results_of
from .labels import Value
from .plan import Plan
from .program import Program, variances, where
from .rules import Call
from .shrink import Shrink
from .sizes import Sizes
from .state import float64_by_default, in_float64, tree, widened
from .stirring import Called, other_batch, stirred
from .valueless import require_values

aten = torch.ops.aten

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
    Raises GateError that names the smallest set of groups which shows the difference.
    """
    require_values(plan.coupling.program.tensors().values(), "a proof")
    proof = compare_twice(plan, small, inputs, other)
    if not proof.holds:
        _refuse_chance(plan.coupling.program, inputs)
        guilty = _bisect(plan, inputs, other)
        raise GateError(
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
        absolute, relative = _difference(plan, small, inputs, tensors, _as_is, lambda leaf: leaf)
        return Proof(absolute, relative, "float32", TOLERANCE_FLOAT32, inexact)
    return Proof(absolute, relative, "float64", TOLERANCE, inexact)


def _as_is(program: Program, state: Mapping[str, Tensor] | None = None) -> GraphModule:
    tensors = program.tensors() if state is None else state
    own = tree({name: tensor.detach() for name, tensor in tensors.items()}, program.parts())
    return GraphModule(own, program.module.graph)


def _difference(
    plan: Plan,
    small: Program,
    inputs: Sequence[tuple[Any, Mapping[str, Any]]],
    tensors: Mapping[str, Tensor] | None,
    copy: Callable[..., GraphModule],
    convert: Callable[[Any], Any],
) -> tuple[float, float]:
    coupling = plan.coupling
    sizes = plan.sizes
    silent = copy(coupling.program, silenced(coupling, sizes, tensors))
    reference = _Reference(coupling, sizes, silent)
    own = {name: sizes.cut(one, coupling.state[name]) for name, one in (tensors or {}).items()}
    candidate = Interpreter(copy(small, {**small.tensors(), **own}))
    absolute = relative = 0.0
    with torch.no_grad():
        for given in inputs:
            leaves = [convert(leaf) for leaf in pytree.tree_leaves(given)]
            wanted = reference.run(*_fresh(leaves), enable_io_processing=False)
            try:
                found = candidate.run(*_fresh(leaves), enable_io_processing=False)
            except RuntimeError as error:
                if "not implemented for" in str(error):
                    raise
                return float("inf"), float("inf")  # it does not even run
            for a, b in zip(_tensors(wanted), _tensors(found), strict=True):
                gaps = _gap(a, b)
                absolute, relative = max(absolute, gaps[0]), max(relative, gaps[1])
    return absolute, relative


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


def silenced(
    coupling: Coupling, sizes: Sizes, tensors: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Every tensor of the original with the elements of removed channels set to zero.

    Running variances stay: they are divided by. `tensors`: other values of the same sizes.
    """
    keep = variances(coupling.program)
    own = coupling.program.tensors() if tensors is None else tensors
    return {
        name: tensor.detach()
        if name in keep or not tensor.is_floating_point()
        else tensor.detach() * sizes.stays(coupling.state[name])
        for name, tensor in own.items()
    }


class _Reference(Interpreter):
    """The silenced original; calls in `_MASKED` see only the kept part of their inputs."""

    def __init__(self, coupling: Coupling, sizes: Sizes, silent: GraphModule) -> None:
        super().__init__(silent)
        nodes = zip(silent.graph.nodes, coupling.program.module.graph.nodes, strict=True)
        self._original = dict(nodes)
        self._coupling, self._sizes = coupling, sizes

    def run_node(self, n: Node) -> Any:
        original = self._original[n]
        call = self._coupling.trace.calls.get(original)
        if call is None:
            return super().run_node(n)
        return self._contained(call, self._called(n, original, call))

    def _called(self, n: Node, original: Node, call: Call) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        given = {a.name: value for a, value in zip(call.op._schema.arguments, args, strict=False)}
        given |= kwargs
        if original in self._coupling.inexact:
            x = next(value for value in given.values() if isinstance(value, Tensor))
            return _statistics(call, given, self._stays(call.x, x))
        if call.op in _PRODUCTS and self._shrinks(call):
            pairs = zip(args, call.given.values(), strict=False)
            return call.op(*(self._masked(a, v) for a, v in pairs), **kwargs)
        return super().run_node(n)

    def _shrinks(self, call: Call) -> bool:
        return any(self._sizes.shape(v) != v.shape for v in results_of(list(call.given.values())))

    def _stays(self, value: Value, tensor: Tensor) -> Tensor:
        """What stays of a tensor, also where heads are folded into a batch, or a length, of another
        size: they repeat with a period that divides both."""
        stays = self._sizes.stays(value)
        for axis, size in enumerate(stays.shape):
            if size not in (1, tensor.shape[axis]):
                once = stays.narrow(axis, 0, math.gcd(size, tensor.shape[axis]))
                times = tensor.shape[axis] // once.shape[axis]
                stays = once.repeat([times if a == axis else 1 for a in range(stays.dim())])
        return stays

    def _contained(self, call: Call, result: Any) -> Any:
        """Silence that was divided by silence is silence, where it belongs to removed channels."""
        value = self._coupling.trace.results[call.node]
        if not isinstance(value, Value) or not isinstance(result, Tensor) or not value.arrays:
            return result
        if not result.is_floating_point() or bool(torch.isfinite(result).all()):
            return result
        return torch.where(self._stays(value, result) | torch.isfinite(result), result, 0.0)

    def _masked(self, argument: Any, value: Any) -> Any:
        if isinstance(value, Value):
            return argument * self._stays(value, argument)
        if isinstance(value, list):
            return [self._masked(a, v) for a, v in zip(argument, value, strict=True)]
        return argument


_PRODUCTS = {
    aten.matmul.default,
    aten.bmm.default,
    aten.einsum.default,
    aten.scaled_dot_product_attention.default,
    aten.bilinear.default,
    aten.cdist.default,
    aten.cosine_similarity.default,
    aten.sum.default,
    aten.sum.dim_IntList,
    aten.nansum.default,
}


def _statistics(call: Call, given: Mapping[str, Any], stays: Tensor) -> Tensor:
    """A norm, or a statistic, over the kept part of its input; removed positions give zero."""
    name = call.op._schema.name.removeprefix("aten::")
    x: Tensor = next(value for value in given.values() if isinstance(value, Tensor))
    stays = stays.expand(x.shape)
    if name in ("layer_norm", "rms_norm"):
        axes = list(range(x.dim() - len(call["normalized_shape"]), x.dim()))
        return _normalised(name, call, given, x, stays, axes)
    if name in ("batch_norm", "instance_norm"):
        axes = [axis for axis in range(x.dim()) if axis > 1 or (axis == 0 and name[0] == "b")]
        return _scaled(_normalised(name, call, {}, x, stays, axes), given) * stays
    if name == "group_norm":
        shape = (x.shape[0], int(call["num_groups"]), -1)
        y = _normalised(name, call, {}, x.reshape(shape), stays.reshape(shape), [2])
        return _scaled(y.reshape(x.shape), given) * stays
    if name == "_weight_norm":
        scaled: Tensor = torch._weight_norm(x * stays, given["g"], call.axis())
        return scaled
    axes, keep = call.axes(), bool(call.get("keepdim"))
    count = stays.sum(axes, keepdim=keep).clamp(min=1)
    if name == "mean":
        return (x * stays).sum(axes, keepdim=keep) / count
    if name in ("linalg_vector_norm", "norm"):
        order = float(call.get("ord", call.get("p", 2)) or 2)
        norm: Tensor = torch.linalg.vector_norm(x * stays, order, axes, keepdim=keep)
        return norm
    centre = (x * stays).sum(axes, keepdim=True) / stays.sum(axes, keepdim=True).clamp(min=1)
    given_free = call.get("correction")
    free = float(given_free) if given_free is not None else float(bool(call.get("unbiased", True)))
    square: Tensor = ((x - centre) * stays).square().sum(axes, keepdim=keep) / (count - free).clamp(
        min=1
    )
    return square if name == "var" else square.sqrt()


def _scaled(y: Tensor, given: Mapping[str, Any]) -> Tensor:
    """With the weight and the bias of a norm, which lie along axis 1."""
    view = [-1 if axis == 1 else 1 for axis in range(y.dim())]
    for key, combine in (("weight", torch.mul), ("bias", torch.add)):
        if given.get(key) is not None:
            y = combine(y, given[key].reshape(view))
    return y


def _normalised(
    name: str,
    call: Call,
    given: Mapping[str, Any],
    x: Tensor,
    stays: Tensor,
    axes: list[int],
) -> Tensor:
    eps = call.get("eps")
    eps = torch.finfo(x.dtype).eps if eps is None else float(eps)
    count = stays.sum(axes, keepdim=True).clamp(min=1)
    x = x * stays
    if name != "rms_norm":
        x = (x - x.sum(axes, keepdim=True) / count) * stays
    y = x * torch.rsqrt(x.square().sum(axes, keepdim=True) / count + eps)
    if given.get("weight") is not None:
        y = y * given["weight"]
    if given.get("bias") is not None:
        y = y + given["bias"]
    return y * stays


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
