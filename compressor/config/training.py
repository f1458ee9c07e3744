"""How to train: everything a user can say about it."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compressor.passes.base.errors import UsageError

PRECISIONS = ("no", "bf16", "fp16")
PENALTIES = ("group-lasso", "bn-scale")

Loss = Callable[[Any, Any], Any]
"""From what the model gives, and the target of a batch, to a number."""


@dataclass(frozen=True)
class Training:
    """Epochs of each phase, in the order in which they run, and how a step is made.

    A step looks at `batch_size` samples times `accumulate`, whatever the number of processes: each
    takes its share. The step size rises over the first steps and falls along a cosine.
    """

    sparse: int = 0
    """Epochs of the original, with labels and a penalty on groups, before channels are chosen."""
    distill: int = 0
    """Epochs towards the outputs and features of the original; no labels."""
    finetune: int = 0
    """Epochs with labels."""
    learning_rate: float = 1e-3
    batch_size: int = 64
    """Where batches are ours to make: of a Dataset or a tensor, not of a DataLoader."""
    accumulate: int = 1
    precision: str = "no"
    patience: int = 3
    """A phase ends after this many epochs without a better score."""
    weight_decay: float = 1e-4
    feature_weight: float = 1.0
    """Weight of the features beside the outputs."""
    penalty: str = "group-lasso"
    penalty_weight: float = 1e-4
    loss: Loss | None = None
    checkpoints: Path | None = None
    """Folder from which a run that was killed goes on."""
    checkpoint_steps: int = 0
    """Steps between checkpoints within an epoch; 0: one an epoch."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("sparse", "distill", "finetune", "checkpoint_steps"):
            _refuse(getattr(self, name) < 0, name, getattr(self, name), "0 or more")
        for name in ("batch_size", "accumulate", "patience"):
            _refuse(getattr(self, name) < 1, name, getattr(self, name), "at least 1")
        weight = self.feature_weight
        _refuse(not 0 <= weight < math.inf, "feature_weight", weight, "0 or more")
        _refuse(not self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        _refuse(
            self.precision not in PRECISIONS,
            "precision",
            self.precision,
            f"one of: {', '.join(PRECISIONS)}",
        )
        _refuse(
            self.penalty not in PENALTIES,
            "penalty",
            self.penalty,
            f"one of: {', '.join(PENALTIES)}",
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values, for the report."""
        plain = asdict(self) | {"checkpoints": self.checkpoints and str(self.checkpoints.name)}
        plain["loss"] = getattr(self.loss, "__name__", None)
        return plain

    @property
    def wanted(self) -> bool:
        """Whether any phase runs."""
        return bool(self.sparse or self.distill or self.finetune)


def _refuse(wrong: bool, name: str, value: object, wanted: str) -> None:
    if wrong:
        raise UsageError(f"{name} is {value!r}", hint=f"it has to be {wanted}")
