"""The first recipe of a model: written after a look at it, with what was seen as comments."""

from pathlib import Path
from typing import Any

from compressor.analysis.inspection import inspect
from compressor.config.model import Recipe
from compressor.config.names import for_folder
from compressor.config.toml import commented
from compressor.config.user_file import with_code
from compressor.passes.base.errors import NothingError
from compressor.process.progress import Watch

HALF = 0.5


def first(recipe: Recipe, watch: Watch, folder: Path) -> str:
    """A recipe for half of the MACs (of the parameters, where nothing multiplies), for `folder`.

    Raises NothingError where no group can shrink.
    """
    recipe = with_code(recipe)
    found = inspect(recipe, watch)
    if not found["groups"]:
        raise NothingError(
            "nothing of the model can shrink",
            why="; ".join(one["why"] for one in found["frozen"][:2]),
        )
    kind = "macs" if found["macs"] else "params"
    recipe = recipe.model_copy(update={kind: HALF})
    notes = _notes(found, recipe)
    return commented(for_folder(recipe, folder), lambda key: notes.get(key, ""))


def _notes(found: dict[str, Any], recipe: Recipe) -> dict[str, str]:
    """What was seen, beside the key that it is about."""
    largest = sorted(found["groups"], key=lambda one: -one["params_share"])[:3]
    shown = "\n".join(
        f"  {one['name']} ({one['width']}): {one['params_share']:.0%} of the parameters, "
        f"{one['macs_share']:.0%} of the MACs"
        for one in largest
    )
    notes = {
        "model": f"{found['params']:,} parameters, {found['macs']:,} MACs for the example input",
        "macs": f"the model has {found['macs']:,}",
        "params": f"the model has {found['params']:,}",
        "ignore": f"{len(found['groups'])} groups can shrink; the largest, by what goes with "
        f"them:\n{shown}\n{len(found['frozen'])} axes keep their size: see `inspect`",
    }
    if recipe.data is None:
        notes["data"] = (
            "without it the weights are sliced, not repaired: name a function that returns some\n"
            "hundred inputs"
        )
    return notes
