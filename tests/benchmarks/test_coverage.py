"""The scoreboard tells its four outcomes apart, goes on where it stopped, and judges its peers."""

import copy

import pytest
import torch
from compressor.passes import Budget
from compressor.passes.base.errors import GateError
from torch import Tensor, nn

from benchmarks.__main__ import RESULTS
from benchmarks.coverage import child, runner, score, zoo
from benchmarks.coverage.onnxsim_peer import attempt, distinct
from benchmarks.coverage.oracle import Unequal, check, kept_elements, tensors, told_apart
from benchmarks.coverage.outcome import OURS, ROOT, Outcome, read, rows
from benchmarks.coverage.torch_pruning_peer import attempts
from benchmarks.coverage.torch_pruning_peer import distinct as made_distinct
from benchmarks.recording import write
from compressor import passes
from compressor.loading.calls import as_call, randomised
from models._random import normal, seeded
from models.zoo.cases import Case

INPUT = normal(2, 3, 6, 6)


def plain() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(16, 2, 1))


def judged(make) -> Outcome:
    return child.judge(Case("net", lambda: (seeded(make, 0), INPUT), "family"), False)


# ------------------------------------------------------------------------------ outcomes


def test_a_network_that_shrinks_and_is_proven_is_equal():
    row = judged(plain)
    assert (row.outcome, row.why) == ("equal", "")
    assert row.params_gone > 0.35
    assert row.proof < 1e-12


def test_a_network_of_which_nothing_can_go_is_frozen_and_says_why():
    row = judged(lambda: nn.Conv2d(3, 4, 3))
    assert row.outcome == "frozen"
    assert "program output" in row.why


def test_a_network_of_which_too_little_can_go_is_frozen_with_the_share():
    row = judged(lambda: nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(72, 1), Wide()))
    assert row.outcome == "frozen"
    assert "% of the parameters could go; program output" in row.why


