"""Results of long stages as they are kept in a work folder, and looked at again when recalled.

planned     counted again against its budget (see `passes.pipeline.recount`)
repaired    run again on the inputs that nothing was fitted to
raced       its ratio and its times are those of its samples

What is kept of an export is looked at where it is made (`built.py`): parity is taken anew.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError

from compressor.passes.base.errors import WrongError
from compressor.result.build_cache import BuildCache, recalled

if TYPE_CHECKING:
    from compressor.passes import Budget, Coupling, Plan, Program, Repair, Repaired

_EXACT = 1e-6
"""Rounding, as a share."""


def planned(
    work: BuildCache,
    parts: Mapping[str, Any],
    coupling: "Coupling",
    budget: "Budget",
    least: int,
    make: Callable[[], "Plan"],
) -> "Plan":
    """A plan, or what was chosen of the same network with the same inputs and options.

    Raises WrongError where what was kept is no plan for this budget.
    """
    from compressor.passes.pipeline.recount import recount

    fresh: list[Plan] = []

    def made() -> dict[str, Any]:
        fresh.append(make())
        found = fresh[0]
        plain = ("dense", "reached", "unit", "loss", "samples", "why", "note")
        facts = {name: getattr(found, name) for name in plain}
        facts["budget"] = found.budget.to_json()
        facts["trials"] = [asdict(one) for one in found.trials]
        facts["widths"] = [(group.name, width) for group, width in found.widths]
        return facts | {"channels": found.channels.tolist()}

    facts = work.once_json("plan", parts, made)
    if fresh:
        return fresh[0]

    def look() -> "Plan":
        plan = _plan(facts, coupling)
        recount(plan, budget, least)
        return plan

    found: Plan = recalled("plan", look)
    return found


def _plan(facts: Mapping[str, Any], coupling: "Coupling") -> "Plan":
    from compressor.passes import Budget, Plan, Trial

    groups = {group.name: group for group in coupling.groups}
    read = {
        "budget": Budget(**facts["budget"]),
        "trials": tuple(Trial(**one) for one in facts["trials"]),
        "widths": tuple((groups[name], width) for name, width in facts["widths"]),
        "channels": torch.tensor(facts["channels"], dtype=torch.int64),
    }
    return Plan(coupling, **(dict(facts) | read))


def repaired(
    work: BuildCache,
    parts: Mapping[str, Any],
    step: "Repair",
    small: "Program",
    make: Callable[[], "Repaired"],
) -> "Repaired":
    """A repair, or what it gave for the same network and inputs.

    Raises WrongError where what was kept is not as near to the original as it says.
    """
    from safetensors.torch import save

    from compressor.passes.pipeline.recount import look_again

    fresh: list[Repaired] = []

    def made() -> bytes:
        fresh.append(make())
        found = fresh[0]
        facts = {one.name: getattr(found, one.name) for one in fields(found)}
        del facts["program"]
        facts |= {"layers": [asdict(one) for one in found.layers]}
        tensors = {name: one.detach().clone() for name, one in found.program.tensors().items()}
        return save(tensors, {"facts": json.dumps(facts)})

    data = work.once("repair", parts, made)
    if fresh:
        return fresh[0]

    def look() -> "Repaired":
        repair = _repair(data, small)
        look_again(step, small, repair)
        return repair

    found: Repaired = recalled("repair", look)
    return found


def _repair(data: bytes, small: "Program") -> "Repaired":
    from safetensors.torch import load

    from compressor.passes import Repaired
    from compressor.passes.ir.rebuild import with_tensors
    from compressor.passes.repair.layerwise import Layer

    try:
        tensors = load(data)
    except SafetensorError as error:
        raise WrongError("it is no safetensors file", why=str(error)[:200]) from error
    for name, old in small.tensors().items():
        if tensors[name].shape != old.shape or tensors[name].dtype != old.dtype:
            raise WrongError(f"{name} is of another form")
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    facts = json.loads(header["__metadata__"]["facts"])
    facts["layers"] = tuple(Layer(**one) for one in facts["layers"])
    facts["changes"] = tuple(facts["changes"])
    return Repaired(**(facts | {"program": with_tensors(small, tensors)}))


def look_at_race(found: Mapping[str, Any]) -> None:
    """Raise WrongError for what no race can have found: all of it follows from its samples.

    See `latency.final` for what is in it.
    """
    clock, samples = found["clock"], found["samples"]
    times = {side: _per_run(found[side], samples[side], clock) for side in ("original", "small")}
    ratios = times["small"] / times["original"]
    if not math.isclose(found["ratio"], float(np.median(ratios)), rel_tol=_EXACT):
        raise WrongError(f"the ratio of the race is not that of its samples: {found['ratio']}")
    interval = [float(ratios.min()), found["low"], found["ratio"], found["high"]]
    interval.append(float(ratios.max()))
    if any(one > other * (1 + _EXACT) for one, other in pairwise(interval)):
        raise WrongError(f"the ratio of the race is outside its interval: {interval}")
    if (form := found.get("form")) and not (isinstance(form["kept"], bool) and form["from"] > 0):
        raise WrongError("the race does not say which form is kept")
    json.dumps(found, allow_nan=False)  # what is not finite is no result


def _per_run(said: Mapping[str, Any], samples: Mapping[str, Any], clock: str) -> np.ndarray:
    """Milliseconds of a run in each round, by the clock that counts."""
    for own in ("wall", "cpu"):
        times = np.asarray(samples[f"{own}_ns"], dtype=np.float64) / samples["runs"] / 1e6
        if not len(times) or not (np.isfinite(times) & (times > 0)).all():
            raise WrongError("the race has samples that are no times")
        if not math.isclose(said[f"{own}_ms"], float(np.median(times)), rel_tol=_EXACT):
            raise WrongError(f"the times of the race are not those of its samples: {said}")
    if said["ms"] != said[f"{clock}_ms"]:
        raise WrongError(f"the times of the race are not by the {clock} clock: {said}")
    found: np.ndarray = np.asarray(samples[f"{clock}_ns"], dtype=np.float64) / samples["runs"]
    return found / 1e6


def look_at_operators(found: Mapping[str, Any]) -> None:
    """Raise WrongError for times that no operator takes, and for kinds without a name."""
    for side in ("original", "small"):
        for row in found[side]:
            if not isinstance(row["kind"], str):
                raise WrongError(f"an operator of the {side} model has no kind")
            if not (row["ms"] >= 0 and math.isfinite(row["ms"]) and row["count"] > 0):
                raise WrongError(f"an operator of the {side} model takes {row['ms']} ms")
