"""Half of the channels of every group: is the result right, how much is gone, what did it cost?

One row a model: share of parameters and MACs gone, the proof, ONNX Runtime at three batch sizes,
and seconds a stage. `overhead` is analysis plus shrinking over torch.export's own time.
"""

import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor import Budget, Built, compress
from compressor.loading.calls import at_batch
from compressor.onnx.runtime import OnnxModel
from compressor.process.progress import Watch
from models.zoo.cases import Case

BATCHES = (1, 2, 5)
LEAST_GONE = 0.35
PROOF = 1e-9
PARITY = 1e-4
OVERHEAD = 0.25


@dataclass(frozen=True)
class Row:
    """What came of one model; `error` is the last line of a traceback."""

    name: str
    engine: str = ""
    groups: int = 0
    params_gone: float = 0.0
    macs_gone: float = 0.0
    proof: float = float("inf")
    inexact: int = 0
    parity: float = float("inf")
    batches: tuple[int, ...] = ()
    overhead: float = float("inf")
    seconds: dict[str, float] = field(default_factory=dict)
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether it is right and small enough; the overhead is judged apart."""
        return (
            not self.error
            and self.params_gone >= LEAST_GONE
            and self.proof <= PROOF
            and self.parity <= PARITY
            and self.batches == BATCHES
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


def run(case: Case) -> Row:
    """Compress one model to half of its channels and look at it from all sides."""
    watch = Watch()
    try:
        model, inputs = case.make()
        built = compress(
            model, inputs, budget=Budget(channels=0.5), uniform=True, name=case.name, watch=watch
        )
        data = built.onnx.data
        errors = {size: _error(built, data, size) for size in BATCHES}
    except Exception as error:  # a benchmark shows every model, the broken ones too
        traceback.print_exc()
        return Row(case.name, error=f"{type(error).__name__}: {error}".splitlines()[0])
    cost = built.report["cost"]
    took = watch.seconds
    return Row(
        name=case.name,
        engine=built.original.engine,
        groups=len(built.plan.coupling.groups),
        params_gone=1 - cost["params"]["small"] / cost["params"]["original"],
        macs_gone=1 - cost["macs"]["small"] / max(cost["macs"]["original"], 1),
        proof=built.proof.max_rel,
        inexact=len(built.proof.inexact),
        parity=max(errors.values()),
        batches=tuple(errors),
        overhead=(took["couple"] + took["shrink"]) / took["capture"],
        seconds={name: round(one, 3) for name, one in took.items()},
    )


def _error(built: Built, data: bytes, size: int) -> float:
    """Relative difference of ONNX Runtime and torch at one batch size."""
    args, kwargs = at_batch(built.call, built.small.batch, size)
    with torch.no_grad():
        wanted = _arrays(built.module(*args, **kwargs))
    found = _arrays(OnnxModel(data, built.small)(*args, **kwargs))
    gaps = [
        float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30))
        for a, b in zip(wanted, found, strict=True)
    ]
    return max(gaps)


def _arrays(output: Any) -> list[np.ndarray]:
    return [leaf.numpy() for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def table(rows: Iterable[Row]) -> Table:
    """All rows, with what fell short in red."""
    shown = Table(title="half of the channels of every group")
    for column in ("model", "groups", "params gone", "MACs gone", "proof", "norms", "parity"):
        shown.add_column(column, justify="left" if column == "model" else "right")
    shown.add_column("batches")
    for column in ("capture", "couple", "plan", "shrink", "prove", "export", "overhead"):
        shown.add_column(column, justify="right")
    for row in rows:
        if row.error:
            shown.add_row(row.name, f"[red]{row.error}[/]")
            continue
        took = row.seconds
        shown.add_row(
            row.name if row.passed else f"[red]{row.name}[/]",
            str(row.groups),
            f"{row.params_gone:.0%}",
            f"{row.macs_gone:.0%}",
            f"{row.proof:.1e}",
            str(row.inexact),
            f"{row.parity:.1e}",
            ",".join(map(str, row.batches)),
            *(f"{took[name]:.2f}" for name in ("capture", "couple", "plan", "shrink", "prove")),
            f"{took['export']:.1f}",
            f"{row.overhead:.2f}" if row.overhead <= OVERHEAD else f"[red]{row.overhead:.2f}[/]",
        )
    return shown
