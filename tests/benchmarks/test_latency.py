"""The experiment on time: what it compares is what it says."""

import pytest
import torch

from benchmarks.latency import alarms, rows, tables
from benchmarks.latency.subjects import coupled, made, written
from compressor import passes
from compressor.base import optional


def test_rows_have_names_of_their_own():
    names = [row.name for row in rows.rows()]
    assert len(set(names)) == len(names) > 200
    assert {"met/bert/9", "met-2-threads/bert/0", "written/resnet18", "cell/vit_b_16/0.35"} <= {
        *names
    }


def test_without_rows_there_are_no_tables():
    assert tables.tables({}) == []


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_a_network_written_by_hand_has_the_sizes_of_the_shrunk_one_and_other_weights(name):
    try:
        optional.torchvision()
    except ImportError as error:
        pytest.skip(f"torchvision is not installed: {error}")
    coupling = coupled(name)
    plan = passes.choose(coupling, passes.Budget(macs=0.5), passes.Options())
    small = passes.apply(passes.Shrink(plan), coupling.program).program.tensors()
    model, x = made(name)
    dense = written(model, small)
    assert dense(x).shape == model(x).shape
    parameters = dict(dense.named_parameters())
    assert {key: one.shape for key, one in parameters.items()} == {
        key: small[key].shape for key in parameters
    }
    assert not any(torch.equal(one, small[key]) for key, one in parameters.items())


def test_checks_say_what_the_gate_answered_and_how_long_it_took(monkeypatch):
    monkeypatch.setattr(alarms, "CHECKS", 1)
    monkeypatch.setattr(alarms, "SECONDS", 1)
    found = alarms.same(0)
    (answer,) = found["answers"]
    assert answer in ("passed", "regressed", "inconclusive")
    assert found["low"] <= found["high"]
    known = {"same/0": found}
    assert [table.row_count for table in tables.tables(known)] == [1]
