"""A failing case is cut down to the smallest that fails in the same way."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from compressor.passes.base.errors import ContractError, UsageError, WrongError
from torch import Tensor, nn
from typer.testing import CliRunner

from compressor import passes
from compressor.cli.app import app, parsed
from compressor.config import Recipe
from compressor.debug import minimise
from compressor.debug.attempt import failure
from compressor.debug.graph import Net, reduced
from compressor.debug.widths import narrowed
from compressor.loading import load_model
from compressor.process.progress import Watch
from tests.compressor import samples


class Deep(nn.Module):
    """Twelve layers, and one softplus among them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(12))
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor, scale: Tensor) -> dict[str, Tensor]:
        for index, layer in enumerate(self.layers):
            x = nn.functional.softplus(layer(x)) if index == 7 else torch.relu(layer(x))
        return {"scaled": self.head(x) * scale, "plain": x}


def whole() -> Net:
    given = (torch.randn(3, 6), torch.randn(3, 4))
    return Net.of(passes.capture(Deep().eval(), given, {}))


def names(net: Net) -> list[str]:
    module, _ = net.module()
    return [
        node.target._schema.name.removeprefix("aten::")
        for node in module.graph.nodes
        if node.op == "call_function"
    ]


# ---------------------------------------------------------------------------- networks


def test_the_whole_network_gives_what_the_program_gives():
    net = whole()
    module, inputs = net.module()
    scaled, plain = module(*inputs)
    found = net.program.module(*net.program.args)
    assert torch.equal(scaled, found["scaled"])
    assert torch.equal(plain, found["plain"])
    assert len(net.calls) == 26


def test_one_operator_is_found_among_many():
    small, tried = reduced(whole(), lambda net: "softplus" in names(net), most=100)
    assert names(small) == ["softplus"]
    assert tried < 40
    module, inputs = small.module()
    assert module(*inputs)[0].shape == (3, 6)


def test_two_operators_that_fail_together_are_found():
    def fails(net: Net) -> bool:
        return "softplus" in names(net) and "mul" in names(net)

    small, _ = reduced(whole(), fails, most=100)
    assert sorted(names(small)) == ["linear", "mul", "softplus"]  # six wide, then four


def test_no_more_are_tried_than_may_be():
    _, tried = reduced(whole(), lambda net: "softplus" in names(net), most=3)
    assert tried == 3


def test_a_part_is_stored_as_a_program(tmp_path):
    small, _ = reduced(whole(), lambda net: "softplus" in names(net), most=100)
    small.store(tmp_path / "part.pt2")
    model, namespace = load_model(str(tmp_path / "part.pt2"), trust=True)
    module, inputs = small.module()
    assert torch.equal(model(*namespace.example_inputs)[0], module(*inputs)[0])
    model(torch.randn(5, 6))  # the batch is free


# ---------------------------------------------------------------------------- widths


def widths(net: Net) -> list[int]:
    """Results of each layer, in their order."""
    state = net.module()[0].state_dict()
    return [len(state[f"layers.{index}.weight"]) for index in range(12)]


def test_a_failure_that_stays_gets_a_narrow_network():
    net = whole()
    found = narrowed(net, lambda one: "softplus" in names(one), most=100, together=True)
    assert widths(net) == [6] * 12
    assert widths(found.net) == [1] * 11 + [6]  # the last one is an output of the network
    assert names(found.net) == names(net)
    assert (found.tried, found.why) == (3, "no channel can go")
    module, inputs = found.net.module()
    assert [one.shape for one in module(*inputs)] == [(3, 4), (3, 6)]


def test_a_failure_that_needs_its_widths_keeps_the_network_as_it_is():
    net = whole()
    found = narrowed(net, lambda one: widths(one) == [6] * 12, most=100)
    assert found.net is net
    assert found.why == "narrower ones do not fail in the same way"
    assert found.tried == 1 + 3 + 6 + 11  # all, runs of five and of two, single ones


def test_a_layer_that_needs_its_width_is_found_among_others():
    found = narrowed(whole(), lambda one: widths(one)[3] > 4, most=100)
    assert widths(found.net) == [1, 1, 1, 6, *[1] * 7, 6]


def test_widths_are_halved_no_more_often_than_may_be():
    found = narrowed(whole(), lambda net: True, most=2)
    assert widths(found.net) == [2] * 11 + [6]
    assert (found.tried, found.why) == (2, "no more may be tried")


