"""Names in a recipe are looked up beside it, wherever it is read from, also when it was written."""

import os
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from compressor.passes.base.errors import UsageError
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from typer.testing import CliRunner

from compressor.cli.app import app
from compressor.config import Recipe
from compressor.config.names import CALLABLES, FILES, for_folder, from_here
from compressor.config.sources import resolve
from compressor.config.toml import ELSEWHERE, commented, resolved
from compressor.config.user_file import with_code
from compressor.loading import load_callable, load_data, load_inputs, load_model
from tests.compressor import samples

NET = """
import torch
from torch import nn

import width


def make():
    return nn.Sequential(nn.Linear(4, width.WIDTH), nn.ReLU(), nn.Linear(width.WIDTH, 2))


def load_model():
    return make()


def example_inputs():
    import width  # while it is called as well

    return torch.zeros(2, 4)


def calibration_data():
    return [torch.full((8, 4), float(width.WIDTH))]


def evaluate(predict):
    return float(width.WIDTH)
"""


def project(folder: Path, width: int) -> Path:
    """A user's folder, whose networks are so wide."""
    (folder / "nets").mkdir(parents=True)
    (folder / "width.py").write_text(f"WIDTH = {width}\n")
    (folder / "net.py").write_text(NET)
    (folder / "nets" / "deep.py").write_text(NET)
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch) -> Iterator[Path]:
    """Where the user stands: a project with networks of 16, beside `other` with some of 32."""
    monkeypatch.chdir(project(tmp_path / "here", 16))
    project(tmp_path / "here" / "other", 32)
    project(tmp_path / "beside", 48)
    yield Path.cwd()
    for name in ("width", "package", "package.net", "package.inner"):
        sys.modules.pop(name, None)


def write(folder: Path | str, text: str) -> Path:
    path = Path(folder) / "compressor.toml"
    path.write_text(text)
    return path


def width(recipe: Recipe) -> int:
    model, _ = load_model(with_code(recipe).model or "")
    return model[0].out_features


# ---------------------------------------------------------------------------- beside the recipe


@pytest.mark.parametrize("name", ["net.py:make", "net.py", "nets/deep.py:make", "./net.py:make"])
@pytest.mark.parametrize(
    ("folder", "wide"), [("other", 32), ("../beside", 48), (".", 16), ("other/../other", 32)]
)
def test_a_model_is_looked_up_beside_its_recipe_and_so_is_what_it_imports(
    name, folder, wide, place
):
    recipe = resolve({}, write(folder, f"model = {name!r}"))
    assert width(recipe) == wide


def test_an_absolute_recipe_is_the_same(place):
    recipe = resolve({}, write(place.parent / "beside", "model = 'net.py'").resolve())
    assert width(recipe) == 48


def test_what_flags_and_the_environment_name_is_looked_up_where_the_user_stands(place, monkeypatch):
    path = write("other", "model = 'net.py:make'\ndata = 'net.py:calibration_data'")
    monkeypatch.setenv("COMPRESSOR_EVALUATE", "net.py:evaluate")
    recipe = resolve({"data": "net.py:calibration_data"}, path)
    assert (recipe.data, recipe.evaluate) == ("net.py:calibration_data", ("net.py:evaluate",))
    assert width(recipe) == 32


def test_every_callable_is_looked_up_beside_the_recipe(place):
    keys = sorted(CALLABLES - {"model", "code"})
    names = "\n".join(f"{key} = 'net.py:{key.replace('-', '_')}'" for key in keys)
    recipe = resolve({}, write("other", f"model = 'net.py:make'\n{names}"))
    for key in keys:
        value = getattr(recipe, key.replace("-", "_"))
        (text,) = value if isinstance(value, tuple) else (value,)
        assert Path(text.rpartition(":")[0]).resolve() == place / "other" / "net.py"


def test_every_file_is_looked_up_beside_the_recipe(place):
    assert {"weights", "output", "device", "sensitivity", "checkpoints"} <= FILES
    lines = "\n".join(f"{key} = 'x/{key}'" for key in sorted(FILES))
    recipe = resolve({}, write("other", lines))
    for key in FILES:
        assert getattr(recipe, key.replace("-", "_")) == Path("other/x", key)


def test_the_functions_of_a_file_of_code_run_as_if_one_stood_beside_it(place):
    for text in ("model = 'net.py'", "code = 'nets/deep.py'"):
        recipe = with_code(resolve({}, write("other", text)))
        model, namespace = load_model(recipe.model or "")
        assert model[0].out_features == 32
        assert load_inputs(namespace, None, recipe.inputs).shape == (2, 4)
        assert float(load_data(recipe.data or "")[0][0, 0]) == 32
        assert load_callable(recipe.evaluate[0])(None) == 32


