"""One network from end to end: what came of it.

equal     every plan was proven, and the user's own module with zeros agreed where it can
refused   nothing to compare: no channel can go, or no plan meets the budget; the reason is kept
wrong     removing was not the same as silencing, or ONNX Runtime differs from torch
crash     anything else that was raised
"""

import copy
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from compressor.passes.coupling.propagate import results_of
from compressor.passes.ir.dtypes import float64_by_default, in_float64
from compressor.passes.ir.leaves import tensors as tensors_of
from compressor.passes.operators import RULES, functional_twin, rule_for
from compressor.passes.operators.indexing import unlabelled
from compressor.passes.proof.silenced_reference import silenced
from torch import Tensor, nn
from torch.fx import Interpreter
from torch.utils import _pytree as pytree

from compressor import passes
from compressor.loading.calls import at_batch
from compressor.onnx.export import export
from compressor.onnx.runtime import batches_of, parity
from tests.tools.fuzz.genome import Genome
from tests.tools.fuzz.network import Network
from tests.tools.fuzz.trace import traced

CLOSE = 1e-9
EXPORTED = 4
"""Every so many networks are captured by torch.export; the others are traced, which is quick."""
ONNX_REFUSALS = ("torch.onnx.export failed", "ONNX Runtime refuses", "torch.onnx.export made",
    "ONNX Runtime cannot run",)  # fmt: skip


class Wrong(Exception):
    """Two things that must be equal are not."""


@dataclass
class Found:
    """What one network showed. Counts are of groups, calls and plans."""

    seed: int
    outcome: str = "equal"
    why: str = ""
    trace: str = ""
    groups: int = 0
    frozen: Counter[str] = field(default_factory=Counter)
    """Groups of axes of which nothing can go, by reason."""
    rules: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    """Plans that were proven, compared independently, refused (with the reason), exported."""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return self.outcome in ("wrong", "crash")


def check(genome: Genome, *, onnx: bool = False, plans: int = 1) -> Found:
    """Build the network and look at it from all sides, with `plans` random plans."""
    found = Found(genome.seed)
    try:
        _check(genome, found, onnx, plans)
    except passes.SilentError as error:  # what it gives does not depend on its inputs
        found.outcome, found.why = "refused", error.what
    except (passes.GateError, Wrong) as error:
        found.outcome, found.why = "wrong", _line(error)
        found.trace = traceback.format_exc()
    except Exception as error:  # whatever is raised is what we are looking for
        found.outcome, found.why = "crash", f"{type(error).__name__}: {_line(error)}"
        found.trace = traceback.format_exc()
    return found


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return " ".join(lines[:2])[:300]


def _check(genome: Genome, found: Found, onnx: bool, plans: int) -> None:
    watch = Watch(found.seconds)
    network = Network(genome)
    found.steps.update(step.op for step in genome.steps)
    watch.lap("build")
    program = (
        passes.capture(network, network.inputs, {})
        if onnx or plans > 1 or genome.seed % EXPORTED == 0 or needs_export(genome)
        else traced(network, network.inputs)
    )
    found.checks[program.engine] += 1
    watch.lap("capture")
    coupling = passes.couple(program)
    watch.lap("couple")
    found.groups, found.frozen = len(coupling.groups), frozen_groups(network, coupling)
    found.rules.update(exercised(coupling))
    rng = Random(genome.seed)
    if not any(group.size > 1 for group in coupling.groups):
        found.outcome, found.why = "refused", "no channel can go"
        return
    small = program
    for plan in drawn_plans(coupling, rng, plans, found.checks):
        small = passes.apply(passes.Shrink(plan), program).program
        watch.lap("plan")
        sizes = (2, 3) if program.batch else (2,)
        inputs = [at_batch((program.args, {}), program.batch, size) for size in sizes]
        proof = passes.prove(plan, small, inputs)
        watch.lap("prove")
        found.checks["proven"] += 1
        found.checks[independently(network, plan, small, proof, inputs[-1][0])] += 1
        watch.lap("compare")
    if onnx:
        _runtime(program, small, found.checks)
        watch.lap("onnx")


def needs_export(genome: Genome) -> bool:
    """Numbers that are taken out of a tensor: only torch.export can say what they are."""
    return any(step.options.get("fn") == "item" for step in genome.steps)


def _runtime(original: passes.Program, small: passes.Program, checks: Counter[str]) -> None:
    """ONNX Runtime beside torch. What torch's exporter cannot do is counted, not blamed."""
    if any(
        torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        for node in small.calls()
    ):
        checks["onnx refused: draws random numbers, which ONNX Runtime draws differently"] += 1
        return
    try:
        call = (small.args, dict(small.kwargs))
        parity(small, export(small), call, batches=batches_of(original, call))
    except passes.GateError:
        raise
    except passes.CompressError as error:
        if not str(error).startswith(ONNX_REFUSALS) and not error.what.startswith(ONNX_REFUSALS):
            raise
        checks[f"onnx refused: {error.what}: {(error.why or '')[:90]}"] += 1
        return
    checks["onnx equal"] += 1


