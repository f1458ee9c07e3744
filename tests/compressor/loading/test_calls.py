"""What a model is called with: turned into arguments, resized, randomised, tried out."""

import pytest
import torch
from compressor.passes.base.errors import UsageError
from compressor.passes.ir.leaves import fresh
from torch import nn

from compressor.loading.calls import Called, as_call, at_batch, check_runs, randomised

X = torch.arange(6.0).reshape(2, 3)


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("inputs", ["x", 3, None, {1, 2}, (), [], {}, (1, "x"), {"x": 3}, X[:0]])
def test_what_holds_no_numbers_is_refused(inputs):
    with pytest.raises(UsageError, match="example inputs"):
        as_call(inputs)


def test_a_model_that_does_not_run_is_refused_with_its_own_words():
    with pytest.raises(UsageError, match="does not run on the example inputs") as caught:
        check_runs(nn.Linear(4, 2), ((X,), {}))
    assert caught.value.where == "(2, 3) float32"
    assert "RuntimeError: mat1 and mat2 shapes" in caught.value.why
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_exception_without_words_is_named():
    class Silent(nn.Module):
        def forward(self, x):
            raise NotImplementedError

    with pytest.raises(UsageError) as caught:
        check_runs(Silent(), ((X,), {}))
    assert caught.value.why == "NotImplementedError"


# ---------------------------------------------------------------------------- arguments


def test_a_tensor_is_one_argument():
    assert as_call(X) == ((X,), {})


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_sequence_is_several_arguments(kind):
    args, kwargs = as_call(kind([X, 3]))
    assert (args, kwargs) == ((X, 3), {})


def test_a_dict_is_arguments_by_name():
    inputs = {"x": X, "scale": 2.0}
    args, kwargs = as_call(inputs)
    assert (args, kwargs) == ((), inputs)
    assert kwargs is not inputs


def test_tensors_may_be_nested():
    assert as_call(({"pair": [X, X]},))[0][0]["pair"][1] is X


# ---------------------------------------------------------------------------- batches


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_samples_are_repeated_or_cut(size):
    mask = torch.ones(3)
    args, kwargs = at_batch(((X, mask, 7), {"ids": [X.long()]}), 2, size)
    wanted = torch.cat([X, X, X])[:size]
    assert torch.equal(args[0], wanted)
    assert args[1] is mask
    assert args[2] == 7
    assert torch.equal(kwargs["ids"][0], wanted.long())


@pytest.mark.parametrize("batch", [None, 2])
def test_a_fixed_or_fitting_batch_is_left_as_it_is(batch):
    call: Called = ((X,), {})
    assert at_batch(call, batch, 2) is call


# ---------------------------------------------------------------------------- random inputs


def test_random_inputs_have_the_same_shapes_and_types():
    call = ((X, X.double()), {"ids": X.long(), "flag": True, "mask": X > 2})
    args, kwargs = randomised(call, 0)
    assert [(one.shape, one.dtype) for one in args] == [(one.shape, one.dtype) for one in call[0]]
    assert not torch.equal(args[0], X)
    assert kwargs == call[1]


def test_random_inputs_depend_on_the_seed_alone():
    state = torch.get_rng_state()
    first, again, other = (randomised(((X,), {}), seed)[0][0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------------------- trying out


class Careless(nn.Module):
    """Writes into its input and replaces a buffer."""

    calls: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, by=1):
        self.calls = self.calls + by
        return x.add_(1)


def test_trying_out_leaves_inputs_and_buffers_alone():
    model, x = Careless(), X.clone()
    check_runs(model, ((x,), {"by": 2}))
    assert torch.equal(x, X)
    assert model.calls == 0


def test_fresh_inputs_are_copies():
    given = {"x": X, "rest": (3, [X])}
    copied = fresh(given)
    assert torch.equal(copied["rest"][1][0], X)
    assert copied["x"].data_ptr() != X.data_ptr()
    assert copied["rest"][0] == 3
