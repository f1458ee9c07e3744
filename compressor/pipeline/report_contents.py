"""What a build found out, as plain values: the content of report.json, the page and the table.

model, engine      what was compressed, and how it was captured
budget, options    what was asked for
cost               params, MACs, channels and bytes, before and after
groups, frozen     widths before and after, and what had to stay, with the reason
layers             shapes before and after
repair             what least squares did to the weights, where there were data
passes             which passes made it, in order, each with its evidence
proof, parity      the evidence
accuracy, latency  where they were measured, and operators with their times
stages             seconds; environment
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table

from compressor import passes
from compressor.base.terminal_text import words
from compressor.metrics.accuracy_search import Try, told
from compressor.onnx.runtime import BATCHES
from compressor.passes.ir.compare import merged
from compressor.passes.pipeline.text import width
from compressor.process.environment import environment
from compressor.report.summary import finite
from compressor.result import pass_log
from compressor.result.built import Built


def build(built: Built) -> dict[str, Any]:
    """The report of a build, JSON-able; what was not measured is absent."""
    found: dict[str, Any] = {
        "format": 1,
        "model": built.name,
        "engine": built.original.engine,
        "budget": asked(built.plan),
        "options": asdict(built.options) | {"unit": built.plan.unit},
        "cost": amounts(built.plan),
        "groups": groups(built.plan),
        "frozen": frozen(built.plan.coupling),
        "layers": layers(built),
        "proof": asdict(built.proof),
    }
    if built.repaired is not None:
        found["repair"] = repair(built.repaired)
    if built.plan.trials:
        found["measured"] = {
            "criterion": built.plan.trials[0].criterion,
            "tried": [asdict(one) for one in built.plan.trials],
            "samples": built.plan.samples,
            "why": built.plan.why,
        }
    if (exported := built.exported) is not None:
        found["parity"] = [asdict(one) for one in exported.parity]
        found["simplified"] = exported.simplified
    if sizes := built.file_bytes:
        found["file_bytes"] = sizes
    found["changed"] = built.changed
    found["passes"] = pass_log.whole(built).to_json(pass_log.INDICES)
    found["uncompared"] = uncompared(built)
    found |= built.measured
    found["warnings"] = warnings(built)
    found["stages"] = {name: round(took, 3) for name, took in built.watch.seconds.items()}
    found["environment"] = environment()
    plain = finite(found)
    assert isinstance(plain, dict)
    return plain


def asked(plan: passes.Plan) -> dict[str, Any]:
    """What the budget leads by: ``{"kind": "macs", "amount": 0.5, "unit": "share"}``."""
    target = plan.budget.target()
    units = {passes.Ratio: "share", passes.Amount: "count", passes.Milliseconds: "ms"}
    return {"kind": plan.budget.kind, "amount": target.value, "unit": units[type(target)]}


def amounts(plan: passes.Plan) -> dict[str, dict[str, int]]:
    """Every kind of cost, before and after."""
    found = {}
    for kind in passes.KINDS:
        counted = passes.Costs(plan.coupling, kind)
        after = counted.amount(plan.channels)
        found[kind] = {"original": round(counted.dense), "small": round(after)}
    return found


def groups(plan: passes.Plan) -> list[dict[str, Any]]:
    """Widths of every group before and after, in the user's own names."""
    return [
        {
            "name": group.name,
            "axes": [str(axis) for axis in group.axes],
            "kind": "rows" if group.rows else "channels",
            "width": width(group),
            "cells": len(group.cells),
            "size": group.size,
            "kept": kept,
        }
        for group, kept in plan.widths
    ]


def frozen(coupling: passes.Coupling) -> list[dict[str, Any]]:
    """Axes that keep their size, with the reason."""
    return [{"axis": str(f.axis), "size": f.size, "why": f.why} for f in coupling.frozen]


def layers(built: Built) -> list[dict[str, Any]]:
    """Every weight of more than one axis, with its shape before and after."""
    small = built.small.tensors()
    return [
        {"name": name, "original": list(one.shape), "small": list(small[name].shape)}
        for name, one in built.original.tensors().items()
        if one.dim() > 1 and name in small
    ]


def repair(done: passes.Repaired) -> dict[str, Any]:
    """What was chosen, how far each choice is from the original, and every layer."""
    return {
        "chosen": done.chosen,
        "divergences": dict(done.divergences),
        "agreement": done.agreement,
        "samples": dict(done.samples),
        "peak_bytes": done.bytes,
        "layers": [asdict(layer) for layer in done.layers],
    }