class Watch:
    """Adds the processor's seconds since the last lap to a counter."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds, self.last = seconds, time.process_time()

    def lap(self, name: str) -> None:
        now = time.process_time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now


# --- plans ---------------------------------------------------------------------------------------


def drawn_plans(
    coupling: passes.Coupling, rng: Random, count: int, checks: Counter[str]
) -> Iterator[passes.Plan]:
    """Chosen for random budgets, and drawn from the groups at random."""
    for _ in range(count):
        kind = rng.choice(["channels", "macs", "params", "bytes"])
        budget = passes.Budget(**{kind: round(rng.uniform(0.25, 0.9), 2)})
        options = passes.Options(
            criterion=rng.choice(["l2", "l2", "l1", "random"]),
            seed=rng.randrange(100),
            uniform=rng.random() < 0.4,
            round_to=rng.choice([1, 1, 1, None, 2, 4]),
        )
        try:
            yield passes.choose(coupling, budget, options)
        except passes.UsageError as error:
            checks[f"plan refused: {_kind_of_refusal(error)}"] += 1
        yield random_plan(coupling, rng)


def _kind_of_refusal(error: passes.UsageError) -> str:
    for words in ("cannot be reached", "cannot be met closely", "is met already"):
        if words in error.what:
            return words
    return error.what


def random_plan(coupling: passes.Coupling, rng: Random) -> passes.Plan:
    """A random number of steps of each group, at least one in all; rows lose other entries."""
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    gone = [torch.zeros(0, dtype=torch.long)]
    for group in coupling.groups:
        least = int(len(gone) == 1 and group.size > 1)
        if rng.random() < 0.3 and not least:
            continue
        steps = int(torch.randint(least, group.size, (1,), generator=generator))
        if steps:
            gone += [cell[torch.randperm(len(cell), generator=generator)[:steps]]
                     for cell in group.cells]  # fmt: skip
    channels = torch.cat(gone).sort().values
    return passes.Plan(coupling, passes.Budget(channels=0.5), channels)


# --- the user's own module -----------------------------------------------------------------------


def independently(
    network: nn.Module, plan: passes.Plan, small: passes.Program, proof: passes.Proof, args: Any
) -> str:
    """The eager module with zeros in its parameters, in float64, beside the small network.

    It holds wherever silence stays silent; elsewhere there is nothing to compare.
    """
    if proof.inexact:
        return "not compared: a norm over fewer channels"
    if proof.dtype != "float64":
        return "not compared: float32 only"
    original = copy.deepcopy(network).double()
    own = {**dict(original.named_parameters(remove_duplicate=False)),
           **dict(original.named_buffers(remove_duplicate=False))}  # fmt: skip
    silent = silenced(plan.coupling, plan.sizes)
    with torch.no_grad():
        for name in silent.keys() & own:
            own[name].copy_(silent[name])
    args = pytree.tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, args)
    with float64_by_default(), torch.no_grad():
        wanted = tensors_of(original.eval()(*_copies(args)))
        found = tensors_of(in_float64(small)(*_copies(args)))
    if not all(bool(torch.isfinite(one).all()) for one in wanted):
        return "not compared: silence divided by silence"
    if all(map(same, found, wanted)):
        return "compared with the user's module"
    if loud(plan, args):
        return "not compared: a sum with what is not silent in it"
    raise Wrong(f"the user's module with zeros differs by {gap(found, wanted):.2g}")


def _copies(args: Any) -> Any:
    return [arg.clone() for arg in args]


def same(found: Tensor, wanted: Tensor) -> bool:
    if found.shape != wanted.shape:
        return False
    if not found.is_floating_point():
        return torch.equal(found, wanted)
    scale = float(wanted.abs().max()) if wanted.numel() else 1.0
    return torch.allclose(found, wanted, rtol=0, atol=CLOSE * max(scale, 1.0))


def gap(found: Iterable[Tensor], wanted: Iterable[Tensor]) -> float:
    pairs = [(a, b) for a, b in zip(found, wanted, strict=True) if not same(a, b)]
    if any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


PRODUCTS = ("matmul", "bmm", "einsum", "scaled_dot_product_attention", "baddbmm", "linear", "mm")
DISTANCES = ("cdist", "cosine_similarity")
"""Something on one side is enough: it is as far from silence."""
SUMS = ("sum", "nansum")
"""What was removed counts nothing there, even where an operator made something of its zeros."""


def loud(plan: passes.Plan, args: Any) -> bool:
    """Whether a sum has something of a removed channel in it, or a product on both its sides."""
    coupling, sizes = plan.coupling, plan.sizes
    silent = in_float64(coupling.program, silenced(coupling, sizes))
    originals = dict(zip(silent.graph.nodes, coupling.program.module.graph.nodes, strict=True))
    heard: list[bool] = []

    class Listener(Interpreter):
        def run_node(self, n: Any) -> Any:
            call = coupling.trace.calls.get(originals[n])
            name = "" if call is None else call.op._schema.name.removeprefix("aten::")
            if call is not None and name in (*PRODUCTS, *DISTANCES):
                given, _ = self.fetch_args_kwargs_from_env(n)
                tensors = tensors_of(given)
                values = results_of(list(call.given.values()))
                sides = [_heard(sizes, v, t) for v, t in zip(values, tensors, strict=False)]
                heard.append(sum(sides) > (name in PRODUCTS))
            if call is not None and name in SUMS:
                (tensor, *axes), _ = self.fetch_args_kwargs_from_env(n)
                heard.append(_mixed(sizes.stays(call.given["self"]), tensor, axes))
            return super().run_node(n)

    with torch.no_grad(), float64_by_default():
        Listener(silent).run(*pytree.tree_leaves(args), enable_io_processing=False)
    return any(heard)


def _heard(sizes: Any, value: Any, tensor: Tensor) -> bool:
    """Whether a removed position of a tensor holds something."""
    stays = sizes.stays(value)
    try:
        return bool((tensor * ~stays).any())
    except RuntimeError:  # heads folded into a batch of another size
        return True


def _mixed(stays: Tensor, tensor: Tensor, axes: list[Any]) -> bool:
    """Whether a sum over these axes, or all, adds something removed to what stays."""
    stays = stays.expand_as(tensor)
    over = axes[0] if axes and axes[0] else list(range(tensor.dim()))
    removed = (tensor != 0) & ~stays
    return bool((removed.sum(over).bool() & stays.sum(over).bool()).any())


# --- what was looked at --------------------------------------------------------------------------


def exercised(coupling: passes.Coupling) -> set[str]:
    """Rules that were asked about at least one channel, or that never are."""
    found: set[str] = set()
    for node, call in coupling.trace.calls.items():
        values = [*call.values, *results_of(coupling.trace.results[node])]
        labelled = any(value.arrays for value in values)
        if call.values and not labelled and rule_for(call.op).label is not unlabelled:
            continue
        found.update(str(op) for op in (call.op, functional_twin(call.op)) if op in RULES)
    return found


DUE = {
    "an output of the network": ("program output",),
    "reads an input": ("reads an input",),
    "numbers that need every channel": (
        "is needed whole by", "is reduced by", "is summed over by", "is an argument of",
        "is looked up by index", "is padded with its own entries", "is an index",
        "is the only row of its kind", "a single channel is taken out", "is a spatial axis",
    ),
    "meets positions or constants": (
        "meets an unlabelled axis", "meets positions", "is summed with an unlabelled axis",
        "is cut where the batch size says",
    ),
}  # fmt: skip
"""Reasons that lie in the network: no tool could remove these channels."""


def due(why: str) -> str:
    """Which of the reasons that lie in the network this is, or "" where it is a limit of ours."""
    why = why.removeprefix("its rows cannot go: ")
    return next((name for name, words in DUE.items() if why.startswith(words)), "")


def frozen_groups(network: Network, coupling: passes.Coupling) -> Counter[str]:
    """Axes of which nothing can go, those with common channels together, by their reason."""
    home: dict[int, int] = {}
    reasons: dict[int, str] = {}
    for number, one in enumerate(coupling.frozen):
        arrays = [a for a in coupling.state[one.axis.tensor].arrays if a.shape[one.axis.dim] > 1]
        own = {int(c) for array in arrays for c in coupling.classes[array].unique()}
        same = {home[c] for c in own if c in home}
        why = one.why.split(" at ")[0]
        reads = network.reads_input(one.axis.tensor) and one.axis.dim == _input_axis(why)
        reasons[number] = "reads an input" if reads else why
        for other in same:
            reasons[number] = reasons.pop(other)
        home.update({c: number for c, root in home.items() if root in same})
        home.update(dict.fromkeys(own, number))
    return Counter(reasons.values())


def _input_axis(why: str) -> int:
    """Which axis of a weight meets an input: 1, or 0 where it is looked up."""
    return {"is summed with an unlabelled axis": 1, "is looked up by index": 0}.get(why, -1)
