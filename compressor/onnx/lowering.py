"""The same graph in the words that torch's ONNX exporter understands.

view          becomes reshape: ONNX has no strides
attention     on more or fewer than four axes: those in front are folded into one; its result is
              made contiguous, because the exporter takes it apart into operators that give other
              strides than those it was captured with
split         into parts whose size follows the batch: slices, because the exporter's optimiser
              wants to see a number
convolution   with as many groups as samples: a product with the patches of each
max pool      of a zero-padded tensor: ONNX Runtime 1.31 makes one call of both, which pads with
              minus infinity instead, so that negative borders come out wrong
"""

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from compressor.passes.ir.dtypes import copied, tree
from compressor.passes.ir.leaves import fresh
from compressor.passes.ir.program import Program
from compressor.passes.operators import row_of
from compressor.passes.operators.kernels import RELU, Fusion

aten = torch.ops.aten
_ATTENTION = aten.scaled_dot_product_attention.default
_PARTS = (aten.split.Tensor, aten.chunk.default)


def exportable(program: Program) -> GraphModule:
    """A module with the program's own tensors, its forward and its results."""
    graph = copied(program.module.graph)
    attentions = [node for node in graph.nodes if node.target is _ATTENTION]
    per_sample = [node for node in graph.nodes if _has_groups_of_the_batch(node)]
    shapes = _shapes(program) if attentions or per_sample else {}
    for node in attentions:
        _on_four_axes(graph, node, shapes)
        _made_contiguous(graph, node)
    for node in per_sample:
        _by_patches(graph, node, shapes)
    for node in [node for node in graph.nodes if node.target in _PARTS]:
        if isinstance(node.args[1], Node) or _is_chunk(node, anywhere=bool(program.axes)):
            _by_slices(graph, node)
    for node in graph.find_nodes(op="call_function", target=aten.view.default):
        node.target = aten.reshape.default
    for node in [node for node in graph.nodes if row_of(node).fusion == Fusion("max pool")]:
        _apart_from_its_padding(graph, node)
    graph.lint()
    return GraphModule(tree(program.tensors(), program.parts()), graph)


def _is_chunk(node: Node, anywhere: bool) -> bool:
    """Whether a number of parts is asked for, along an axis whose size may be free."""
    return node.target is aten.chunk.default and (anywhere or _axis_of(node) == 0)


def _axis_of(parts: Node) -> Any:
    return parts.args[2] if len(parts.args) > 2 else parts.kwargs.get("dim", 0)


def _by_slices(graph: Graph, parts: Node) -> None:
    """Each part that is used, from where it begins: the last ends where the tensor does."""
    tensor, size = cast("tuple[Node, Any]", parts.args[:2])
    axis = _axis_of(parts)
    if parts.target is aten.chunk.default:
        with graph.inserting_before(parts):
            whole = graph.call_function(aten.sym_size.int, (tensor, axis))
            above = graph.call_function(operator.add, (whole, size - 1))
            size = graph.call_function(operator.floordiv, (above, size))
    for part in list(parts.users):
        index = cast("int", part.args[1])
        with graph.inserting_before(part):
            first, last = (
                graph.call_function(operator.mul, (size, index + more)) for more in (0, 1)
            )
            place = (tensor, axis, first, last)
            part.replace_all_uses_with(graph.call_function(aten.slice.Tensor, place))
        graph.erase_node(part)
    graph.erase_node(parts)


def _apart_from_its_padding(graph: Graph, pool: Node) -> None:
    """A call that changes nothing between the two, unless both paddings mean the same."""
    padded = pool.args[0]
    if not isinstance(padded, Node) or row_of(padded).fusion != Fusion("padding"):
        return
    given = padded.args[0]
    if isinstance(given, Node) and row_of(given).fusion == RELU:
        return
    with graph.inserting_before(pool):
        same = graph.call_function(aten.clamp.default, (padded, -math.inf))
    pool.replace_input_with(padded, same)


