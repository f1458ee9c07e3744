"""What a build is: a shrunk network, the evidence that it is right, and how it is deployed.

module            torch, called like the original; may be trained further
onnx              exported, compared with torch, simplified: made when first asked for
measured          what was measured of both
save(directory)   all of it as files, or nothing

What is told of the module is told of it as it is: what other weights gave is let go, and made anew
when it is asked for, or by `save`. The proof is of the surgery, and stays.

Its report and its release are made by `report` and `finishing`, which it is given: they import this
module, and it does not import them.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from compressor import passes
from compressor.base.messages import reason
from compressor.config import Recipe
from compressor.loading.calibration_data import Data
from compressor.loading.calls import Called
from compressor.loading.dynamic_axes import FreeSizes
from compressor.metrics.evaluate import Evaluation, compared, refuse_drop
from compressor.onnx.export import export, operators, simplify
from compressor.onnx.model_files import check_alone
from compressor.onnx.output_parity import Parity
from compressor.onnx.runtime import OnnxModel, batches_of, parity
from compressor.passes.base.errors import CompressError, ContractError, UsageError
from compressor.passes.ir.log import Entry, Log
from compressor.process.progress import Watch
from compressor.result.build_cache import BuildCache, digest, of_program, recalled
from compressor.result.freshness import Snapshot

_UNSIMPLIFIED = "The model is kept unsimplified, because "
OF_WEIGHTS = ("accuracy", "latency", "operators")
"""What is measured of the weights as they are."""


@dataclass(frozen=True, eq=False)
class Onnx:
    """The exported small model, what onnxsim did to it, and how it compares with torch."""

    data: bytes
    simplified: bool
    note: str
    parity: tuple[Parity, ...]
    exported: bytes = b""
    """What onnxsim was given, where it made other operators of it."""
    form: tuple[Entry, ...] = ()
    """Passes that made another form of it, where that one is deployed."""

    @property
    def log(self) -> tuple[Entry, ...]:
        """Passes that made it of the module; what shows that they were right is in parity/."""
        simplified = [Entry("simplify", 1)] if self.simplified else []
        return (Entry("export", 1), *simplified, *self.form)

    def packed(self) -> bytes:
        """One line of JSON, and the models."""
        facts = [self.simplified, self.note, [asdict(one) for one in self.parity], len(self.data)]
        return json.dumps(facts).encode() + b"\n" + self.data + self.exported

    @classmethod
    def unpacked(cls, packed: bytes) -> "Onnx":
        """What `packed` made."""
        head, _, data = packed.partition(b"\n")
        simplified, note, parity, end = json.loads(head)
        found = tuple(map(Parity.of_json, parity))
        return cls(data[:end], simplified, note, found, data[end:])


class Save(Protocol):
    """What finishes a build and writes its release (see `Built.save`)."""

    def __call__(
        self, built: "Built", directory: Path, *, force: bool, sign: Path | None, key: bytes | None
    ) -> Path: ...


@dataclass(eq=False)
class Built:
    """A shrunk network with the evidence that the surgery was right."""

    original: passes.Program
    small: passes.Program
    plan: passes.Plan
    proof: passes.Proof
    options: passes.Options
    call: Called
    name: str
    watch: Watch
    log: Log
    """What ran: capture first, then what made `small`."""
    tell: Callable[["Built"], dict[str, Any]] = field(repr=False)
    """Makes its report."""
    end: Save = field(repr=False)
    """Makes its release."""
    sizes: tuple[FreeSizes, ...] = ()
    """Other sizes of free axes: proof and parity look at these as well."""
    data: Data | None = None
    """The calibration data, where some were given."""
    repaired: passes.Repaired | None = None
    """What the repair did: `small` is its result where there were data."""
    recipe: Recipe = field(default_factory=Recipe)
    """What was asked for, as far as options say it."""
    work: BuildCache = field(default_factory=BuildCache)
    """Where what takes long is kept until it is all there."""
    measured: dict[str, Any] = field(default_factory=dict)
    """Accuracy, latency and file sizes, where they were measured; what happened on the way."""
    judged: tuple[Evaluation, ...] = ()
    """What accuracy was measured with."""
    batches: tuple[int, ...] = ()
    """Batch sizes that the original takes, among those that are looked at."""
    remarks: tuple[str, ...] = ()
    """What there is to say of the inputs."""
    notes: dict[str, str] = field(default_factory=dict)
    """Why something that was measured is not told any more, by its name."""
    _onnx: Onnx | None = field(default=None, init=False, repr=False)
    _original_onnx: Onnx | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.batches = self.batches or batches_of(self.original, self.call)
        self._made, self._whole = Snapshot.of(self.small), Snapshot.of(self.original)
        self._at = self._made.digest

    @property
    def module(self) -> nn.Module:
        """The small network: called like the original, trainable, exportable."""
        return self.small.module

    @property
    def changed(self) -> bool:
        """Whether the module has other weights now than when it was built."""
        self._look()
        return self._at != self._made.digest

    @property
    def exported(self) -> Onnx | None:
        """The deployable model, if the module was exported as it is."""
        self._look()
        return self._onnx

    @property
    def file_bytes(self) -> dict[str, int]:
        """Of both exported models; nothing where one was not exported."""
        if (small := self.exported) is None or self._original_onnx is None:
            return {}
        return {"original": len(self._original_onnx.data), "small": len(small.data)}

    @property
    def onnx(self) -> Onnx:
        """The deployable model, exported once and compared with torch in ONNX Runtime.

        Raises UsageError where the module is in training mode, or another network.
        """
        self._look()
        self._made.check_ready(self.small, self._at)
        if self._onnx is None:
            self._onnx = self._deployed(self.small, "")
            self.watch.reached("export", "parity", "simplify")  # kept from before, maybe
        return self._onnx

    @property
    def original_onnx(self) -> Onnx:
        """The original, exported the same way: what the small one is raced against.

        Raises UsageError where it was changed since, and not exported before.
        """
        if self._original_onnx is None:
            if not self._whole.holds(self.original):
                raise UsageError(
                    "the original model was changed after the build",
                    why="there is nothing to compare the small one with any more",
                    hint="keep a copy of it, and train that; or save without a race: race=False",
                )
            self._original_onnx = self._deployed(self.original, " original")
        return self._original_onnx

    def deploy(self, form: Onnx) -> None:
        """Take another form of the exported module in its place."""
        self._look()
        self._onnx = form

    def _look(self) -> None:
        """At the module as it is now: what other weights gave is let go.

        Raises UsageError where it is no longer the network that was built.
        """
        now = self._made.now(self.small)
        if now == self._at:
            return
        self._at, self._onnx = now, None
        for name in OF_WEIGHTS:
            if self.measured.pop(name, None) is not None:
                self.notes[name] = "it was measured with other weights"

    def _deployed(self, program: passes.Program, which: str) -> Onnx:
        if self.work.folder is None:
            return self._exported(program, which)
        parts: dict[str, Any] = {
            "program": of_program(program),
            "call": digest(self.call),
            "sizes": self.sizes,
        }
        ran = self.log if program is self.small else Log(self.log.entries[:1])
        parts |= {"seed": self.options.seed, "batches": self.batches, "log": str(ran)}
        fresh: list[Onnx] = []

        def made() -> bytes:
            fresh.append(self._exported(program, which))
            return fresh[0].packed()

        packed = self.work.once("export", parts, made)
        if fresh:
            return fresh[0]
        found = recalled("export", lambda: self._looked_at(program, Onnx.unpacked(packed)))
        assert isinstance(found, Onnx)
        return found

    def _looked_at(self, program: passes.Program, kept: Onnx) -> Onnx:
        """A model that was kept, with its parity taken anew. Raises where it has none."""
        if kept.note and (kept.simplified or not kept.note.startswith(_UNSIMPLIFIED)):
            raise ValueError("its note is not one of ours")
        for data in filter(None, (kept.data, kept.exported)):
            check_alone(data)
        return replace(kept, parity=tuple(self.parity_of(program, kept.data)))

    def _exported(self, program: passes.Program, which: str) -> Onnx:
        with self.watch.stage(f"export{which}"):
            data = export(program)
        with self.watch.stage(f"parity{which}"):
            found = self.parity_of(program, data)
        with self.watch.stage(f"simplify{which}"):
            return self._simplified(program, data, found)

    def parity_of(self, program: passes.Program, data: bytes) -> list[Parity]:
        """How far ONNX Runtime is from torch; raises GateError where that is too far."""
        return parity(program, data, self.call, self.options.seed, self.sizes, self.batches)

    def _simplified(self, program: passes.Program, data: bytes, found: list[Parity]) -> Onnx:
        """onnxsim's version where it makes one that agrees with torch, else the exporter's."""
        tried = simplify(data)
        if tried.data is None:
            return Onnx(data, False, f"{_UNSIMPLIFIED}{tried.why}.", tuple(found))
        try:
            again = self.parity_of(program, tried.data)
        except CompressError as error:
            why = f"{_UNSIMPLIFIED}onnxsim's result was discarded: {error.what}."
            return Onnx(data, False, why, tuple(found))
        before = data if operators(data) != operators(tried.data) else b""
        return Onnx(tried.data, True, "", tuple(again), before)

    def evaluate(self, wanted: Sequence[Evaluation]) -> None:
        """Measure both exported models in ONNX Runtime."""
        small, original = self.onnx.data, self.original_onnx.data
        self.judged = tuple(wanted)
        with self.watch.stage("evaluate"):
            self.measured["accuracy"] = compared(
                wanted, OnnxModel(original, self.original), OnnxModel(small, self.small)
            )
        self.notes.pop("accuracy", None)

    def evaluate_again(self) -> None:
        """Measure what was measured with other weights. Raises GateError beyond the limit.

        Where it cannot be measured any more and nothing is limited, the report says why.
        """
        self._look()
        if "accuracy" not in self.notes:
            return
        try:
            self.evaluate(self.judged)
        except ContractError:
            raise
        except Exception as error:  # whatever the user's function raises
            if self.recipe.max_drop is not None:
                raise
            self.notes["accuracy"] = f"measured with other weights, and not again: {reason(error)}"
            return
        if self.recipe.max_drop is not None:
            refuse_drop(self.measured["accuracy"], self.recipe.max_drop, self.recipe.metric)

    @property
    def report(self) -> dict[str, Any]:
        """Everything that is known so far, as plain values."""
        return self.tell(self)

    def save(
        self,
        directory: str | Path,
        *,
        force: bool = False,
        sign: Path | None = None,
        key: bytes | None = None,
    ) -> Path:
        """Write the release directory; beside its name first, so that it is complete or absent.

        It is of the module as it is now: what was made of other weights is made anew. Unless
        `race=False` was asked for, it is raced against the original (`bench_seconds` at most), and
        its fastest form is deployed. `sign` is the private key for its manifest, `key` the one that
        it is encrypted with. Raises UsageError where the directory exists (unless `force`) or
        cannot be written, or the module is in training mode or another network; GateError where
        `max_drop` was asked for and is exceeded, the model is slower than the original (unless
        `allow_slower`), or no nearer to it than a constant (unless `allow_worse`).
        """
        return self.end(self, Path(directory), force=force, sign=sign, key=key)
