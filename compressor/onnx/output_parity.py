"""The exported model beside torch, on one input after another, and what to make of all of them.

whole     the largest difference of an output, over its largest number
slices    the same for each slice along axis 1 and the last axis, over all inputs: scores of 0.6
          beside boxes of 640 are as large as they are
rounding  where either is too large, what torch itself loses, compared with itself in float64
nothing   an output that is the same for all inputs: other inputs are tried (see `alike`)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.fx import Interpreter
from torch.utils import _pytree as pytree

from compressor.base.messages import reason
from compressor.loading.calls import Called, run
from compressor.passes.base.errors import WrongError
from compressor.passes.calibration.steps_of_numbers import loose, output_names, sources
from compressor.passes.ir.compare import (
    APART,
    LEAST,
    SAME,
    Array,
    Gap,
    Output,
    Seen,
    along,
    comparable,
    gap,
    merged,
    refuse_nothing,
)
from compressor.passes.ir.dtypes import array, float64_by_default, in_float64, widened
from compressor.passes.ir.leaves import fresh, tensors
from compressor.passes.ir.program import Program
from compressor.passes.proof.equal import SCALES
from compressor.passes.proof.random_weights import moved


@dataclass(frozen=True)
class Parity:
    """ONNX Runtime beside torch on one batch."""

    inputs: str
    batch: int
    sizes: Mapping[str, int]
    """Of free axes, where they are not those of the example."""
    max_abs: float
    max_rel: float
    """Largest difference over the largest magnitude of the same output."""
    top1: float | None
    """Share of rows with the same largest entry, where an output has rows of classes."""
    outputs: tuple[Output, ...] = ()
    """The same for each output, slice by slice, and where nothing was compared on any inputs."""

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> "Parity":
        """What `asdict` made plain."""
        outputs = tuple(Output(**one) for one in found.get("outputs", ()))
        return cls(**{**found, "outputs": outputs})


ROUNDINGS, MOST = 8, 1e-2
"""ONNX Runtime may lose as many times what torch loses to rounding; never more than the second, of
the largest number of an output."""

FEW = 0.25
"""A slice of few numbers may be exact by chance: it may lose what this share of slices lose."""


class Beyond(NamedTuple):
    """A slice in which the two are too far apart."""

    axis: int
    place: int
    relative: float
    comparison: int

    def __str__(self) -> str:
        return f"slice {self.place} of axis {self.axis}"


class Slices:
    """The slices of one output along axis 1 and the last, over all inputs that were tried.

    Over all of them: one number by itself may be as small as it likes.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], _Axis] = {}

    def add(self, wanted: Array, found: Array, comparison: int) -> None:
        """Both results for the input of this number."""
        for key, far, size in self._along(wanted, found):
            own = self._known.setdefault(key, _Axis.empty(key[1]))
            own.comparison = np.where(far > own.far, comparison, own.comparison)
            own.far, own.size = np.maximum(own.far, far), np.maximum(own.size, size)

    def round(self, exact: Array, own: Array) -> None:
        """What torch gives in double precision, and in the model's own."""
        for key, far, _ in self._along(exact, own):
            if key in self._known:
                self._known[key].lost = np.maximum(self._known[key].lost, far)

    def _along(self, a: Array, b: Array) -> list[tuple[tuple[int, int], Array, Array]]:
        pair = comparable(a, b)
        if pair is None or a.ndim < 2 or not a.size:
            return []
        axes = sorted({1, a.ndim - 1})
        return [((axis, a.shape[axis]), along(pair[0], axis), along(pair[1], axis))
                for axis in axes]  # fmt: skip

    def beyond(self, limit: float) -> Beyond | None:
        """The slice that differs most, where that is more than `limit` of its largest number and
        than rounding explains."""
        worst = None
        for (axis, _), own in self._known.items():
            largest = float(own.size.max())
            scale = own.size + LEAST * largest
            lost = np.maximum(own.lost, np.quantile(own.lost, FEW)) * ROUNDINGS
            allowed = np.maximum(limit * scale, np.minimum(lost, MOST * largest))
            if not (own.far > allowed).any():
                continue
            place = int(np.argmax(own.far - allowed))
            relative = float(own.far[place] / scale[place]) if scale[place] else float("inf")
            found = Beyond(axis, place, relative, int(own.comparison[place]))
            worst = max(worst or found, found, key=lambda one: one.relative)
        return worst


