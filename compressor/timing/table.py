"""The kernel table of a device: what each kernel takes there, on a grid of widths.

    family    kernels alike but for their widths: convolutions of 3x3 on 28x28 pixels ...
    nodes     widths that were measured, for each place; in between it is interpolated
    stairs    the blocks that a kind of kernel computes: a width is worth that of its stair's top,
              times what a width that fits no block costs more

Times are kept over those of one reference kernel, measured beside them (`measure_kernels.py`).
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compressor.base.untrusted import read_json
from compressor.bench.sessions import MOST_THREADS
from compressor.onnx.sessions import CPU
from compressor.passes.base.errors import UsageError
from compressor.passes.cost.kernels import Kernel
from compressor.passes.cost.latency import Timed, WeightReading
from compressor.passes.cost.memory import Memory
from compressor.passes.coupling.groups import Coupling
from compressor.storage.files import read_file, write_file
from compressor.timing.caches import BYTES, Caches, caches_of
from compressor.timing.kernel_models import effort, weights
from compressor.timing.measure_kernels import Setting

FORMAT = 2
Fixed = tuple[tuple[str, Any], ...]
Name = tuple[str, Fixed]


@dataclass(frozen=True)
class Stair:
    """How one width of a kind of kernel counts."""

    unit: int = 1
    """Widths are rounded up to multiples of this: the rest of a block is free."""
    misfit: Mapping[int, float] = field(default_factory=dict)
    """How much longer a width takes than the top of its stair, by the largest power of two in it;
    1 where it is not listed."""
    first: tuple[float, ...] = ()
    """Of widths 1, 2, 3 ... up to the unit: over the time of one whole block."""

    def top(self, width: int) -> tuple[int, float]:
        """The width that this one counts as, and the factor on top."""
        if width <= len(self.first):
            return self.unit, self.first[width - 1]
        if width <= self.unit or width % self.unit == 0:
            return width, 1.0
        return -(-width // self.unit) * self.unit, self.misfit.get(width & -width, 1.0)


@dataclass(frozen=True)
class Family:
    """Measured times of kernels that differ in their widths alone."""

    kind: str
    fixed: Fixed
    nodes: tuple[tuple[int, ...], ...]
    """Ascending widths, for each place."""
    times: np.ndarray
    """Over the reference's: one dimension for each place."""

    @property
    def name(self) -> Name:
        return self.kind, self.fixed

    def at(self, widths: Sequence[int]) -> float:
        """Interpolated linearly; beyond the ends in proportion."""
        factor, corners = 1.0, []
        for width, nodes in zip(widths, self.nodes, strict=True):
            if width >= nodes[-1] or width <= nodes[0]:
                end = len(nodes) - 1 if width >= nodes[-1] else 0
                factor *= width / nodes[end]
                corners.append([(end, 1.0)])
                continue
            upper = int(np.searchsorted(nodes, width))
            share = (width - nodes[upper - 1]) / (nodes[upper] - nodes[upper - 1])
            corners.append([(upper - 1, 1 - share), (upper, share)])
        total = 0.0
        for corner in itertools.product(*corners):
            weight = np.prod([share for _, share in corner])
            total += float(weight * self.times[tuple(place for place, _ in corner)])
        return factor * total

    def covers(self, nodes: Sequence[Sequence[int]]) -> bool:
        """Whether all of these widths were measured."""
        return all(set(wanted) <= set(own) for wanted, own in zip(nodes, self.nodes, strict=True))


