"""Calls with a weight as regressions: which rows of numbers the weight maps to which targets.

    convolution   a row is a patch, for each position of the result and each group
    contraction   linear, matmul, addmm, einsum: a letter of the weight is summed, or the result's
                  alone, or in both operands (a block)

``result = weight · rows (+ bias)``: both are linear in the weight, whatever else they do.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

from ..ir.program import by_name
from .batch_norm import Norm

aten = torch.ops.aten

Picked = Tensor | slice
"""Numbers of rows; or all of them, as a slice, which is quicker than by their numbers."""


@dataclass(frozen=True, eq=False)
class View:
    """One call as a regression. `x`, `weight` and `bias` are nodes of its graph."""

    node: Node
    x: Node
    weight: Node
    bias: Node | None

    def count(self, y: Tensor) -> int:
        """How many rows a result has."""
        raise NotImplementedError

    def rows(self, x: Tensor, y_shape: Sequence[int], picked: Picked) -> Tensor:
        """The rows `picked` of an input: [blocks, n, columns]."""
        raise NotImplementedError

    def targets(self, y: Tensor, picked: Picked) -> Tensor:
        """The same rows of a result: [blocks, n, outputs]."""
        raise NotImplementedError

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight as [blocks, outputs, columns]."""
        raise NotImplementedError

    def folded(self, matrix: Tensor, weight: Tensor) -> Tensor:
        """The matrix in the form of the weight."""
        raise NotImplementedError

    def axes(self) -> tuple[list[int], list[int]]:
        """Axes of the weight along which the channels of its inputs, and of its results, lie."""
        raise NotImplementedError


Fitted = View | list["Contraction"] | Norm | str
"""A call as regressions: one, or one for each direction; a batch norm; or why it is none, "" where
it has no weight at all."""
Regression = Callable[[Node, Mapping[str, Tensor], int], Fitted]
"""From the node, the tensors of its network by name, and the rank of its result."""


@dataclass(frozen=True, eq=False)
class Convolution(View):
    """conv1d to conv3d and their transposes, any groups, strides, paddings and dilations."""

    given: Mapping[str, Any]
    rank: int
    """Spatial axes."""
    transposed: bool

    def _each(self, name: str, default: int) -> list[int]:
        value = self.given.get(name, default)
        value = list(value) if isinstance(value, list | tuple) else [value]
        return [int(one) for one in (value * self.rank if len(value) == 1 else value)]

    @property
    def groups(self) -> int:
        return int(self.given.get("groups", 1))

    def count(self, y: Tensor) -> int:
        return y.numel() // y.shape[-self.rank - 1]

    def targets(self, y: Tensor, picked: Picked) -> Tensor:
        flat = y.movedim(-self.rank - 1, -1).flatten(0, -2)[picked]
        found: Tensor = flat.unflatten(1, (self.groups, -1)).movedim(1, 0)
        return found

    def rows(self, x: Tensor, y_shape: Sequence[int], picked: Picked) -> Tensor:
        x = x if x.dim() == self.rank + 2 else x[None]
        kernel = list(self.given["weight_shape"][2:])
        dilation = self._each("dilation", 1)
        stride = self._each("stride", 1)
        spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        if self.transposed:
            x, stride = self._stretched(x, stride, spans), [1] * self.rank
        else:
            x = F.pad(x, self._padding(spans))
        windows = x
        for axis, (span, step) in enumerate(zip(spans, stride, strict=True)):
            windows = windows.unfold(2 + axis, span + 1, step)
        every = (slice(None),) * (2 + self.rank)
        windows = windows[(*every, *(slice(None, None, d) for d in dilation))]
        if isinstance(picked, slice):
            found = windows.movedim(1, 1 + self.rank).flatten(0, self.rank)[picked]
        else:
            found = self._at(windows, y_shape, picked)
        if self.transposed:
            found = found.flip(list(range(2, 2 + self.rank)))
        blocks: Tensor = found.flatten(1).unflatten(1, (self.groups, -1)).movedim(1, 0)
        return blocks

    def _at(self, windows: Tensor, y_shape: Sequence[int], picked: Tensor) -> Tensor:
        """Some windows: [n, channels, kernel...]."""
        place = picked
        indices: list[Tensor] = []
        for size in reversed(y_shape[-self.rank :]):
            indices.insert(0, place % size)
            place = place // size
        index: tuple[Any, ...] = (place, slice(None), *indices)
        found: Tensor = windows[index]
        return found

    def _padding(self, spans: list[int]) -> list[int]:
        padding = self.given.get("padding", 0)
        if isinstance(padding, str):
            pairs = [(s // 2, s - s // 2) if padding == "same" else (0, 0) for s in spans]
        else:
            pairs = [(p, p) for p in self._each("padding", 0)]
        return [size for pair in reversed(pairs) for size in pair]

    def _stretched(self, x: Tensor, stride: list[int], spans: list[int]) -> Tensor:
        """Zeros between the pixels: a transposed convolution is a plain one over this."""
        sizes = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True)]
        wide = x.new_zeros(*x.shape[:2], *sizes)
        wide[(slice(None), slice(None), *(slice(None, None, s) for s in stride))] = x
        extra = self._each("output_padding", 0)
        padding = self._each("padding", 0)
        pairs = [(s - p, s - p + e) for s, p, e in zip(spans, padding, extra, strict=True)]
        return F.pad(wide, [size for pair in reversed(pairs) for size in pair])

    def matrix(self, weight: Tensor) -> Tensor:
        blocks: Tensor = weight.unflatten(0, (self.groups, -1))
        if self.transposed:  # [g, i, o, k...]
            blocks = blocks.transpose(1, 2)
        return blocks.flatten(2)

    def folded(self, matrix: Tensor, weight: Tensor) -> Tensor:
        kernel = weight.shape[2:]
        blocks: Tensor = matrix.unflatten(2, (-1, *kernel))
        if self.transposed:
            blocks = blocks.transpose(1, 2)
        return blocks.flatten(0, 1)

    def axes(self) -> tuple[list[int], list[int]]:
        return ([0], [1]) if self.transposed else ([1], [0])


