"""The accuracy benchmark: rows are resumed, claims are told from rows, one model is run."""

import json
from functools import partial

import pytest

from benchmarks.accuracy import claims, networks, rows


def test_every_row_has_a_name_of_its_own():
    names = [row.name for row in rows.rows()]
    assert len(names) == len(set(names))


@pytest.fixture
def three(monkeypatch):
    """Three rows, of which one raises; `ran` has the names of those that were run."""
    ran = []

    def run(name):
        ran.append(name)
        if name == "b":
            raise ValueError("no such thing")
        return {"accuracy": {"refit": 0.5}}

    made = [rows.Row(name, partial(run, name)) for name in "abc"]
    monkeypatch.setattr(rows, "rows", lambda: made)
    return ran


def test_a_run_that_was_stopped_goes_on(three, tmp_path):
    path = tmp_path / "rows.json"
    rows.run(path, lambda name: name == "a", print)
    known = rows.run(path, lambda name: True, print)
    assert three == ["a", "b", "c"]
    assert list(known) == ["a", "b", "c"]
    assert list(json.loads(path.read_text())["rows"]) == ["a", "b", "c"]


def test_a_row_that_raises_is_told_as_one(three, tmp_path):
    known = rows.run(tmp_path / "rows.json", lambda name: name == "b", print)
    assert known["b"]["error"] == "ValueError: no such thing"
    assert rows.summary(known)["errors"] == ["b"]


def test_the_best_criterion_of_the_peer_counts():
    known = {
        f"peer/resnet56/0.5/{name}": {"accuracy": {"statistics": value}}
        for name, value in {"l1": 0.4, "l2": 0.6, "lamp": 0.5}.items()
    }
    assert rows.best_peer(known, "resnet56", 0.5) == ("l2", 0.6)
    assert rows.best_peer(known, "resnet56", 0.7) is None


def test_a_repair_that_is_worse_is_named():
    def of(repaired):
        return {"macs": 0.5, "chosen": "refit",
                "agreement": {"sliced": 0.1, "statistics": 0.5, "repaired": repaired}}  # fmt: skip

    known = {"never worse/chain/0.5": of(0.4), "never worse/dense/0.5": of(0.5)}
    assert rows.summary(known)["repaired is worse than re-estimated"] == ["chain/0.5"]


def test_tables_of_nothing_are_empty():
    assert not any(table.row_count for table in rows.tables({}))


def test_a_reference_model_agrees_better_after_repair():
    row = claims.never_worse("chain", 0.5)
    found = row["agreement"]
    assert row["chosen"] == "refit"
    assert found["repaired"] > found["statistics"] > 0


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not networks.available(), reason="shared/data is not there")
def test_resnet20_keeps_its_accuracy_at_70_percent():
    from benchmarks.accuracy import ours

    row = ours.row("resnet20", 0.7, inputs=256, first=1000)
    assert row["accuracy"]["refit"] > 0.84
    assert row["accuracy"]["refit"] > row["accuracy"]["statistics"]
