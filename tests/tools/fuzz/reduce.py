"""The smallest genome that still fails in the same way: delta debugging on its steps."""

import re
from collections.abc import Callable, Iterator

from compressor.passes.base.minimise import runs, smallest

from tests.tools.fuzz.check import Found, check
from tests.tools.fuzz.genome import Genome
from tests.tools.fuzz.network import Network, Unfit

PLANS = 4
"""Random plans a genome is tried with while it is cut down: groups change with it."""


def kind_of(found: Found) -> str:
    """What a failure has in common with its smaller relatives: the words, without the numbers."""
    words = "wrong" if found.outcome == "wrong" else found.why
    return re.sub(r"[\d.]+(e-?\d+)?|x\d+|'[^']*'|\([^)]*\)", "*", words)[:80]


def reduced(genome: Genome, fails: Callable[[Genome], bool], most: int = 150) -> Genome:
    """Cut out runs of steps, then single ones, for as long as the rest fails."""

    def smaller(genome: Genome) -> Iterator[Genome]:
        found = (genome.without(names) for names in runs([one.name for one in genome.steps][::-1]))
        return (one for one in found if one.steps and fits(one))

    return smallest(genome, smaller, fails, most)[0]


def fits(genome: Genome) -> bool:
    try:
        network = Network(genome)
    except Unfit:
        return False
    return bool(network.ends) and bool(network.inputs) and len(network.parts) > 0


def like(found: Found, onnx: bool = False) -> Callable[[Genome], bool]:
    """Whether a genome fails in the same way as `found` did."""
    kind = kind_of(found)

    def fails(genome: Genome) -> bool:
        other = check(genome, onnx=onnx, plans=PLANS)
        return other.failed and kind_of(other) == kind

    return fails
