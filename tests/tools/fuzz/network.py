"""The module a genome describes, and how genomes grow."""

import zlib
from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from models._random import normal, randomise, tokens
from tests.tools.fuzz.genome import Genome, Step
from tests.tools.fuzz.steps import ENDS, GROWING, STEPS, Stream
from tests.tools.fuzz.steps.convert import WORDS

BATCH = 2
LOUD = 100.0
"""No stream holds a larger number: errors of rounding are judged against the output."""
MOST = 2048
"""Numbers of a stream, of one sample."""


class Unfit(ValueError):
    """A step does not fit the streams it reads."""


def example(op: str, options: dict[str, int], seed: int, batch: int = BATCH) -> Tensor:
    """What an input step gives."""
    if op == "words":
        return tokens(options["count"], batch, options["length"], seed=seed)
    shape = {
        "image": lambda channels, size: (channels, size, size),
        "sound": lambda channels, length: (channels, length),
        "volume": lambda channels, size: (channels, size, size, size),
        "tokens": lambda length, channels: (length, channels),
        "vector": lambda channels: (channels,),
    }[op](**options)
    return normal(batch, *shape, seed=seed)


INPUTS: dict[str, Any] = {
    "image": lambda r: {"channels": r.choice([1, 3, 4]), "size": r.choice([4, 4, 6, 8])},
    "sound": lambda r: {"channels": r.choice([2, 3]), "length": r.choice([6, 8])},
    "volume": lambda r: {"channels": r.choice([1, 2]), "size": r.choice([2, 3, 4])},
    "tokens": lambda r: {"length": r.choice([4, 5, 6]), "channels": r.choice([3, 5])},
    "vector": lambda r: {"channels": r.choice([3, 5, 6])},
    "words": lambda r: {"length": r.choice([4, 6]), "count": r.choice([9, 20])},
}
FREQUENCY = {"image": 12, "sound": 4, "volume": 7, "tokens": 5, "vector": 3, "words": 3}
FIRST = {"words": ("embed", "embed", "bag"), "tokens": ("linear",), "vector": ("linear",)}


