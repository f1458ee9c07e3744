"""One group at a time: what is cut, how it is judged, and what a user sees."""

import json
from pathlib import Path

import pytest
import torch
from compressor.passes.base.errors import UsageError

from compressor import compress, passes
from compressor.analysis import sensitivity
from compressor.config import Recipe
from compressor.criteria import group_weights
from compressor.metrics.evaluate import evaluations
from compressor.pipeline.compile import Given
from compressor.pipeline.compress import prepared
from compressor.process.progress import Watch
from compressor.result.build_cache import BuildCache
from models import digits
from tests.compressor import samples


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


# ---------------------------------------------------------------------------- the planner


NAMES = ("body.weight[0]", "mid.weight[0]", "last.weight[0]")
INPUTS = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = [{"name": name, "size": size} for name, size in zip(NAMES, (16, 32, 24), strict=True)]


def file_of(folder: Path, *weights: float, **changes: object) -> Path:
    """Weights of the sample network, by hand."""
    path = folder / "weights.json"
    own = {"format": 1, "rows": ROWS, "weights": dict(zip(NAMES, weights, strict=True))}
    path.write_text(json.dumps(own | changes))
    return path


def widths(path: Path | None) -> dict[str, int]:
    built = compress(
        samples.net(),
        samples.example_inputs(),
        budget=passes.Budget(macs=0.5),
        round_to=1,
        sensitivity=path,
    )
    assert built.proof.holds
    assert dict(built.options.group_weights).keys() == (set(NAMES) if path else set())
    return {group.name: count for group, count in built.plan.widths}


def test_what_the_analysis_writes_is_what_the_planner_reads(found, coupling, tmp_path):
    sensitivity.write(found, tmp_path / "x.json")
    read = group_weights.read(tmp_path / "x.json")
    assert read.weights == found.weights
    options = read.options(passes.Options(round_to=1), coupling)
    assert dict(options.group_weights) == found.weights
    passes.choose(coupling, passes.Budget(macs=0.5), options)


def test_a_group_with_a_large_weight_keeps_more(tmp_path):
    plain = widths(None)
    assert widths(file_of(tmp_path, 1, 1, 1)) == plain
    dear = widths(file_of(tmp_path, 1, 10, 1))
    assert dear[NAMES[1]] > plain[NAMES[1]]
    assert dear[NAMES[2]] < plain[NAMES[2]]


def test_the_file_of_another_model_is_refused(found, tmp_path):
    sensitivity.write(found, tmp_path / "x.json")
    with pytest.raises(UsageError, match="another model") as caught:
        widths(tmp_path / "x.json")
    assert caught.value.where.endswith("x.json")
    assert "the model has no group" in caught.value.why
    assert "--ignore" in caught.value.hint
    fewer = file_of(tmp_path, 1, 1, 1, rows=ROWS[:2], weights=dict.fromkeys(NAMES[:2], 1))
    with pytest.raises(UsageError, match="another model") as caught:
        widths(fewer)
    assert caught.value.why == f"the file has no group {NAMES[2]}"
    with pytest.raises(UsageError, match="another model") as caught:
        widths(file_of(tmp_path, 1, 1, 1, rows=[*ROWS[:2], ROWS[2] | {"size": 48}]))
    assert caught.value.why == f"{NAMES[2]} has 48 channels in the file, 24 in the model"


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"rows": None},
        {"rows": [1, 2, 3]},
        {"rows": [*ROWS, ROWS[0]]},
        {"rows": ROWS[:2]},
        {"rows": [{"name": [], "size": 1}]},
        {"weights": [1, 1, 1]},
        *({"weights": dict.fromkeys(NAMES, one)}
          for one in (-1, float("nan"), float("inf"), 10**400, True, None, "1", [1])),
    ],
)  # fmt: skip
def test_a_malformed_file_is_refused_in_plain_words(changes, tmp_path):
    path = file_of(tmp_path, 1, 1, 1, **changes)
    with pytest.raises(UsageError, match="has no weights of groups") as caught:
        group_weights.read(path)
    assert caught.value.why
    assert "compressor sensitivity" in caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "{", "[" * 100_000, "\x00\x01"])
def test_what_is_no_such_file_is_refused(text, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UsageError, match="has no weights of groups"):
        group_weights.read(tmp_path / "x.json")
    with pytest.raises(UsageError, match="cannot read"):
        group_weights.read(tmp_path / "nowhere.json")


def test_a_plan_that_was_kept_is_one_of_the_same_weights(tmp_path):
    given = Given(passes.Budget(macs=0.5), data=[INPUTS])
    work = BuildCache(tmp_path / "work")

    def planned(weight: float) -> passes.Plan:
        recipe = Recipe.of(round_to=1, steps=1, sensitivity=file_of(tmp_path, 1, weight, 1))
        model, inputs = samples.net(), samples.example_inputs()
        job = prepared(model, inputs, given, recipe, "net", Watch(), work)
        return job.plan(given.budget)

    first, dear, again = planned(1), planned(30), planned(1)
    assert first.channels.tolist() == again.channels.tolist() != dear.channels.tolist()
    assert len(list((tmp_path / "work").glob("plan.*"))) == 2


def test_plan_and_build_take_the_weights_and_the_recipe_keeps_them(command, tmp_path):
    path = file_of(tmp_path, 1, 10, 1)
    asked = f"net.py:net --macs 0.5 --round-to 1 --sensitivity {path}"
    done = command(f"plan {asked} --json -o {tmp_path}/plan.json")
    assert done.exit_code == 0, done.stderr
    planned = json.loads(done.stdout)
    assert dict(planned["options"]["group_weights"]) == {NAMES[0]: 1, NAMES[1]: 10, NAMES[2]: 1}
    done = command(f"build {asked} --dry-run --json -o {tmp_path}/out")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["groups"] == planned["groups"]
    done = command(f"build {asked} -o {tmp_path}/out --save-config {tmp_path}/recipe.toml")
    assert f'sensitivity = "{path.as_posix()}"' in (tmp_path / "recipe.toml").read_text()
    path.write_text("{}")
    refused = command(f"build -c {tmp_path}/recipe.toml -o {tmp_path}/out")
    assert (refused.exit_code, "Traceback" in refused.stderr) == (2, False)
    assert "has no weights of groups" in refused.stderr


def test_the_analysis_does_not_need_the_weights_that_it_is_about_to_write(
    command, tmp_path, project
):
    (project / "given.py").write_text(
        "import torch\n\ndef batches():\n    torch.manual_seed(0)\n"
        "    return list(torch.randn(48, 3, 8, 8).split(16))\n"
    )
    (tmp_path / "recipe.toml").write_text(f"sensitivity = 'x.json'\nmodel = '{project}/net.py:net'")
    asked = f"-c {tmp_path}/recipe.toml --data given.py:batches --share 0.5 -o {tmp_path}/x.json"
    done = command(f"sensitivity {asked}")
    assert done.exit_code == 0, done.stderr
    done = command(f"plan -c {tmp_path}/recipe.toml --macs 0.5 -o {tmp_path}/plan.json --quiet")
    assert done.exit_code == 0, done.stderr
