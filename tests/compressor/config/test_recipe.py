"""A recipe: read from anywhere, refused with the place, written with its words.

Names of options are declared once; the command line, files, the environment and Python agree.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from compressor.passes.base.errors import NothingError, UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.base.optional import loadable_torchvision
from compressor.config import Recipe
from compressor.config.model import ONLY_FLAGS, option_name
from compressor.config.sources import LARGEST, read, resolve
from compressor.config.toml import ELSEWHERE, commented, resolved, shown
from tests.compressor import samples


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nothing in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---------------------------------------------------------------------------- where it comes from


def test_a_flag_comes_before_the_environment_before_the_file_before_the_default(monkeypatch):
    Path("compressor.toml").write_text("model = 'net.py:net'\nseed = 1\nthreads = 2\nmacs = 0.5")
    monkeypatch.setenv("COMPRESSOR_SEED", "3")
    monkeypatch.setenv("COMPRESSOR_MACS", "0.25")
    recipe = resolve({"seed": 7}, Path("compressor.toml"))
    assert (recipe.seed, recipe.macs, recipe.threads, recipe.min_channels) == (7, 0.25, 2, 1)


def test_the_recipe_of_the_folder_is_read_unless_a_model_is_named():
    Path("compressor.toml").write_text("model = 'timm:resnet18'\nseed = 1")
    assert resolve({}).seed == 1
    assert resolve({"model": "other.py:net"}).seed == 0


def test_a_pyproject_has_it_in_a_table():
    Path("pyproject.toml").write_text("[tool.compressor]\nmodel = 'timm:resnet18'\nmax-drop = 0.01")
    assert resolve({}).max_drop == 0.01
    Path("compressor.toml").write_text("max-drop = 0.02")
    assert resolve({}).max_drop == 0.02


def test_a_pyproject_that_says_nothing_is_no_recipe():
    Path("pyproject.toml").write_text("[tool.other]\nmodel = 1")
    assert resolve({}) == Recipe()
    with pytest.raises(UsageError, match="no table"):
        resolve({}, Path("pyproject.toml"))


def test_lists_in_the_environment_have_commas(monkeypatch):
    monkeypatch.setenv("COMPRESSOR_IGNORE", "head.*,stem.*")
    monkeypatch.setenv("COMPRESSOR_INPUT_SHAPE", "1,3,8,8")
    monkeypatch.setenv("COMPRESSOR_UNIFORM", "true")
    recipe = resolve({})
    assert (recipe.ignore, recipe.input_shape) == (("head.*", "stem.*"), "1,3,8,8")
    assert recipe.uniform is True


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_drop = 0.1", ("unknown key 'max_drop'", "recipe.toml", "did you mean max-drop")),
        ("mac = 0.1", ("unknown key 'mac'", "did you mean macs")),
        ("[build]\nmacs = 1", ("unknown key 'build'",)),
        ("round-to = 0", ("round-to is 0", "recipe.toml", "greater than or equal to 1")),
        ("macs = 'half'", ("macs is 'half'", "valid number")),
        ("ignore = [1]", ("ignore is [1]", "valid string")),
        ("seed = -1", ("seed is -1",)),
        ("bench-seconds = nan", ("bench-seconds is nan",)),
        ("macs = ", ("is not TOML",)),
        ("a = " + "[" * 100_000, ("is not TOML", "nested too deeply")),
        ("\x00", ("is not TOML",)),
        ("#" * (LARGEST + 1), ("is larger than",)),
    ],
)
def test_a_mistake_in_a_file_is_refused_with_its_place(text, words):
    Path("recipe.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        resolve({}, Path("recipe.toml"))
    for word in words:
        assert word in str(caught.value)


def test_a_mistake_says_whether_it_was_a_flag_or_a_variable(monkeypatch):
    with pytest.raises(UsageError, match="--round-to on the command line"):
        resolve({"round-to": 0})
    monkeypatch.setenv("COMPRESSOR_ROUND_TO", "0")
    with pytest.raises(UsageError, match="COMPRESSOR_ROUND_TO"):
        resolve({})


def test_a_variable_that_is_not_ours_is_refused(monkeypatch):
    monkeypatch.setenv("COMPRESSOR_MAXDROP", "1")
    with pytest.raises(UsageError, match="did you mean COMPRESSOR_MAX_DROP"):
        resolve({})


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(UsageError, match=r"cannot read nowhere\.toml"):
        resolve({}, Path("nowhere.toml"))
    with pytest.raises(UsageError, match="cannot read"):
        read(Path("."))


def test_an_unknown_option_in_python_is_refused():
    with pytest.raises(UsageError, match="did you mean max_drop"):
        Recipe.of(max_drp=1)


# ---------------------------------------------------------------------------- written


TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)


@settings(max_examples=200, deadline=None)
@given(
    text=TEXT,
    several=st.lists(TEXT, min_size=1, max_size=3),
    number=st.floats(0, allow_nan=False, allow_infinity=False),
    count=st.integers(1, 2**40),
    flag=st.booleans(),
)
def test_a_written_recipe_reads_as_itself(text, several, number, count, flag):
    recipe = Recipe.of(
        metric=text, ignore=several, max_drop=number, round_to=count, uniform=flag, macs=0.5
    )
    for written in (resolved(recipe), commented(recipe)):
        assert Recipe.checked(tomllib.loads(written), str) == recipe


def test_a_value_with_control_characters_is_toml():
    assert tomllib.loads(f"a = {shown(chr(127) + chr(1))}")["a"] == chr(127) + chr(1)


def test_a_resolved_recipe_has_every_default_and_no_places():
    keys = tomllib.loads(resolved(Recipe.of(output="out", checkpoints="there", macs=0.5)))
    assert keys["criterion"] == "auto"
    assert not {option_name(name) for name in ELSEWHERE} & keys.keys()


def test_the_schema_has_every_key_with_its_words(command):
    found = json.loads(command("schema").stdout)
    assert found["additionalProperties"] is False
    assert found["properties"].keys() == set(map(option_name, Recipe.model_fields)) - ONLY_FLAGS
    assert all(one.get("description") for one in found["properties"].values())


# ---------------------------------------------------------------------------- commands


def test_what_the_command_line_was_given_can_be_saved(command, project, tmp_path):
    path = tmp_path / "recipe.toml"
    done = command(f"build net.py:net --macs 0.5 --ignore 'head.*' --save-config {path}")
    assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    recipe = resolve({}, path)
    assert recipe == Recipe.of(model="net.py:net", macs=0.5, ignore=["head.*"])
    again = command(f"build net.py:net --macs 0.3 --save-config {path}")
    assert again.exit_code == 2
    assert "exists" in again.stderr


def test_init_looks_at_the_model_and_writes_a_recipe_that_builds(command, project, tmp_path):
    path = tmp_path / "compressor.toml"
    assert command(f"init net.py:net -o {path}").exit_code == 0
    text = path.read_text()
    assert "# 12,338 parameters, 765,168 MACs" in text
    assert "mid.weight[0] (32): 94% of the parameters" in text
    assert resolve({}, path) == Recipe.of(model="net.py:net", macs=0.5)
    assert command(f"init net.py:net -o {path}").exit_code == 2
    done = command(f"build -c {path} --dry-run --json")
    found = json.loads(done.stdout)
    assert found["cost"]["macs"]["small"] / found["cost"]["macs"]["original"] <= 0.5


def test_a_dry_run_writes_nothing(command, project, tmp_path):
    before = sorted(project.iterdir())
    done = command(f"build net.py:net --macs 0.5 --dry-run -o {tmp_path}/out")
    assert done.exit_code == 0, done.stderr
    assert "16       ->    8 body.weight[0]" in done.stdout
    assert "│ MACs" in done.stdout
    assert sorted(project.iterdir()) == before
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_shrink_ends_with_4(command, project, tmp_path):
    (project / "stiff.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def load_model():\n    return nn.Linear(4, 4)\n"
        "def example_inputs():\n    return torch.zeros(2, 4)\n"
    )
    for line in ("build stiff.py --macs 0.5 -o {}/out", "init stiff.py -o {}/recipe.toml"):
        done = command(line.format(tmp_path))
        assert done.exit_code == NothingError.exit_code == 4, done.stderr
        assert "can" in done.stderr
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------- one file of functions


USERS = """
import torch
import net

