"""What criteria look at: calibration inputs, the user's loss, and scores of other packages.

measured      curves of all groups, by the criterion of the options
labelled      a few inputs at a time with the loss of their targets, for gradients
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from compressor import passes
from compressor.config.training import Loss
from compressor.criteria.torch_pruning import scored
from compressor.loading.calibration_data import Batch, Data, Signature
from compressor.passes.base.errors import UsageError
from compressor.passes.calibration.lockstep import Chunk
from compressor.passes.importance.measure import SAMPLES, STEP
from compressor.passes.ir.leaves import tensors
from compressor.passes.ir.program import Program
from compressor.train.objectives import Labelled, returned

BY_GRADIENT = ("auto", "fisher", "gradient", "hessian", "taylor")


def measured(
    coupling: passes.Coupling,
    data: Data,
    options: passes.Options,
    loss: Loss | None = None,
    gone: Tensor | None = None,
    trial: bool = True,
) -> passes.Measured:
    """A curve for each group; channels of `gone` go first. `trial`: by all criteria of "auto".

    Raises UsageError for a loss without targets.
    """
    wanted = loss is not None and takes_loss(options.criterion)
    chunks = labelled(coupling.program, data, loss) if loss is not None and wanted else []
    return passes.Measured.of(
        coupling,
        data.calls,
        options.criterion,
        options.seed,
        scored=scored(options.criterion),
        labelled=chunks,
        gone=gone,
        trial=trial,
    )


def takes_loss(criterion: str) -> bool:
    """Whether a criterion looks at gradients."""
    return criterion in BY_GRADIENT or ":" in criterion


def check_loss(criterion: str, data: Data | None) -> None:
    """Raise UsageError where a loss has no use."""
    if data is None:
        raise UsageError(
            "a loss for the criterion needs calibration inputs",
            hint="give (inputs, target) pairs by --data, or data=",
        )
    if not takes_loss(criterion):
        raise UsageError(
            f"the criterion '{criterion}' takes no loss",
            hint=f"these do: {', '.join(BY_GRADIENT)}",
        )


def labelled(program: Program, data: Data, loss: Loss) -> list[Chunk]:
    """The first inputs of the data, a few at a time, with the loss of their targets."""
    if not data.labelled:
        raise UsageError(
            "a loss for the criterion needs targets, and the calibration data have none",
            hint="give (inputs, target) pairs with --data, or no loss: then none are needed",
        )
    judge, signature = Labelled(loss, returned(program)), Signature.of(program)
    found: list[Chunk] = []
    count = 0
    for batch in data:
        for part, samples in _parts(batch, signature):
            leaves = tuple(pytree.tree_leaves(part.call))
            found.append(Chunk(leaves, samples, 0, partial(_lost, judge, part)))
            count += samples
            if count >= SAMPLES:
                return found
    return found


def _lost(judge: Labelled, batch: Batch, outputs: Any) -> Tensor:
    return judge(tensors(outputs), [], batch)


def _parts(batch: Batch, signature: Signature) -> Iterator[tuple[Batch, int]]:
    """A batch in parts of a few samples, where inputs and targets can be parted."""
    rows = signature.rows(batch)
    targets = pytree.tree_leaves(batch.target)
    fit = (isinstance(one, Tensor) and one.dim() > 0 and len(one) == rows for one in targets)
    if rows is None or not all(fit):
        yield batch, rows or 1
        return
    for at in range(0, rows, STEP):
        yield signature.taken(batch, slice(at, at + STEP)), min(STEP, rows - at)
