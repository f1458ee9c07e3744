"""The last race of a build: original, small, and other forms of the small one.

unsimplified              before onnxsim, where that made other operators
sums before norms         additions that the runtime does not fuse into a slower kernel
multiples of 8, ...       channels padded with zeros to the blocks of the runtime's kernels

The fastest that is worth it, and still agrees with torch, is what is deployed. The model with sums
is what is padded, where there is one; padded, it has to be faster than the fastest that is not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from compressor import align, bench
from compressor.explain.profile import profile
from compressor.loading.calls import at_batch
from compressor.onnx.runtime import OnnxModel
from compressor.onnx.unfused_norms import SUMS, with_sums
from compressor.passes.base.errors import CompressError
from compressor.passes.ir.log import Entry
from compressor.result.build_cache import refuse
from compressor.result.built import Built, Onnx
from compressor.timing.timing import Timing, faster

UNSIMPLIFIED = "unsimplified"
NO_LARGER = (UNSIMPLIFIED, SUMS)
"""Forms that cost nothing; padded channels make the file larger."""


def forms(onnx: Onnx) -> dict[str, bytes]:
    """What else could be deployed, by name."""
    found = {UNSIMPLIFIED: onnx.exported} if onnx.exported else {}
    sums = with_sums(onnx.data)
    if sums is not None:
        found[SUMS] = sums
    return found | align.candidates(sums or onnx.data)


def raced(built: Built) -> dict[str, Any]:
    """Race the build and its other forms against the original, and say which is the fastest."""
    timing = Timing(built.plan.coupling, built.recipe, built.watch, built.batches[0])
    others = forms(built.onnx)
    race = timing.race({"original": built.original_onnx.data, "small": built.onnx.data, **others})
    rows = {row.name: row for row in race.rows}
    best, said = rows[_best(race, list(others))], {}
    if best.name != "small":
        wrong = _discarded(built, best.name, others[best.name])
        form = {"name": best.name, "from": rows["small"].ratio.median, "kept": not wrong}
        said = {"form": form | {"note": wrong or _note(best.name, SUMS in others)}}
        if not wrong:
            rows["small"] = replace(best, name="small")
    return _told(race, rows, timing.batch) | said


def _best(race: bench.Race, others: Sequence[str]) -> str:
    """The form to deploy: of those that cost nothing, or a padded one that is faster for sure."""
    medians = {row.name: row.ratio.median for row in race.rows}
    same = [name for name in NO_LARGER if name in others and faster(race.between(name, "small"))]
    best = min(("small", *same), key=medians.__getitem__)
    others = [name for name in others if name not in NO_LARGER]
    padded = [name for name in others if race.between(name, best).high < align.FASTER]
    return min((best, *padded), key=medians.__getitem__)


def keep_fastest(built: Built, found: Mapping[str, Any]) -> None:
    """Deploy another form, where a race found that it is the fastest."""
    chosen = found.get("form")
    if chosen is None or not chosen["kept"]:
        return
    others = forms(built.onnx)
    data = others.get(chosen["name"])
    if data is None:  # of a race that was kept
        refuse("race", f"there is no form {chosen['name']!r} of this model to deploy")
    simplified = built.onnx.simplified and chosen["name"] != UNSIMPLIFIED
    parity = tuple(built.parity_of(built.small, data))
    made = _passes(chosen["name"], SUMS in others)
    built.deploy(replace(built.onnx, data=data, simplified=simplified, parity=parity, form=made))


def _passes(form: str, sums: bool) -> tuple[Entry, ...]:
    """What makes a form of the exported model."""
    unit = form.removeprefix("multiples of ")
    found = [Entry("sums-before-norms", 1)] if sums and form != UNSIMPLIFIED else []
    return (*found, *([Entry("align", 1, {"to": int(unit)})] if unit != form else []))


def _note(form: str, sums: bool) -> str:
    if form == UNSIMPLIFIED:
        return "The exporter's graph is deployed: onnxsim's measured slower."
    if form == SUMS:
        return "Additions before layer norms are written as sums, which are not fused: faster."
    too = "; additions before layer norms are written as sums" if sums else ""
    return f"Channels are padded with zeros to {form}{too}: measured faster, same function."


RUNS = 10
"""Of each model under the profiler."""


def operators(built: Built) -> dict[str, list[dict[str, Any]]]:
    """What the operators of both models take in ONNX Runtime, by their kind."""
    models = {"original": built.original_onnx.data, "small": built.onnx.data}
    call = at_batch(built.call, built.original.batch, built.batches[0])
    inputs = OnnxModel(models["original"], built.original).feed(*call)
    return {side: _kinds(data, inputs, built.recipe.threads) for side, data in models.items()}


def _kinds(data: bytes, inputs: Mapping[str, Any], threads: int) -> list[dict[str, Any]]:
    found: dict[str, list[float]] = {}
    for one in profile(data, inputs=inputs, threads=threads, runs=RUNS, warmup=2):
        found.setdefault(one.kind, []).append(one.seconds * 1e3)
    return [
        {"kind": kind, "ms": round(sum(times), 4), "count": len(times)}
        for kind, times in sorted(found.items(), key=lambda pair: -sum(pair[1]))
    ]


def _discarded(built: Built, name: str, data: bytes) -> str:
    """Why another form is not kept: it does not agree with torch; nothing if it does."""
    try:
        built.parity_of(built.small, data)
    except CompressError as error:
        return f"the form with {name} was discarded: {error.what}"
    return ""


def _told(race: bench.Race, rows: dict[str, bench.RaceRow], batch: int) -> dict[str, Any]:
    clock = race.primary
    ratio = rows["small"].ratio
    shown = {side: rows[side] for side in ("original", "small")}
    return {
        side: {"ms": getattr(row, f"{clock}_ms"), "wall_ms": row.wall_ms, "cpu_ms": row.cpu_ms}
        for side, row in shown.items()
    } | {
        "ratio": ratio.median,
        "low": ratio.low,
        "high": ratio.high,
        "clock": clock,
        "why": race.why,
        "noise": {"ratio": race.noise.median, "low": race.noise.low, "high": race.noise.high},
        "rounds": race.rounds,
        "converged": race.converged,
        "batch": batch,
        "threads": race.threads,
        "provider": race.provider,
        "samples": {side: asdict(row.samples) for side, row in shown.items()},
    }
