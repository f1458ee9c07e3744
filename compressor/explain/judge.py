"""What bounds an operator.

compute     near what the machine can multiply
memory      near what the machine can move
overhead    so little work that the call itself is the time
reorder     changes the layout, because a neighbour's kernel has another
width       a convolution without its blocked kernel, because its channels fit no block
unfused     an elementwise call by itself after a convolution or a product
slow        further than `FAR` from both limits, for another reason
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.explain.profile import Operator, profile
from compressor.explain.roofline import SMALLEST, Roofline, measure
from compressor.passes.base.errors import UsageError

FAR = 3.0
"""Times the least possible."""
BLOCK = 16
_ELEMENTWISE = (
    "BatchNormalization", "Clip", "Div", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu",
    "Mul", "QuickGelu", "Relu", "Sigmoid", "Sub", "Tanh",
)  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """A model's operators with what bounds each, beside the machine's roofline."""

    rows: tuple[tuple[Operator, str], ...]
    roofline: Roofline

    @property
    def seconds(self) -> float:
        """Of all operators together."""
        return sum(one.seconds for one, _ in self.rows)

    def by_bound(self) -> dict[str, float]:
        """Seconds by what bounds them, the most first."""
        return _summed([(bound, one.seconds) for one, bound in self.rows])

    def by_kind(self) -> dict[str, float]:
        """Seconds by kind of operator, the most first."""
        return _summed([(one.kind, one.seconds) for one, _ in self.rows])

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "seconds": self.seconds,
            "roofline": {"macs": self.roofline.macs, "bytes": self.roofline.bytes},
            "by_bound": self.by_bound(),
            "by_kind": self.by_kind(),
            "operators": [
                {
                    "name": one.name, "kind": one.kind, "provider": one.provider,
                    "seconds": one.seconds, "inputs": one.inputs, "outputs": one.outputs,
                    "macs": one.macs, "bytes": one.bytes, "bound": bound,
                    "least_seconds": self.roofline.seconds(one.macs, one.bytes),
                }
                for one, bound in self.rows
            ],
        }  # fmt: skip


def _summed(pairs: Sequence[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, seconds in pairs:
        found[name] = found.get(name, 0.0) + seconds
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def explain(
    model: bytes | Path,
    *,
    batch: int = 1,
    threads: int = 1,
    roofline: Roofline | None = None,
    **options: Any,
) -> Judged:
    """Profile a model and say what bounds each operator; `options` are those of `profile`.

    Raises UsageError for a model that cannot be loaded or run, or of which nothing runs.
    """
    roofline = roofline or measure(threads)
    found = profile(model, batch=batch, threads=threads, **options)
    if not found:
        raise UsageError(
            "ONNX Runtime runs no operator of this model",
            where="" if isinstance(model, bytes) else str(model),
            why="its graph has none, or all that it computes is constant",
        )
    rows = [(one, _bound(one, before, roofline)) for one, before in _pairs(found)]
    return Judged(tuple(rows), roofline)


def _pairs(found: list[Operator]) -> list[tuple[Operator, Operator | None]]:
    """Each operator with the one that ran before it."""
    return list(zip(found, [None, *found[:-1]], strict=True))


def _bound(one: Operator, before: Operator | None, roofline: Roofline) -> str:
    least = roofline.seconds(one.macs, one.bytes)
    if one.kind.startswith("Reorder"):
        return "reorder"
    if one.seconds <= SMALLEST and least < one.seconds / 2:
        return "overhead"
    if _misfit(one):
        return "width"
    if one.kind in _ELEMENTWISE and before is not None and before.macs and _same(one, before):
        return "unfused"
    if one.seconds > FAR * max(least, SMALLEST):
        return "slow"
    return "compute" if roofline.computes(one.macs, one.bytes) else "memory"


def _misfit(one: Operator) -> bool:
    """A float convolution over images in the plain kernel, of channels that fit no block."""
    if one.kind not in ("Conv", "FusedConv") or one.name.endswith("_nchwc"):
        return False
    shapes = one.inputs[:2]
    if len(shapes) < 2 or len(shapes[0]) != 4:
        return False
    return shapes[0][1] % BLOCK != 0 or one.outputs[0][1] % BLOCK != 0


def _same(one: Operator, before: Operator) -> bool:
    return bool(one.inputs and before.outputs) and one.inputs[0] == before.outputs[0]
