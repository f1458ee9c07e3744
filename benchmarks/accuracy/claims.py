"""Two promises: repair is never worse than re-estimating batch norms; its memory does not grow."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from compressor.passes.calibration.lockstep import held_out, sampled
from compressor.passes.ir.leaves import fresh, tensors
from compressor.passes.ir.program import shares_batch
from compressor.passes.ir.rebuild import clone
from compressor.passes.repair.layerwise import Duet
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor import passes
from compressor.loading.calls import as_call
from models.catalog import CATALOG

INPUTS = 192
TESTED = 256
BOUND = 64 << 20
"""Bytes of activations that a repair may hold, where its memory is looked at."""
ROOT = Path(__file__).resolve().parents[2]


def never_worse(name: str, budget: float) -> dict[str, Any]:
    """One reference model: how often the most likely class is that of the original."""
    file, function = CATALOG[name].split(":")
    namespace = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = getattr(namespace, function)().eval()
        inputs = namespace.example_inputs
        args, kwargs = as_call(inputs() if callable(inputs) else inputs)
    program = passes.capture(model, args, kwargs)
    coupling = passes.couple(program)
    given = _drawn(namespace, program, INPUTS, seed=1)
    options = passes.Options()
    plan = passes.contest(coupling, passes.Budget(macs=budget), options, given)
    small = passes.apply(passes.Shrink(plan), program).program
    repaired = passes.mend(passes.Repair(plan, given), small)
    chunks = sampled(given, program)[0]
    duet = Duet(plan, clone(small), chunks, held_out(chunks), statistics=True)
    duet.run()
    tested = sampled(_drawn(namespace, program, TESTED, seed=2), program)[0]
    found = {
        "sliced": agreement(program, small, tested),
        "statistics": agreement(program, duet.small, tested),
        "repaired": agreement(program, repaired.program, tested),
    }
    return {"macs": plan.reached / plan.dense, "agreement": found, "chosen": repaired.chosen,
            "criterion": plan.trials[0].criterion, "steps": plan.trials[0].steps}  # fmt: skip


def _drawn(namespace: Any, program: passes.Program, count: int, seed: int) -> list[Any]:
    """Calibration inputs: the model's own, or random ones of the shape of its example.

    Whole numbers are drawn from those that the example has.
    """
    if hasattr(namespace, "data"):
        images = namespace.data().train_images if seed == 1 else namespace.data().test_images
        return [((part,), {}) for part in images[:count].split(64)]
    generator = torch.Generator().manual_seed(seed)

    def draw(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.dim() == 0:
            return leaf
        shape = list(leaf.shape)
        if shares_batch(leaf, program.batch):
            shape[0] = 32
        if leaf.is_floating_point():
            return torch.randn(shape, generator=generator).to(leaf.dtype)
        flat = leaf.reshape(-1)
        return flat[torch.randint(len(flat), shape, generator=generator)]

    each = 32 if program.batch is not None else 1
    call = (program.args, dict(program.kwargs))
    return [pytree.tree_map(draw, call) for _ in range(-(-count // each))]


@torch.no_grad()
def agreement(original: passes.Program, small: passes.Program, chunks: Any) -> float:
    """How often the largest of the outputs is in the same place, over all outputs."""
    same, total = 0, 0
    for chunk in chunks:
        wanted, found = (_outputs(one, chunk.leaves) for one in (original, small))
        for a, b in zip(wanted, found, strict=True):
            axis = 1 if a.dim() in (2, 4, 5) else -1
            if not a.is_floating_point() or a.dim() < 2 or a.shape[axis] < 2:
                continue
            hits = a.argmax(axis) == b.argmax(axis)
            same, total = same + int(hits.sum()), total + hits.numel()
    return same / total if total else float("nan")


def _outputs(program: passes.Program, leaves: Any) -> list[Tensor]:
    found = torch.fx.Interpreter(program.module).run(*fresh(leaves), enable_io_processing=False)
    return tensors(found)


def memory(inputs: int) -> dict[str, Any]:
    """Peak memory of a process that repairs ResNet-20 with so many inputs, made one by one."""
    code = f"from benchmarks.accuracy.claims import _peak; _peak({inputs})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peak(inputs: int) -> None:
    import resource

    from benchmarks.accuracy.ours import coupled, network

    class Images:
        """The same images over and over, shifted: they are made when asked for, and not kept."""

        def __iter__(self) -> Any:
            images = network("resnet20").calibration
            for start in range(0, inputs, 64):
                part = images.roll(start // len(images), 3)[start % len(images) :][:64]
                yield (part.clone(),), {}

    coupling = coupled("resnet20")
    plan = passes.choose(coupling, passes.Budget(macs=0.5), passes.Options())
    small = passes.apply(passes.Shrink(plan), coupling.program).program
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    repaired = passes.mend(passes.Repair(plan, Images(), memory=BOUND), small)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"peak_kib": after, "before_kib": before, "used": repaired.samples["used"],
                      "stated_bytes": repaired.bytes}))  # fmt: skip
