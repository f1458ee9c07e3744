"""The smallest genome that still fails in the same way: delta debugging on its steps.

(Zeller, "Yesterday, my program worked. Today, it does not. Why?", 1999.)
"""

import re
from collections.abc import Callable

from benchmarks.fuzz.check import Found, check
from benchmarks.fuzz.genome import Genome
from benchmarks.fuzz.network import Network, Unfit

PLANS = 4
"""Random plans a genome is tried with while it is cut down: groups change with it."""


def kind_of(found: Found) -> str:
    """What a failure has in common with its smaller relatives: the words, without the numbers."""
    words = "wrong" if found.outcome == "wrong" else found.why
    return re.sub(r"[\d.]+(e-?\d+)?|x\d+|'[^']*'|\([^)]*\)", "*", words)[:80]


def reduced(genome: Genome, fails: Callable[[Genome], bool], most: int = 150) -> Genome:
    """Cut out runs of steps, then single ones, for as long as the rest fails."""
    tried, size = 0, len(genome.steps) // 2
    while size:
        smaller = None
        names = [step.name for step in genome.steps]
        for start in range(len(names) - 1, -1, -size):
            if tried >= most:
                return genome
            candidate = genome.without(names[max(start - size + 1, 0) : start + 1])
            if not candidate.steps or not fits(candidate):
                continue
            tried += 1
            if fails(candidate):
                smaller = candidate
                break
        if smaller is None:
            size //= 2
        else:
            genome, size = smaller, min(size, max(len(smaller.steps) // 2, 1))
    return genome


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
