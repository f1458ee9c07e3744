"""The weights of groups: what `compressor sensitivity -o x.json` wrote, for the planner.

    {"format": 1, "rows": [{"name": "conv1.weight[0]", "size": 16, ...}, ...],
     "weights": {"conv1.weight[0]": 1.4, ...}, ...}

They are taken for the model that they were measured on: the same groups, as wide as there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compressor import passes
from compressor.base.messages import listed, reason
from compressor.base.untrusted import read_json
from compressor.passes.base.errors import UsageError
from compressor.storage.files import read_file

FORMAT = 1
_MALFORMED = (
    *(ValueError, LookupError, TypeError, AttributeError),
    *(OverflowError, RecursionError),
)
_HINT = "make one for this model: compressor sensitivity MODEL --data ... -o x.json"


@dataclass(frozen=True)
class GroupWeights:
    """A weight for each group of a model, and how wide each is."""

    path: Path
    sizes: Mapping[str, int]
    weights: Mapping[str, float]

    def options(self, options: passes.Options, coupling: passes.Coupling) -> passes.Options:
        """The options with these weights. Raises UsageError where they are of another model."""
        own = {group.name: group.size for group in coupling.groups}
        if self.sizes != own:
            raise UsageError(
                "the weights of the groups are those of another model",
                where=str(self.path),
                why=_difference(self.sizes, own),
                hint=f"{_HINT}, with the same --ignore",
            )
        return replace(options, group_weights=tuple(self.weights.items()))


def _difference(there: Mapping[str, int], here: Mapping[str, int]) -> str:
    if only := [name for name in there if name not in here]:
        return f"the model has no group {listed(only)}"
    if only := [name for name in here if name not in there]:
        return f"the file has no group {listed(only)}"
    name = next(one for one in here if here[one] != there[one])
    return f"{name} has {there[name]} channels in the file, {here[name]} in the model"


def read(path: Path) -> GroupWeights:
    """Read a file of weights. Raises UsageError, in plain words, for what is none."""
    data = read_file(path)
    try:
        found = read_json(data)
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']}, not {FORMAT}")
        sizes = {row["name"]: row["size"] for row in found["rows"]}
        weights = {name: _weight(name, one) for name, one in found["weights"].items()}
        if sizes.keys() != weights.keys() or len(sizes) != len(found["rows"]):
            raise ValueError("its rows and its weights are not of the same groups")
        return GroupWeights(path, sizes, weights)
    except _MALFORMED as error:
        raise UsageError(
            f"{path} has no weights of groups", why=reason(error), hint=_HINT
        ) from error


def _weight(name: str, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf:
        raise ValueError(f"the weight of {name} is {value!r:.40}, not a number from 0 up")
    return float(value)