class Network(nn.Module):
    """Steps in order; what no step reads is an output."""

    def __init__(self, genome: Genome) -> None:
        super().__init__()
        self.genome = Genome(genome.seed, ())
        self.parts = nn.ModuleDict()
        self.streams: dict[str, Stream] = {}
        for step in genome.steps:
            self.add(step)
        self.eval()

    def add(self, step: Step) -> Stream:
        """One more step. Raises Unfit where it does not fit its sources."""
        seed = zlib.crc32(f"{self.genome.seed} {step.name}".encode())
        if step.op in INPUTS:
            value = example(step.op, step.options, seed)
            stream = Stream(step.name, step.op, value, nn.Identity(), op=step.op)
        else:
            stream = self._made(step, seed)
            self.parts[step.name] = stream.module
        self.genome = Genome(self.genome.seed, (*self.genome.steps, step))
        self.streams[step.name] = stream
        return stream

    def drop(self, name: str) -> None:
        """Forget a step that nobody reads, if it is there."""
        steps = tuple(step for step in self.genome.steps if step.name != name)
        self.genome = Genome(self.genome.seed, steps)
        self.streams.pop(name, None)
        if name in self.parts:
            del self.parts[name]

    def _made(self, step: Step, seed: int) -> Stream:
        kind = STEPS[step.op]
        try:
            sources = tuple(self.streams[name] for name in step.sources)
            if sources[0].kind not in kind.takes:
                raise Unfit(f"{step.op} does not take {sources[0].kind}")
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(seed)
                module = kind.make(*sources, **step.options)
                if not kind.refers:
                    randomise(module, seed)
                value = module.eval()(*(source.value.clone() for source in sources))
        except (RuntimeError, ValueError, LookupError, TypeError, AssertionError) as error:
            raise Unfit(f"{step}: {error}") from error
        gives = kind.gives or sources[0].kind
        if gives != "end":
            self._check(step, gives, value)
        return Stream(step.name, gives, value, module, sources, step.op)

    def _check(self, step: Step, kind: str, value: Tensor) -> None:
        rank = {"vector": 2, "tokens": 3, "sound": 3, "image": 4, "volume": 5}[kind]
        small = value.dim() == rank and value.shape[0] == BATCH and value[0].numel() <= MOST
        if not small or not value.is_floating_point() or 0 in value.shape:
            raise Unfit(f"{step} gives {tuple(value.shape)}")
        if not bool(torch.isfinite(value).all()) or float(value.abs().max()) > LOUD:
            raise Unfit(f"{step} is too loud")

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The example inputs."""
        found = [self.streams[step.name].value for step in self.genome.steps if step.op in INPUTS]
        return tuple(value.clone() for value in found)

    @property
    def ends(self) -> list[Stream]:
        """Streams that no step reads."""
        read = {name for step in self.genome.steps for name in data_sources(step)}
        return [stream for name, stream in self.streams.items() if name not in read]

    def reads_input(self, tensor: str) -> bool:
        """Whether a parameter belongs to a step that reads an input."""
        name = tensor.split(".")[1] if tensor.startswith("parts.") else ""
        return name in self.streams and any(s.op in INPUTS for s in self.streams[name].sources)

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        given = iter(inputs)
        values: dict[str, Tensor] = {}
        for step in self.genome.steps:
            if step.op in INPUTS:
                values[step.name] = next(given)
                continue
            sources = [values[name] for name in step.sources]
            values[step.name] = self.parts[step.name](*sources)
        return [values[stream.name] for stream in self.ends if stream.op not in INPUTS]


def data_sources(step: Step) -> Sequence[str]:
    """The streams whose values a step reads."""
    refers = step.op in STEPS and STEPS[step.op].refers
    return step.sources[:-1] if refers else step.sources


def grown(seed: int, least: int = 6, most: int = 16) -> Network:
    """A random network, the same for the same seed."""
    rng = Random(seed)
    network = Network(Genome(seed, ()))
    kinds = rng.choices(list(FREQUENCY), list(FREQUENCY.values()), k=rng.choice([1, 1, 1, 2]))
    streams: list[Stream] = []
    for op in kinds:
        given = network.add(Step(f"x{len(network.streams) + 1}", op, (), INPUTS[op](rng)))
        made = None
        if op == "words" or rng.random() < 0.8:  # a layer first: channels of an input cannot go
            made = _try(network, rng, rng.choice(FIRST.get(op, ("conv",))), given, streams)
        streams.append(made or given)
    size = rng.randint(least, most)
    attempts = 0
    while len(network.streams) < size + len(kinds) and attempts < 20 * most:
        attempts += 1
        loose = [stream for stream in network.ends if stream in streams]
        x = rng.choice((loose or streams)[-3:] if rng.random() < 0.75 else streams)
        names = [name for name, kind in GROWING.items() if x.kind in kind.takes]
        op = rng.choices(names, [GROWING[name].weight for name in names])[0]
        stream = _try(network, rng, op, x, streams)
        if stream is not None:
            streams.append(stream)
    for end in [s for s in network.ends if s.op not in INPUTS]:
        _try(network, rng, "odd_head" if rng.random() < 0.03 else "head", end, streams)
    return network.eval()


def _try(
    network: Network, rng: Random, op: str, x: Stream, streams: Sequence[Stream]
) -> Stream | None:
    """A step of this kind, if one fits."""
    kind = STEPS[op]
    options = kind.draw(rng, x)
    others = kind.find(rng, x, streams)
    if not isinstance(options, dict) or others is None:
        return None
    sources = (x.name, *(other.name for other in others))
    try:
        return network.add(Step(f"x{len(network.streams) + 1}", op, sources, options))
    except Unfit:
        return None


__all__ = ["BATCH", "ENDS", "INPUTS", "WORDS", "Network", "Unfit", "data_sources", "grown"]
