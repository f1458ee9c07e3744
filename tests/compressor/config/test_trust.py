"""What runs code is run where the command line says so, and nowhere else."""

import os
import shlex
from pathlib import Path

import pytest
import torch
from compressor.passes.base.errors import UsageError
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from compressor.cli.app import app
from compressor.config import Recipe
from compressor.config.sources import from_environment, read, resolve
from compressor.config.toml import commented, resolved
from compressor.loading import load_model
from compressor.loading.example_inputs import load_inputs
from tests.compressor import samples
from tests.tools.reliability import malicious


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def run(line: list[str]):
    return CliRunner().invoke(app, line)


# ---------------------------------------------------------------------------- made to harm


@pytest.mark.skipif(os.name == "nt", reason="links need a permission there")
@pytest.mark.parametrize("name", malicious.INPUTS)
def test_what_is_made_to_harm_does_none(name, here):
    line = malicious.made(name, here)
    before = malicious.names(here)
    done = run(line)
    assert malicious.harm(here, before, done.exit_code, done.output + done.stderr) == ""


def test_harm_is_told(here):
    (here / "net.py").write_text("")
    before = malicious.names(here)
    assert malicious.harm(here, before, 2, "") == ""
    assert malicious.harm(here, before, 0, "") == "it ended with 0"
    assert malicious.harm(here, before, 2, "Traceback (most") == "it ended with a traceback"
    assert malicious.harm(here, before, 2, malicious.SECRET.decode()) == "it read what is outside"
    (here / "more").mkdir()
    assert malicious.harm(here, before, 2, "") == "it wrote ['more']"
    (here / malicious.EXECUTED).mkdir()
    assert malicious.harm(here, before, 2, "") == "it ran code"


# ---------------------------------------------------------------------------- trusted files


def test_a_pickle_runs_where_it_is_trusted(here):
    line = malicious.made("checkpoint that runs code", here)
    done = run([*line, "--trust"])
    assert (here / malicious.EXECUTED).is_dir()
    assert done.exit_code == 2  # it ran, and holds no weights
    assert "is not a dict of weights" in done.stderr


@pytest.mark.parametrize("content", ["model", "checkpoint"])
def test_weights_in_a_whole_pickle_are_read_where_it_is_trusted(content, here):
    whole = nn.Sequential(nn.Linear(3, 2))
    (here / "own.py").write_text("import torch\ndef net():\n    return torch.nn.Sequential("
                                 "torch.nn.Linear(3, 2))\n")  # fmt: skip
    torch.save(whole if content == "model" else {"model": whole, "epoch": 3}, "w.pt")
    with pytest.raises(UsageError, match="could run code") as caught:
        load_model("own.py:net", Path("w.pt"))
    assert "--trust" in caught.value.hint
    loaded, _ = load_model("own.py:net", Path("w.pt"), trust=True)
    assert torch.equal(loaded[0].weight, whole[0].weight)


def test_a_whole_pickled_model_is_the_model_where_it_is_trusted(here):
    torch.save(nn.Sequential(nn.Linear(3, 2)), "net.pt")
    model, _ = load_model("net.pt", trust=True)
    assert isinstance(model[0], nn.Linear)
    torch.save({"a": 1}, "net.pt")
    with pytest.raises(UsageError, match="is a dict, not a whole model"):
        load_model("net.pt", trust=True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """The sample network as torch.export has it."""
    path = tmp_path_factory.mktemp("exported") / "net.pt2"
    program = torch.export.export(
        samples.net(), (samples.example_inputs(),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    torch.export.save(program, path)
    return path


def test_an_exported_program_is_the_model_where_it_is_trusted(exported, here):
    with pytest.raises(UsageError, match="does not say how to build a model") as caught:
        load_model(str(exported))
    assert "--trust" in caught.value.hint
    model, namespace = load_model(str(exported), trust=True)
    (given,) = load_inputs(namespace)
    assert torch.equal(given, samples.example_inputs())
    assert torch.allclose(model(given), samples.net()(given))


def test_an_exported_program_is_compressed(exported, fast, here):
    line = f"build {exported} --macs 0.5 --bench-seconds 0.1 --allow-slower -o out --trust"
    done = run(shlex.split(line))
    assert done.exit_code == 0, done.stderr
    stored = load_file("out/model.safetensors")
    assert set(stored) == set(samples.net().state_dict()) - {"norm.num_batches_tracked"}
    assert stored["body.weight"].shape[0] < 16
    assert "trust" not in Path("out/recipe.toml").read_text()


def test_what_is_no_exported_program_is_refused(here):
    Path("net.pt2").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="is not an exported program"):
        load_model("net.pt2", trust=True)


# ---------------------------------------------------------------------------- recipes


def test_a_recipe_cannot_trust(here, monkeypatch):
    Path("compressor.toml").write_text("trust = true\n")
    with pytest.raises(UsageError, match="'trust' is no key of a recipe"):
        read(Path("compressor.toml"))
    with pytest.raises(UsageError, match="unknown environment variable COMPRESSOR_TRUST"):
        from_environment({"COMPRESSOR_TRUST": "1"})
    assert "trust" not in Recipe.model_json_schema()["properties"]
    trusting = Recipe.of(model="net.py:net", macs=0.5, trust=True)
    assert "trust" not in resolved(trusting) + commented(trusting)


@pytest.mark.parametrize(
    "line",
    [
        'model = "net.py:net"',
        'model = "net.py"',
        'model = "package.net:net"',
        'model = "timm:resnet18"\ndata = "timm:data"',
        'model = "timm:resnet18"\nevaluate = ["accuracy", "net.py:own"]',
        'model = "timm:resnet18"\ncode = "net.py"',
    ],
)
def test_a_recipe_that_was_only_found_runs_nothing(line, here):
    Path("compressor.toml").write_text(line + "\n")
    with pytest.raises(UsageError, match="names code that would run") as caught:
        resolve({})
    assert "-c compressor.toml, or --trust" in caught.value.hint
    assert resolve({"trust": True}).trust
    assert resolve({}, Path("compressor.toml")).model
    flags = dict.fromkeys(("model", "data", "evaluate", "code"), "named.py:it")
    assert resolve(flags).model == "named.py:it"


def test_a_recipe_that_names_no_code_is_used_where_it_is_found(here):
    Path("compressor.toml").write_text('model = "timm:resnet18"\nevaluate = "agreement"\n')
    assert resolve({}).evaluate == ("agreement",)