@dataclass
class Table:
    """All that is known of a device. It only ever learns more."""

    setting: Setting
    environment: Mapping[str, Any]
    """The device and the versions it was measured with."""
    reference: float
    """Seconds of the reference kernel."""
    stairs: dict[tuple[str, int], Stair] = field(default_factory=dict)
    """By kind and place of the width."""
    families: dict[Name, Family] = field(default_factory=dict)
    caches: Caches = field(default_factory=Caches)
    seconds: float = 0.0
    """What measuring took."""

    def cost(self, coupling: Coupling, batch: int = 1) -> Timed:
        """What plans of a network take, in seconds.

        Beside a plan's weights the caches hold as many activations as the original has: they
        shrink too, but weights are what is read from memory.
        """
        others = Memory(coupling).dense * batch
        reading = WeightReading(
            lambda kernel: weights(kernel) * BYTES,
            lambda held: self.caches.reading(held) * self.reference,
            lambda held: self.caches.reading(held, others) * self.reference,
        )
        return Timed(coupling, self.time, batch=batch, reading=reading)

    def time(self, kernel: Kernel) -> float:
        """Seconds. Raises UsageError for a kind of kernel that was never measured."""
        family = self.families.get((kernel.kind, kernel.fixed))
        widths, factor = [], 1.0
        for place, width in enumerate(kernel.widths):
            stair = self.stairs.get((kernel.kind, place))
            known = family.nodes[place] if family else ()
            within = known[:1] == (1,) and stair is not None and width < stair.unit
            if stair is not None and width not in known and not within:
                width, more = stair.top(width)
                factor *= more
            widths.append(width)
        if family is None:
            there = Kernel(kernel.kind, kernel.fixed, tuple(widths))
            return self._like(there) * factor * self.reference
        return family.at(widths) * factor * self.reference

    def _like(self, kernel: Kernel) -> float:
        """By the work of the family that is most alike."""
        alike = [family for family in self.families.values() if family.kind == kernel.kind]
        if not alike:
            raise UsageError(
                f"the table has no kernel of the kind '{kernel.kind}'",
                where=words(kernel.kind, kernel.fixed),
                hint="measure what the model needs on the device: compressor profile MODEL",
            )
        own, wanted = effort(kernel), dict(kernel.fixed)

        def apart(family: Family) -> tuple[int, float]:
            there = dict(family.fixed)
            odd = sum(there.get(key) != value for key, value in wanted.items())
            work = effort(Kernel(family.kind, family.fixed, kernel.widths))
            return odd, abs(np.log(work / own))

        nearest = min(alike, key=apart)
        work = effort(Kernel(nearest.kind, nearest.fixed, kernel.widths))
        return nearest.at(kernel.widths) * own / work

    def summary(self) -> dict[str, Any]:
        """How much is known, and the blocks that were found."""
        return {
            "provider": self.setting.provider,
            "threads": self.setting.threads,
            "families": len(self.families),
            "kernels": sum(family.times.size for family in self.families.values()),
            "seconds": round(self.seconds, 1),
            "units": {f"{kind} {place}": one.unit for (kind, place), one in self.stairs.items()},
        }

    # --- files ----------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "format": FORMAT,
            "provider": self.setting.provider,
            "threads": self.setting.threads,
            "environment": dict(self.environment),
            "reference_seconds": self.reference,
            "seconds": round(self.seconds, 3),
            "caches": self.caches.to_json(),
            "stairs": [
                {"kind": kind, "place": place, "unit": one.unit,
                 "misfit": {str(k): round(v, 4) for k, v in one.misfit.items()},
                 "first": [round(ratio, 4) for ratio in one.first]}
                for (kind, place), one in self.stairs.items()
            ],
            "families": [
                {"kind": one.kind, "fixed": dict(one.fixed), "nodes": [list(n) for n in one.nodes],
                 "times": [float(f"{t:.5g}") for t in one.times.reshape(-1)]}
                for one in self.families.values()
            ],
        }  # fmt: skip

    def save(self, path: Path) -> None:
        """As a whole, or not at all."""
        write_file(path, (json.dumps(self.to_json(), separators=(",", ":")) + "\n").encode())


def load(path: Path) -> Table:
    """Read a table. Raises UsageError, in plain words, for what is none."""
    try:
        found = read_json(read_file(path))
    except ValueError as error:
        raise _wrong(path, f"it is no JSON: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        form = found.get("format") if isinstance(found, dict) else None
        older = ", which is an older version's: remove it" if form == 1 else ""
        raise _wrong(path, f"its format is {form}, not {FORMAT}{older}")
    try:
        table = Table(
            Setting(str(found.get("provider", CPU)), int(found["threads"])),
            dict(found["environment"]),
            float(found["reference_seconds"]),
            {(one["kind"], int(one["place"])): _stair(one) for one in found["stairs"]},
            caches=caches_of(found["caches"]),
            seconds=float(found["seconds"]),
        )
        families = [_family(one) for one in found["families"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        raise _wrong(path, what) from error
    if not table.reference > 0 or not 1 <= table.setting.threads <= MOST_THREADS:
        raise _wrong(
            path, f"its reference must take more than 0 seconds, by 1 to {MOST_THREADS} threads"
        )
    table.families = {family.name: family for family in families}
    return table


def _wrong(path: Path, why: str) -> UsageError:
    hint = "make one with: compressor profile MODEL -o device.json"
    return UsageError(f"{path} is no table of kernel times", why=why, hint=hint)


def _stair(found: Mapping[str, Any]) -> Stair:
    unit, misfit = int(found["unit"]), {int(k): float(v) for k, v in found["misfit"].items()}
    first = tuple(map(float, found["first"]))
    if unit < 1 or any(not factor > 0 for factor in (*misfit.values(), *first)):
        raise ValueError("a stair has a unit of at least 1, and factors above 0")
    return Stair(unit, misfit, first)


def _family(found: Mapping[str, Any]) -> Family:
    nodes = tuple(tuple(int(width) for width in one) for one in found["nodes"])
    fixed = tuple(sorted((str(k), _tupled(v)) for k, v in found["fixed"].items()))
    name = words(str(found["kind"]), fixed)
    if any(not own or list(own) != sorted(set(own)) or own[0] < 1 for own in nodes):
        raise ValueError(f"the widths of {name} must ascend from 1 or more")
    times = np.array(found["times"], dtype=np.float64)
    shape = tuple(map(len, nodes))
    if times.size != np.prod(shape) or not (np.isfinite(times) & (times > 0)).all():
        raise ValueError(f"{name} needs {int(np.prod(shape))} times above 0, one for each width")
    return Family(str(found["kind"]), fixed, nodes, times.reshape(shape))


def _tupled(value: Any) -> Any:
    if isinstance(value, dict):
        raise ValueError("what is fixed of a kernel is a value, or a list of values")
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def words(kind: str, fixed: Fixed) -> str:
    """A family in words."""
    said = (f"{k}={'x'.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in fixed)
    return " ".join((kind, *said))
