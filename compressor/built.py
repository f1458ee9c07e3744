"""What a build is: a shrunk network, the evidence that it is right, and how it is deployed.

module            torch, called like the original
onnx              exported, compared with torch, simplified: made when first asked for
measured          what was measured of both
save(directory)   all of it as files, or nothing
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from compressor import passes, release, report, sealing, writing
from compressor.beside import Parity
from compressor.data import Data
from compressor.evaluate import Evaluation, compared
from compressor.export import export, operators, simplify
from compressor.freedom import Sizes
from compressor.inputs import Called
from compressor.passes.errors import CompressError
from compressor.recipe import Recipe
from compressor.runtime import OnnxModel, batches_of, parity
from compressor.stages import Watch
from compressor.work import Work, digest, of_program

_UNSIMPLIFIED = "The model is kept unsimplified, because "


@dataclass(frozen=True, eq=False)
class Onnx:
    """The exported small model, what onnxsim did to it, and how it compares with torch."""

    data: bytes
    simplified: bool
    note: str
    parity: tuple[Parity, ...]
    exported: bytes = b""
    """What onnxsim was given, where it made other operators of it."""

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
    changes: tuple[str, ...]
    sizes: tuple[Sizes, ...] = ()
    """Other sizes of free axes: proof and parity look at these as well."""
    data: Data | None = None
    """The calibration data, where some were given."""
    repaired: passes.Repaired | None = None
    """What the repair did: `small` is its result where there were data."""
    recipe: Recipe = field(default_factory=Recipe)
    """What was asked for, as far as options say it."""
    work: Work = field(default_factory=Work)
    """Where what takes long is kept until it is all there."""
    measured: dict[str, Any] = field(default_factory=dict)
    """Accuracy, latency and file sizes, where they were measured."""

    @property
    def module(self) -> nn.Module:
        """The small network: called like the original, trainable, exportable."""
        return self.small.module

    @cached_property
    def onnx(self) -> Onnx:
        """The deployable model, exported once and compared with torch in ONNX Runtime."""
        return self._deployed(self.small, "")

    @cached_property
    def original_onnx(self) -> Onnx:
        """The original, exported the same way: what the small one is raced against."""
        return self._deployed(self.original, " original")

    def _deployed(self, program: passes.Program, which: str) -> Onnx:
        if self.work.folder is None:
            return self._exported(program, which)
        parts: dict[str, Any] = {
            "program": of_program(program),
            "call": digest(self.call),
            "sizes": self.sizes,
        }
        parts |= {"seed": self.options.seed, "batches": self.batches}
        return Onnx.unpacked(
            self.work.once("export", parts, lambda: self._exported(program, which).packed())
        )

    def _exported(self, program: passes.Program, which: str) -> Onnx:
        with self.watch.stage(f"export{which}"):
            data = export(program)
        with self.watch.stage(f"parity{which}"):
            found = self.parity_of(program, data)
        with self.watch.stage(f"simplify{which}"):
            return self._simplified(program, data, found)

    @cached_property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes that the original takes, among those that are looked at."""
        return batches_of(self.original, self.call)

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
        with self.watch.stage("evaluate"):
            self.measured["accuracy"] = compared(
                wanted, OnnxModel(original, self.original), OnnxModel(small, self.small)
            )

    @property
    def report(self) -> dict[str, Any]:
        """Everything that is known so far, as plain values."""
        return report.build(self)

    def save(
        self,
        directory: str | Path,
        *,
        force: bool = False,
        sign: Path | None = None,
        key: bytes | None = None,
    ) -> Path:
        """Write the release directory; beside its name first, so that it is complete or absent.

        `sign` is the private key for its manifest, `key` the one that it is encrypted with. Raises
        UsageError where the directory exists (unless `force`) or cannot be written.
        """
        with release.prepared(Path(directory), force=force) as folder:
            writing.write(self, folder)
            if sign is not None:
                sealing.sign(folder, sign)
            if key is not None:
                sealing.seal(folder, key)
        return Path(directory)
