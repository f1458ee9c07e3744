"""Measure a device's kernel table: the stairs first, then family by family, until all is there.

The table is written after every family, so that what was stopped goes on where it was.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compressor.passes.base.errors import UsageError
from compressor.passes.cost.dimensions import Factors
from compressor.passes.cost.kernels import Kernel, works
from compressor.passes.coupling.groups import Coupling
from compressor.process.environment import environment
from compressor.timing import caches
from compressor.timing.measure_kernels import REFERENCE, Setting, batches, measure
from compressor.timing.table import Family, Fixed, Name, Stair, Table, load

Progress = Callable[[int, int], None]
Nodes = tuple[tuple[int, ...], ...]

SWEPT = 68
"""Widths that are swept one by one, to find the blocks."""
FREE = 1.06
"""Rounding up is free where it costs no more than this."""
DEAREST = 1.25
"""And nowhere more than this: 17 input channels take 0.84 to 0.87 of the time of 32."""
_UNITS = (64, 32, 16, 8, 4, 2)
_GRID = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_EDGES = (1, 7, 8, 15)
"""Inputs fewer than a block (8 or 16 channels) have kernels of their own: a 1x1 convolution of 15
takes twice as long as one of 16."""
_CHANNELS = {"conv": (0, 1), "depthwise": (0,), "linear": (0, 1), "layer_norm": (0,), "pool": (0,)}
"""Places of widths with a grid of channels; others are measured at parts of the largest."""


@dataclass(frozen=True)
class Wanted:
    """What a table must have: the widths of each place of each family."""

    families: Mapping[Name, Nodes]

    @property
    def points(self) -> int:
        """How many kernels that is."""
        return sum(int(np.prod([len(own) for own in nodes])) for nodes in self.families.values())


def wanted(coupling: Coupling, batch: int = 1) -> Wanted:
    """What a network's kernels need, at all widths that a plan can give them."""
    factors = Factors(coupling)
    dense: dict[Name, list[set[int]]] = {}
    changes: dict[Name, list[bool]] = {}
    for work in works(coupling, batch):
        kernel = work.at(lambda value, axis: value.shape[axis])
        places = dense.setdefault((work.kind, work.fixed), [set() for _ in kernel.widths])
        changing = changes.setdefault((work.kind, work.fixed), [False] * len(kernel.widths))
        for place, (width, product) in enumerate(zip(kernel.widths, work.widths, strict=True)):
            places[place].add(width)
            changing[place] |= any(factors.index(*factor) is not None for factor in product)
    return Wanted({
        name: tuple(
            _nodes(name[0], place, own, changes[name][place])
            for place, own in enumerate(places)
        )
        for name, places in dense.items()
    })  # fmt: skip


def usual(batch: int = 1) -> Wanted:
    """Kernels that most networks on pictures of 224 pixels have, and layers of transformers."""
    found: dict[Name, Nodes] = {}
    largest = {112: 128, 56: 256, 28: 512, 14: 1024, 7: 2048}
    grid = {
        pixels: tuple(16 * step for step in _GRID if 16 * step <= most)
        for pixels, most in largest.items()
    }
    for pixels, widths in grid.items():
        for kernel, stride, kind in ((1, 1, "conv"), (3, 1, "conv"), (3, 2, "conv"),
                                     (3, 1, "depthwise"), (5, 1, "depthwise"),
                                     (3, 2, "depthwise")):  # fmt: skip
            narrow = widths if kernel == 1 or kind == "depthwise" else widths[: len(widths) - 2]
            fixed = {"dilation": 1, "kernel": kernel, "padding": kernel // 2, "pixels": pixels,
                     "stride": stride}  # fmt: skip
            pairs = ((name, (size, size)) for name, size in fixed.items())
            own: Fixed = tuple(sorted((*pairs, ("activation", ""), ("transposed", False))))
            places = (narrow,) if kind == "depthwise" else (narrow, narrow)
            found[kind, own] = (*places, (batch,))
    linear: Fixed = (("bias", True), ("flat", False))
    widths = (64, 128, 256, 384, 512, 768, 1024, 2048, 3072)
    found["linear", linear] = (widths, widths, (64 * batch, 256 * batch))
    found["layer_norm", ()] = (widths, (64 * batch, 256 * batch))
    found["softmax", ()] = ((64, 256), (256 * batch, 3072 * batch))
    parts = ((16, 32, 64), (64, 256), (16, 32, 64, 256), (4 * batch, 12 * batch))
    found["matmul", ()] = parts
    counts = tuple(4**power for power in range(3, 11))
    for op in ("add", "mul", "relu", "gelu", "silu", "permute", "neg"):
        found["elementwise", (("op", op),)] = (counts,)
    return Wanted(found)


def _nodes(kind: str, place: int, dense: set[int], changes: bool) -> tuple[int, ...]:
    """Widths to measure between nothing and the largest."""
    most = max(dense)
    if not changes:
        return tuple(sorted(dense))
    if kind == "elementwise":
        found = {4**power for power in range(3, 14) if 4**power < most} | {most}
    elif place in _CHANNELS.get(kind, ()):
        unit = next(unit for unit in (16, 8, 4, 2, 1) if most >= 2 * unit or unit == 1)
        found = {unit * step for step in _GRID if unit * step < most} | dense
        if (kind, place) == ("conv", 0):
            found |= {edge for edge in _EDGES if edge < most}
    else:
        found = dense | {max(round(most * part), 1) for part in (0.125, 0.25, 0.5, 0.75)}
    return tuple(sorted(found))


