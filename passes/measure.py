"""From calibration inputs to a curve for each group: what its channels cost, after the best refit.

    criterion "obs"     the order that the curve itself finds, cheapest next step first
    any other           the order of its scores; what each step costs is measured all the same

So groups compete in one unit, the loss of the whole network, whatever says what goes first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .coupling import Coupling
from .curves import Curve, curve
from .duet import Chunk, chunks_of
from .importance import channel_scores
from .options import Options
from .readings import Reading, readings
from .threads import one_thread

SAMPLES = 256
"""Inputs that are measured with, at most."""

TOGETHER = 16
"""Inputs that go backwards through the network together."""


@dataclass(frozen=True, eq=False)
class Measured:
    """A curve for each group of the coupling; or why there is none."""

    curves: tuple[Curve, ...] | None
    criterion: str = "obs"
    """What says which channels go first."""
    why: str = ""
    samples: int = 0

    @classmethod
    def of(
        cls, coupling: Coupling, calls: Iterable[tuple[Any, Any]], options: Options
    ) -> "Measured":
        """Measure all groups on some calibration inputs: pairs (args, kwargs)."""
        criterion = "obs" if options.criterion == "auto" else options.criterion
        fallback = "l2" if options.criterion == "auto" else options.criterion
        chunks = _some(chunks_of(calls, coupling.program, TOGETHER))
        try:
            read = readings(coupling, chunks, options.seed)
        except (RuntimeError, NotImplementedError) as error:
            return cls(None, fallback, f"it has no gradients: {str(error).splitlines()[0]}")
        if not any(bool(reading.energy.any()) for reading in read):
            return cls(None, fallback, "nothing that can be refitted changes the outputs")
        curves = _curves(coupling, read, criterion, options.seed)
        return cls(curves, criterion, "", sum(chunk.samples for chunk in chunks))


@one_thread()
def _curves(
    coupling: Coupling, read: list[Reading], criterion: str, seed: int
) -> tuple[Curve, ...]:
    scores = None if criterion == "obs" else channel_scores(coupling, criterion, seed)
    return tuple(curve(coupling, group, read, scores) for group in coupling.groups)


def _some(chunks: list[Chunk]) -> list[Chunk]:
    """The first chunks, of `SAMPLES` inputs together."""
    found: list[Chunk] = []
    for chunk in chunks:
        if found and sum(one.samples for one in found) + chunk.samples > SAMPLES:
            break
        found.append(chunk)
    return found