def load_model():
    return net.net()

def example_inputs():
    return net.example_inputs()

def calibration_data():
    return [torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(4)]

def evaluate(predict):
    return {"agreement": net.agreement(predict)}

def finetune(module):
    module.head.bias.data.add_(1.0)
"""


def test_one_file_with_functions_is_enough(command, project, fast, tmp_path):
    (project / "ours.py").write_text(USERS)
    done = command(
        f"build ours.py --macs 0.5 --bench-seconds 0.1 --allow-slower -o {tmp_path}/out --json"
    )
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert "repair" in found
    assert list(found["accuracy"]) == ["agreement"]
    assert found["training"]["phases"] == [{"name": "finetune", "by": "the user's function"}]
    keys = tomllib.loads((tmp_path / "out" / "recipe.toml").read_text())
    assert keys["data"] == "ours.py:calibration_data"
    assert keys["model"] == "ours.py:load_model"


def test_what_an_option_names_comes_before_the_file(project, monkeypatch):
    from compressor.config.user_file import with_code

    monkeypatch.chdir(project)
    Path("ours.py").write_text(USERS)
    recipe = with_code(Recipe.of(code="ours.py", data="net.py:example_inputs", input_shape="1,2"))
    assert recipe.data == "net.py:example_inputs"
    assert recipe.inputs is None
    assert recipe.model == "ours.py:load_model"
    assert with_code(recipe) == recipe
    assert with_code(Recipe.of(model="timm:resnet18", code="ours.py")).model == "timm:resnet18"


def test_a_file_without_any_of_the_functions_is_refused(project, monkeypatch):
    from compressor.config.user_file import with_code

    monkeypatch.chdir(project)
    Path("empty.py").write_text("def load_modell(): ...\n")
    with pytest.raises(UsageError, match="has none of the functions") as caught:
        with_code(Recipe.of(code="empty.py"))
    assert "load_modell" in caught.value.hint
    with pytest.raises(UsageError, match="no model is given"):
        with_code(Recipe())


# ---------------------------------------------------------------------------- libraries


def test_a_model_of_a_library_has_a_short_name(tmp_path):
    loadable_torchvision()
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    from compressor.loading import load_model

    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "weights.safetensors")
    model, namespace = load_model("timm:resnet10t", tmp_path / "weights.safetensors")
    assert type(model).__name__ == "ResNet"
    assert tuple(namespace.example_inputs.shape) == (1, 3, 176, 176)
    with pytest.raises(UsageError, match="timm has no model 'resnet10tt'") as caught:
        load_model("timm:resnet10tt")
    assert "resnet10t" in caught.value.hint


def test_a_checkpoint_of_transformers_has_a_short_name(tmp_path):
    loadable_torchvision()
    transformers = pytest.importorskip("transformers")
    from compressor.loading import load_model

    config = transformers.BertConfig(
        vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    model, namespace = load_model(f"hf:{tmp_path}/bert")
    assert type(model).__name__ == "BertForSequenceClassification"
    assert list(namespace.example_inputs) == ["input_ids", "attention_mask"]


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    from compressor.loading import short_names

    monkeypatch.setattr(short_names, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="timm:resnet18 needs timm") as caught:
        short_names.load_short("timm:resnet18", trained=False)
    assert caught.value.hint == "pip install timm"


def test_a_recipe_is_read_without_torch():
    code = (
        "import sys; from compressor.config import Recipe; from compressor.config import sources\n"
        "sources.resolve({}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(samples.__file__).parents[2])