class Wide(nn.Module):
    """Many parameters, of which none can go."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, 5000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.table


def test_a_refused_proof_is_wrong(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise GateError("not equal")

    monkeypatch.setattr(child, "compress", refuse)
    assert judged(plain).outcome == "wrong"


def test_a_traceback_is_a_crash_and_kept():
    def broken() -> nn.Module:
        raise ZeroDivisionError("in the user's code")

    row = judged(broken)
    assert (row.outcome, row.why) == ("crash", "ZeroDivisionError: in the user's code")
    assert "def broken" not in row.trace
    assert "broken" in row.trace


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_model_that_takes_too_long_is_a_crash_that_names_the_stage(monkeypatch):
    class Endless(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            while torch.compiler.is_compiling():
                pass
            return super().forward(x)

    monkeypatch.setattr(child, "SECONDS", 1)
    row = judged(lambda: Endless(plain()))
    assert row.outcome == "crash"
    assert "in capture" in row.why


# ------------------------------------------------------------------------------ runs


def row(name: str, outcome: str = "equal", **more) -> Outcome:
    return Outcome(name, "family", outcome, **more)


def test_the_last_row_of_a_model_and_engine_counts(tmp_path):
    path = tmp_path / "rows.json"
    lines = [row("a", "crash"), row("b"), row("a"), row("a", "wrong", engine="torch-pruning")]
    write(path, {"rows": rows(lines)})
    found = {(one.name, one.engine): one.outcome for one in read(path)}
    assert found == {
        ("a", "compressor"): "equal",
        ("b", "compressor"): "equal",
        ("a", "torch-pruning"): "wrong",
    }


def test_a_row_names_no_folder_of_the_machine_that_it_came_from():
    def broken() -> nn.Module:
        raise ZeroDivisionError(f"in {ROOT}/models")

    row = judged(broken)
    assert f'File "{ROOT}/benchmarks/coverage/child.py' in row.trace
    assert str(ROOT) not in row.line()
    assert "in models" in row.line()


def test_every_pattern_is_recorded_as_equal_or_as_frozen_with_the_reason_that_it_states():
    found = {row.name: row for row in read(RESULTS / "coverage-ops.json") if row.engine == OURS}
    stated = {case.name: case.frozen for case in zoo.cases("ops")}
    assert found.keys() == stated.keys()
    assert sum(bool(why) for why in stated.values()) <= 10
    for name, why in stated.items():
        assert found[name].outcome == ("frozen" if why else "equal"), name
        assert why in found[name].why


def test_a_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    cases = tuple(Case(name, lambda: (plain(), INPUT)) for name in "abcd")
    monkeypatch.setattr(runner.zoo, "cases", lambda _: cases)
    path = tmp_path / "rows.json"
    done = [row("a", exported=True), row("b"), row("c", "frozen")]
    write(path, {"rows": rows(done)})
    left = runner.Run("ops", path).tasks()
    assert [case.name for case, _, _ in left] == ["b", "d"], "b was not exported yet"
    assert [c.name for c, _, _ in runner.Run("ops", path, exports=False).tasks()] == ["d"]
    assert len(runner.Run("ops", path, again=True).tasks()) == 4


def test_peers_run_on_the_stated_sample_and_our_own_rows_on_every_model(tmp_path, monkeypatch):
    cases = tuple(Case(name, lambda: (plain(), INPUT)) for name in "abcdef")
    monkeypatch.setattr(runner.zoo, "cases", lambda _: cases)
    monkeypatch.setattr(runner.zoo, "EXPORTED_EVERY", {"timm": 3})
    monkeypatch.setattr(runner.zoo, "PEERS_EVERY", {"timm": 5})
    tasks = runner.Run("timm", tmp_path / "rows.json", engines=(OURS, "torch-pruning")).tasks()
    assert "".join(case.name for case, engine, _ in tasks if engine == OURS) == "abcdef"
    assert "".join(case.name for case, engine, _ in tasks if engine != OURS) == "af"
    assert "".join(case.name for case, _, exported in tasks if exported) == "ad"


def test_a_record_has_for_a_row_of_ours_its_reason_and_gives_back_what_is_summed_up(tmp_path):
    own = row("a", "frozen", why="program output", params_gone=0.123456, seconds={"prove": 2.0})
    peer = row("a", "crash", engine="onnxsim", why="RuntimeError: no")
    write(tmp_path / "rows.json", {"rows": rows([own, peer])})
    ours, theirs = read(tmp_path / "rows.json")
    assert (ours.why, ours.params_gone, ours.seconds) == ("program output", 0.123, {"all": 2.0})
    assert (theirs.outcome, theirs.why) == ("crash", "")
    assert score.summary([ours, theirs])["compressor"]["median_seconds"] == 2


# ------------------------------------------------------------------------------ peers


class Normed(nn.Module):
    def __init__(self, kept: list[int] | None = None, weights: nn.Module | None = None) -> None:
        super().__init__()
        width = 8 if kept is None else len(kept)
        self.up, self.norm = nn.Linear(3, width), nn.LayerNorm(width)
        self.down = nn.Linear(width, 2)
        if weights is not None:
            self.double()
            with torch.no_grad():
                self.up.weight.copy_(weights.up.weight[kept])
                self.up.bias.copy_(weights.up.bias[kept])
                self.norm.weight.copy_(weights.norm.weight[kept])
                self.norm.bias.copy_(weights.norm.bias[kept])
                self.down.weight.copy_(weights.down.weight[:, kept])
                self.down.bias.copy_(weights.down.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.norm(self.up(x)))


@pytest.fixture
def original() -> nn.Module:
    return made_distinct(seeded(Normed, 0).double())


def test_a_network_pruned_by_hand_is_equal_though_its_norm_counts_fewer_channels(original):
    pruned = Normed([0, 2, 3, 7], original)
    assert check(original, pruned, normal(4, 3)) < 1e-12


def test_the_order_of_channels_matters_only_where_it_changes_what_is_computed(original):
    pruned = Normed([0, 3, 2, 7], original)
    assert check(original, pruned, normal(4, 3)) < 1e-12
    with torch.no_grad():
        pruned.norm.weight.copy_(original.norm.weight[[0, 2, 3, 7]])
    with pytest.raises(Unequal, match="differs by"):
        check(original, pruned, normal(4, 3))


def test_elements_that_differ_from_row_to_row_may_be_left(original):
    """As in a grouped convolution, whose groups keep input channels of their own."""
    before = {"w": torch.arange(12.0).reshape(3, 4)}
    after = {"w": torch.tensor([[0.0, 3.0], [5.0, 6.0]])}
    found = kept_elements(before, after)["w"].nonzero().tolist()
    assert found == [[0, 0], [0, 3], [1, 1], [1, 2]]
    with pytest.raises(Unequal, match="twice"):
        kept_elements(before, {"w": torch.tensor([[0.0, 0.0]])})


def test_weights_that_are_tied_no_more_count_by_what_they_compute():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(3, 8), nn.Linear(3, 8)
            self.down.weight = self.up.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.up(x) * self.down(x)).sum(1)

    def pruned(up: list[int], down: list[int]) -> nn.Module:
        found = Tied().double()
        for layer, kept in ((found.up, up), (found.down, down)):
            own = getattr(tied, "up" if layer is found.up else "down")
            layer.weight = nn.Parameter(own.weight[kept].detach().clone())
            layer.bias = nn.Parameter(own.bias[kept].detach().clone())
        return found

    tied = made_distinct(seeded(Tied, 0).double())
    assert check(tied, pruned([0, 2, 5], [0, 2, 5]), normal(4, 3)) < 1e-12
    with pytest.raises(Unequal):
        check(tied, pruned([0, 2, 5], [0, 2, 6]), normal(4, 3))


def test_channels_that_no_surgery_could_remove_are_a_wrong_result_of_the_peer():
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(3, 8), nn.Linear(3, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            query, key = (one(x).reshape(len(x), 2, -1) for one in (self.query, self.key))
            return (query * key).sum(2)

    original = made_distinct(seeded(Heads, 0).double())
    pruned = copy.deepcopy(original)
    for layer in (pruned.query, pruned.key):  # three entries of one head, one of the other
        layer.weight = nn.Parameter(layer.weight[[0, 1, 2, 4]].detach().clone())
        layer.bias = nn.Parameter(layer.bias[[0, 1, 2, 4]].detach().clone())
    with pytest.raises(Unequal, match="no surgery removes these channels"):
        check(original, pruned, normal(4, 3))


def test_channels_that_came_apart_are_found(original):
    pruned = Normed([0, 2, 3, 7], original)
    with torch.no_grad():
        pruned.down.weight.copy_(original.down.weight[:, [0, 2, 3, 6]])
    with pytest.raises(Unequal, match="came apart"):
        check(original, pruned, normal(4, 3))


def test_values_made_up_are_found(original):
    after = {name: one.clone() for name, one in tensors(original).items()}
    after["up.weight"] = after["up.weight"][:4] * 2
    with pytest.raises(Unequal, match="has values that the original has not"):
        kept_elements(tensors(original), after)


def test_a_model_that_computes_in_float32_by_itself_is_given_to_the_peer_so():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(3, 16), nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.up(x).relu()
            return self.down(x @ torch.eye(x.shape[1], dtype=torch.float32))

    (found,) = attempts(seeded(Mixed, 0), normal(4, 3))
    assert "raised" not in found
    assert found["params_gone"] > 0.3
    assert found["proof"] < 1e-4


def test_a_constant_that_repeats_its_numbers_tells_nothing():
    before = {"blur": torch.ones(8, 1, 3, 3)}
    assert bool(kept_elements(before, {"blur": torch.ones(4, 1, 3, 3)})["blur"].all())


def test_onnxsim_is_right_where_a_norm_counts_what_is_left():
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.norm = nn.Conv2d(3, 16, 3), nn.GroupNorm(1, 16)
            self.down = nn.Conv2d(16, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down(self.norm(self.up(x)).relu())

    found = attempt(seeded(Grouped, 0).eval(), normal(2, 3, 8, 8))
    assert "raised" not in found
    assert "unequal" not in found


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_no_number_is_twice_and_the_order_stays(dtype):
    import numpy as np

    array = np.repeat(np.array([[-2.0, -0.0, 0.0], [1.5, -2.0, 1.5]]), 40, axis=0).astype(dtype)
    found = told_apart(array)
    assert found.shape == array.shape
    assert len(np.unique(found)) == array.size
    assert (np.diff(found.reshape(-1)[np.argsort(array, axis=None, kind="stable")]) != 0).all()
    assert np.allclose(found, array, atol=1e-4, rtol=0.1 if dtype == "float16" else 1e-4)
    for low, high in ((-2.0, 0.0), (0.0, 1.5)):
        assert found[array == low].max() < found[array == high].min()


def test_equal_values_in_an_onnx_weight_are_told_apart():
    import numpy as np
    from onnx import helper, numpy_helper

    array = np.array([[1.0, 2.0], [2.0, 3.0], [5.0, 4.0]], dtype=np.float32)
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(array, "w")])
    found = numpy_helper.to_array(distinct(helper.make_model(graph)).graph.initializer[0])
    assert len(np.unique(found)) == array.size
    assert np.allclose(found, array)


# --------------------------------------------------------------------- with calibration inputs

PARTS = 8
"""Tests over which the patterns are spread: each ends long before one that hangs would show."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("part", range(PARTS))
def test_every_pattern_is_planned_and_repaired_with_calibration_inputs(part):
    """One that cannot meet a budget is refused in words; nothing raises anything else."""
    done = 0
    for case in zoo.cases("ops")[part::PARTS]:
        try:
            model, inputs = case.make()
            program = passes.capture(model.eval(), *as_call(inputs))
            own = (program.args, dict(program.kwargs))
            calls = [own, *(randomised(own, seed) for seed in range(1, 6))]
            coupling = passes.couple(program)
            plan = passes.contest(coupling, Budget(channels=0.5), passes.Options(), calls)
            small = passes.apply(passes.Shrink(plan), program).program
            assert passes.prove(plan, small, [own]).holds, case.name
            passes.mend(passes.Repair(plan, calls), small)
            done += 1
        except passes.UsageError:
            continue
        except Exception as error:
            raise AssertionError(f"{case.name}: {error!r}") from error
    assert done > 15
