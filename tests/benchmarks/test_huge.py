"""Seventy billion parameters on a laptop: only operators and sizes count."""

import json
from itertools import pairwise

import pytest
from typer.testing import CliRunner

from benchmarks import huge, llama
from benchmarks.__main__ import RESULTS, app
from compressor.base import optional

try:
    optional.torchvision()
    import transformers  # noqa: F401
except ImportError as missing:
    pytestmark = pytest.mark.skip(reason=f"transformers is not installed: {missing}")


def test_a_shape_is_a_name_and_other_names_are_not():
    model = llama.llama_2x256()
    assert all(one.is_meta for one in model.parameters())
    assert len(model.model.layers) == 2
    assert model.config.hidden_size == 256
    with pytest.raises(AttributeError, match="llama_2x"):
        _ = llama.llama_2x


def test_a_shape_that_is_not_there_is_refused():
    done = CliRunner().invoke(app, ["huge", "--only", "3x*"])
    assert "no shape matches '3x*'" in str(done.exception)


def test_the_memory_of_whoever_measures_is_not_counted():
    held = bytearray(b"1" * 1_500_000_000)  # every page is touched
    row = huge.run(2, 256)
    assert 100e6 < row.peak_bytes < len(held)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("huge.json")), ids=lambda path: path.stem)
def test_what_was_recorded_grows_with_operators_and_not_with_parameters(path):
    rows = json.loads(path.read_text())["rows"]
    assert [(row["layers"], row["width"]) for row in rows] == list(huge.SHAPES)
    narrow, wide = rows[0], rows[3]
    assert narrow["operators"] == wide["operators"]
    assert wide["parameters"] > 30 * narrow["parameters"]
    assert wide["cpu_seconds"] < 2 * narrow["cpu_seconds"]
    assert wide["peak_bytes"] < 2 * narrow["peak_bytes"]
    assert rows[-1]["parameters"] > 68e9
    assert all(row["passed"] for row in rows)
    steps = [
        (deep["groups"] - shallow["groups"]) / (deep["layers"] - shallow["layers"])
        for shallow, deep in pairwise(rows[3:])
    ]
    assert len(set(steps)) == 1  # every layer has as many


@pytest.mark.slow
def test_the_groups_of_70_billion_parameters_are_listed_in_two_minutes_and_two_gigabytes():
    row = huge.run(80, 8_192)
    assert row.parameters > 68e9
    assert row.operators > 4_000
    assert row.passed, row
