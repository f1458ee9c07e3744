"""One network as several tools write it: which graph does ONNX Runtime run fastest?

exporter     torch's exporter, as it is
onnxscript   with its optimiser, which is what a build starts from
onnxsim      that, simplified: what a build keeps where it agrees with torch
onnxslim     that, by another simplifier
fusions      that, by ONNX Runtime's own script for transformers
sums         onnxsim's, with additions before layer norms that are not fused: what a build tries

ONNX Runtime optimises all of them once more when it loads them.
"""

from collections.abc import Callable
from typing import Any

import onnx
import torch

from benchmarks.latency.subjects import coupled, ratio, timing
from compressor import passes
from compressor.onnx.export import export, simplify
from compressor.onnx.runtime import OnnxModel
from compressor.onnx.unfused_norms import with_sums

SECONDS = 60.0
KINDS = {"vit_b_16": "vit", "bert": "bert"}
"""What ONNX Runtime's script calls them."""


def graphs(name: str) -> dict[str, Any]:
    """Operators, difference from the first and ratio of times of each."""
    coupling = coupled(name)
    program = coupling.program
    written = export(program)
    makers: dict[str, Callable[[], bytes]] = {
        "onnxscript": lambda: written,
        "onnxsim": lambda: _simplified(written),
        "onnxslim": lambda: _slim(written),
    }
    if name in KINDS:
        makers["fusions"] = lambda: _fused(written, KINDS[name])
    if with_sums(written) is not None:
        makers["sums"] = lambda: _summed(written)
    models, found = {"exporter": export(program, optimize=False)}, dict[str, dict[str, Any]]()
    for which, make in makers.items():
        try:
            models[which] = make()
        except Exception as error:  # whatever the tool raises is its result
            found[which] = {"why": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    wanted = _run(models["exporter"], program)
    race = timing(coupling, SECONDS).race(models)
    for row in race.rows:
        gap = (_run(models[row.name], program) - wanted).abs().max() / wanted.abs().max()
        nodes = len(onnx.load_model_from_string(models[row.name]).graph.node)
        found[row.name] = {"nodes": nodes, "max_rel": float(gap), **ratio(row)}
    return {"graphs": found, "noise": ratio(race.control)}


def _run(data: bytes, program: passes.Program) -> torch.Tensor:
    found = OnnxModel(data, program)(*program.args)
    assert isinstance(found, torch.Tensor)
    return found


def _simplified(data: bytes) -> bytes:
    done = simplify(data)
    if done.data is None:
        raise ValueError(done.why)
    return done.data


def _summed(data: bytes) -> bytes:
    found = with_sums(_simplified(data))
    if found is None:
        raise ValueError("onnxsim's graph has no addition before a layer norm")
    return found


def _slim(data: bytes) -> bytes:
    import onnxslim

    return bytes(onnxslim.slim(onnx.load_model_from_string(data)).SerializeToString())


def _fused(data: bytes, kind: str) -> bytes:
    from onnxruntime.transformers import optimizer

    model = onnx.load_model_from_string(data)
    model.producer_name = "pytorch"  # it takes no other
    done = optimizer.optimize_model(model, kind, opt_level=0, only_onnxruntime=False)
    return bytes(done.model.SerializeToString())
