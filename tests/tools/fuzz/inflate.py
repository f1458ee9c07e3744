"""Inflate, then remove: an oracle that knows nothing of silencing.

A random network is grown together with a wider twin. What the twin has more is *dead*: those who
make the extra channels are random, and those who read them have zeros there. So both compute the
same, whatever dead channels are taken out of the twin; and once all of them are, its weights are
those of the narrow network.

Which channels of a stream are alive is read off the numbers: they are the columns of the twin that
equal those of the narrow network, in order.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import torch
from compressor.passes.ir.dtypes import float64_by_default, in_float64
from torch import Tensor

from compressor import passes
from tests.tools.fuzz.check import EXPORTED
from tests.tools.fuzz.genome import Genome, Step
from tests.tools.fuzz.network import INPUTS, Network, Unfit, example
from tests.tools.fuzz.steps import STEPS, Stream
from tests.tools.fuzz.trace import traced
from tests.tools.fuzz.widen import WIDENED, Source, widen, write

PROBES = 8
"""Samples that the columns are compared on."""
WEIGHTS = {"conv": 12, "binary": 8, "norm": 4, "unary": 6, "cat": 5, "linear": 4, "attention": 4}


class Pair:
    """A narrow network and its wider twin, step by step."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.narrow, self.wide = Network(Genome(seed, ())), Network(Genome(seed, ()))
        self.alive: dict[str, Tensor] = {}
        """Positions of the living channels in each stream of the twin."""
        self.axes: dict[tuple[str, int], Tensor] = {}
        """... and along the axes of its parameters."""
        self.probes: dict[str, tuple[Tensor, Tensor]] = {}

    def start(self, step: Step) -> Stream:
        stream = self.narrow.add(step)
        self.wide.add(step)
        probe = example(step.op, step.options, seed=99, batch=PROBES)
        if step.op == "words":  # an embedding knows the words of the example
            probe = probe.clamp(max=int(stream.value.max()))
        self.probes[step.name] = (probe, probe)
        self.alive[step.name] = torch.arange(stream.channels if step.op != "words" else 1)
        return stream

    def add(self, step: Step) -> Stream:
        """One more step in both. Raises Unfit where it does not fit, or mixes dead and living."""
        stream = self.narrow.add(step)
        sources = [
            Source(self.narrow.streams[name], self.wide.streams[name], self.alive[name])
            for name in step.sources
        ]
        widened = widen(step.op, step.options, self._mask, sources)
        twin = self.wide.add(Step(step.name, step.op, step.sources, widened.options))
        write(twin.module, stream.module, widened)
        with torch.no_grad():
            given = [self.wide.streams[name].value.clone() for name in step.sources]
            self.wide.streams[step.name] = replace(twin, value=twin.module(*given))
            narrow, wide = (
                part.module(*(self.probes[name][side].clone() for name in step.sources))
                for side, part in enumerate((stream, twin))
            )
        axis = stream.axis if stream.kind != "end" else narrow.dim() - 1
        self.alive[step.name] = matched(narrow, wide, axis)
        self.probes[step.name] = (narrow, wide)
        for (name, dim), alive in widened.axes.items():
            self.axes[f"parts.{step.name}.{name}", dim] = alive
        return stream

    def drop(self, name: str) -> None:
        """Forget a step that did not fit."""
        for network in (self.narrow, self.wide):
            network.drop(name)
        for known in (self.probes, self.alive):
            known.pop(name, None)
        self.axes = {key: alive for key, alive in self.axes.items()
                     if not key[0].startswith(f"parts.{name}.")}  # fmt: skip

    def _mask(self, width: int) -> tuple[int, Tensor]:
        """Size and living positions for new channels: often those of another stream."""
        known = [(self.wide.streams[name].channels, alive) for name, alive in self.alive.items()
                 if len(alive) == width and name in self.narrow.streams
                 and self.narrow.streams[name].kind not in ("words", "end")]  # fmt: skip
        if known and self.rng.random() < 0.7:
            return self.rng.choice(known)
        size = width + self.rng.choice([1, 2, 3, 4])
        return size, torch.tensor(sorted(self.rng.sample(range(size), width)))


def matched(narrow: Tensor, wide: Tensor, axis: int) -> Tensor:
    """Positions along `axis` of the columns of `wide` that are those of `narrow`, in order."""
    if narrow.dim() != wide.dim():
        raise Unfit("another rank")
    a, b = (t.movedim(axis, 0).flatten(1) for t in (narrow, wide))
    if a.shape[1] != b.shape[1]:
        raise Unfit("another size of the places")
    if bool((a == a[:, :1]).all(1).any()):
        raise Unfit("a channel that is constant cannot be told from another")
    found, at = [], 0
    for column in a:
        while at < len(b) and not torch.allclose(b[at], column, rtol=1e-4, atol=1e-5):
            at += 1
        if at == len(b):
            raise Unfit("the dead channels change the living ones")
        found.append(at)
        at += 1
    return torch.tensor(found)


