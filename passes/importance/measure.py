"""From calibration inputs to a curve for each group: what its channels cost, after the best refit.

    criterion "obs"     the order that the curve itself finds, cheapest next step first
    any other           the order of its scores; what each step costs is measured all the same
    "auto"              those of `CANDIDATES`; `pipeline/select_plan.py` tries them

So groups compete in one unit, the loss of the whole network, whatever says what goes first.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..base.errors import UsageError
from ..base.threads import one_thread
from ..calibration.activation_statistics import Reading, readings
from ..calibration.lockstep import Chunk, sampled
from ..coupling.groups import Coupling
from .gradient import DATA_CRITERIA, Evidence, by_data
from .magnitude import channel_scores, of_channels
from .obs_curves import Curve, curve

CANDIDATES = ("obs", "l2", "hessian")
"""What "auto" chooses from; the first where nothing tells them apart."""

SAMPLES = 256
"""Inputs that are measured with, at most."""

TOGETHER = 16
"""Inputs that go backwards through the network together."""

STEP = 8
"""Inputs whose gradients are summed, for the criteria that square them."""


Scored = Callable[[Coupling, Evidence, int], Tensor]
"""A criterion from elsewhere: scores of all channels, float64 [channels]."""


@dataclass(frozen=True, eq=False)
class Measured:
    """A curve for each group of the coupling; or why there is none."""

    curves: tuple[Curve, ...] | None
    criterion: str = "obs"
    """What says which channels go first."""
    why: str = ""
    samples: int = 0
    others: Mapping[str, tuple[Curve, ...]] = field(default_factory=dict)
    """Curves by other criteria, where the criterion is to be found out."""

    @property
    def finite(self) -> bool:
        """Whether there are curves, and all of them are numbers."""
        curves = [one for found in self.by_criterion.values() for one in found or ()]
        return self.curves is not None and all(math.isfinite(sum(one.losses)) for one in curves)

    @property
    def by_criterion(self) -> dict[str, tuple[Curve, ...] | None]:
        """All curves; the first is the criterion to believe where nothing tells them apart."""
        return {self.criterion: self.curves, **self.others}

    @classmethod
    def of(
        cls,
        coupling: Coupling,
        calls: Iterable[tuple[Any, Any]],
        criterion: str = "auto",
        seed: int = 0,
        *,
        scored: Scored | None = None,
        labelled: Sequence[Chunk] = (),
        gone: Tensor | None = None,
        trial: bool = True,
    ) -> "Measured":
        """Measure all groups on some calibration inputs: pairs (args, kwargs).

        `scored` is the criterion, where it is from elsewhere; `labelled` are inputs
        with losses of their own, for the criteria by gradients. Channels of `gone` go first.
        Without `trial`, "auto" is the first of `CANDIDATES` alone.
        """
        first = "obs" if criterion == "auto" else criterion
        program = coupling.program
        chunks, _ = sampled(calls, program, TOGETHER, lambda chunk: SAMPLES // chunk.samples)
        try:
            whole = gone is None or not len(gone)
            read = readings(coupling, chunks, seed, original=whole)
        except (RuntimeError, NotImplementedError) as error:
            why = f"it has no gradients: {str(error).splitlines()[0]}"
            return cls(None, _instead(criterion, why), why)
        if not any(bool(reading.energy.any()) for reading in read):
            why = "nothing that can be refitted changes the outputs"
            return cls(None, _instead(criterion, why), why)
        evidence: Evidence = (
            labelled or sampled(calls, program, STEP, lambda chunk: SAMPLES // chunk.samples)[0],
            read,
        )
        if scored is not None:
            scores = scored(coupling, evidence, seed)
            curves = _greedy(coupling, read, scores, gone)
            return cls(curves, first, "", sum(chunk.samples for chunk in chunks))
        curves = _curves(coupling, evidence, first, seed, gone)
        more = CANDIDATES[1:] if trial and criterion == "auto" else ()
        others = {name: _curves(coupling, evidence, name, seed, gone) for name in more}
        return cls(curves, first, "", sum(chunk.samples for chunk in chunks), others)


def _instead(criterion: str, why: str) -> str:
    """The criterion where nothing can be measured. Raises UsageError for one that has to be."""
    if criterion == "auto":
        return "l2"
    if by_data(criterion):
        raise UsageError(
            f"the criterion '{criterion}' cannot be measured on this model",
            why=why,
            hint="take one that looks at the weights alone, such as l2",
        )
    return criterion


def _curves(
    coupling: Coupling, evidence: Evidence, criterion: str, seed: int, gone: Tensor | None
) -> tuple[Curve, ...]:
    if criterion == "obs":
        scores = None
    elif criterion in DATA_CRITERIA:
        scores = of_channels(coupling, DATA_CRITERIA[criterion](coupling, evidence, seed))
    else:
        scores = channel_scores(coupling, criterion, seed)
    return _greedy(coupling, evidence[1], scores, gone)


@one_thread()
def _greedy(
    coupling: Coupling, read: Sequence[Reading], scores: Tensor | None, gone: Tensor | None
) -> tuple[Curve, ...]:
    return tuple(curve(coupling, group, read, scores, gone) for group in coupling.groups)
