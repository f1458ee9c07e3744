"""The last race of a build: original, small, and small with its channels padded to the blocks of
the runtime's kernels, where that is measured faster and still agrees with torch."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from compressor import align, bench
from compressor.built import Built
from compressor.latency.timing import Timing
from compressor.passes.errors import CompressError

FASTER = 0.98
"""Of the time of the model as it is: less is not worth the larger file."""


def raced(built: Built) -> dict[str, Any]:
    """Race the build and its padded forms against the original, and say which is the fastest."""
    timing = Timing(built.plan.coupling, built.recipe, built.watch)
    padded = align.candidates(built.onnx.data)
    race = timing.race({"original": built.original_onnx.data, "small": built.onnx.data, **padded})
    rows = {row.name: row for row in race.rows}
    best = min((rows[name] for name in ("small", *padded)), key=lambda row: row.ratio.high)
    said = {}
    if best.ratio.high < FASTER * rows["small"].ratio.low:
        note = _discarded(built, best.name, padded[best.name])
        said = {"padded": {"to": best.name, "from": rows["small"].ratio.median, "note": note}}
        if not note:
            rows["small"] = replace(best, name="small")
    return _told(race, rows, timing.batch) | said


def keep_padded(built: Built, found: Mapping[str, Any]) -> None:
    """Deploy the padded form, where a race found that it is the fastest."""
    chosen = found.get("padded")
    if chosen is None or chosen["note"]:
        return
    data = align.candidates(built.onnx.data)[chosen["to"]]
    parity = tuple(built.parity_of(built.small, data))
    built.__dict__["onnx"] = replace(built.onnx, data=data, parity=parity)


def _discarded(built: Built, name: str, data: bytes) -> str:
    """Why a padded form is not kept: it does not agree with torch; nothing if it does."""
    try:
        built.parity_of(built.small, data)
    except CompressError as error:
        return f"the form with {name} was discarded: {error.what}"
    return ""


def _told(race: bench.Race, rows: dict[str, bench.Row], batch: int) -> dict[str, Any]:
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
