"""One plan of ours: as sliced, with batch norms re-estimated, and repaired."""

import time
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from compressor.passes.calibration.lockstep import held_out, sampled
from compressor.passes.ir.rebuild import clone
from compressor.passes.repair.layerwise import Duet
from torch import Tensor

from benchmarks.accuracy.networks import Network, network
from compressor import compress, passes
from compressor.pipeline.variant_race import raced

TOGETHER = 32


@cache
def coupled(name: str) -> passes.Coupling:
    """The groups of a network: they are the same for every plan."""
    found = network(name)
    return passes.couple(passes.capture(found.model, (found.calibration[:2],), {}))


def calls(inputs: Tensor) -> list[tuple[tuple[Tensor], dict[str, Any]]]:
    """Inputs as calls of the model, in batches."""
    return [((part,), {}) for part in inputs.split(TOGETHER)]


def row(
    name: str,
    budget: float,
    *,
    criterion: str = "auto",
    inputs: int = 1024,
    first: int | None = None,
    round_to: int | None = None,
    by_curve: bool = True,
    steps: int | None = None,
) -> dict[str, Any]:
    """Plan, cut and repair; accuracies on the (first) test inputs.

    Without `by_curve` groups compete by the scores of their weights alone; `steps` is in how many
    the channels are chosen.
    """
    found, coupling = network(name), coupled(name)
    start = time.perf_counter()
    asked, options = passes.Budget(macs=budget), passes.Options(criterion, round_to=round_to)
    given = calls(found.calibration[:inputs])
    if not by_curve:
        plan = passes.choose(coupling, asked, options)
    else:
        plan = passes.contest(coupling, asked, options, given, steps=steps)
    small = passes.apply(passes.Shrink(plan), coupling.program).program
    cut = time.perf_counter()
    repaired = passes.mend(passes.Repair(plan, given), small)
    mended = time.perf_counter()
    return {
        "macs": plan.reached / plan.dense,
        "unit": plan.unit,
        "loss": plan.loss,
        "criterion": plan.trials[0].criterion if plan.trials else criterion,
        "steps": plan.trials[0].steps if plan.trials else steps,
        "accuracy": {
            "sliced": found.accuracy(small.module, first),
            "statistics": found.accuracy(statistics(plan, small, found, inputs), first),
            "refit": found.accuracy(repaired.program.module, first),
        },
        "chosen": repaired.chosen,
        "divergences": dict(repaired.divergences),
        "peak_bytes": repaired.bytes,
        "seconds": {"plan and cut": cut - start, "repair": mended - cut},
    }


def whole(name: str, budget: float) -> dict[str, Any]:
    """A build as a user makes it, with both exports and the race: how long it takes."""
    found = network(name)
    data = [(part,) for part in found.calibration.split(TOGETHER)]
    start = time.perf_counter()
    example = (found.calibration[:2],)
    built = compress(found.model, example, budget=passes.Budget(macs=budget), data=data)
    compressed = time.perf_counter()
    assert built.onnx.data
    assert built.original_onnx.data
    exported = time.perf_counter()
    race = raced(built)
    done = time.perf_counter()
    return {
        "seconds": {
            "compress": compressed - start,
            "export": exported - compressed,
            "race": done - exported,
            "all": done - start,
        },
        "threads": torch.get_num_threads(),
        "accuracy": {"built": found.accuracy(built.module)},
        **{key: race[key] for key in ("ratio", "low", "high", "noise")},
    }


def statistics(plan: passes.Plan, small: passes.Program, found: Network, inputs: int) -> Any:
    """The sliced module with its batch norms re-estimated, layer by layer."""
    chunks = sampled(calls(found.calibration[:inputs]), plan.coupling.program)[0]
    duet = Duet(plan, clone(small), chunks, held_out(chunks), statistics=True)
    duet.run()
    return replace(duet.small).module
