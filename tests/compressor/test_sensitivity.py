"""One group at a time: what is cut, how it is judged, and what a user sees."""

import json

import pytest
import torch
from compressor.passes.errors import UsageError

from compressor import passes, sensitivity
from compressor.evaluate import evaluations
from models import digits


@pytest.fixture(scope="module")
def coupling() -> passes.Coupling:
    model = digits.digits_resnet()
    return passes.couple(passes.capture(model, (digits.example_inputs(),), {}), ())


@pytest.fixture(scope="module")
def calls():
    return [((batch,), {}) for batch in digits.calibration()]


@pytest.fixture(scope="module")
def found(coupling, calls) -> sensitivity.Sensitivity:
    judged = evaluations(digits.accuracy, None)
    return sensitivity.analyse(coupling, calls, passes.Options(), judged, (0.25, 0.5), "digits")


def test_a_share_that_means_nothing_is_refused(coupling, calls):
    for share in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="means nothing"):
            sensitivity.analyse(coupling, calls, passes.Options(), shares=(share,))


def test_every_group_is_cut_alone_by_every_share(found, coupling):
    assert [row.name for row in found.rows] == [group.name for group in coupling.groups]
    dense = passes.Costs(coupling, "macs")
    for row, group in zip(found.rows, coupling.groups, strict=True):
        assert [cut.kept for cut in row.cuts] == [
            group.size - round(share * group.size) for share in (0.25, 0.5)
        ]
        one = dense.amount(
            torch.cat([cell[: group.size - row.cuts[1].kept] for cell in group.cells])
        )
        assert row.cuts[1].macs == pytest.approx(1 - one / dense.dense)


def test_losing_more_of_a_group_costs_more(found):
    assert sum(row.cuts[1].divergence > row.cuts[0].divergence for row in found.rows) > (
        0.8 * len(found.rows)
    )
    assert all(cut.divergence >= 0 for row in found.rows for cut in row.cuts)


def test_the_repaired_network_is_judged_by_inputs_that_did_not_repair_it(calls):
    repair, judge = sensitivity._apart(calls)
    assert [len(call[0][0]) for call in repair] == [64, 64]
    assert [len(call[0][0]) for call in judge] == [64] * 6
    assert sensitivity._apart(calls[:1]) == (calls[:1], calls[:1])


def test_the_users_metric_stands_beside_the_damage(found):
    assert found.original["accuracy"] > 0.98
    cuts = [cut for row in found.rows for cut in row.cuts]
    assert all(set(cut.metrics) == {"accuracy"} for cut in cuts)
    assert 0.9 < min(cut.metrics["accuracy"] for cut in cuts) <= 1


def test_the_weights_of_groups_are_around_one_and_follow_the_damage(found):
    weights = found.weights
    assert sum(weights.values()) / len(weights) == pytest.approx(1)
    dearest = max(found.rows, key=lambda row: row.damage)
    assert max(weights, key=weights.get) == dearest.name


def test_it_is_plain_values_a_table_and_a_page_without_scripts(found, tmp_path):
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["rows"][0]["cuts"][0]["share"] == 0.25
    assert len(sensitivity.table(found).rows) == len(found.rows)
    sensitivity.write(found, tmp_path / "deep" / "page.html")
    text = (tmp_path / "deep" / "page.html").read_text()
    assert text.count("<polyline") == len(found.rows)
    assert "<script" not in text
    for row in found.rows:
        assert row.name in text


def test_the_command_prints_json_and_writes_the_page(command, tmp_path, project):
    (project / "calibration.py").write_text(
        "import torch\n\ndef batches():\n    torch.manual_seed(0)\n"
        "    return list(torch.randn(48, 3, 8, 8).split(16))\n"
    )
    asked = "--data calibration.py:batches --share 0.5 --evaluate agreement --quiet --json"
    done = command(f"sensitivity net.py:net {asked} -o {tmp_path}/page.html")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["size"] for row in found["rows"]] == [16, 32, 24]
    assert (tmp_path / "page.html").is_file()
    refused = command("sensitivity net.py:net --data nowhere.py:batches")
    assert refused.exit_code == 2
