"""What is in the files of a release (see `compressor.release.layout` for the list)."""

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor.base.messages import reason
from compressor.config.toml import resolved
from compressor.loading.calls import at_batch, randomised, run
from compressor.onnx.lowering import exportable
from compressor.onnx.runtime import OnnxModel, tolerance
from compressor.passes.base.library_logs import quiet
from compressor.passes.frontend.dynamic_axes import dynamic_shapes
from compressor.process.environment import environment
from compressor.release import replay
from compressor.release.destination import Place
from compressor.release.verify import INPUT, MODEL, OUTPUT, PARITY
from compressor.report import page, summary
from compressor.result import pass_log
from compressor.result.built import Built
from compressor.storage import manifest, sealing

INLINE = 2_000_000_000
"""Larger models have their tensors in a file of their own: protocol buffers end at 2 GiB."""

APART, _ALIGNED = 1024, 64
"""Bytes of a tensor that goes there, and what the place of each is a multiple of."""

_META = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn")
"""Of the nodes of an exported program: they name files of the build machine."""


def write(built: Built, place: Place, sign: Path | None = None) -> None:
    """All files of a release. `sign` is the private key for its manifest."""
    _write_onnx(built.onnx.data, place)
    place.write("model.safetensors", save(_stored(built)))
    note = _write_program(built, place)
    _write_json(place, replay.NAME, summary.finite(pass_log.whole(built).to_json()))
    place.write_text("recipe.toml", resolved(built.recipe))
    _write_parity(built, place)
    found = built.report
    found["warnings"] += [note] if note else []
    _write_json(place, "report.json", found)
    place.write_text("report.html", page.render(found))
    place.write_text("summary.md", summary.summary(found))
    text = _json(manifest.stated(place.entries, _facts(built)))
    place.write_text(manifest.NAME, text)
    if sign is not None:
        place.write(manifest.SIGNATURE, sealing.signature(text.encode(), sign))


def _facts(built: Built) -> dict[str, Any]:
    """What made it: enough to say why another build differs."""
    here = environment()
    return {
        "versions": {"python": here["python"], **dict(_packages(here))},
        "seed": built.options.seed,
        "threads": {"torch": torch.get_num_threads(), "race": built.recipe.threads},
        "device": {key: here[key] for key in ("processor", "flags", "gpus", "os")},
        "source": manifest.source_digest(),
        "tolerance": tolerance(built.small),
    }


def _packages(here: Mapping[str, Any]) -> Mapping[str, Any]:
    found = here["packages"]
    assert isinstance(found, dict)
    return {name: version for name, version in found.items() if version is not None}


# ---------------------------------------------------------------------------- models


def _write_onnx(data: bytes, place: Place, inline: int = INLINE) -> None:
    """One file, or two where the tensors are too large for one."""
    if len(data) <= inline:
        place.write(MODEL, data)
        return
    import onnx
    from onnx.external_data_helper import set_external_data

    model, apart = onnx.load_model_from_string(data), bytearray()
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) >= APART:
            apart += bytes(-len(apart) % _ALIGNED)
            set_external_data(tensor, f"{MODEL}.data", len(apart), len(tensor.raw_data))
            apart += tensor.raw_data
            tensor.ClearField("raw_data")
    place.write(MODEL, model.SerializeToString(deterministic=True))
    place.write(f"{MODEL}.data", bytes(apart))


def _stored(built: Built) -> dict[str, Tensor]:
    """Contiguous tensors, each stored once: safetensors refuses two names for one memory."""
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in built.module.state_dict().items():
        key = tensor.data_ptr()
        state[name] = tensor.detach().clone() if key in seen else tensor.detach().contiguous()
        seen.add(key)
    return state


def _write_program(built: Built, place: Place) -> str:
    """torch.export's own format, for convenience. Why there is none, where it cannot be made."""
    program = built.small
    module, made = exportable(program), BytesIO()
    shapes = dynamic_shapes(
        module.forward, program.args, program.kwargs, program.batch, program.axes
    )
    try:
        with quiet("torch.export"):
            exported = torch.export.export(
                module, program.args, dict(program.kwargs), dynamic_shapes=shapes, strict=False
            )
            _strip(exported.graph_module)
            torch.export.save(exported, made)
    except Exception as error:  # torch raises classes of every kind here; the rest does not need it
        return f"There is no model.pt2: torch.export says {reason(error)[:200]}."
    place.write("model.pt2", made.getvalue())
    return ""


def _strip(module: torch.fx.GraphModule) -> None:
    for part in module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            for key in _META:
                node.meta.pop(key, None)


# ---------------------------------------------------------------------------- parity


def _write_parity(built: Built, place: Place) -> None:
    """The example inputs and random ones, and what torch gives: what `verify` replays."""
    model = OnnxModel(built.onnx.data, built.small, threads=1)
    given = at_batch(built.call, built.small.batch, built.batches[0])
    for name, call in (("example", given), ("random", randomised(given, built.options.seed))):
        feed = {INPUT + key: torch.from_numpy(value) for key, value in model.feed(*call).items()}
        outputs = pytree.tree_leaves(run(built.module, call))
        leaves = [leaf for leaf in outputs if isinstance(leaf, Tensor)]
        wanted = zip(model.outputs, leaves, strict=True)
        found = feed | {OUTPUT + key: leaf.detach().clone() for key, leaf in wanted}
        arrays = {key: one.contiguous().clone() for key, one in found.items()}
        place.write(f"{PARITY}/{name}.safetensors", save(arrays))


def _write_json(place: Place, name: str, value: Any) -> None:
    place.write_text(name, _json(value))


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"