@pytest.mark.parametrize("name", ["couple", "apply"])
def test_a_network_that_cannot_be_coupled_or_cut_stays_as_wide_and_it_says_why(name, monkeypatch):
    def broken(*_: object) -> object:
        raise IndexError("no such label")

    net = whole()
    monkeypatch.setattr(passes, name, broken)
    found = narrowed(net, lambda one: True, most=100)
    assert found.net is net
    assert found.why == "channels cannot be removed: IndexError: no such label"


def test_what_hangs_or_crashes_is_not_coupled_here(monkeypatch):
    monkeypatch.setattr(passes, "couple", lambda *_: pytest.fail("it was coupled"))
    small, why = minimise._cut_down(whole(), lambda net: True, most=4, widths=False)
    assert len(small.calls) < 26
    assert "coupling may be what takes too long" in why


def test_widths_and_operators_are_cut_down_in_turn():
    def fails(net: Net) -> bool:
        return names(net).count("softplus") == 1 and names(net).count("linear") > 2

    small, _ = minimise._cut_down(whole(), fails, most=100, widths=True)
    state = small.module()[0].state_dict()
    assert names(small).count("linear") == 3
    assert small.numbers == sum(one.numel() for one in state.values())
    assert max(len(one) for name, one in state.items() if name.endswith("weight")) == 1


# ---------------------------------------------------------------------------- failures


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_failures_are_alike_by_their_class_and_their_place():
    one = failure(raised(WrongError("they differ by 0.5 at 'conv'")))
    assert one.like(failure(raised(WrongError("they differ by 0.25 at 'head'"))))
    assert not one.like(failure(raised(UsageError("they differ by 0.5 at 'conv'"))))
    assert not one.like(failure(raised(WrongError("something else"))))
    assert not one.like(None)
    assert one.code == 5
    assert failure(raised(ContractError("a pass broke its promise"))).code == 70


# ---------------------------------------------------------------------------- cases


def test_what_is_no_case_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is no case"):
        minimise.read(tmp_path, parsed)
    (tmp_path / "command.txt").write_text("python -m compressor verify out\n")
    with pytest.raises(UsageError, match="'verify' cannot be reduced"):
        minimise.read(tmp_path, parsed)


def test_a_case_is_the_command_of_a_reproducer(tmp_path):
    (tmp_path / "gone.toml").write_text("seed = 3\nmacs = 0.5\n")
    line = "python -m compressor build net.py:net -c elsewhere/gone.toml --ignore 'h.*' -o out"
    (tmp_path / "command.txt").write_text(line + "\n")
    case = minimise.read(tmp_path, parsed)
    assert case.command == "build"
    wanted = {"model": "net.py:net", "seed": 3, "macs": 0.5, "ignore": ("h.*",), "output": "out"}
    assert case.recipe == Recipe.of(**wanted)


@pytest.mark.slow
def test_a_failing_command_is_cut_down_and_fails_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(Path(samples.__file__).read_text())
    Path("command.txt").write_text(
        "python -m compressor plan net.py:net --macs 0.0001 --min-channels 8 --seed 3 --round-to 4 "
        "--uniform -o plan.json\n"
    )
    found = minimise.reduce(
        minimise.read(Path(), parsed), Path("small"), Watch(), most=8, seconds=120
    )
    assert (found.failure.code, found.failure.kind) == (2, "UsageError")
    assert set(found.dropped) >= {"seed", "uniform", "min-channels", "round-to"}
    assert found.recipe.macs == 0.0001
    assert found.sizes is not None, found.why
    before, after = found.sizes.operators
    assert after < before == 9
    assert found.sizes.weights[1] < found.sizes.weights[0]
    model, _ = load_model("small/model.pt2", trust=True)
    assert max(len(one) for one in model.state_dict().values() if one.dim() > 1) <= 10  # of 32
    network = json.loads(Path("small/reduced.json").read_text())["network"]
    assert (network["operators"], network["why"]) == ([before, after], found.sizes.why)
    _, _, line = Path("small/command.txt").read_text().partition("compressor ")
    done = CliRunner().invoke(app, shlex.split(line))
    assert done.exit_code == 2
    assert f"error: {found.failure.text.splitlines()[0][:20]}" in done.stderr


@pytest.mark.slow
def test_a_case_that_does_not_fail_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(Path(samples.__file__).read_text())
    case = minimise.Case("inspect", Recipe.of(model="net.py:net"))
    with pytest.raises(UsageError, match="the case does not fail here"):
        minimise.reduce(case, tmp_path / "small", Watch(), most=1, seconds=120)
    assert not (tmp_path / "small").exists()