def _made_contiguous(graph: Graph, node: Node) -> None:
    users = list(node.users)
    with graph.inserting_before(node.next):
        clone = graph.call_function(
            aten.clone.default, (node,), {"memory_format": torch.contiguous_format}
        )
    for user in users:
        user.replace_input_with(node, clone)


class _ShapeNoting(Interpreter):
    """Runs the program and notes the shape of every tensor, by the name of its node."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[str, torch.Size] = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n.name] = result.shape
        return result


def _shapes(program: Program) -> dict[str, torch.Size]:
    noting = _ShapeNoting(program.module)
    given = pytree.tree_leaves((program.args, dict(program.kwargs)))
    with torch.no_grad():
        noting.run(*fresh(given), enable_io_processing=False)
    return noting.shapes


def _on_four_axes(graph: Graph, node: Node, shapes: Mapping[str, torch.Size]) -> None:
    """Fold the axes in front of ``[batch, heads, length, entries]``, or add what is missing."""
    operands = [operand for operand in node.args[:3] if isinstance(operand, Node)]
    found = [shapes[operand.name] for operand in operands]
    rank, lead = len(found[0]), len(found[0]) - 2
    mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    masked = isinstance(mask, Node) and len(shapes[mask.name]) > 2
    if rank == 4 or masked or any(shape[:lead] != found[0][:lead] for shape in found):
        return
    with graph.inserting_before(node):
        sizes = _sizes(graph, operands[0], range(lead))
        folded = [
            graph.call_function(aten.flatten.using_ints, (operand, 0, rank - 4))
            if rank > 4
            else graph.call_function(aten.reshape.default, (operand, _padded(graph, operand, rank)))
            for operand in operands
        ]
    users = list(node.users)
    with graph.inserting_before(node.next):
        tail = _sizes(graph, node, (2, 3))
        result = graph.call_function(aten.reshape.default, (node, [*sizes, *tail]))
    for user in users:
        user.replace_input_with(node, result)
    node.args = (*folded, *node.args[3:])


def _padded(graph: Graph, operand: Node, rank: int) -> list[int | Node]:
    return [*[1] * (4 - rank), *_sizes(graph, operand, range(rank))]


def _sizes(graph: Graph, operand: Node, axes: Iterable[int]) -> list[Node]:
    return [graph.call_function(aten.sym_size.int, (operand, axis)) for axis in axes]


def _has_groups_of_the_batch(node: Node) -> bool:
    """conv2d(x [1, g * c, h, w], weight [g * o, c, ..], groups=g), where g is the batch."""
    return (
        node.target is aten.conv2d.default and len(node.args) > 6 and isinstance(node.args[6], Node)
    )


def _by_patches(graph: Graph, node: Node, shapes: Mapping[str, torch.Size]) -> None:
    """Patches [g, c * taps, places], multiplied with weights [g, o, c * taps]."""
    given: Any = node.args
    x, weight, bias, stride, padding, dilation, _ = given
    (samples, channels, *picture), (outputs, own, *kernel) = shapes[x.name], shapes[weight.name]
    if samples != 1:
        return
    call, each = graph.call_function, outputs * own // channels
    with graph.inserting_before(node):
        x = call(aten.reshape.default, (x, [-1, own, *picture]))
        places = call(aten.im2col.default, (x, kernel, dilation, padding, stride))
        size = own * kernel[0] * kernel[1]
        weight = call(aten.reshape.default, (weight, [-1, each, size]))
        product = call(aten.bmm.default, (weight, places))
        result = call(aten.reshape.default, (product, [1, -1, *shapes[node.name][2:]]))
        if bias is not None:
            lying = call(aten.reshape.default, (bias, [1, -1, 1, 1]))
            result = call(aten.add.Tensor, (result, lying))
    node.replace_all_uses_with(result)
    graph.erase_node(node)