@dataclass
class _Axis:
    """Of every slice: the largest difference, and in which comparison; number; loss to rounding."""

    far: Array
    size: Array
    lost: Array
    comparison: Array

    @classmethod
    def empty(cls, length: int) -> "_Axis":
        return cls(np.zeros(length), np.zeros(length), np.zeros(length), np.zeros(length, int))


def _pairs(leaf: Any) -> Any:
    """Complex numbers as ONNX has them."""
    is_complex = isinstance(leaf, Tensor) and leaf.is_complex()
    return torch.view_as_real(leaf) if is_complex else leaf


def _axes(tensor: Tensor) -> list[int]:
    return sorted({1, tensor.dim() - 1}) if tensor.dim() > 1 else []


class Beside:
    """Comparisons of one model with its program, and the judgement of all of them."""

    def __init__(self, program: Program, model: Callable[..., Any], limit: float) -> None:
        self._program, self._model, self._limit = program, model, limit
        self._names = output_names(program.module)
        self._found: list[tuple[Parity, Called]] = []
        self._seen: list[Seen] = []
        self._slices: list[Slices] = []
        self._before: list[tuple[str, ...]] | None = None
        self._planned = 0

    def compare(self, call: Called, name: str, batch: int, sizes: Mapping[str, int]) -> None:
        """One batch more. Raises WrongError where the two do not even have the same form."""
        named = self._torch(call, batch)
        found = tensors(self._model(*call[0], **call[1]))
        if len(named) != len(found):
            raise WrongError(f"the ONNX model gives {len(found)} tensors, torch gives {len(named)}")
        outputs, gaps, rows = [], [], list[float]()
        for (place, (own, a)), b in zip(named.items(), found, strict=True):
            if a.shape != b.shape:
                raise WrongError(
                    f"ONNX Runtime gives {tuple(b.shape)} where torch gives {tuple(a.shape)}"
                )
            outputs.append(self._output(place, own, a, b, call))
            gaps.append(outputs[-1][0])
            if a.is_floating_point() and a.dim() >= 2 and a.shape[-1] > 1:
                rows.append(float((a.argmax(-1) == b.argmax(-1)).double().mean()))
        self._note([leaf for _, leaf in named.values()], found, call)
        far = max((one.absolute for one in gaps), default=0.0)
        worst = max((one.whole for one in gaps), default=0.0)
        told = tuple(output for _, output in outputs)
        one = Parity(name, batch, sizes, far, worst, min(rows, default=None), told)
        self._found.append((one, call))

    def _torch(self, call: Called, batch: int) -> dict[int, tuple[str, Tensor]]:
        """Names and values of the outputs that are tensors, by their place."""
        try:
            result = run(self._program.module, call)
        except Exception as error:
            raise WrongError(
                f"the small network does not run at a batch of {batch}, which the original does",
                why=reason(error),
                hint="report this model; nothing was written",
            ) from error
        leaves = pytree.tree_leaves(result)
        names = self._names
        if len(names) != len(leaves):
            names = [f"output {place}" for place in range(len(leaves))]
        pairs = enumerate(zip(names, map(_pairs, leaves), strict=True))
        return {place: pair for place, pair in pairs if isinstance(pair[1], Tensor)}

    def _output(
        self, place: int, name: str, a: Tensor, b: Tensor, call: Called
    ) -> tuple[Gap, Output]:
        far = gap(array(a), array(b), _axes(a))
        note = ""
        if far == APART and (share := self._flipped(place, a, b, call)):
            far, note = SAME, f"{share} within rounding of the numbers before it"
        return far, Output(name, far.absolute, far.slices, "", note)

    def _flipped(self, place: int, a: Tensor, b: Tensor, call: Called) -> str:
        """How many entries differ, where rounding the last numbers before them flips each of them;
        else nothing."""
        module = self._program.module
        leaves = pytree.tree_leaves(fresh(call))
        if self._before is None:
            self._before = sources(module, pytree.tree_leaves(fresh(call)))
        before = self._before[place] if place < len(self._before) else ()
        if not before or a.dtype != b.dtype:
            return ""
        free = loose(module, leaves, before, self._limit)[place]
        differ = a != b
        if free is None or bool((differ & ~free).any()):
            return ""
        return f"{int(differ.sum()):,} of {differ.numel():,} entries differ,"

    def _note(self, wanted: Sequence[Tensor], found: Sequence[Tensor], call: Called) -> None:
        self._seen = self._seen or [Seen() for _ in wanted]
        self._slices = self._slices or [Slices() for _ in wanted]
        for seen, slices, a, b in zip(self._seen, self._slices, wanted, found, strict=True):
            seen.add(array(a))
            if a.is_floating_point():
                slices.add(array(a), array(b), len(self._found))

    def search(self, call: Called, batch: int, seed: int) -> None:
        """Other inputs, while some output was the same for all of them; not told apart later."""
        self._planned = len(self._found)
        for index, scale in enumerate(SCALES):
            if not any(one.why for one in self._seen):
                return
            given = moved(call, scale, seed + index)
            try:
                run(self._program.module, (given[0], dict(given[1])))
            except (RuntimeError, IndexError, ValueError):  # not inputs for this network
                continue
            self.compare((given[0], dict(given[1])), f"shuffled, times {scale:g}", batch, {})

    def judged(self) -> list[Parity]:
        """All comparisons. Raises WrongError where they do not show that the two are alike."""
        for worst, inputs in sorted(self._found, key=lambda pair: -pair[0].max_rel):
            if worst.max_rel <= self._limit or worst.max_rel <= self._rounding(inputs):
                continue
            raise self._wrong(worst.max_rel, worst, "")
        for place, slices in enumerate(self._slices):
            bad = slices.beyond(self._limit)
            if bad is not None:
                self._round(place)
                bad = slices.beyond(self._limit)
            if bad is not None:
                name = self._found[0][0].outputs[place].name
                raise self._wrong(bad.relative, self._found[bad.comparison][0], f"{name} {bad}")
        found = []
        for one, _ in self._found[: self._planned]:
            pairs = zip(one.outputs, self._seen, strict=True)
            found.append(replace(one, outputs=tuple(replace(o, why=s.why) for o, s in pairs)))
        refuse_nothing(merged([one.outputs for one in found]), "ONNX Runtime beside torch")
        return found

    def _wrong(self, far: float, worst: Parity, slice_: str) -> WrongError:
        return WrongError(
            f"ONNX Runtime and torch differ by {far:.2g} (limit {self._limit:.2g})",
            where=", ".join(
                [f"{worst.inputs} inputs", f"batch {worst.batch}"]
                + [f"{symbol} {size}" for symbol, size in worst.sizes.items()]
                + [slice_] * bool(slice_)
            ),
            hint="report this model; nothing was written",
        )

    def _round(self, place: int) -> None:
        """Let the slices of an output know what torch itself loses to rounding."""
        for _, inputs in self._found:
            pairs = self._exact_and_own(inputs)
            if pairs is not None and pairs[place][0].is_floating_point():
                self._slices[place].round(*map(array, pairs[place]))

    def _rounding(self, call: Called) -> float:
        """How far ONNX Runtime may be from torch where torch itself is far from exact.

        Weights that nearly cancel make any order of adding up look different: torch is compared
        with itself in float64. 0 where it has no kernels for that.
        """
        pairs = self._exact_and_own(call) or []
        gaps = [gap(array(a), array(b)).whole for a, b in pairs if a.is_floating_point()]
        return min(ROUNDINGS * max(gaps, default=0.0), MOST)

    def _exact_and_own(self, call: Called) -> list[tuple[Tensor, Tensor]] | None:
        """What torch gives in float64, and in the model's own precision."""
        wide = [widened(leaf) for leaf in pytree.tree_leaves(fresh(call))]
        try:
            with torch.no_grad(), float64_by_default():
                exact = Interpreter(in_float64(self._program)).run(
                    *wide, enable_io_processing=False
                )
        except (RuntimeError, NotImplementedError) as error:
            if "not implemented for" not in str(error):
                raise
            return None
        own = tensors(run(self._program.module, call))
        return list(zip(tensors(exact), own, strict=True))
