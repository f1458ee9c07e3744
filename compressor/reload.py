"""`compressor.load(directory, module)`: the small network of a release, trainable, from no pickle.

plan.json says which channels go; the module is captured again and cut as in the build, and gets the
values of model.safetensors. What is read is read once, checked against the manifest, and decrypted
in memory where the release is encrypted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor import passes, sealing
from compressor.freedom import parse
from compressor.inputs import Called, Inputs, as_call
from compressor.load.weights import read_safetensors
from compressor.load.words import reason
from compressor.passes.errors import UsageError
from compressor.reading import Arrived
from compressor.recipe import Recipe
from compressor.recipe.sources import from_text
from compressor.shards import cut_from, plan_json


def load(
    directory: str | Path,
    module: nn.Module,
    example_inputs: Inputs = None,
    *,
    key: bytes | str | Path | None = None,
) -> nn.Module:
    """The small network: called like `module`, with its own copy of every tensor.

    `module` is the original, with any values; it is left untouched. `example_inputs` are only
    needed where the release was made with inputs that are not tensors, numbers and words. `key` is
    what an encrypted release is encrypted with: 32 bytes, or the file that has them.

    Raises WrongError where a file is not what the manifest says, UsageError where the plan is for
    another model, or the release is encrypted and there is no key.
    """
    folder = Path(directory)
    arrived = Arrived(folder, None if key is None else sealing.as_key(key))
    path = folder / "plan.json"
    found = plan_json(arrived.read("plan.json"), path)
    cut = cut_from(found, path)
    stored = from_text(arrived.read("recipe.toml"), folder / "recipe.toml")
    recipe = Recipe.checked(stored, lambda key: str(folder))
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
    name = "model.safetensors"
    state = read_safetensors(arrived.read(name), folder / name)
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
