"""Random networks, a few of them; and every network that once failed, forever."""

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from compressor.passes.operators import RULES
from typer.testing import CliRunner

from benchmarks.__main__ import RESULTS, app
from compressor import passes
from models.catalog import CATALOG
from tests.tools.fuzz import check as checking
from tests.tools.fuzz import inflate, reduce, wrong
from tests.tools.fuzz.check import Found, check, due
from tests.tools.fuzz.genome import Genome, Step, parse
from tests.tools.fuzz.inflate import check_pair
from tests.tools.fuzz.network import Network, Unfit, grown
from tests.tools.fuzz.steps import STEPS
from tests.tools.fuzz.tally import Tally, merged
from tests.tools.fuzz.trace import traced

KEPT = sorted((Path(__file__).parent / "fuzz" / "kept").glob("*.txt"))
PLAIN = """seed = 3
x1 = image(channels=3, size=4)
x2 = conv(x1, width=8, kernel=3)
x3 = unary(x2, fns=['relu'])
x4 = conv(x3, width=8, kernel=1)
x5 = binary(x4, x2, fn='add')
x6 = head(x5, how='mean', width=3)
"""


# ---------------------------------------------------------------------------- networks


@pytest.mark.parametrize("seed", range(12))
def test_removing_equals_silencing_in_a_random_network(seed):
    found = check(grown(seed).genome)
    assert not found.failed, found.trace


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning")
def test_it_does_in_many_and_onnx_runtime_agrees():
    for seed in range(1_000_000, 1_000_300):
        found = check(grown(seed).genome, onnx=seed % 15 == 0, plans=2)
        assert not found.failed, (seed, found.trace)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_once_failed_does_not_fail_again(path):
    found = check(parse(path.read_text()), plans=reduce.PLANS)
    assert not found.failed, found.trace


@pytest.mark.parametrize("seed", range(5))
def test_what_was_added_by_hand_can_be_taken_out_again(seed):
    counts: Counter[str] = Counter()
    assert check_pair(seed, counts) == ""
    assert counts["dead channels removed"] > 0


def test_taking_out_a_living_channel_is_noticed(monkeypatch):
    def living(pair, coupling):
        group = max(coupling.groups, key=lambda group: group.size)
        return passes.Plan(coupling, passes.Budget(channels=0.5), group.cells[0][:1]), 1

    monkeypatch.setattr(inflate, "dead_plan", living)
    assert "outputs differ" in check_pair(1, Counter())


def test_columns_are_matched_in_order():
    narrow = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0))
    wide = torch.cat([torch.randn(4, 2, 2), narrow[:, :1], torch.randn(4, 1, 2), narrow[:, 1:]], 1)
    assert inflate.matched(narrow, wide, 1).tolist() == [2, 4, 5]
    with pytest.raises(Unfit, match="the dead channels change the living ones"):
        inflate.matched(narrow, wide.flip(1), 1)


# ---------------------------------------------------------------------------- steps

ALL_KINDS = {
    "image": {"channels": 3, "size": 4},
    "sound": {"channels": 3, "length": 6},
    "volume": {"channels": 2, "size": 3},
    "tokens": {"length": 4, "channels": 5},
    "vector": {"channels": 5},
    "words": {"length": 4, "count": 9},
}


def every_step(kind: str, drawn: int = 300) -> Network:
    """One network with every word of every step table that reads a stream of this kind."""
    rng, network = Random(1), Network(Genome(1, ()))
    done: set[Any] = set()
    first = {"words": "embed", "tokens": "linear", "vector": "linear"}.get(kind, "conv")
    network.add(Step("x1", kind, (), ALL_KINDS[kind]))
    width: dict[str, Any] = {"width": 8} if first == "embed" else {"width": 8, "bias": True}
    asked: dict[str, dict[str, Any]] = {"conv": {"kernel": 1}, "linear": {"how": "layer"}}
    more = asked.get(first, {})
    x = network.add(Step("x2", first, ("x1",), {**width, **more}))
    if kind == "words":
        network.add(Step("x3", "bag", ("x1",), {"width": 8, "mode": "sum"}))
    for op, step in STEPS.items():
        for _ in range(drawn if x.kind in step.takes else 0):
            options = step.draw(rng, x)
            others = step.find(rng, x, [x])
            if options is None or others is None or options.get("fn") == "item":
                continue
            words = [(key, word) for key in options for word in flat(options[key])] or [("", "")]
            new = {(op, word) for word in words} - done
            if new:
                try:
                    network.add(Step(f"x{len(network.streams) + 1}", op,
                                     (x.name, *(o.name for o in others)), options))  # fmt: skip
                except Unfit:
                    continue
                done |= new
    return network


