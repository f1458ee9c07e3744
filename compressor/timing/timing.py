"""What a job knows of time: the device's table, and races of its models against the original."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from compressor import bench, passes
from compressor.align import FASTER
from compressor.loading.calls import Called, at_batch
from compressor.onnx.export import export, simplify
from compressor.onnx.runtime import OnnxModel
from compressor.onnx.unfused_norms import SUMS, with_sums
from compressor.passes.base.errors import UsageError
from compressor.passes.cost.latency import Timed
from compressor.passes.planning.targets import Target, share
from compressor.process.progress import Watch
from compressor.timing.closed_loop import Met, meet
from compressor.timing.device import Device, device
from compressor.timing.measure_kernels import Setting
from compressor.timing.profiling import wanted

if TYPE_CHECKING:
    from compressor.config import Recipe


def faster(ratio: bench.TimeRatio) -> bool:
    """Whether a form that costs nothing is worth it: for sure, or by enough.

    A race of large models has few rounds, so the interval is that of the worst of them.
    """
    return ratio.high < 1 or ratio.median < FASTER


class Timing:
    """Of one captured network. Nothing is measured before it is asked for."""

    def __init__(
        self, coupling: passes.Coupling, recipe: "Recipe", watch: Watch, batch: int
    ) -> None:
        """`batch` is what is raced: the first that the network takes (`runtime.batches_of`)."""
        self.coupling, self.recipe, self.watch, self.batch = coupling, recipe, watch, batch
        program = coupling.program
        self.call: Called = (program.args, dict(program.kwargs))

    @cached_property
    def device(self) -> Device:
        """The table, with all that this network needs."""
        needed = wanted(self.coupling, self.batch)
        path: Path | None = self.recipe.device
        with self.watch.stage("profile"):
            found = device(path, needed, Setting(threads=self.recipe.threads), self.watch.advance)
        if found.note:
            self.watch.note(found.note)
        return found

    @cached_property
    def cost(self) -> Timed:
        """What a plan takes, by the table."""
        return self.device.table.cost(self.coupling, self.batch)

    def race(self, models: Mapping[str, bytes]) -> bench.Race:
        """All side by side, the original first."""
        program = self.coupling.program
        first = next(iter(models.values()))
        inputs = OnnxModel(first, program).feed(*at_batch(self.call, program.batch, self.batch))
        return bench.race(
            models,
            inputs=inputs,
            threads=self.recipe.threads,
            max_seconds=self.recipe.bench_seconds,
            progress=self.watch.advance,
            seed=self.recipe.seed,
        )

    @cached_property
    def original(self) -> bytes:
        """As a build exports it."""
        return self._exported(self.coupling.program)

    def _exported(self, program: passes.Program) -> bytes:
        with self.watch.stage("export"):
            data = export(program)
            return simplify(data).data or data

    @cached_property
    def _sums(self) -> bool:
        """Whether the network is faster with sums before its norms, as a build would deploy it."""
        other = with_sums(self.original)
        if other is None:
            return False
        with self.watch.stage("race"):
            found = self.race({"original": self.original, SUMS: other})
        return faster(found.rows[1].ratio)

    def against_original(self, plan: passes.Plan) -> bench.Race:
        """A plan, cut and exported, against the original."""
        small = passes.apply(passes.Shrink(plan), self.coupling.program).program
        small.module.eval()
        data = self._exported(small)
        if self._sums:
            data = with_sums(data) or data
        with self.watch.stage("race"):
            return self.race({"original": self.original, "small": data})

    def met(self, target: Target, choose: Callable[[float], passes.Plan]) -> Met:
        """The plan that meets the target in a race here; for another device, by its table alone."""
        dense = self.cost.dense
        if self.device.here:
            return meet(target, choose, self.against_original, dense)
        asked = share(target, dense)
        if not asked < 1:
            raise UsageError(
                f"the budget of {target} latency is met already",
                why=f"the original takes {dense * 1e3:.3g} ms by the table",
            )
        return Met(choose(asked), (), 0)
