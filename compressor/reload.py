"""`compressor.load(directory, module)`: the small network of a release, trainable, from no pickle.

plan.json says which channels go; the module is captured again and cut as in the build, and gets the
values of model.safetensors. What is read is checked against the manifest first.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor import manifest, passes
from compressor.freedom import parse
from compressor.inputs import Called, Inputs, as_call
from compressor.load.weights import read_weights
from compressor.load.words import reason
from compressor.outside import read_json
from compressor.passes.errors import UsageError
from compressor.recipe import Recipe
from compressor.recipe.sources import read as read_recipe
from compressor.shards import read_plan

NEEDED = ("model.safetensors", "plan.json", "recipe.toml")


def load(directory: str | Path, module: nn.Module, example_inputs: Inputs = None) -> nn.Module:
    """The small network: called like `module`, with its own copy of every tensor.

    `module` is the original, with any values; it is left untouched. `example_inputs` are only
    needed where the release was made with inputs that are not tensors, numbers and words.

    Raises WrongError where a file is not what the manifest says, UsageError where the plan is for
    another model.
    """
    folder = Path(directory)
    manifest.check(folder, manifest.read(folder), only=NEEDED)
    cut = read_plan(folder / "plan.json")
    found = read_json((folder / "plan.json").read_bytes())
    recipe = Recipe.checked(read_recipe(folder / "recipe.toml"), lambda key: str(folder))
    own = example_inputs is None
    call = _call(found.get("call"), folder) if own else as_call(example_inputs)
    program = passes.capture(module, *call, parse(recipe.dynamic))
    coupling = passes.couple(program, recipe.ignore)
    channels = _channels(found.get("channels"), folder)
    plan = passes.Plan(
        coupling, passes.Budget(channels=0.5), channels
    )  # the budget is not looked at
    if not _fits(plan, cut.kept):
        raise UsageError(
            "the plan is for another model",
            where=str(folder),
            hint="give the module that the release was built from, in the same sizes",
        )
    small = passes.apply(passes.Shrink(plan), program).program.module
    small.eval()
    state = read_weights(folder / "model.safetensors")
    answer = small.load_state_dict(dict(state), strict=False)
    if answer.missing_keys or answer.unexpected_keys:
        raise UsageError("the weights are for another model", where=str(folder))
    assert isinstance(small, nn.Module)
    return small


def _fits(plan: passes.Plan, kept: Mapping[str, Any]) -> bool:
    """Whether the channels are those of this model, and cut it as they cut the one of the build."""
    try:
        return plan.kept == dict(kept)
    except (IndexError, KeyError, ValueError, AssertionError):
        return False


def _channels(found: Any, folder: Path) -> Tensor:
    if not isinstance(found, list) or not all(isinstance(one, int) and one >= 0 for one in found):
        raise UsageError(f"{folder}/plan.json does not say which channels go")
    return torch.tensor(found, dtype=torch.int64)


def _call(found: Any, folder: Path) -> Called:
    """Example inputs of the sizes of the build: zeros and ones, which capture does not look at."""
    try:
        args, kwargs = _made(found)
    except (TypeError, LookupError, ValueError, AttributeError, RuntimeError) as error:
        raise UsageError(
            f"{folder}/plan.json does not say how the model is called",
            why=reason(error),
            hint="give example_inputs=",
        ) from error
    return args, kwargs


def _made(one: Any) -> Any:
    if "tensor" in one:
        dtype = getattr(torch, one["dtype"].removeprefix("torch."))
        return torch.ones(one["shape"], dtype=dtype)
    if "value" in one:
        return one["value"]
    if "dict" in one:
        return {key: _made(value) for key, value in one["dict"].items()}
    ((kind, values),) = one.items()
    return {"tuple": tuple, "list": list}[kind](map(_made, values))