def flat(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


@pytest.mark.slow
def test_some_step_meets_every_rule():
    met = set()
    for kind in ALL_KINDS:
        network = every_step(kind)
        met |= checking.exercised(passes.couple(traced(network, network.inputs)))
    assert set(map(str, RULES)) <= met


# ---------------------------------------------------------------------------- genomes


def test_a_genome_prints_and_parses():
    genome = grown(5).genome
    assert parse(str(genome)) == genome
    assert parse("# a comment\n" + PLAIN) == parse(PLAIN)


@pytest.mark.parametrize("line", ["x1 = 3", "image(size=3)", "x1 = image(size=print())"])
def test_what_is_no_genome_is_refused(line):
    with pytest.raises(ValueError, match=r"not a step|malformed"):
        parse(line)


def test_the_same_seed_is_the_same_network_with_the_same_weights():
    before = torch.random.get_rng_state()
    one, two = grown(7), grown(7)
    assert torch.equal(torch.random.get_rng_state(), before)
    again = Network(parse(str(one.genome)))
    for other in (two, again):
        assert other.genome == one.genome
        for (name, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
            assert torch.equal(a, b), name
        assert all(map(torch.equal, one(*one.inputs), other(*other.inputs)))


def test_a_step_keeps_its_weights_when_others_are_cut_out():
    whole = parse(PLAIN)
    part = whole.without({"x3", "x5"})
    assert [str(step) for step in part.steps][-2:] == [
        "x4 = conv(x2, width=8, kernel=1)",
        "x6 = head(x4, how='mean', width=3)",
    ]
    a, b = Network(whole), Network(part)
    assert torch.equal(a.parts["x4"].weight, b.parts["x4"].weight)


@pytest.mark.parametrize(
    "step",
    [
        Step("x9", "conv", ("x6",), {"width": 3, "kernel": 1}),
        Step("x9", "conv", ("x8",), {"width": 3, "kernel": 1}),
        Step("x9", "binary", ("x1", "x2"), {"fn": "add"}),
        Step("x9", "unary", ("x2",), {"fns": ["nothing"]}),
        Step("x9", "longer", ("x2",), {}),
    ],
)
def test_a_step_that_does_not_fit_says_so(step):
    with pytest.raises(Unfit):
        Network(parse(PLAIN)).add(step)


# ---------------------------------------------------------------------------- findings


def broken(monkeypatch):
    """The surgery, with a mistake: the first parameter that shrinks is twice too large."""
    right = passes.Shrink.run

    def run(self, before):
        result = right(self, before)
        tensors = result.program.tensors()
        name = next(n for n, t in tensors.items() if t.shape != before.tensors()[n].shape)
        with torch.no_grad():
            tensors[name].mul_(2)
        return result

    monkeypatch.setattr(passes.Shrink, "run", run)
    monkeypatch.setattr(passes.Shrink, "ensures", lambda *_: None)  # it would see this earlier


def test_a_mistake_in_the_surgery_is_found_and_cut_down(monkeypatch):
    genome = parse(PLAIN)
    assert check(genome).outcome == "equal"
    broken(monkeypatch)
    found = check(genome)
    assert found.outcome == "wrong"
    assert "the surgery is wrong" in found.why
    small = reduce.reduced(genome, reduce.like(found))
    assert len(small.steps) < len(genome.steps)
    assert check(small, plans=reduce.PLANS).outcome == "wrong"


def test_a_mistake_that_the_proof_does_not_see_is_seen_by_the_users_own_module(monkeypatch):
    monkeypatch.setattr(checking.passes, "prove", lambda *_: passes.Proof(0, 0, "float64", 1, ()))
    broken(monkeypatch)
    found = check(parse(PLAIN))
    assert found.outcome == "wrong"
    assert "the user's module with zeros differs" in found.why


def test_whatever_is_raised_is_a_crash_with_its_trace(monkeypatch):
    def couple(program):
        raise KeyError("no such thing")

    monkeypatch.setattr(checking.passes, "couple", couple)
    found = check(parse(PLAIN))
    assert (found.outcome, found.why) == ("crash", "KeyError: 'no such thing'")
    assert "Traceback" in found.trace


def test_plans_are_random_and_remove_something():
    network = grown(1)
    coupling = passes.couple(passes.capture(network, network.inputs, {}))
    plans = list(checking.drawn_plans(coupling, Random(0), 3, Counter()))
    assert len(plans) >= 3
    assert all(len(plan.channels) for plan in plans)


def test_frozen_groups_are_told_apart_by_whose_fault_it_is():
    assert due("is needed whole by softmax")
    assert due("its rows cannot go: is reduced by mean")
    assert not due("no coupling rule for aten.fft_rfft.default")
    genome = parse(PLAIN)
    network = Network(genome)
    coupling = passes.couple(passes.capture(network, network.inputs, {}))
    assert checking.frozen_groups(network, coupling) == {"program output": 1, "reads an input": 1}


# ---------------------------------------------------------------------------- tallies


def test_tallies_add_up_and_survive_a_file():
    one, two = Tally([[0, 3]]), Tally([[3, 5]])
    one.add(Found(0, frozen=Counter({"no coupling rule for x": 2}), groups=6))
    two.add(Found(3, "crash", "KeyError: 1"))
    both = Tally.from_json(json.loads(json.dumps((one + two).to_json())))
    assert (both.seeds, both.networks, both.groups) == ([[0, 5]], 2, 6)
    assert both.failures == {"3": "crash: KeyError: 1"}
    assert both.refused_share == 0.25
    assert set(both.rare) == set(map(str, RULES))


def test_ranges_of_seeds_are_joined():
    assert merged([[5, 9], [0, 5], [20, 30]]) == [[0, 9], [20, 30]]


def test_the_command_runs_and_shows_what_was_found(tmp_path):
    line = ["fuzz", "--seed", "40", "--count", "2", "--onnx", "1", "--inflate", "1"]
    line += ["--genomes", str(tmp_path)]
    before = {path: path.read_bytes() for path in RESULTS.glob("*")}
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.stderr
    assert "2 networks (seeds 40 to 41)" in done.stdout
    assert {path: path.read_bytes() for path in RESULTS.glob("*")} == before
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------- wrong networks


@pytest.mark.parametrize("name", ["chain", "vit", "tagger"])
def test_a_changed_operator_is_found_in_a_reference_model(name):
    told = list(wrong.of_reference(name, seed=1, count=3))
    assert len(told) == 3
    assert "survived" not in {one.kind for one in told}
    assert any(one.kind in ("proof", "parity") for one in told)


@pytest.mark.parametrize("seed", [1, 4, 5])
def test_a_changed_operator_is_found_in_a_random_network(seed):
    assert "survived" not in {one.kind for one in wrong.of_random(seed, count=2)}


def test_a_wrong_network_that_only_onnx_runtime_meets_is_found_by_parity(monkeypatch):
    monkeypatch.setattr(wrong.passes, "prove", lambda *_: passes.Proof(0, 0, "float64", 1, ()))
    told = list(wrong.of_reference("chain", seed=2, count=4))
    assert {one.kind for one in told} <= {"parity", "harmless"}
    assert any(one.kind == "parity" for one in told)


@pytest.mark.slow
def test_changed_operators_are_found_in_all_reference_models_and_fifty_random_networks():
    told = list(wrong.planted(0, 50))
    assert len(told) >= 3 * len(CATALOG) + 50
    assert not [one for one in told if one.kind == "survived"]