def warnings(built: Built) -> list[str]:
    """What a user should know before deploying, in plain words."""
    found = [*built.remarks]
    if built.proof.dtype != "float64":
        found.append(
            f"The proof ran in {built.proof.dtype} with tolerance {built.proof.tolerance:g}, "
            "because the model cannot run in float64."
        )
    if built.proof.inexact:
        found.append(
            f"{len(built.proof.inexact)} norms take their statistics over fewer channels now "
            f"(first: {built.proof.inexact[0]}); the proof compares them on the kept channels."
        )
    found += [f"{one}." for one in uncompared(built)]
    if built.original.batch is None:
        found.append("The model fixes its batch size, and so does the exported one.")
    elif left := set(BATCHES) - set(built.batches):
        found.append(f"The model does not run at a batch of {min(left)}: not compared there.")
    if built.work.note:
        found.append(built.work.note)
    if built.plan.note:
        found.append(built.plan.note)
    if (exported := built.exported) is not None and exported.note:
        found.append(exported.note)
    if not built.recipe.race:
        found.append(
            "The race against the original was left out, as --no-race asks (race=False in Python): "
            "the model may be slower, and no faster form of it was looked for."
        )
    latency = built.measured.get("latency")
    if latency and latency["low"] <= 1 < latency["high"]:
        found.append("The small model is not faster than the original for sure: see the interval.")
    if latency and (form := latency.get("form")):
        found.append(form["note"])
    if latency and latency["low"] > 1:
        found.append(
            f"The small model is SLOWER than the original ({latency['ratio']:.2f} times its time "
            "on this machine): ask for a larger reduction, or for other widths with --round-to."
        )
    if latency and not latency["converged"]:
        found.append("The race ran out of time before its interval was within 1 %.")
    if "search" in built.measured:
        found.append(_searched(built.measured["search"]))
    happened = built.measured.get("training", {}).get("phases", ())
    phases = [one["name"] for one in happened]
    if phases and any("dropout" in str(node.target) for node in built.small.calls()):
        found.append("Dropout is captured switched off, and stayed off while it was trained.")
    if any(one.get("ignored") == "batch_size" for one in happened):
        found.append("The batch size had no effect: the training data come in batches already.")
    if any(one.get("changed") is False for one in happened):
        found.append("The function that trains changed no weight.")
    found += _changed(built)
    if built.repaired is None and not ({"distill", "finetune"} & set(phases) or built.changed):
        found.append(
            "The weights are sliced, not repaired: give inputs by --data, or fine-tune the module "
            "before deploying it."
        )
    if built.plan.why:
        found.append(f"The groups of the model could not be measured: {built.plan.why}.")
    if built.repaired is not None and built.repaired.chosen == "sliced":
        found.append("No repair agreed better with the original than slicing alone.")
    return found


def _changed(built: Built) -> list[str]:
    """What training after the build means for what is told."""
    found = []
    if built.changed:
        found.append(
            "The weights were changed after the build: its proof, and what is said of repair and "
            "training, are of the network before that."
        )
    left = {name: why for name, why in built.notes.items() if name in _NAMES}
    found += [f"{_NAMES[name]} is left out: {why}." for name, why in left.items()]
    return found


_NAMES = {"accuracy": "Accuracy", "latency": "Latency"}


def uncompared(built: Built) -> list[str]:
    """The outputs at which proof or parity could compare nothing, and why."""
    exported = built.exported
    parity = () if exported is None else exported.parity
    by = {
        "the proof": built.proof.outputs,
        "ONNX Runtime beside PyTorch": merged([one.outputs for one in parity]),
    }
    return [
        f"Nothing was compared at {one.name} by {name}: {one.why}"
        for name, outputs in by.items()
        for one in outputs
        if one.why
    ]


def _searched(found: Mapping[str, Any]) -> str:
    """What a search tried."""
    lines = [told(Try(**one)) for one in found["tries"]]
    return f"Shares of {found['kind']} that were tried: {'; '.join(lines)}."


def table(found: Mapping[str, Any]) -> Table:
    """The headline numbers, original beside small."""
    shown = Table(title=words(f"{found['model']} at {said(found['budget'])}"))
    for column in ("", "original", "small", "ratio"):
        shown.add_column(column, justify="left" if not column else "right")
    shown.caption = "\n".join(found.get("uncompared", ())) or None
    names = {"params": "parameters", "macs": "MACs", "channels": "prunable channels"}
    for kind, name in names.items():
        _add(shown, name, found["cost"][kind], "{:,.0f}")
    if "file_bytes" in found:
        _add(shown, "file size (bytes)", found["file_bytes"], "{:,.0f}")
    for name, pair in found.get("accuracy", {}).items():
        _add(shown, name, pair, "{:.4g}")
    if "latency" in found:
        latency = found["latency"]
        shown.add_row(
            "median latency (ms)",
            f"{latency['original']['ms']:.3f}",
            f"{latency['small']['ms']:.3f}",
            f"{latency['ratio']:.3f} [{latency['low']:.3f}, {latency['high']:.3f}]",
        )
    return shown


def said(budget: Mapping[str, Any]) -> str:
    """A budget as `asked` writes it, in words."""
    kind, amount = budget["kind"], budget["amount"]
    name = {"macs": "MACs", "params": "parameters"}.get(kind, kind)
    words = {"share": f"{amount:.4g} of the {name}", "ms": f"{amount:g} ms of {name}"}
    return words.get(budget["unit"], f"{amount:,.0f} {name}")


def _add(shown: Table, name: str, pair: Mapping[str, float], style: str) -> None:
    original, small = float(pair["original"]), float(pair["small"])  # infinities are words here
    ratio = f"{small / original:.3f}" if original and math.isfinite(small / original) else "-"
    shown.add_row(words(name), style.format(original), style.format(small), ratio)
