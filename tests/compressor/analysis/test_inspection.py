"""`compressor inspect`: what can shrink and what cannot, in the user's own names."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from compressor.passes.base.errors import UsageError
from rich.console import Console
from typer.testing import CliRunner

from compressor.analysis.inspection import inspect, tree
from compressor.cli.app import app
from compressor.config import Recipe
from compressor.loading import load_model
from compressor.process.progress import Watch
from models.catalog import CATALOG

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def found(request) -> dict[str, Any]:
    return look(request.param)


def look(name: str, ignore: tuple[str, ...] = ()) -> dict[str, Any]:
    return inspect(Recipe.of(model=f"{ROOT}/{CATALOG[name]}", ignore=ignore), Watch())


both = pytest.mark.parametrize("found", ["residual", "vit"], indirect=True)


def test_a_pattern_that_protects_nothing_is_refused():
    with pytest.raises(UsageError, match="no parameter is called 'clasify"):
        look("residual", ("clasify*",))


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="does not run on the example inputs"):
        inspect(Recipe.of(model=f"{ROOT}/{CATALOG['residual']}", input_shape="1,5,8,8"), Watch())


@both
def test_it_is_plain_json(found):
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@both
def test_every_axis_is_named_as_the_user_names_it(found):
    model, _ = load_model(found["model"])
    state = model.state_dict()
    axes = [axis for group in found["groups"] for axis in group["axes"]]
    axes += [one["axis"] for one in found["frozen"]]
    for axis in axes:
        name, dim = re.fullmatch(r"(.+)\[(\d)\]", axis).groups()
        assert int(dim) < state[name].dim(), axis


@both
def test_the_shares_of_a_group_are_between_none_and_all(found):
    assert len({group["name"] for group in found["groups"]}) == len(found["groups"]) > 5
    for group in found["groups"]:
        assert 0 < group["params_share"] <= 1
        assert 0 <= group["macs_share"] <= 1
        assert group["size"] >= 1
        assert group["kind"] in ("channels", "rows")


@both
def test_what_is_frozen_has_its_size_and_a_reason(found):
    model, _ = load_model(found["model"])
    state = model.state_dict()
    assert found["frozen"]
    for one in found["frozen"]:
        name, dim = re.fullmatch(r"(.+)\[(\d)\]", one["axis"]).groups()
        assert one["size"] == state[name].shape[int(dim)]
        assert one["why"]


@both
def test_a_reason_inside_the_network_names_the_line(found):
    first = {"residual": "residual.py", "vit": "vit.py"}
    name = next(file for key, file in first.items() if key in found["model"])
    reasons = {one["why"] for one in found["frozen"]}
    assert "program output" in reasons
    assert any(re.search(rf"models/{name}:\d+\)?$", why) for why in reasons), reasons


def test_the_sizes_are_those_of_the_network():
    found = look("residual")
    model, _ = load_model(found["model"])
    assert found["params"] == sum(
        one.numel()
        for name, one in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    )
    stem = found["groups"][0]
    assert stem["name"] == "stem.0.weight[0]"
    assert stem["width"] == "16"
    assert {"blocks.0.second.weight[0]", "blocks.1.first.weight[1]"} <= set(stem["axes"])


def test_the_heads_of_attention_are_rows_and_entries():
    groups = look("vit")["groups"]
    assert {"4 rows", "8 x 16"} <= {group["width"] for group in groups}  # v as narrow as q and k


def test_what_is_ignored_is_frozen():
    found = look("residual", ("stem.0.weight",))
    assert "stem.0.weight[0]" not in [group["name"] for group in found["groups"]]
    assert "ignored by the user" in {one["why"] for one in found["frozen"]}


@both
def test_the_tree_has_every_group_and_every_frozen_axis(found):
    said = io.StringIO()
    Console(width=300, file=said).print(tree(found))
    text = said.getvalue()
    assert f"{found['params']:,} parameters" in text
    for group in found["groups"]:
        assert f"{group['name']}  {group['width']}  {group['params_share']:.1%}" in text
    for one in found["frozen"]:
        assert f"{one['axis']} ({one['size']}): {one['why']}" in text


def test_the_captured_graph_is_printed_a_line_a_value():
    path = f"{ROOT}/{CATALOG['residual']}"
    done = CliRunner().invoke(app, ["inspect", path, "--program", "--quiet"])
    assert done.exit_code == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("%0 = float32[n0, ")
    assert last.startswith("return [%")
    assert "conv2d(%0, " in done.stdout
    assert CliRunner().invoke(app, ["inspect", path, "--program", "--json"]).exit_code == 2
