"""Which groups a network can spare: one at a time loses a share of its channels, and is repaired.

    for each group and share:   cut that group alone, repair on some inputs, look at the others
    damage                      how far the outputs are from the original's (and the user's metric)
    weights                     damage of a group beside that of the mean group, for the planner

The least important channels of a group go first, by the criterion of the options.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor
from torch.utils import _pytree as pytree

from compressor import passes
from compressor.analysis.inspection import captured
from compressor.base.terminal_text import words
from compressor.config import Recipe
from compressor.config.user_file import with_code
from compressor.criteria.group_weights import FORMAT
from compressor.criteria.torch_pruning import scored
from compressor.loading import load_data
from compressor.loading.calibration_data import Data
from compressor.loading.calls import Called
from compressor.metrics.evaluate import Evaluation, evaluations
from compressor.passes.base.errors import UsageError
from compressor.passes.base.threads import suited
from compressor.passes.calibration.divergence import divergence
from compressor.passes.importance.magnitude import channel_scores
from compressor.passes.ir.leaves import fresh
from compressor.passes.pipeline.text import width
from compressor.process.progress import Watch
from compressor.report.page import template
from compressor.storage.files import write_file

SHARES = (0.25, 0.5, 0.75)
"""Of the channels of one group, that go."""

REPAIRED_WITH = 128
"""Inputs that the repair after each cut looks at, where there are more."""


@dataclass(frozen=True)
class GroupCut:
    """One group without some of its channels, the rest of the network whole."""

    share: float
    """Of its channels that went."""
    kept: int
    divergence: float
    """Of the outputs, after repair: 0 is none, 1 as far as their own mean."""
    metrics: Mapping[str, float]
    macs: float
    """What went of the whole network's MACs, as a share."""


@dataclass(frozen=True)
class GroupSensitivity:
    """One group, and what it costs to lose parts of it."""

    name: str
    width: str
    size: int
    cuts: tuple[GroupCut, ...]

    @property
    def damage(self) -> float:
        """Of all its cuts together, for each share of the network's MACs that they save."""
        saved = sum(cut.macs for cut in self.cuts)
        return sum(cut.divergence for cut in self.cuts) / saved if saved > 0 else 0.0


@dataclass(frozen=True)
class Sensitivity:
    """All groups of a model, in its own order."""

    model: str
    criterion: str
    inputs: int
    """That the damage was measured on."""
    rows: tuple[GroupSensitivity, ...]
    original: Mapping[str, float]
    """The metrics of the original."""

    @property
    def weights(self) -> dict[str, float]:
        """How dear each group is beside the mean one: multiply the importance of its channels."""
        damages = {row.name: max(row.damage, 0.0) for row in self.rows}
        mean = sum(damages.values()) / max(len(damages), 1)
        return {name: one / mean if mean > 0 else 1.0 for name, one in damages.items()}

    def to_json(self) -> dict[str, Any]:
        """As plain values: what `group_weights.read` reads."""
        rows = [asdict(row) | {"damage": row.damage} for row in self.rows]
        return {"format": FORMAT, **asdict(self), "rows": rows, "weights": self.weights}


def run(recipe: Recipe, shares: Sequence[float], watch: Watch) -> Sensitivity:
    """Load what was named, and analyse it."""
    recipe = with_code(recipe)
    if recipe.data is None:
        raise UsageError(
            "there is nothing to measure on", hint="give inputs with --data path/file.py:callable"
        )
    options, name = recipe.options(), recipe.model or ""
    program = captured(recipe, watch)
    data = Data(load_data(recipe.data), program)
    other = data if recipe.eval_data is None else Data(load_data(recipe.eval_data), program)
    judged = evaluations(recipe.evaluate, other)
    with watch.stage("couple"):
        coupling = passes.couple(program, options.ignore)
    calls = [batch.call for batch in data]
    with watch.stage("cut"), suited(passes.Costs(coupling, "macs").dense):
        return analyse(coupling, calls, options, judged, shares or SHARES, name, watch)


def analyse(
    coupling: passes.Coupling,
    calls: Sequence[Called],
    options: passes.Options,
    evaluations: Sequence[Evaluation] = (),
    shares: Sequence[float] = SHARES,
    name: str = "",
    watch: Watch | None = None,
) -> Sensitivity:
    """Cut every group alone, by every share.

    Raises UsageError where there are no groups or a share means nothing.
    """
    watch = watch or Watch()
    if wrong := [one for one in shares if not 0 < one < 1]:
        raise UsageError(f"a share of {wrong[0]:g} means nothing", hint="give some between 0 and 1")
    if not coupling.groups:
        raise UsageError("no channel of this model can go", hint="`inspect` says why")
    looked = _Looked(coupling, calls, options, evaluations)
    rows = []
    for index, group in enumerate(coupling.groups):
        cuts = tuple(cut for share in shares if (cut := looked.cut(group, share)) is not None)
        rows.append(GroupSensitivity(group.name, width(group), group.size, cuts))
        watch.advance(index + 1, len(coupling.groups))
    return Sensitivity(name, looked.criterion, looked.count, tuple(rows), looked.original)