@dataclass(frozen=True, eq=False)
class Contraction(View):
    """``out = sum over letters of x * weight``, in Einstein's notation."""

    xs: str
    ws: str
    out: str

    def _kinds(self) -> tuple[str, str, str, str]:
        """Letters of blocks, of rows, of columns, of outputs."""
        blocks = "".join(a for a in self.xs if a in self.ws and a in self.out)
        columns = "".join(a for a in self.xs if a in self.ws and a not in self.out)
        rows = "".join(a for a in self.xs if a not in self.ws)
        outputs = "".join(a for a in self.ws if a not in self.xs)
        return blocks, rows, columns, outputs

    def _ordered(self, tensor: Tensor, letters: str, *parts: str) -> Tensor:
        """One axis for each part, of all its letters."""
        order = [letters.index(a) for part in parts for a in part]
        sizes = [math.prod(tensor.shape[letters.index(a)] for a in part) for part in parts]
        return tensor.permute(order).reshape(sizes)

    def count(self, y: Tensor) -> int:
        return math.prod(y.shape[self.out.index(a)] for a in self._kinds()[1])

    def rows(self, x: Tensor, y_shape: Sequence[int], picked: Picked) -> Tensor:
        blocks, rows, columns, _ = self._kinds()
        return self._ordered(x, self.xs, blocks, rows, columns)[:, picked]

    def targets(self, y: Tensor, picked: Picked) -> Tensor:
        blocks, rows, _, outputs = self._kinds()
        return self._ordered(y, self.out, blocks, rows, outputs)[:, picked]

    def matrix(self, weight: Tensor) -> Tensor:
        blocks, _, columns, outputs = self._kinds()
        return self._ordered(weight, self.ws, blocks, outputs, columns)

    def folded(self, matrix: Tensor, weight: Tensor) -> Tensor:
        blocks, _, columns, outputs = self._kinds()
        now = blocks + outputs + columns
        sizes = [weight.shape[self.ws.index(a)] for a in now]
        return matrix.reshape(sizes).permute([now.index(a) for a in self.ws])

    def axes(self) -> tuple[list[int], list[int]]:
        blocks, _, columns, outputs = self._kinds()
        return [self.ws.index(a) for a in blocks + columns], [self.ws.index(a) for a in outputs]

    def length(self, x: Tensor) -> int:
        """How many rows an input has."""
        return math.prod(x.shape[self.xs.index(a)] for a in self._kinds()[1])


def recurrent(node: Node, tensors: Mapping[str, Tensor], rank: int) -> list[Contraction]:
    """The weights with which a recurrent call reads its input, one for each direction."""
    given = by_name(node)
    if "batch_sizes" in given:  # a packed sequence: rows are there for every step alike
        xs, out = "ai", "ao"
    else:
        xs, out = "abi", "abo"
    params = list(given["params"])
    directions = 2 if given["bidirectional"] else 1
    each = len(params) // (directions * int(given["num_layers"]))
    found = []
    for direction in range(directions):
        own = params[direction * each : (direction + 1) * each]
        bias = own[2] if given["has_biases"] else None
        stored = [_parameter(one, tensors) for one in (own[0], bias) if one is not None]
        if all(one is not None for one in stored):
            x = given["data"] if "data" in given else given["input"]
            found.append(Contraction(node, x, own[0], bias, xs, "oi", out))
    return found


def _parameter(node: Any, tensors: Mapping[str, Tensor]) -> Tensor | None:
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    found = tensors.get(str(node.target))
    return found if found is not None and found.is_floating_point() else None


_COMPUTED = "its weight is computed, not stored"


