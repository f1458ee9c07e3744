"""A time that is asked for is met by measurement, or refused with what was measured."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from compressor.passes.base.errors import GateError, UsageError
from compressor.passes.planning.targets import Amount, Milliseconds, Ratio, plain, share, target

from compressor import bench
from compressor.timing.closed_loop import meet, refuse_slower

# ------------------------------------------------------------------------------ targets


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0.5", Ratio(0.5)),
        ("50%", Ratio(0.5)),
        ("8ms", Milliseconds(8.0)),
        (" 1.5 ms", Milliseconds(1.5)),
        ("0.01s", Milliseconds(10.0)),
        ("250us", Milliseconds(0.25)),
    ],
)
def test_a_target_is_a_share_or_a_time(text, wanted):
    assert target("latency", text) == wanted


@pytest.mark.parametrize("text", ["", "0", "1", "1.5", "half", "-0.5", "0ms", "120%", "8 m"])
def test_what_is_neither_is_refused(text):
    with pytest.raises(UsageError, match="means nothing"):
        target("latency", text)


def test_milliseconds_are_a_share_of_the_original():
    assert share(Milliseconds(8.0), 0.032) == 0.25
    assert share(Ratio(0.5), 0.032) == 0.5
    assert share(Amount(8), 32.0) == 0.25


@pytest.mark.parametrize("given", [0.5, "50%", "8ms", "0.25ms", 1_000_000])
def test_a_target_is_read_back_as_it_was_written(given):
    kind = "latency" if str(given).endswith("s") else "params"
    found = target(kind, given)
    assert target(kind, plain(found)) == found


def test_a_time_is_no_budget_of_parameters():
    with pytest.raises(UsageError, match="a budget of '8ms' params means nothing"):
        target("params", "8ms")


# ------------------------------------------------------------------------------ rounds


@dataclass
class Machine:
    """A device that is `slow` times what the table says, and cannot go below `least`."""

    slow: float
    least: float = 0.0
    ms: float = 20.0

    def plan(self, share):
        if share < self.least:
            raise UsageError("cannot be reached")
        return SimpleNamespace(reached=share, dense=1.0)

    def race(self, plan):
        ratio = bench.TimeRatio(plan.reached * self.slow, plan.reached * self.slow - 0.01,
                      plan.reached * self.slow + 0.01)  # fmt: skip
        first = SimpleNamespace(cpu_ms=self.ms, wall_ms=2 * self.ms)
        return SimpleNamespace(
            rows=[first, SimpleNamespace(ratio=ratio)],
            noise=bench.TimeRatio(1, 1, 1),
            primary="cpu",
        )

    def meet(self, target, **options):
        return meet(target, self.plan, self.race, self.ms / 1e3, **options)


@pytest.mark.parametrize("slow", [0.7, 0.98, 1.0, 1.06, 1.4])
def test_the_measured_time_is_met_from_below(slow):
    met = Machine(slow).meet(Ratio(0.5))
    assert 0.95 * 0.5 <= met.rounds[met.best].measured <= 0.5
    assert len(met.rounds) <= 2


def test_a_time_in_milliseconds_is_met():
    met = Machine(1.2).meet(Milliseconds(8.0))
    assert 0.95 * 8 <= met.rounds[met.best].measured * 20.0 <= 8


def test_a_target_that_no_plan_reaches_says_so():
    with pytest.raises(UsageError, match="cannot be reached"):
        Machine(1.0, least=0.6).meet(Ratio(0.5))


def test_a_target_that_is_missed_says_the_least_that_was_measured():
    with pytest.raises(GateError, match=r"least that was measured is 0\.6\d\d") as caught:
        Machine(1.4, least=0.45).meet(Ratio(0.5))
    assert "wanted: 0.500" in caught.value.why


def test_a_target_that_is_met_already_is_refused():
    with pytest.raises(UsageError, match="met already") as caught:
        Machine(1.0).meet(Milliseconds(40.0))
    assert "20 ms" in caught.value.why


def test_the_nearest_from_below_is_kept_where_steps_are_coarse():
    class Coarse(Machine):
        def plan(self, share):
            return super().plan(0.4 if share < 0.55 else 0.6)

    met = Coarse(1.0).meet(Ratio(0.5))
    assert met.plan.reached == 0.4


# ------------------------------------------------------------------------------ never slower


@pytest.mark.parametrize(
    ("low", "high", "asked", "refused"),
    [
        (0.4, 0.5, True, False),
        (0.9, 1.01, True, True),
        (0.9, 1.01, False, False),
        (1.02, 1.1, False, True),
        (1.02, 1.1, True, True),
    ],
)
def test_a_slower_model_is_refused(low, high, asked, refused):
    latency = {"ratio": (low + high) / 2, "low": low, "high": high}
    if not refused:
        refuse_slower(latency, asked)
        return
    with pytest.raises(GateError, match="of the original's time") as caught:
        refuse_slower(latency, asked)
    assert caught.value.exit_code == 1
    assert "--allow-slower" in caught.value.hint
