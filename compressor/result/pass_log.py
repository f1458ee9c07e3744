"""What a build logs: the passes that made its module, and those that made model.onnx of it.

    capture prune{round_to=8} repair distill{epochs=2} export simplify align{to=8}

All of it is in passes.json of a release, without the indices in its report, and as a spec in the
key of what a work folder keeps of a stage. `replay` runs it again.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from compressor import passes
from compressor.config.training import Training
from compressor.loading.call_structure import structure
from compressor.loading.dynamic_axes import said
from compressor.passes.frontend.dynamic_axes import Dynamic
from compressor.passes.ir.log import Entry, Log
from compressor.passes.ir.pass_base import entry
from compressor.passes.ir.spec import options_of

if TYPE_CHECKING:
    from compressor.result.built import Built

INDICES = frozenset({"kept", "shapes", "buffers", "tied", "channels"})
"""Metadata that are too long for a report."""
_EPOCHS = ("sparse", "distill", "finetune")


def captured(program: passes.Program, dynamic: Dynamic) -> Entry:
    """How the model was called, and which axes of its inputs stayed free."""
    options = {"dynamic": tuple(said(dynamic))} if dynamic else {}
    call = structure((program.args, dict(program.kwargs)))
    return Entry("capture", 1, options, {"call": call, "engine": program.engine})


def pruned(
    step: passes.Shrink, result: passes.PassResult, options: passes.Options, proof: passes.Proof
) -> Entry:
    """What went, how it was chosen, and the proof."""
    evidence = {"max_rel": proof.max_rel, "tolerance": proof.tolerance, "dtype": proof.dtype}
    return replace(entry(step, result, evidence), options=options_of(options))


def mended(step: passes.Repair, result: passes.Repaired) -> Entry:
    """What was refitted, and how far it is from the original."""
    return entry(step, result, {"divergence": dict(result.divergences)})


def trained(happened: Iterable[Mapping[str, Any]], settings: Training) -> Iterator[Entry]:
    """Phases of training by what happened in them, the user's own among them."""
    own = {key: value for key, value in options_of(settings).items() if key not in _EPOCHS}
    for one in happened:
        name = one["name"]
        if "by" in one:
            yield Entry(name, 1, metadata={"by": one["by"]})
        else:
            yield Entry(name, 1, {"epochs": getattr(settings, name), **own})


def whole(built: "Built") -> Log:
    """All of a build, up to the model that is deployed where there is one."""
    later = Entry("finetune", 1, metadata={"by": "the user, after the build"})
    log = built.log.then(later) if built.changed else built.log
    return log if built.exported is None else log.then(*built.exported.log)
