"""The smallest model that keeps a metric: what is tried, what is kept, and what is said of it."""

import json
from types import SimpleNamespace

import pytest
import torch
from compressor.passes.base.errors import GateError, UsageError

from compressor import Budget, compress
from compressor.metrics.accuracy_search import smallest, told
from tests.compressor import samples


def searched(drops, floor=0.1, limit=0.01, name="accuracy", metric=None):
    """A search over sizes whose drop is `drops(share)`; None where no plan reaches it."""

    def plan(share):
        if drops(share) is None:
            raise UsageError(f"the budget of {share:.2f} cannot be reached")
        return SimpleNamespace(reached=share * 0.99, dense=1.0)

    def build(chosen):
        share = chosen.reached / 0.99
        return share, {name: {"original": 0.9, "small": 0.9 - drops(share)}}

    return smallest((floor, 1.0), plan, build, limit, metric)


@pytest.mark.parametrize("edge", [0.13, 0.42, 0.5, 0.77, 0.95])
def test_the_smallest_size_that_passes_is_found_to_two_per_cent(edge):
    best, tries = searched(lambda share: 0.0 if share >= edge else 0.05)
    assert edge <= best <= edge + 0.02
    assert len(tries) <= 7


def test_the_least_is_tried_first_and_ends_the_search_if_it_passes():
    best, tries = searched(lambda share: 0.0, floor=0.25)
    assert best == pytest.approx(0.25)
    assert len(tries) == 1


def test_the_best_that_passed_is_kept_where_sizes_do_not_fall_in_line():
    holes = lambda share: 0.0 if 0.5 < share < 0.6 or share > 0.99 else 0.05  # noqa: E731
    best, tries = searched(holes)
    passed = [one.asked for one in tries if one.passed]
    assert best == pytest.approx(min(passed))
    assert 0.5 < best < 0.6


def test_sizes_that_no_plan_reaches_are_passed_over_and_told():
    best, tries = searched(lambda share: None if share < 0.3 else 0.0)
    assert 0.3 <= best <= 0.32
    assert "cannot be reached" in told(tries[0])
    assert "kept" in told(next(one for one in tries if one.passed))


def test_where_nothing_passes_all_that_was_tried_is_said():
    with pytest.raises(
        GateError, match=r"no size that was tried keeps the metric within 0\.01"
    ) as no:
        searched(lambda share: 0.05)
    assert str(no.value).count("too much") >= 5
    with pytest.raises(GateError):
        searched(lambda share: float("nan"))


def test_a_search_knows_which_way_is_better_or_asks():
    fewer = lambda share: 0.05 if share >= 0.5 else -0.05  # noqa: E731
    for name, metric in (("rmse", None), ("ev", "ev:min")):
        best, _ = searched(fewer, name=name, metric=metric)
        assert 0.5 <= best <= 0.52
    with pytest.raises(UsageError, match="not known whether 'ev' is better"):
        searched(fewer, name="ev")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_size_whose_metric_is_not_finite_does_not_pass(value):
    best, tries = searched(lambda share: 0.0 if share >= 0.5 else value)
    assert 0.5 <= best <= 0.52
    assert not any(one.passed for one in tries if one.asked < 0.5)


# ---------------------------------------------------------------------------- from outside


@pytest.fixture
def pairs():
    pictures = torch.randn(96, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        classes = samples.net()(pictures).argmax(1)
    return list(zip(pictures.split(32), classes.split(32), strict=True))


def test_a_search_needs_to_know_what_to_keep(pairs):
    given = {"data": pairs, "evaluate": "accuracy", "search": True}
    with pytest.raises(UsageError, match="needs to know what to keep"):
        compress(samples.net(), samples.example_inputs(), **given)
    with pytest.raises(UsageError, match="no budget is given"):
        compress(samples.net(), samples.example_inputs())


def test_a_search_ends_with_a_model_that_keeps_the_metric(fast, pairs):
    built = compress(
        samples.net(),
        samples.example_inputs(),
        data=pairs,
        evaluate="accuracy",
        search=True,
        max_drop=0.05,
        budget=Budget(params=0.2),
    )
    pair = built.report["accuracy"]["accuracy"]
    assert pair["original"] == 1.0
    assert pair["small"] >= 0.95
    found = built.report["search"]
    assert found["kind"] == "params"
    assert found["tries"][0]["asked"] == pytest.approx(0.2)
    passed = [one["reached"] for one in found["tries"] if one["passed"]]
    assert built.plan.reached / built.plan.dense == pytest.approx(min(passed))
    (line,) = [line for line in built.report["warnings"] if "were tried" in line]
    assert line.count("worse by") + line.count("cannot be") == len(found["tries"])


def test_a_search_from_the_command_line_needs_no_budget(command, fast, tmp_path):
    asked = "--search --max-drop 0.2 --evaluate net.py:agreement"
    race = "--bench-seconds 0.1 --allow-slower"
    done = command(f"build net.py:net {asked} {race} --json -o {tmp_path}/out")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    pair = found["accuracy"]["agreement"]
    assert pair["original"] - pair["small"] <= 0.2 + 1e-9
    assert found["search"]["kind"] == "macs"