def grown_pair(seed: int, most: int = 9) -> Pair:
    """A random network with its wider twin, the same for the same seed."""
    pair = Pair(seed)
    rng = pair.rng
    op = rng.choice(["image", "image", "image", "tokens", "sound", "vector", "words"])
    stream = pair.start(Step("x1", op, (), INPUTS[op](rng)))
    first = {"image": "conv", "sound": "conv", "words": "embed"}.get(op, "linear")
    streams = [s for s in [_try(pair, first, stream, [stream])] if s is not None] or [stream]
    names = [name for name in WIDENED if name not in ("embed", "head")]
    for _ in range(12 * most):
        if len(streams) >= most:
            break
        loose = [s for s in pair.narrow.ends if s in streams]
        x = rng.choice((loose or streams)[-3:] if rng.random() < 0.75 else streams)
        fitting = [name for name in names if x.kind in STEPS[name].takes]
        weights = [WEIGHTS.get(name, 1) for name in fitting]
        made = _try(pair, rng.choices(fitting, weights)[0], x, streams)
        if made is not None:
            streams.append(made)
    for end in [s for s in pair.narrow.ends if s.op not in INPUTS]:
        _try(pair, "head", end, streams)
    return pair


def _try(pair: Pair, op: str, x: Stream, streams: Sequence[Stream]) -> Stream | None:
    kind = STEPS[op]
    options = kind.draw(pair.rng, x)
    others = kind.find(pair.rng, x, streams)
    if not isinstance(options, dict) or others is None:
        return None
    if op == "head" and options["how"] == "raw":
        options["how"] = "mean"
    name = f"x{len(pair.narrow.streams) + 1}"
    step = Step(name, op, (x.name, *(other.name for other in others)), options)
    try:
        return pair.add(step)
    except Unfit:
        pair.drop(name)
        return None


# --- the check -----------------------------------------------------------------------------------


def dead_plan(pair: Pair, coupling: passes.Coupling) -> tuple[passes.Plan, int]:
    """The plan that removes every channel that is dead, and how many of the dead must stay."""
    living = torch.zeros(coupling.class_count, dtype=torch.bool)
    dead = torch.zeros_like(living)
    for name, value in coupling.state.items():
        for array in value.arrays:
            marked = torch.ones(array.shape, dtype=torch.bool)
            for dim in (d for d, size in enumerate(array.shape) if size > 1):
                alive = pair.axes.get((name, dim))
                if alive is not None:
                    gone = torch.ones(array.shape[dim], dtype=torch.bool)
                    gone[alive] = False
                    marked.index_fill_(dim, gone.nonzero().flatten(), False)
            classes = coupling.classes[array]
            living[classes[marked]] = True
            dead[classes[~marked]] = True
    removable = dead & ~living
    taken_out = [torch.zeros(0, dtype=torch.long)]
    for group in coupling.groups:
        cells = [cell[[_all(removable, coupling, int(c)) for c in cell]] for cell in group.cells]
        count = min(min(map(len, cells)), group.size - 1)
        taken_out += [cell[:count] for cell in cells]
    channels = torch.cat(taken_out).sort().values
    taken = torch.zeros_like(living)
    taken[coupling.classes_of(channels)] = True
    held = torch.from_numpy(coupling.held)
    return passes.Plan(coupling, passes.Budget(channels=0.5), channels), int(
        (dead & held & ~taken).sum()
    )


def _all(flags: Tensor, coupling: passes.Coupling, channel: int) -> bool:
    classes = coupling.classes_of(torch.tensor([channel]))
    held = torch.from_numpy(coupling.held)[classes]
    return bool(flags[classes[held]].all()) and bool(held.any())


def check_pair(seed: int, counts: Counter[str]) -> str:
    """Why taking the dead channels out does not give the narrow network back; "" where it does."""
    pair = grown_pair(seed)
    if not pair.wide.parts:
        return ""
    narrow, wide = pair.narrow, pair.wide
    counts.update(f"step {step.op}" for step in narrow.genome.steps)
    program = (
        passes.capture(wide, wide.inputs, {}) if seed % EXPORTED == 0 else traced(wide, wide.inputs)
    )
    coupling = passes.couple(program)
    plan, stuck = dead_plan(pair, coupling)
    small = passes.apply(passes.Shrink(plan), coupling.program).program
    counts["networks"] += 1
    counts["dead channels removed"] += len(plan.channels)
    counts["dead channels that had to stay"] += stuck
    inputs = [t.double() if t.is_floating_point() else t for t in narrow.inputs]
    with float64_by_default(), torch.no_grad():
        wanted = narrow.double()(*inputs)
        found = in_float64(small)(*inputs)
    for a, b in zip(found, wanted, strict=True):
        if a.shape != b.shape or not torch.allclose(a, b, rtol=1e-9, atol=1e-9):
            return "the outputs differ from those of the narrow network"
    if stuck:
        return ""
    counts["networks without any dead channel"] += 1
    own = dict(narrow.named_parameters())
    for name, tensor in small.tensors().items():
        if name in own and not torch.equal(tensor.double(), own[name]):
            return f"{name} is not that of the narrow network"
    return ""