class _Looked:
    """The original's outputs, and the inputs for repair and judgement."""

    def __init__(
        self,
        coupling: passes.Coupling,
        calls: Sequence[Called],
        options: passes.Options,
        evaluations: Sequence[Evaluation],
    ) -> None:
        self._coupling, self._evaluations = coupling, evaluations
        self._repair, self._judge = _apart(calls)
        self._net = coupling.program.module
        self._wanted = _outputs(self._net, self._judge)
        self.criterion, self._orders = _orders(coupling, calls, options)
        self._costs = passes.Costs(coupling, "macs")
        self.count = sum(_samples(call) for call in self._judge)
        self.original = self._metrics(self._net)

    def cut(self, group: passes.Group, share: float) -> GroupCut | None:
        """The network without a share of one group; None where that is not a single channel."""
        count = min(round(share * group.size), group.size - 1)
        if count < 1:
            return None
        gone = torch.cat([cell[:count] for cell in self._orders[group.name]]).sort().values
        plan = passes.Plan(self._coupling, passes.Budget(channels=0.5), gone)
        small = passes.apply(passes.Shrink(plan), self._coupling.program).program
        if self._repair:
            small = passes.mend(passes.Repair(plan, self._repair), small).program
        return GroupCut(
            count / group.size,
            group.size - count,
            divergence(self._wanted, _outputs(small.module, self._judge)),
            self._metrics(small.module),
            1 - self._costs.amount(gone) / self._costs.dense,
        )

    def _metrics(self, net: Any) -> dict[str, float]:
        found: dict[str, float] = {}
        with torch.no_grad():
            for one in self._evaluations:
                found |= one.run(net, self._net)
        return found


def _orders(
    coupling: passes.Coupling, calls: Sequence[Called], options: passes.Options
) -> tuple[str, dict[str, list[Tensor]]]:
    """The channels of every cell of every group, those that go first in front; and by what."""
    own = scored(options.criterion)
    measured = passes.Measured.of(coupling, calls, options.criterion, options.seed, scored=own)
    if measured.curves is not None:
        pairs = zip(coupling.groups, measured.curves, strict=True)
        return measured.criterion, {group.name: list(curve.order) for group, curve in pairs}
    scores = channel_scores(coupling, measured.criterion, options.seed)
    return measured.criterion, {
        group.name: [cell[scores[cell].argsort()] for cell in group.cells]
        for group in coupling.groups
    }


def _apart(calls: Sequence[Called]) -> tuple[list[Called], list[Called]]:
    """Calls for repair, and others to judge by; few are judged by what repaired them."""
    repair: list[Called] = []
    for call in calls:
        if sum(map(_samples, repair)) >= REPAIRED_WITH or len(repair) >= max(len(calls) // 2, 1):
            break
        repair.append(call)
    return repair, list(calls[len(repair) :]) or repair


def _samples(call: Called) -> int:
    sizes = [leaf.shape[0] for leaf in pytree.tree_leaves(call)
             if isinstance(leaf, Tensor) and leaf.dim()]  # fmt: skip
    return max(sizes, default=1)


@torch.no_grad()
def _outputs(net: Any, calls: Sequence[Called]) -> list[list[Tensor]]:
    found = []
    for args, kwargs in calls:
        outputs = pytree.tree_leaves(net(*fresh(args), **fresh(kwargs)))
        found.append([one for one in outputs if isinstance(one, Tensor)])
    return found


# --------------------------------------------------------------------------------- what is shown


def table(found: Sensitivity) -> Table:
    """One line a group: what is left of it, and how far the outputs are."""
    shown = Table(title=words(f"{found.model}: one group at a time, {found.inputs} inputs"))
    shown.add_column("group")
    shown.add_column("width", justify="right")
    shares = _shares(found)
    for share in shares:
        shown.add_column(f"-{share:.0%}", justify="right")
    shown.add_column("weight", justify="right")
    for row in found.rows:
        cells = {round(cut.share, 2): cut for cut in row.cuts}
        texts = [_said(_nearest(cells, share)) for share in shares]
        shown.add_row(words(row.name), row.width, *texts, f"{found.weights[row.name]:.2f}")
    return shown


def _said(cut: GroupCut | None) -> str:
    if cut is None:
        return "-"
    metrics = "".join(f" {value:.4g}" for value in cut.metrics.values())
    return f"{cut.divergence:.3g}{metrics and f' ({metrics.strip()})'}"


def _shares(found: Sensitivity) -> list[float]:
    widest = max(found.rows, key=lambda row: row.size)
    return [round(cut.share, 2) for cut in widest.cuts]


def _nearest(cells: Mapping[float, GroupCut], share: float) -> GroupCut | None:
    near = min(cells, key=lambda one: abs(one - share), default=None)
    return None if near is None or abs(near - share) > 0.15 else cells[near]


def page(found: Sensitivity) -> str:
    """The same as a page with a picture; no scripts."""
    largest = max((c.divergence for row in found.rows for c in row.cuts), default=0.0) or 1.0
    return template("sensitivity.html.j2").render(
        found=found, weights=found.weights, curves=[_curve(row, largest) for row in found.rows]
    )


def _curve(row: GroupSensitivity, largest: float) -> list[tuple[float, float]]:
    """Points of a line: per cent gone, and per cent of the largest damage (of its root)."""
    return [(0.0, 0.0), *((100 * c.share, 100 * _height(c, largest)) for c in row.cuts)]


def _height(cut: GroupCut, largest: float) -> float:
    return math.sqrt(max(cut.divergence, 0.0) / largest)


def write(found: Sensitivity, output: Path) -> None:
    """A page, or by its name the JSON for the planner: as a whole, or not at all."""
    as_json = output.suffix.lower() == ".json"
    text = json.dumps(found.to_json(), indent=1) + "\n" if as_json else page(found)
    write_file(output, text.encode())