def profile(
    path: Path,
    needed: Wanted,
    setting: Setting,
    *,
    seconds: float = 300.0,
    progress: Progress | None = None,
) -> tuple[Table, bool]:
    """Measure what a table lacks, and write it; what is there already stays.

    Returns the table, and whether all is there: `seconds` may be up first. Raises UsageError where
    the file is of another device, provider or number of threads.
    """
    table = resumed(path, setting) if path.exists() else begun(setting)
    done = completed(
        table, needed, setting, lambda one: one.save(path), seconds=seconds, progress=progress
    )
    return table, done


def begun(setting: Setting) -> Table:
    """A table of this machine with nothing but the reference."""
    _, reference = measure([REFERENCE], setting)
    return Table(setting, environment(), reference)


def completed(
    table: Table,
    needed: Wanted,
    setting: Setting,
    save: Callable[[Table], None],
    *,
    seconds: float,
    progress: Progress | None = None,
) -> bool:
    """Add what a table lacks, and save it after each family. Whether all is there in time."""
    start, spent = time.perf_counter(), table.seconds
    missing = {
        name: nodes
        for name, nodes in needed.families.items()
        if name not in table.families or not table.families[name].covers(nodes)
    }
    total, done = Wanted(missing).points, 0
    if not table.stairs:
        table.stairs.update(stairs(setting))
        table.caches = caches.measured(setting)
    for name, nodes in missing.items():
        if time.perf_counter() - start > seconds:
            save(table)
            return False
        table.families[name] = _measured(name, nodes, setting)
        done += table.families[name].times.size
        table.seconds = spent + time.perf_counter() - start
        save(table)
        if progress is not None:
            progress(done, total)
    save(table)
    return True


def resumed(path: Path, setting: Setting) -> Table:
    """The table of a file. Raises UsageError where it is another device's."""
    table = load(path)
    odd = differences(table.environment, environment())
    if table.setting != setting:
        odd += [f"{table.setting.provider} with {table.setting.threads} threads"]
    if odd:
        raise UsageError(
            f"{path} is the table of another device or setting",
            why="; ".join(odd),
            hint="plan by it as it is, or name another file with -o",
        )
    return table


def differences(there: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """What makes times of one environment useless in another, in words."""
    found = []
    for name in ("processor", "flags", "os"):
        if name != "os" and there.get(name) != here.get(name):
            found.append(f"{name}: {there.get(name)} there, {here.get(name)} here")
    packages = [one.get("packages", {}) for one in (there, here)]
    versions = [own.get("onnxruntime") if isinstance(own, Mapping) else None for own in packages]
    if versions[0] != versions[1]:
        found.append(f"ONNX Runtime {versions[0]} there, {versions[1]} here")
    return found


def _measured(name: Name, nodes: Nodes, setting: Setting) -> Family:
    kind, fixed = name
    corners = [Kernel(kind, fixed, widths) for widths in itertools.product(*nodes)]
    ratios = [ratio for batch in batches(corners) for ratio in measure(batch, setting)[0]]
    times = np.array(ratios).reshape([len(own) for own in nodes])
    return Family(kind, fixed, nodes, times)


# --- stairs --------------------------------------------------------------------------------------


def stairs(setting: Setting) -> dict[tuple[str, int], Stair]:
    """The blocks of each kind of kernel, found by sweeping its widths one by one."""
    found = {}
    for (kind, place), make in _sweeps():
        kernels = [make(width) for width in range(1, SWEPT + 1)]
        rows = [
            [ratio for batch in batches(kernels) for ratio in measure(batch, setting)[0]]
            for _ in range(3)
        ]
        found[kind, place] = stair(np.median(rows, axis=0))
    return found


def stair(times: Sequence[float] | np.ndarray) -> Stair:
    """The largest block up to which rounding up is free, from the times of widths 1, 2, 3 ...;
    the first block keeps its own times, for narrow widths often have kernels of their own."""
    own = np.asarray(times, dtype=np.float64)
    for unit in _UNITS:
        tops = range(2 * unit, len(own) + 1, unit)
        costs = [own[top - 1] / np.sort(own[top - unit : top])[int(unit >= 8)] for top in tops]
        if costs and np.median(costs) <= FREE and max(costs) <= DEAREST:
            first = own[:unit] / own[unit - 1]
            return Stair(unit, _misfits(own, unit), tuple(map(float, first)))
    return Stair()


def _misfits(times: np.ndarray, unit: int) -> dict[int, float]:
    """How much longer widths take than the top of their stair, by the power of two in them."""
    found: dict[int, list[float]] = {}
    for width in range(unit + 1, len(times) // unit * unit):
        if width % unit:
            top = -(-width // unit) * unit
            found.setdefault(width & -width, []).append(times[width - 1] / times[top - 1])
    return {power: max(float(np.median(own)), 1.0) for power, own in sorted(found.items())}


def _sweeps() -> Iterator[tuple[tuple[str, int], Callable[[int], Kernel]]]:
    conv = REFERENCE.fixed
    linear: Fixed = (("bias", True), ("flat", False))
    yield ("conv", 0), lambda width: Kernel("conv", conv, (width, 64, 1))
    yield ("conv", 1), lambda width: Kernel("conv", conv, (64, width, 1))
    yield ("depthwise", 0), lambda width: Kernel("depthwise", conv, (width, 1))
    yield ("linear", 0), lambda width: Kernel("linear", linear, (width, 256, 256))
    yield ("linear", 1), lambda width: Kernel("linear", linear, (256, width, 256))
