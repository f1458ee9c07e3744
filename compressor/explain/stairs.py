"""The latency of a layer at other widths: where its stair ends, and what a channel costs.

The dearest convolutions and matrix products of a model are measured with every number of output
channels around the one that they have, each as a model of its own kernel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.explain.judge import Judged
from compressor.explain.profile import Operator
from compressor.passes.cost.kernels import Kernel
from compressor.report.page import template
from compressor.storage.files import write_file
from compressor.timing.measure_kernels import Setting, batches, measure
from compressor.timing.table import Fixed

LAYERS = 6
"""The dearest ones."""
BELOW, ABOVE = 40, 24
"""Channels fewer and more than there are."""
REPEATS = 3
"""Of each measurement; the least counts, for other processes only add to it."""


@dataclass(frozen=True)
class Stairs:
    """One layer: seconds at each width."""

    name: str
    kind: str
    width: int
    """What the layer's kernel works on: a kernel of blocks fills its last block up."""
    widths: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def free(self) -> int:
        """The largest width that takes at most 2 % longer than this layer's own."""
        own = self.seconds[self.widths.index(self.width)]
        return max(
            w for w, took in zip(self.widths, self.seconds, strict=True) if took <= 1.02 * own
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "name": self.name, "kind": self.kind, "width": self.width, "free": self.free,
            "widths": list(self.widths), "seconds": list(self.seconds),
        }  # fmt: skip

    def line(self) -> list[tuple[float, float]]:
        """Corners of the steps, in percent of the picture: to the right and up."""
        first, span = self.widths[0] - 0.5, len(self.widths)
        top = max(self.seconds)
        return [
            (100 * (width + side - first) / span, 100 * took / top)
            for width, took in zip(self.widths, self.seconds, strict=True)
            for side in (-0.5, 0.5)
        ]

    @property
    def here(self) -> float:
        """Where the layer's own width is, in percent."""
        return 100 * (self.width - self.widths[0] + 0.5) / len(self.widths)


def stairs(
    found: Judged, *, threads: int = 1, progress: Callable[[int, int], None] | None = None
) -> list[Stairs]:
    """Of the dearest layers of a profiled model, each kind of layer and size once."""
    made: dict[tuple[Any, ...], tuple[Operator, Callable[[int], Kernel], int]] = {}
    for one, _ in sorted(found.rows, key=lambda row: -row[0].seconds):
        if len(made) < LAYERS and (layer := kernel_of(one)) is not None:
            make, width = layer
            made.setdefault((make(width).fixed, make(width).widths), (one, make, width))
    rows = []
    for done, (one, make, width) in enumerate(made.values()):
        if progress is not None:
            progress(done, len(made))
        rows.append(_measured(one, make, width, Setting(threads=threads)))
    return rows


def _measured(one: Operator, make: Callable[[int], Kernel], width: int, setting: Setting) -> Stairs:
    widths = tuple(range(max(width - BELOW, 1), width + ABOVE + 1))
    kernels = [make(width) for width in widths]
    least = [float("inf")] * len(kernels)
    for _ in range(REPEATS):
        took: list[float] = []
        for batch in batches(kernels):
            ratios, reference = measure(batch, setting)
            took += [ratio * reference for ratio in ratios]
        least = [min(pair) for pair in zip(least, took, strict=True)]
    return Stairs(one.name, one.kind, width, widths, tuple(least))


def kernel_of(one: Operator) -> tuple[Callable[[int], Kernel], int] | None:
    """The layer's kernel at a number of output channels, and how many it has; None where it is no
    convolution of images and no product with a matrix of weights."""
    if len(one.inputs) < 2 or not one.outputs:
        return None
    x, weight, out = one.inputs[0], one.inputs[1], one.outputs[0]
    if one.kind in ("MatMul", "Gemm", "FusedGemm") and len(weight) == 2 and x:
        rows = 1
        for size in out[:-1]:
            rows *= size
        return _linear(x[-1], rows, len(x) == 2), out[-1]
    if one.kind not in ("Conv", "FusedConv") or len(x) != 4 or len(weight) != 4:
        return None
    return _convolution(one, x, out)


def _linear(inputs: int, rows: int, flat: bool) -> Callable[[int], Kernel]:
    fixed: Fixed = (("bias", True), ("flat", flat))
    return lambda width: Kernel("linear", fixed, (inputs, width, rows))


_ACTIVATIONS = {b"Clip": "clip", b"Sigmoid": "sigmoid", b"Tanh": "tanh",
                b"LeakyRelu": "leaky_relu", b"HardSigmoid": "hardsigmoid"}  # fmt: skip
"""Of a fused convolution; a ReLU is no pass of its own."""


def _convolution(
    one: Operator, x: Sequence[int], out: Sequence[int]
) -> tuple[Callable[[int], Kernel], int] | None:
    given, kernel = one.attributes, tuple(one.inputs[1][2:])
    groups = int(given.get("group", 1))
    pads = tuple(given.get("pads", (0, 0, 0, 0)))
    if pads[:2] != pads[2:] or given.get("auto_pad", b"NOTSET") not in (b"", b"NOTSET"):
        return None
    fixed: Fixed = (
        ("activation", _ACTIVATIONS.get(given.get("activation", b""), "")),
        ("dilation", tuple(given.get("dilations", (1, 1)))),
        ("kernel", kernel),
        ("padding", pads[:2]),
        ("pixels", tuple(x[2:])),
        ("stride", tuple(given.get("strides", (1, 1)))),
        ("transposed", False),
    )
    batch, channels, width = x[0], x[1], out[1]
    if groups == 1:
        return lambda w: Kernel("conv", fixed, (channels, w, batch)), width
    if groups == channels == width:
        return lambda w: Kernel("depthwise", fixed, (w, batch)), width
    return None


def write(found: dict[str, list[Stairs]], path: Path) -> None:
    """The page with a picture a layer."""
    write_file(path, template("stairs.html.j2").render(models=found).encode())
