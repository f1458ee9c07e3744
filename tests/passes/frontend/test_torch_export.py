"""From a live module to one flat graph: four ways to capture, and what is said if none works."""

import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor import passes
from models._random import normal, seeded
from tests.passes.cases import Recast


class Two(nn.Module):
    """Two layers; what lies between them is up to the child."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 3)

    def between(self, x: Tensor) -> Tensor:
        return torch.relu(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))


class HardCoded(Two):
    def between(self, x: Tensor) -> Tensor:
        return x.view(2, 8)


class Checked(Two):
    def between(self, x: Tensor) -> Tensor:
        assert x.shape[0] == 2
        return x


class Numpy(Two):
    def between(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.sin(x.detach().numpy()))


class Gradient(Two):
    """Adds the gradient of an energy to its features, as models of molecules do."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            place = x.detach().requires_grad_()
            energy = self.energy(place).sigmoid().sum()
            (force,) = torch.autograd.grad(energy, place)
        return super().forward(x + force)


class Threaded(Two):
    def between(self, x: Tensor) -> Tensor:
        results: list[Tensor] = []
        thread = threading.Thread(target=lambda: results.append(torch.relu(x)))
        thread.start()
        thread.join()
        return results[0]


class Undecided(Two):
    def between(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Named(Two):
    def forward(self, x: Tensor, scale: float = 1.0, *, shift: Tensor) -> dict[str, Tensor]:
        return {"out": self.last(torch.relu(self.first(x) * scale + shift))}


X = normal(2, 5)


def capture(kind: type[nn.Module], *args: object, **kwargs: object) -> passes.Program:
    return passes.capture(seeded(kind, 1), args or (X,), kwargs)


def same(program: passes.Program, kind: type[nn.Module], size: int) -> None:
    x = normal(size, 5, seed=9)
    torch.testing.assert_close(program.module(x), seeded(kind, 1)(x))


# ------------------------------------------------------------------------------ refusals


def test_a_model_that_cannot_be_captured_is_refused_with_the_reason_of_every_attempt(capsys):
    with pytest.raises(passes.UsageError) as caught:
        capture(Undecided)
    error = caught.value
    assert error.what == "the model Undecided cannot be captured"
    parts = [part.split(":")[0] for part in error.why.split("; ")]
    assert parts == ["dynamic batch", "static batch", "strict mode", "make_fx"]
    assert "data-dependent" in error.why
    assert "torch.export.export" in error.hint
    assert error.exit_code == 2
    assert capsys.readouterr() == ("", "")


def test_a_model_that_raises_is_refused_with_its_own_words():
    class Broken(Two):
        def between(self, x: Tensor) -> Tensor:
            raise ValueError("no weights were loaded")

    with pytest.raises(passes.UsageError) as caught:
        capture(Broken)
    assert "static batch: ValueError: no weights were loaded" in caught.value.why


@pytest.mark.parametrize("name", ["code", "graph", "print_readable"])
def test_a_part_with_a_name_that_graphs_keep_for_themselves_is_refused_by_name(name):
    model = nn.Sequential()
    model.add_module(name, nn.Linear(4, 4))
    with pytest.raises(passes.UsageError, match=f"a part called '{name}'"):
        passes.capture(model, (torch.ones(2, 4),), {})


def test_make_fx_refuses_what_is_not_a_plain_tensor():
    class Keyword(Gradient):
        def forward(self, x: Tensor, *, shift: Tensor) -> Tensor:
            return super().forward(x + shift)

    with pytest.raises(passes.UsageError, match="Keyword cannot be captured") as caught:
        capture(Keyword, X, shift=X)
    assert "make_fx captures only models that take plain tensors" in caught.value.why


def test_a_part_that_no_tracer_sees_is_not_taken_for_a_constant():
    with pytest.raises(passes.UsageError, match="Threaded cannot be captured") as caught:
        capture(Threaded)
    assert "ran unseen" in caught.value.why


# ------------------------------------------------------------------------------ the four ways


def test_the_batch_is_dynamic_where_the_model_allows_it():
    program = capture(Two)
    assert (program.engine, program.batch) == ("torch.export, dynamic batch", 2)
    for size in (1, 2, 7):
        same(program, Two, size)


@pytest.mark.parametrize("kind", [HardCoded, Checked])
def test_a_model_that_fixes_its_batch_size_is_captured_with_that_one(kind):
    program = capture(kind)
    assert (program.engine, program.batch) == ("torch.export, static batch", None)
    same(program, kind, 2)


def test_what_only_dynamo_understands_is_captured_in_strict_mode():
    program = capture(Numpy)
    assert (program.engine, program.batch) == ("torch.export, strict mode", None)
    same(program, Numpy, 2)


def test_what_torch_export_does_not_see_is_captured_by_make_fx():
    program = capture(Gradient)
    assert (program.engine, program.batch) == ("make_fx, static shapes", None)
    assert program.tensors().keys() == seeded(Gradient, 1).state_dict().keys()
    (found,) = program.module(X)
    torch.testing.assert_close(found, seeded(Gradient, 1)(X))


def test_a_network_captured_by_make_fx_can_be_shrunk_and_proven():
    coupling = passes.couple(capture(Gradient))
    plan = passes.choose(coupling, passes.Budget(channels=0.5), passes.Options())
    small = passes.apply(passes.Shrink(plan), coupling.program).program
    assert small.tensors()["first.weight"].shape == (4, 5)
    assert passes.prove(plan, small, [((X,), {})]).holds


# ------------------------------------------------------------------------------ inputs


def test_an_example_of_batch_one_is_widened():
    program = capture(Two, normal(1, 5))
    assert program.batch == 2
    assert program.args[0].shape == (2, 5)
    for size in (1, 3):
        same(program, Two, size)


def test_keyword_inputs_and_numbers_are_kept():
    program = capture(Named, X, 0.5, shift=normal(2, 8))
    assert program.batch == 2
    assert list(program.kwargs) == ["shift"]
    x, shift = normal(3, 5, seed=1), normal(3, 8, seed=2)
    found = program.module(x, 0.5, shift=shift)
    torch.testing.assert_close(found, seeded(Named, 1)(x, 0.5, shift=shift))


def test_inputs_that_do_not_share_the_batch_keep_their_size():
    class Table(Two):
        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            return super().forward(x) + table.sum(0)

    program = capture(Table, X, normal(4, 3))
    x, table = normal(6, 5), normal(4, 3)
    torch.testing.assert_close(program.module(x, table), seeded(Table, 1)(x, table))


def test_a_model_without_tensor_inputs_is_captured():
    class Free(Two):
        def forward(self) -> Tensor:
            return self.last(torch.relu(self.first(torch.ones(4, 5))))

    program = passes.capture(seeded(Free, 1), (), {})
    assert (program.engine, program.batch) == ("torch.export, static batch", None)
    torch.testing.assert_close(program.module(), seeded(Free, 1)())


# ------------------------------------------------------------------------------ the graph


def test_nothing_but_the_network_is_left_in_the_graph():
    """Guards would refuse the float64 twin that the proof runs."""
    program = capture(Checked)
    assert {node.op for node in program.module.graph.nodes} == {
        "placeholder", "get_attr", "call_function", "output",
    }  # fmt: skip
    assert all("assert" not in str(node.target) for node in program.calls())
    assert all(node.users for node in program.module.graph.nodes if node.op == "get_attr")


def test_calls_know_the_users_module_and_line():
    from compressor.passes.ir.program import where

    first = next(capture(Two).calls())
    assert where(first).startswith("first (frontend/test_torch_export.py:")


@pytest.mark.parametrize("mode", [torch.enable_grad, lambda: torch.autocast("cpu", enabled=False)])
def test_a_part_in_another_mode_is_a_part_of_the_graph(mode):
    program = passes.capture(seeded(lambda: Recast(mode), 1), (X,), {})
    assert [str(node.target) for node in program.calls()] == [
        "aten.linear.default", "aten.relu.default", "aten.mul.Tensor", "aten.linear.default",
    ]  # fmt: skip
    torch.testing.assert_close(program.module(X), seeded(lambda: Recast(mode), 1)(X))


# ------------------------------------------------------------------------------ the model


@pytest.mark.parametrize("kind", [Two, Undecided], ids=["captured", "refused"])
def test_the_model_is_left_as_it_was(kind):
    model = seeded(kind, 1).train()
    model.last.eval()  # as in a network whose norms are frozen while it is trained
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        passes.capture(model, (X,), {})
    except passes.UsageError:
        assert kind is Undecided
    assert [model.training, model.first.training, model.last.training] == [True, True, False]
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_dropout_and_norms_are_captured_as_they_act_in_eval_mode():
    class Dropping(Two):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.drop = nn.BatchNorm1d(8), nn.Dropout(0.5)

        def between(self, x: Tensor) -> Tensor:
            return self.drop(self.norm(x))

    model = seeded(Dropping, 1).train()
    program = passes.capture(model, (X,), {})
    assert torch.equal(program.module(X), program.module(X))
    torch.testing.assert_close(program.module(X), model.eval()(X))


def test_gradients_are_not_switched_off_for_good():
    capture(Two)
    assert torch.is_grad_enabled()


def test_a_capture_that_computes_something_else_than_the_module_is_not_taken():
    """Here torch.export sees another network than the user runs; make_fx sees the right one."""

    class Sly(Two):
        def between(self, x: Tensor) -> Tensor:
            return x * 2 if torch.compiler.is_compiling() else x

    program = capture(Sly)
    assert program.engine == "make_fx, static shapes"
    (found,) = program.module(X)
    torch.testing.assert_close(found, seeded(Sly, 1)(X))


def test_a_model_that_writes_into_its_buffers_is_captured_and_left_as_it_was():
    class Counting(Two):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def between(self, x: Tensor) -> Tensor:
            self.seen.add_(1)
            return x + self.seen

    model = seeded(Counting, 1)
    program = passes.capture(model, (X,), {})
    assert model.seen.item() == 0
    assert program.tensors()["seen"].item() == 0
