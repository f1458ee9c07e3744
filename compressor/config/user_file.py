"""One file of the user's with everything: functions by these names, each optional.

    load_model()                the model
    example_inputs()            what it is called with
    calibration_data()          inputs like those that it will meet, without labels
    evaluate(predict)           a number, or several by name: of the original and of the small model
    finetune(module)            trains the small module, in place

What an option names comes before what the file has.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.base.messages import near
from compressor.loading.callables import find_file
from compressor.passes.base.errors import UsageError

if TYPE_CHECKING:
    from compressor.config import Recipe

FUNCTIONS = {  # function: the option that it serves
    "load_model": "model",
    "example_inputs": "inputs",
    "calibration_data": "data",
    "evaluate": "evaluate",
    "finetune": "train_with",
}


def with_code(recipe: "Recipe") -> "Recipe":
    """The recipe with what its file of code has. A model `path/file.py` is such a file.

    Raises UsageError where that file has none of the functions, or nothing builds a model.
    """
    model, code = recipe.model, recipe.code
    if model is not None and model.endswith(".py"):
        if code is not None and Path(code) != Path(model):
            raise UsageError(
                f"{model} does not say which callable to use",
                hint=f"write {model}:callable, or leave out --code",
            )
        code, model = model, None
    if code is None and model is None:
        raise UsageError(
            "no model is given",
            hint="compressor init net.py:make_net writes a recipe to begin with",
        )
    if code is None:
        return recipe
    recipe = recipe.model_copy(update={"model": model})
    found: dict[str, Any] = {}
    for function in _functions(code):
        option = FUNCTIONS[function]
        spec = f"{code}:{function}"
        if not getattr(recipe, option) and not _served(recipe, option):
            found[option] = (spec,) if option == "evaluate" else spec
    model = model or found.pop("model", None)
    if model is None:
        raise UsageError(
            f"{code} has no function load_model", hint="write one, or name the model besides it"
        )
    return recipe.model_copy(update=found | {"model": model, "code": code})


def _served(recipe: "Recipe", option: str) -> bool:
    """Whether another option says the same."""
    if option == "inputs":
        return recipe.input_shape is not None
    return option == "train_with" and recipe.finetune > 0


def _functions(code: str) -> list[str]:
    namespace = find_file(code)
    there = [name for name in FUNCTIONS if hasattr(namespace, name)]
    if not there:
        raise UsageError(
            f"{code} has none of the functions {', '.join(FUNCTIONS)}",
            hint=near("load_model", vars(namespace)) if vars(namespace) else "",
        )
    return there
