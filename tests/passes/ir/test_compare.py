"""What "equal" means, of numbers, of what is none, and of flags; and when nothing was compared."""

import numpy as np
import pytest
import torch
from compressor.passes.base.errors import WrongError
from compressor.passes.calibration.steps_of_numbers import loose, output_names, sources
from compressor.passes.ir.compare import CONSTANT, NONE, Output, Seen, gap, merged, refuse_nothing
from torch import Tensor, nn

from compressor import passes
from models._random import normal, seeded
from tests.passes.proof.test_equal import plan_without_rows
from tests.passes.support import shrunk

INF, NAN = float("inf"), float("nan")


def distance(a, b) -> float:
    return gap(np.array(a), np.array(b)).slices


@pytest.mark.parametrize("same", [[NAN, 1.0], [INF, 1.0], [-INF, 1.0], [NAN, INF]])
def test_what_is_no_number_equals_itself(same):
    assert distance(same, same) == 0


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([INF, 1.0], [-INF, 1.0]),
        ([NAN, 1.0], [INF, 1.0]),
        ([NAN, 1.0], [0.0, 1.0]),
        ([0.0, 1.0], [INF, 1.0]),
        ([NAN, 1.0], [1.0, NAN]),
        ([True, False], [True, True]),
        ([1, 2], [1, 3]),
        ([1.0, 0.0], [True, False]),
        ([1.0], [1.0, 1.0]),
    ],
)
def test_anything_else_there_is_infinitely_far(a, b):
    assert distance(a, b) == INF


def test_a_difference_in_a_small_slice_counts_by_that_slice():
    boxes = np.array([[640.0, 0.6], [320.0, 0.5]])
    wrong = boxes + np.array([[0.0, 0.006]])
    assert gap(boxes, wrong).whole < 1e-5
    assert gap(boxes, wrong, axes=(1,)).slices == pytest.approx(0.006 / 1.24, rel=1e-6)


def test_complex_numbers_are_compared_as_numbers():
    assert distance([1 + 1j], [1 + 1j]) == 0
    assert distance([1 + 1j], [1 + 2j]) == pytest.approx(1, rel=1e-2)


def seen(*results) -> str:
    found = Seen()
    for one in results:
        found.add(np.array(one))
    return found.why


def test_an_output_says_something_where_finite_numbers_change():
    assert seen([1.0, NAN], [2.0, NAN]) == ""
    assert seen([True, False], [True, True]) == ""
    assert seen([1.0, 2.0], [1.0, 2.0]) == CONSTANT
    assert seen([0.0], [-0.0]) == CONSTANT
    assert seen([NAN, INF], [INF, NAN]) == NONE
    assert seen([NAN, 1.0], [NAN, 1.0]) == CONSTANT


def test_what_was_compared_once_was_compared():
    first = [Output("a", 0, 0, NONE), Output("b", 0, 0, NONE)]
    parts = [first, [Output("a", 1, 2), Output("b", 0, 0, CONSTANT)]]
    assert [(one.why, one.max_rel) for one in merged(parts)] == [("", 2), (NONE, 0)]
    refuse_nothing(merged(parts), "a test")
    with pytest.raises(WrongError, match="nothing could be compared by a test") as caught:
        refuse_nothing(merged([parts[0]]), "a test")
    assert "b: it holds no finite number" in caught.value.where


# ---------------------------------------------------------------------------- steps of numbers


class Net(nn.Module):
    """Two layers, and something done to their result."""

    def __init__(self, last) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 12), nn.Linear(12, 6), last

    def forward(self, x: Tensor):
        return self.last(self.second(torch.relu(self.first(x))))


def program_of(last) -> passes.Program:
    return passes.capture(seeded(lambda: Net(last), 1), (normal(4, 5),), {})


STEPS = {
    "flags": lambda y: y > 0,
    "classes": lambda y: y.argmax(1),
    "order": lambda y: y.sort(1)[1],
    "best": lambda y: y.topk(2)[1],
    "flags as numbers": lambda y: (y > 0).float() * 2,
    "counts": lambda y: (y > 0).sum(1),
    "rounded": lambda y: (y * 10).round(),
    "signs": lambda y: torch.sign(y),
    "small integers": lambda y: (y * 10).to(torch.int8),
    "a share": lambda y: (y > 0).float().mean(1),
    "never true": lambda y: y > 1e9,
}


