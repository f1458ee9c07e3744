"""What stays of each tensor of a checkpoint: kept indices by the names of its state dict.

compressor plan -o plan.json        writes it
a release                           has it in its log, as the metadata of `prune`
an earlier release                  has a plan.json, and no log
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.base.messages import reason
from compressor.base.untrusted import read_json
from compressor.passes.base.errors import UsageError

if TYPE_CHECKING:  # importing torch takes seconds: only the functions that need it do
    from compressor.passes import Plan

WRONG = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading plain values of another form raises."""


@dataclass(frozen=True)
class KeptIndices:
    """What stays of each tensor."""

    kept: Mapping[str, list[Any]]
    shapes: Mapping[str, list[int]]
    """Of the original."""
    buffers: frozenset[str]
    """A checkpoint may leave these out."""
    tied: Mapping[str, str]
    """Other names of a tensor: a checkpoint has it under one of them at least."""

    def to_json(self) -> dict[str, Any]:
        """As a plan.json has it."""
        return {
            "format": 1,
            "kept": self.kept,
            "shapes": self.shapes,
            "buffers": sorted(self.buffers),
            "tied": self.tied,
        }

    @classmethod
    def of(cls, found: Any) -> "KeptIndices":
        """Of plain values from outside. Raises one of `WRONG` where they are no cut."""
        kept, shapes, tied = (dict(found[key]) for key in ("kept", "shapes", "tied"))
        if shapes.keys() != kept.keys():
            raise ValueError("kept and shapes do not belong together")
        if odd := [name for name in kept if not _sound(kept[name], shapes[name])]:
            raise ValueError(f"the kept indices of {odd[0]} are not indices of its dimensions")
        names = [*tied.values(), *found["buffers"]]
        if not all(isinstance(one, str) for one in names):
            raise ValueError("a buffer or a tied tensor has no name")
        return cls(kept, shapes, frozenset(found["buffers"]), tied)


def cut_of(plan: "Plan") -> KeptIndices:
    """What a plan leaves of each tensor."""
    from compressor.passes.transforms.prune import facts

    found = facts(plan)
    return KeptIndices(found["kept"], found["shapes"], frozenset(found["buffers"]), found["tied"])


def plan_json(data: bytes, path: Path) -> Any:
    """What is in a plan.json; it may be no plan. Raises UsageError where it is no JSON."""
    try:
        return read_json(data)
    except ValueError as error:
        raise _no_plan(path, error) from error


def cut_from(found: Any, path: Path) -> KeptIndices:
    """A plan as JSON has it. Raises UsageError where it is not one."""
    try:
        if found["format"] != 1:
            raise ValueError(f"format {found['format']} is not known")
        return KeptIndices.of(found)
    except WRONG as error:
        raise _no_plan(path, error) from error


def _no_plan(path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"{path} is not a plan",
        why=reason(error),
        hint="make one by `compressor plan`, or take passes.json of a release",
    )


def _sound(kept: list[Any], shape: list[int]) -> bool:
    """Whether each dimension has None, ascending indices, or those of each row."""
    if len(kept) != len(shape):
        return False
    for indices, size in zip(kept, shape, strict=True):
        rows = indices if indices and isinstance(indices[0], list) else [indices]
        for row in [] if indices is None else rows:
            inside = all(type(one) is int and 0 <= one < size for one in row)
            ascending = inside and all(one < other for one, other in pairwise(row))
            if not row or not ascending or len(row) != len(rows[0]):
                return False
    return True
