"""Every reference model can be captured, and means something when two outputs are compared."""

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from models import digits
from models.catalog import CATALOG

NAMES = tuple(CATALOG)


def located(name: str) -> tuple[ModuleType, Callable[[], nn.Module]]:
    path, function = CATALOG[name].split(":")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    return module, getattr(module, function)


@cache
def built(name: str) -> nn.Module:
    return located(name)[1]()


def inputs_of(name: str) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """The example inputs as positional and keyword arguments."""
    inputs = located(name)[0].example_inputs()
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def of_batch(size: int, inputs: Any) -> Any:
    """Inputs of another batch size: the examples, then the same shifted and mirrored."""
    return tree_map(lambda x: torch.cat([x, x.roll(1, -1), x.flip(-1)])[:size], inputs)


@pytest.mark.filterwarnings("ignore:The tensor attributes .*flat_weights")  # any nn.LSTM
@pytest.mark.parametrize("name", NAMES)
def test_a_model_exports_with_a_dynamic_batch_and_equals_eager(name: str) -> None:
    args, kwargs = inputs_of(name)
    batch = torch.export.Dim("batch", min=1)
    shapes = tree_map(lambda _: {0: batch}, kwargs or args)
    exported = torch.export.export(built(name), args, kwargs, dynamic_shapes=shapes).module()
    for size in (1, 2, 5):
        args, kwargs = of_batch(size, inputs_of(name))
        with torch.no_grad():
            torch.testing.assert_close(exported(*args, **kwargs), built(name)(*args, **kwargs))


@pytest.mark.parametrize("name", NAMES)
def test_building_twice_gives_the_same_weights_and_leaves_the_random_state(name: str) -> None:
    make = located(name)[1]
    before = torch.get_rng_state()
    first, second = make(), make()
    located(name)[0].example_inputs()
    assert torch.equal(torch.get_rng_state(), before)
    assert not first.training
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_output_depends_on_the_input_and_stays_moderate(name: str) -> None:
    args, kwargs = inputs_of(name)
    with torch.no_grad():
        for output in tree_leaves(built(name)(*args, **kwargs)):
            assert output.abs().max() < 100
            assert (output[0] - output[1]).norm() > 0.05 * output.norm()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_a_model_is_left_at_its_default(name: str) -> None:
    for key, value in built(name).named_parameters():
        assert value.std() > 0, f"{key} is constant"
    for key, buffer in built(name).named_buffers():
        if key.endswith(("running_mean", "running_var")):
            assert buffer.std() > 0, f"{key} is constant"


@pytest.mark.parametrize("name", NAMES)
def test_a_model_runs_in_double_precision(name: str) -> None:
    args, kwargs = tree_map(lambda x: x.double() if x.is_floating_point() else x, inputs_of(name))
    with torch.no_grad():
        double = located(name)[1]().double()(*args, **kwargs)
        single = built(name)(*inputs_of(name)[0], **inputs_of(name)[1])
    assert all(output.dtype == torch.float64 for output in tree_leaves(double))
    torch.testing.assert_close(tree_map(Tensor.float, double), single, rtol=1e-3, atol=1e-4)


def test_every_file_of_a_model_is_in_the_catalog() -> None:
    folder = Path(digits.__file__).parent
    files = {path.name for path in folder.glob("*.py")} - {"__init__.py", "_random.py"}
    assert {f"models/{name}" for name in files - {"catalog.py"}} == {
        spec.split(":")[0] for spec in CATALOG.values()
    }


def test_the_digits_network_gets_98_percent_of_the_held_out_digits() -> None:
    assert digits.accuracy(digits.digits_resnet())["accuracy"] >= 0.98


def test_accuracy_takes_arrays_as_well_as_tensors() -> None:
    model = built("digits")
    assert digits.accuracy(lambda x: model(x).numpy()) == digits.accuracy(model)


def test_calibration_images_are_not_among_the_held_out() -> None:
    batches = list(digits.calibration())
    assert sum(map(len, batches)) == 512
    seen = {image.numpy().tobytes() for image in torch.cat(batches)}
    assert not seen & {image.numpy().tobytes() for image in digits.data().test_images}


def test_missing_weights_are_named_together_with_the_command_that_makes_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(digits, "WEIGHTS", tmp_path / "digits.safetensors")
    with pytest.raises(FileNotFoundError, match=r"python -m models\.digits"):
        digits.digits_resnet()
