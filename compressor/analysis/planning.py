"""`compressor plan`: which channels go, for a model that need not fit in memory.

    model on the meta device, or a real one         shapes and operators
    --weights: safetensors, a file or a folder      read tensor by tensor, for the scores
    plan.json                                       what `compressor shards` cuts a checkpoint by

Nothing is run, so nothing is proven here: `compressor build` does that, of a model that fits.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor
from torch.nn import Parameter

from compressor import passes
from compressor.analysis.inspection import captured
from compressor.base.messages import listed, near
from compressor.config import Recipe
from compressor.config.fields import BUDGET, CHOICE
from compressor.config.unused_options import asked_of, refuse_idle
from compressor.criteria import group_weights
from compressor.passes.base.errors import UsageError
from compressor.pipeline.report_contents import amounts, asked, groups
from compressor.process.progress import Watch
from compressor.release.kept_indices import cut_of
from compressor.release.shards import ShardedWeights
from compressor.storage.files import check_writable, write_file
from compressor.timing.table import load


@dataclass(frozen=True)
class Planned:
    """A plan, and what it is called in a report."""

    plan: passes.Plan
    model: str
    options: passes.Options

    def to_json(self) -> dict[str, Any]:
        """Everything but the indices, which are in plan.json."""
        plan = self.plan
        return {
            "model": self.model,
            "budget": asked(plan),
            "options": asdict(self.options) | {"unit": plan.unit},
            "cost": amounts(plan),
            "groups": groups(plan),
        }


def plan(recipe: Recipe, watch: Watch) -> Planned:
    """Choose what goes, and write it to the output: as a whole, or not at all."""
    output, budget, options = recipe.output, recipe.budget(), recipe.options()
    if output is None or budget is None:
        raise UsageError(
            "a plan needs a budget and a file to write", hint="give --macs 0.5 and -o plan.json"
        )
    asked = asked_of(recipe)
    refuse_idle({name: asked[name] for name in (*BUDGET, *CHOICE) if name in asked})
    check_writable(output)
    weighed = None if recipe.sensitivity is None else group_weights.read(recipe.sensitivity)
    checkpoint = ShardedWeights(recipe.weights) if recipe.weights is not None else None
    program = captured(recipe.model_copy(update={"weights": None}), watch)
    scores = None if checkpoint is None else ByName(checkpoint, program)
    with watch.stage("couple"):
        coupling = passes.couple(program, options.ignore)
    if weighed is not None:
        options = weighed.options(options, coupling)
    with watch.stage("plan"):
        device = recipe.device if "latency" in budget.kinds else None
        time = None if device is None else load(device).cost(coupling)
        found = passes.choose(coupling, budget, options, scores, time=time)
    with watch.stage("write"):
        text = json.dumps(cut_of(found).to_json(), separators=(",", ":")) + "\n"
        write_file(output, text.encode())
    return Planned(found, recipe.title, options)


class ByName(Mapping[str, Tensor]):
    """The weights of a program as a checkpoint has them: read on demand, tied ones by any name.

    Raises UsageError, before anything is read, where one is missing or has other sizes.
    """

    def __init__(self, checkpoint: ShardedWeights, program: passes.Program) -> None:
        self._checkpoint, stored = checkpoint, checkpoint.stored
        self._names: dict[str, str] = {}
        missing, odd = [], []
        for name, tensor in program.tensors().items():
            others = [alias for alias, own in program.aliases.items() if own == name]
            found = next((one for one in (name, *others) if one in stored), None)
            if found is None:
                missing += [name] if isinstance(tensor, Parameter) else []
            elif stored[found].shape != tuple(tensor.shape):
                odd.append(
                    f"{name} is {list(stored[found].shape)} in the file, "
                    f"{list(tensor.shape)} in the model"
                )
            else:
                self._names[name] = found
        if missing or odd:
            raise UsageError(
                "the weights do not fit the model",
                where=str(checkpoint.source),
                why="; ".join(odd[:2]) or f"{len(missing)} missing: {listed(missing)}",
                hint=near(missing[0], stored) if missing else "",
            )

    def __getitem__(self, name: str) -> Tensor:
        return self._checkpoint[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