def convolution(node: Node, tensors: Mapping[str, Tensor], rank: int) -> View | str:
    given = by_name(node)
    weight = _parameter(given["weight"], tensors)
    if weight is None:
        return _COMPUTED
    assert isinstance(node.target, torch._ops.OpOverload)
    transposed = bool(given.get("transposed")) or "transpose" in node.target._schema.name
    bias = given.get("bias")
    if bias is not None and _parameter(bias, tensors) is None:
        return "its bias is computed, not stored"
    literals = {**given, "weight_shape": weight.shape}
    spatial = weight.dim() - 2
    return Convolution(node, given["input"], given["weight"], bias, literals, spatial, transposed)


_ROWS = "abcdefgh"


def _product(
    node: Node,
    x: Any,
    y: Any,
    bias: Any,
    tensors: Mapping[str, Tensor],
    rank: int,
    *,
    turned: bool = False,
) -> View | str:
    """x @ y; with `turned` x @ y.T, as `linear` has it."""
    weight, letters, source = _stored(y, tensors)
    if weight is None:
        stored = _stored(x, tensors)[0]
        return "its weight is the left factor" if stored is not None else ""
    if bias is not None and _parameter(bias, tensors) is None:
        return "its bias is computed, not stored"
    if weight.dim() < 2 or rank < 1:
        return "its weight is a vector"
    if weight.dim() != 2 and rank != weight.dim():
        return "its weight is broadcast"
    lead = _ROWS[: rank - 1]
    batch = lead[: weight.dim() - 2]
    own = batch + ("oi" if turned else "io")
    ws = "".join(own[place] for place in letters)
    return Contraction(node, x, source, bias, f"{lead}i", ws, f"{lead}o")


def _stored(node: Any, tensors: Mapping[str, Tensor]) -> tuple[Tensor | None, list[int], Any]:
    """The parameter behind transposes, and for each of its axes the axis that it becomes."""
    moves: list[list[int]] = []
    while isinstance(node, Node) and node.op == "call_function" and len(node.users) == 1:
        given = by_name(node) if isinstance(node.target, torch._ops.OpOverload) else {}
        source = given.get("self", given.get("input"))
        if node.target is aten.permute.default:
            moves.append([int(axis) for axis in given["dims"]])
        elif node.target is aten.t.default:
            moves.append([1, 0])
        elif node.target is aten.transpose.int:
            moves.append([-1, int(given["dim0"]), int(given["dim1"])])
        else:
            break
        node = source
    tensor = _parameter(node, tensors)
    if tensor is None:
        return None, [], node
    rank = tensor.dim()
    axes = list(range(rank))  # axes[i]: which axis of the parameter stands at place i
    for move in reversed(moves):
        if move[0] == -1 and len(move) == 3:
            a, b = move[1] % rank, move[2] % rank
            axes[a], axes[b] = axes[b], axes[a]
        else:
            axes = [axes[axis % rank] for axis in move]
    return tensor, [axes.index(axis) for axis in range(rank)], node


def linear(node: Node, tensors: Mapping[str, Tensor], rank: int) -> View | str:
    given = by_name(node)
    bias = given.get("bias")
    return _product(node, given["input"], given["weight"], bias, tensors, rank, turned=True)


def product(node: Node, tensors: Mapping[str, Tensor], rank: int) -> View | str:
    """matmul and its kin: the second factor may be stored."""
    x, y = list(by_name(node).values())[:2]
    return _product(node, x, y, None, tensors, rank)


def added_product(node: Node, tensors: Mapping[str, Tensor], rank: int) -> View | str:
    """addmm: a product, and a bias in front."""
    given = by_name(node)
    bias, x, y = (given[name] for name in list(given)[:3])
    if given.get("alpha", 1) != 1 or given.get("beta", 1) != 1:
        return "its sum is weighted"
    stored = _parameter(bias, tensors)
    if stored is None or stored.dim() != 1:
        return "its bias is not one number for each output"
    return _product(node, x, y, bias, tensors, rank)


def einsum(node: Node, tensors: Mapping[str, Tensor], rank: int) -> View | str:
    given = by_name(node)
    equation, operands = str(given["equation"]).replace(" ", ""), given["tensors"]
    stored = [_stored(one, tensors) for one in operands]
    if all(one[0] is None for one in stored):
        return ""
    if "..." in equation or "->" not in equation or len(operands) != 2:
        return "its equation has dots, or more than two operands"
    (left, right), out = equation.split("->")[0].split(","), equation.split("->")[1]
    which = 1 if stored[1][0] is not None else 0
    if stored[0][0] is not None and which == 1:
        return "both operands are stored"
    xs, own = (left, right) if which == 1 else (right, left)
    weight, letters, source = stored[which]
    assert weight is not None
    ws = "".join(own[place] for place in letters)
    kinds = [set(xs), set(ws), set(out)]
    if any(len(set(part)) < len(part) for part in (xs, ws, out)):
        return "a letter of its equation is repeated"
    if (kinds[0] - kinds[1] - kinds[2]) or (kinds[1] - kinds[0] - kinds[2]):
        return "it sums over an axis of one operand"
    return Contraction(node, operands[1 - which], source, None, xs, ws, out)