def test_a_module_is_imported_from_beside_the_recipe(place):
    for folder, size in ((place, 8), (place / "other", 24)):
        (folder / "package").mkdir()
        (folder / "package" / "__init__.py").write_text("")
        (folder / "package" / "inner.py").write_text(f"WIDTH = {size}\n")
        code = NET.replace("import width", "from . import inner as width")
        (folder / "package" / "net.py").write_text(code)
    recipe = resolve({}, write("other", "model = 'package.net:make'"))
    assert recipe.model == "other/./package.net:make"
    assert width(recipe) == 24
    assert width(Recipe.of(model="package.net:make")) == 8
    assert width(recipe) == 24


def test_a_module_that_was_imported_from_elsewhere_is_not_taken_for_it(place, monkeypatch):
    (place / "other" / "found_twice.py").write_text(NET)
    monkeypatch.setitem(sys.modules, "found_twice", pytest)  # what is installed makes no room
    with pytest.raises(UsageError, match="two modules are called found_twice"):
        width(resolve({}, write("other", "model = 'found_twice:make'")))


def test_what_a_flag_names_imports_from_where_the_user_stands(place):
    path = write("other", "model = 'net.py:make'")
    recipe = resolve({"data": "net.py:calibration_data", "inputs": "net.py:example_inputs"}, path)
    for _ in range(2):
        assert width(recipe) == 32
        assert float(load_data(recipe.data or "")[0][0, 0]) == 16


def test_an_installed_module_needs_no_folder(place):
    recipe = resolve({}, write("other", "model = 'torch.nn:Identity'"))
    assert isinstance(load_model(recipe.model or "")[0], torch.nn.Identity)


def test_short_names_and_ready_made_metrics_are_left_alone(place):
    text = "model = 'timm:resnet18'\nevaluate = ['accuracy', 'net.py:evaluate']\nmetric = 'a/b'"
    recipe = resolve({}, write("other", text))
    assert recipe.model == "timm:resnet18"
    assert recipe.evaluate == ("accuracy", "other/./net.py:evaluate")
    assert recipe.metric == "a/b"


def test_a_checkpoint_in_a_folder_beside_the_recipe_is_that_one(place):
    (place / "other" / "bert").mkdir()
    assert resolve({}, write("other", "model = 'hf:bert'")).model == "hf:other/bert"
    assert resolve({}, write("other", "model = 'hf:google/bert'")).model == "hf:google/bert"


def test_what_is_not_there_is_named_as_it_was_looked_for(place):
    recipe = resolve({}, write("other", "model = 'nett.py:make'"))
    with pytest.raises(UsageError, match=r"no such file: other/nett\.py") as caught:
        load_model(recipe.model or "")
    assert "did you mean net.py" in caught.value.hint
    recipe = resolve({}, write("other", "model = 'nett:make'"))
    with pytest.raises(UsageError, match="no such module: nett") as caught:
        load_model(recipe.model or "")
    assert str(place / "other") in caught.value.where
    assert "did you mean" in caught.value.hint


def test_a_pyproject_elsewhere_is_the_same(place):
    path = place / "other" / "pyproject.toml"
    path.write_text("[tool.compressor]\nmodel = 'net.py:make'\n")
    assert width(resolve({}, Path("other/pyproject.toml"))) == 32


def test_the_recipe_of_the_folder_itself_is_taken_as_it_is(place):
    write(".", "model = 'net.py:make'\nweights = 'a/../w.pt'")
    assert resolve({}, Path("compressor.toml")).model == "net.py:make"


def test_a_link_to_the_folder_leads_to_the_same(place):
    os.symlink(place / "other", place / "link")
    write("other", "model = 'net.py:make'\nweights = 'w.pt'")
    recipe = resolve({}, Path("link/compressor.toml"))
    assert width(recipe) == 32
    assert recipe.weights == Path("other/w.pt")


# ---------------------------------------------------------------------------- written, read again


@pytest.mark.parametrize("folder", [".", "other", "new", "../beside"])
def test_what_is_saved_reads_as_what_was_asked_for(folder, place, monkeypatch):
    (place / "new").mkdir()
    line = (
        "build net.py:make --macs 0.5 --data net.py:calibration_data --weights w.pt --loss /l.py:f "
        f"--input-shape 2,4 -o out --save-config {folder}/saved.toml"
    )
    done = CliRunner().invoke(app, shlex.split(line))
    assert done.exit_code == 0, done.stderr
    path = Path(folder, "saved.toml")
    wanted = Recipe.of(
        model="net.py:make", macs=0.5, data="net.py:calibration_data", weights="w.pt",
        loss="/l.py:f", input_shape="2,4", output="out",
    )  # fmt: skip
    assert resolve({}, path) == wanted
    (place / "third").mkdir()
    monkeypatch.chdir(place / "third")
    again = resolve({}, place / path)
    assert width(again) == 16
    assert again.weights == Path("../w.pt")