@pytest.mark.parametrize("name", STEPS)
def test_the_numbers_before_a_step_are_proven(name):
    program = program_of(STEPS[name])
    plan = plan_without_rows(passes.couple(program))
    small = shrunk(plan)
    proof = passes.prove(plan, small, [(program.args, {})])
    assert [one.why for one in proof.outputs] == [""]
    assert "numbers before it" in proof.outputs[0].note
    with torch.no_grad():
        small.tensors()["second.bias"].add_(1e-6)  # too little for any entry to flip
    with pytest.raises(passes.WrongError, match="the surgery is wrong"):
        passes.prove(plan, small, [(program.args, {})])


NUMBERS = {
    "plain": lambda y: y,
    "masked": lambda y: torch.where(y > 0, y, 0.0),
    "best": lambda y: y.topk(2)[0],
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_no_steps(name):
    program = program_of(NUMBERS[name])
    assert sources(program.module, [normal(4, 5)]) == [()]


def test_tokens_are_no_steps_and_their_embeddings_are_numbers():
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.embed(x + 1)).mean(1)

    program = passes.capture(seeded(Words, 1), (torch.arange(6).reshape(2, 3),), {})
    assert sources(program.module, list(program.args)) == [()]


def test_only_what_rounding_flips_is_loose():
    class Over(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 2) > 2

    program = passes.capture(Over(), (torch.ones(2, 3),), {})
    given = torch.tensor([[1.0, 1 + 1e-6, 3.0], [1.1, 0.5, 1 - 1e-6]])
    (before,) = sources(program.module, [given])
    (free,) = loose(program.module, [given], before, 1e-4)
    assert free is not None
    assert free.tolist() == [[True, True, False], [False, False, True]]


def test_outputs_have_the_names_of_the_result():
    assert output_names(program_of(lambda y: y).module) == ["output"]
    named = program_of(lambda y: {"scores": y, "best": (y.argmax(1), y > 0)})
    first, *others = output_names(named.module)
    assert first == "output['scores']"
    assert others == ["output['best'][0]", "output['best'][1]"]


# ---------------------------------------------------------------------------- nothing was compared

MUTE = {
    "NaN": lambda y: torch.log(-y.relu() - 1),
    "infinite": lambda y: y + INF,
    "zero": lambda y: y * 0,
    "a constant": lambda y: y * 0 + torch.arange(6.0),
    "saturated": lambda y: torch.sigmoid(y.abs() * 1e6 + 1e6),
    "a threshold of a constant": lambda y: y * 0 > 1,
}


@pytest.mark.parametrize("name", MUTE)
def test_a_network_whose_outputs_say_nothing_is_not_proven(name):
    program = program_of(MUTE[name])
    plan = plan_without_rows(passes.couple(program))
    with pytest.raises(passes.WrongError, match="nothing could be compared by the proof") as caught:
        passes.prove(plan, shrunk(plan), [(program.args, {})])
    assert caught.value.exit_code == 5
    assert caught.value.where.startswith("output: it ")


def test_outputs_that_say_nothing_are_named_beside_one_that_does():
    program = program_of(lambda y: {"scores": y, "zero": y * 0, "nan": y * NAN, "mask": y < -1e9})
    plan = plan_without_rows(passes.couple(program))
    proof = passes.prove(plan, shrunk(plan), [(program.args, {})])
    assert {one.name: one.why for one in proof.outputs} == {
        "output['scores']": "",
        "output['zero']": CONSTANT,
        "output['nan']": NONE,
        "output['mask']": "",  # by the numbers before it
    }


def test_other_weights_and_other_inputs_move_what_is_still():
    class Shut(Net):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(super().forward(x))

    model = seeded(lambda: Shut(lambda y: y), 1)
    with torch.no_grad():
        model.second.weight.zero_()
        model.second.bias.fill_(1e4)
    program = passes.capture(model, (normal(4, 5),), {})
    plan = plan_without_rows(passes.couple(program))
    assert passes.prove(plan, shrunk(plan), [(program.args, {})]).outputs[0].why == ""
    far = program_of(lambda y: torch.clamp(y * 1e-6, min=1e-5))
    plan = plan_without_rows(passes.couple(far))
    assert passes.prove(plan, shrunk(plan), [(far.args, {})]).outputs[0].why == ""


def test_a_model_of_equal_tokens_is_proven():
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.first, self.last = nn.Embedding(9, 6), nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.first(self.embed(x)))).mean(1)

    program = passes.capture(seeded(Words, 1), (torch.zeros(2, 3, dtype=torch.long),), {})
    plan = plan_without_rows(passes.couple(program))
    assert passes.prove(plan, shrunk(plan), [(program.args, {})]).outputs[0].why == ""
