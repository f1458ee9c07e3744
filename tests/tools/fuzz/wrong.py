"""Wrong networks: one operator of the small graph is another, at random. Who finds it?

found          by the proof, else by parity: ONNX Runtime with the wrong graph, torch with the right
not compared   no output that it changes was compared, and the report says so
harmless       it changes nothing: equal in float64 with other weights and other inputs
survived       none of these

Changed is one result: an activation becomes another, or a number is added, or it is scaled, or the
operator is left out.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from compressor.passes.ir.compare import gap
from compressor.passes.ir.dtypes import array, float64_by_default, in_float64, widened
from compressor.passes.ir.rebuild import clone
from compressor.passes.proof.random_weights import moved, stirred
from torch import Tensor
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from compressor import passes
from compressor.loading import load_inputs, load_model
from compressor.loading.calls import as_call, randomised
from compressor.onnx.export import export
from compressor.onnx.runtime import batches_of, parity
from models.catalog import CATALOG
from tests.tools.fuzz.check import ONNX_REFUSALS, needs_export, random_plan
from tests.tools.fuzz.network import grown
from tests.tools.fuzz.trace import traced

aten = torch.ops.aten

INSTEAD = {
    "relu": None, "relu_": None, "gelu": aten.relu.default, "silu": aten.relu.default,
    "silu_": aten.relu.default, "sigmoid": aten.tanh.default, "tanh": aten.sigmoid.default,
    "hardswish": aten.relu.default, "hardswish_": aten.relu.default, "elu": aten.relu.default,
    "leaky_relu": aten.relu.default, "hardsigmoid": aten.sigmoid.default,
}  # fmt: skip
"""What an activation becomes; None: its input."""

SEEDS = 3


@dataclass(frozen=True)
class Told:
    """What became of one wrong network."""

    network: str
    change: str
    kind: str
    """proof, parity, not compared, harmless or survived"""


def spoiled(small: passes.Program, rng: Random) -> tuple[str, passes.Program]:
    """A copy of the program with one change, and what it is."""
    wrong = clone(small)
    node = rng.choice(list(_numbers(wrong)))
    name = node.target._schema.name.removeprefix("aten::")
    ways = ["add", "scale", "drop"] + ["activation"] * (3 * (name in INSTEAD))
    way = rng.choice(ways)
    graph = wrong.module.graph
    users = list(node.users)
    with graph.inserting_after(node):
        if way == "add":
            other = graph.call_function(aten.add.Tensor, (node, 1e-3))
        elif way == "scale":
            other = graph.call_function(aten.mul.Tensor, (node, 1 + 1e-3))
        elif way == "drop" or INSTEAD[name] is None:
            other = _without(graph, node)
        else:
            other = graph.call_function(INSTEAD[name], (node.args[0],))
    for user in users:
        user.replace_input_with(node, other)
    if not node.users:  # one that works in place must not run
        graph.erase_node(node)
    graph.lint()
    wrong.module.recompile()
    return f"{way} at {node.name}", wrong


def _without(graph: Any, node: Node) -> Any:
    """The first input in place of the result where it has its shape, else zeros."""
    first = node.args[0] if node.args and isinstance(node.args[0], Node) else None
    if first is not None and first.meta.get("shape") == node.meta["shape"]:
        return first
    return graph.call_function(aten.zeros_like.default, (node,))


def _numbers(program: passes.Program) -> Iterator[Node]:
    """The calls that give floating-point tensors, with their shapes in `meta`."""
    kinds = _Shapes(program.module)
    leaves = pytree.tree_leaves((program.args, dict(program.kwargs)))
    with torch.no_grad():
        kinds.run(*[one.clone() if isinstance(one, Tensor) else one for one in leaves],
                  enable_io_processing=False)  # fmt: skip
    return (node for node in program.calls() if node in kinds.found and node.users)


class _Shapes(Interpreter):
    found: set[Node]

    def run_node(self, n: Node) -> Any:
        self.found = getattr(self, "found", set())
        result = super().run_node(n)
        if isinstance(result, Tensor):
            n.meta["shape"] = tuple(result.shape)
            overload = isinstance(n.target, torch._ops.OpOverload)
            if overload and result.is_floating_point() and n.op == "call_function":
                self.found.add(n)
        return result


def verdict(
    name: str, plan: passes.Plan, small: passes.Program, change: str, wrong: passes.Program
) -> Told:
    """Who finds the change."""
    program = plan.coupling.program
    call = (program.args, dict(program.kwargs))
    try:
        proof = passes.prove(plan, wrong, [call, randomised(call, 0)])
    except passes.SilentError:
        return Told(name, change, "not compared")
    except passes.WrongError:
        return Told(name, change, "proof")
    unsaid = any(one.why for one in proof.outputs)
    try:
        parity(small, export(wrong), call, batches=batches_of(small, call))
    except passes.WrongError:
        return Told(name, change, "parity")
    except passes.CompressError as error:
        if not error.what.startswith(ONNX_REFUSALS):
            raise
    if _equal(small, wrong, call):
        return Told(name, change, "harmless")
    return Told(name, change, "not compared" if unsaid else "survived")


def _equal(small: passes.Program, wrong: passes.Program, call: Any) -> bool:
    """Whether both give the same in float64, with the weights drawn afresh and other inputs."""
    for seed in range(SEEDS):
        given = [widened(leaf) for leaf in pytree.tree_leaves(moved(randomised(call, seed), 1.0))]
        weights = stirred(small, seed + 7)
        with torch.no_grad(), float64_by_default():
            first, second = (
                pytree.tree_leaves(
                    Interpreter(in_float64(one, weights)).run(
                        *[x.clone() if isinstance(x, Tensor) else x for x in given],
                        enable_io_processing=False,
                    )
                )
                for one in (small, wrong)
            )
        pairs = zip(first, second, strict=True)
        if any(gap(array(a), array(b)).slices > 1e-9 for a, b in pairs if isinstance(a, Tensor)):
            return False
    return True


def attempts(name: str, program: passes.Program, seed: int, count: int) -> Iterator[Told]:
    """So many changes of one network, cut by a random plan."""
    rng = Random(f"{name} {seed}")
    coupling = passes.couple(program)
    if not any(group.size > 1 for group in coupling.groups):
        return
    plan = random_plan(coupling, rng)
    small = passes.apply(passes.Shrink(plan), program).program
    for _ in range(count):
        change, wrong = spoiled(small, rng)
        yield verdict(name, plan, small, change, wrong)


def of_reference(name: str, seed: int = 0, count: int = 1) -> Iterator[Told]:
    """Changes of a reference model."""
    model, namespace = load_model(CATALOG[name])
    args, kwargs = as_call(load_inputs(namespace, None, None))
    return attempts(name, passes.capture(model.eval(), args, kwargs), seed, count)


def of_random(seed: int, count: int = 1) -> Iterator[Told]:
    """Changes of a random network."""
    network = grown(seed)
    exported = needs_export(network.genome)
    program = (
        passes.capture(network, network.inputs, {}) if exported else traced(network, network.inputs)
    )
    return attempts(f"seed {seed}", program, seed, count)


def planted(seed: int, count: int, each: int = 3) -> Iterator[Told]:
    """Changes of every reference model, and of so many random networks."""
    for name in CATALOG:
        yield from of_reference(name, seed, each)
    done, number = 0, seed
    while done < count:
        found = list(of_random(number, 1))
        done, number = done + bool(found), number + 1
        yield from found


def summary(told: Sequence[Told]) -> str:
    """How many of each kind, and what survived."""
    counts = Counter(one.kind for one in told)
    left = [f"{one.network}: {one.change}" for one in told if one.kind == "survived"]
    return f"{len(told)} in all, {dict(counts)}" + "".join(f"; SURVIVED {one}" for one in left)