NAMES = st.sampled_from(["net.py:f", "a/b.py:g", "p.q:h", "../up.py:f", "timm:net", "x"])


@settings(max_examples=60, deadline=None)
@given(model=NAMES, data=NAMES, folders=st.lists(st.sampled_from(["a", "a/b", "..", "c/../d"])))
def test_names_that_went_round_are_what_they_were(model, data, folders, tmp_path_factory):
    base = tmp_path_factory.getbasetemp() / "round" / "here"
    before = Path.cwd()
    base.mkdir(parents=True, exist_ok=True)
    os.chdir(base)
    try:
        recipe = Recipe.of(model=model, data=data, weights="w.pt")
        for folder in folders:
            Path(folder).mkdir(parents=True, exist_ok=True)
            stored = tomllib.loads(commented(for_folder(recipe, Path(folder))))
            recipe = Recipe.checked(from_here(stored, Path(folder)), str)
        assert recipe == Recipe.of(model=model, data=data, weights="w.pt")
    finally:
        os.chdir(before)


def released(recipe: Recipe, folder: str) -> Path:
    """A release, as far as its recipe goes."""
    Path(folder).mkdir(parents=True)
    (Path(folder) / "manifest.json").write_text("{}")
    path = Path(folder) / "recipe.toml"
    path.write_text(resolved(recipe))
    return path


@pytest.mark.parametrize("folder", ["build/net", "../releases/net", "net"])
@pytest.mark.parametrize("config", [None, "other", "../beside"])
def test_the_recipe_of_a_release_rebuilds_it_from_where_it_was_built(config, folder, place):
    recipe = Recipe.of(model="net.py:make", weights="w.safetensors")
    wide = {None: 16, "other": 32, "../beside": 48}[config]
    save_file({"a": torch.zeros(1)}, Path(config or ".") / "w.safetensors")
    if config is not None:
        path = write(config, "model = 'net.py:make'\nweights = 'w.safetensors'")
        recipe = resolve({}, path.resolve())
    path = released(recipe, folder)
    text = path.read_text()
    assert str(place) not in text
    assert str(place.parent) not in text
    again = resolve({}, path)
    assert again == recipe
    assert width(again) == wide


def test_the_recipe_of_a_release_rebuilds_it_from_elsewhere(place, monkeypatch):
    path = released(Recipe.of(model="net.py:make", macs=0.5), "build/net").resolve()
    monkeypatch.chdir(place / "other")
    assert width(resolve({}, path)) == 16  # the project that it lies in, not this one


def test_the_recipe_of_a_release_is_the_same_wherever_it_lies(place):
    recipe = Recipe.of(model="net.py:make", macs=0.5)
    texts = {released(recipe, folder).read_text() for folder in ("a", "b/c", "../d")}
    assert len(texts) == 1


def test_a_recipe_that_was_taken_out_of_its_release_is_like_any_other(place):
    path = released(Recipe.of(model="net.py:make", macs=0.5), "build/net")
    shutil.copy(path, "other/recipe.toml")
    assert width(resolve({}, Path("other/recipe.toml"))) == 32


def test_a_release_has_no_places_of_its_own():
    assert {"output", "checkpoints", "sign", "encrypt_key"} <= ELSEWHERE


def test_a_build_from_elsewhere_is_of_the_network_beside_its_recipe(
    command, project, fast, tmp_path
):
    there = tmp_path / "there"
    there.mkdir()
    wider = Path(samples.__file__).read_text().replace("24", "40")
    (there / "net.py").write_text(wider)
    write(there, "model = 'net.py:net'\nmacs = 0.5\nbench-seconds = 0.1\nallow-slower = true\n"
                 "output = 'out'\ninputs = 'net.py:example_inputs'")  # fmt: skip
    done = command(f"build -c {there}/compressor.toml")
    assert done.exit_code == 0, done.stderr
    assert (there / "out" / "model.onnx").is_file()
    assert '"original": [\n    40,' in (there / "out" / "report.json").read_text()
    done = command(f"build -c {there}/out/recipe.toml -o {tmp_path}/again")
    assert done.exit_code == 0, done.stderr
    folders = there / "out", tmp_path / "again"
    assert len({(folder / "model.onnx").read_bytes() for folder in folders}) == 1
