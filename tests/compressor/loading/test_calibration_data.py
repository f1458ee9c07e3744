"""Calibration data: every form that users have it in, and what is refused."""

import numpy as np
import pytest
import torch
from compressor.passes import Budget
from compressor.passes.base.errors import UsageError
from compressor.passes.ir.program import Program
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from compressor import compress
from compressor.loading.calibration_data import BATCH, Data
from tests.compressor import samples

X = torch.randn(150, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(150)


def program(*args, batch=2, axes=None, **kwargs):
    """All that `Data` looks at of a network: what it is called with."""
    return Program(nn.Module(), args, kwargs, batch=batch, axes=axes or {})


ONE = program(torch.zeros(2, 3))
TWO = program(torch.zeros(2, 3), torch.zeros(2, 3))
NAMED = program(ids=torch.zeros(2, 3), mask=torch.zeros(2, dtype=torch.long))


def joined(data):
    return torch.cat([batch.args[0] for batch in data])


class Squares(torch.utils.data.Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, index):
        return X[index], index**2


# ---------------------------------------------------------------------------- forms


@pytest.mark.parametrize(
    "source",
    [
        X,
        [X[:100], X[100:]],
        (X[:100], X[100:]),
        [(X[:100],), [X[100:]]],
        DataLoader(TensorDataset(X), 32),
        iter(X.split(7)),
        (part for part in X.split(7)),
        lambda: iter(X.split(7)),
        lambda: X,
    ],
)
def test_inputs_come_in_any_form_and_can_be_gone_through_again(source):
    data = Data(source, ONE)
    assert not data.labelled
    for _ in range(2):
        assert torch.equal(joined(data), X)


@pytest.mark.parametrize(
    "source",
    [
        (X, Y),
        [(X[:100], Y[:100]), [X[100:], Y[100:]]],
        DataLoader(TensorDataset(X, Y), 32),
        lambda: zip(X.split(7), Y.split(7), strict=True),
    ],
)
def test_pairs_of_inputs_and_targets_are_told_from_inputs_by_their_shapes(source):
    data = Data(source, ONE)
    assert data.labelled
    assert torch.equal(joined(data), X)
    assert torch.equal(torch.cat([batch.target for batch in data]), Y)


def test_two_tensors_are_inputs_where_the_model_takes_two():
    batch = next(iter(Data([(X, X)], TWO)))
    assert len(batch.args) == 2
    assert batch.target is None


def test_inputs_of_a_pair_may_be_several():
    batch = next(iter(Data([((X, X), Y)], TWO)))
    assert len(batch.args) == 2
    assert torch.equal(batch.target, Y)


def test_arguments_by_name_are_put_in_the_order_of_the_example():
    batch = next(iter(Data([{"mask": Y, "ids": X}], NAMED)))
    assert list(batch.kwargs) == ["ids", "mask"]


def test_a_name_that_the_model_does_not_take_is_the_target():
    batch = next(iter(Data([{"ids": X, "mask": Y, "labels": Y}], NAMED)))
    assert list(batch.kwargs) == ["ids", "mask"]
    assert torch.equal(batch.target, Y)


def test_a_dict_of_all_samples_is_cut_into_batches():
    data = Data({"ids": X, "mask": Y}, NAMED)
    assert [len(batch.kwargs["mask"]) for batch in data] == [BATCH, BATCH, 150 - 2 * BATCH]


def test_samples_of_a_dataset_are_gathered_into_batches():
    batches = list(Data(Squares(), ONE))
    assert [len(batch.args[0]) for batch in batches] == [BATCH, 100 - BATCH]
    assert int(batches[1].target[-1]) == 99**2


def test_free_axes_may_have_other_sizes():
    batches = [torch.zeros(1, 5), torch.zeros(4, 9)]
    assert len(list(Data(batches, program(torch.zeros(2, 3), axes={0: {1: "time"}})))) == 2


def test_a_fixed_batch_size_is_not_cut():
    fixed = program(torch.zeros(150, 3), batch=None)
    assert [len(batch.args[0]) for batch in Data(X, fixed)] == [150]


def test_numbers_are_converted_to_the_precision_of_the_model():
    assert next(iter(Data([X.double()], ONE))).args[0].dtype == torch.float32


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("source", [[], iter([]), list, X[:0]])
def test_no_batches_are_refused(source):
    with pytest.raises(UsageError, match="hold no"):
        Data(source, ONE)


@pytest.mark.parametrize("source", [3, None, lambda: 3, object()])
def test_what_cannot_be_gone_through_is_refused(source):
    with pytest.raises(UsageError, match="the calibration data are"):
        Data(source, ONE)


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (X[:, :2], "[150, 2] where the model takes [any, 3]"),
        (X[0], "[3] where the model takes [any, 3]"),
        (X.long(), "int64 where the model takes float32"),
        (np.zeros((2, 3)), "inputs are ndarray"),
        ({"x": X}, "the names x where the model takes 1 argument"),
        ((X, X, X), "3 arguments where the model takes 1 argument"),
        ((Y, X), "as a pair: [150] where the model takes [any, 3]"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_batch_and_the_reason(item, why):
    with pytest.raises(UsageError, match="do not fit the model") as caught:
        list(Data([X, item], ONE))
    assert caught.value.where == "batch 2"
    assert why in caught.value.why


def test_inputs_of_different_lengths_are_refused():
    with pytest.raises(UsageError) as caught:
        Data([(X, X[:3])], TWO)
    assert "differ in length: [3, 150]" in caught.value.why


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(bad):
    with pytest.raises(UsageError, match="NaN or infinite") as caught:
        list(Data([X, X + bad], ONE))
    assert caught.value.where == "batch 2"


def test_what_the_users_iterable_raises_is_told_with_its_batch():
    def broken():
        yield X
        raise OSError("disk gone")

    with pytest.raises(UsageError, match="raised an exception") as caught:
        Data(broken(), ONE)
    assert caught.value.where == "batch 2"
    assert caught.value.why == "OSError: disk gone"


# ---------------------------------------------------------------------------- a build


def test_a_build_keeps_its_data():
    batches = torch.randn(70, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    inputs = samples.example_inputs()
    built = compress(samples.net(), inputs, budget=Budget(macs=0.5), data=batches)
    assert built.data is not None
    assert torch.equal(joined(built.data), batches)


def test_a_build_refuses_data_for_another_model():
    with pytest.raises(UsageError, match="do not fit the model"):
        compress(
            samples.net(), samples.example_inputs(), budget=Budget(macs=0.5), data=torch.zeros(4, 7)
        )


def test_a_build_with_data_repairs_itself_and_says_so():
    batches = torch.randn(192, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    model, inputs = samples.net(), samples.example_inputs()
    plain = compress(model, inputs, budget=Budget(macs=0.5))
    built = compress(model, inputs, budget=Budget(macs=0.5), data=batches)
    assert any("sliced, not repaired" in line for line in plain.report["warnings"])
    assert not any("sliced, not repaired" in line for line in built.report["warnings"])
    found = built.report["repair"]
    assert found["samples"] == {"given": 192, "used": 192, "held_out": 32}
    assert found["divergences"][found["chosen"]] == min(found["divergences"].values())
    fresh = torch.randn(256, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = model(fresh)
        near = (built.module(fresh) - wanted).square().mean()
        assert near < (plain.module(fresh) - wanted).square().mean()
    assert built.proof.holds


# ---------------------------------------------------------------------------- data that are none

NOTHING = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def net():
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))


def forgot():
    torch.randn(64, 16).split(8)


def no_list():
    return []


def no_generator():
    yield from ()


def no_rows():
    return torch.zeros(0, 16)


def no_samples():
    return DataLoader(TensorDataset(torch.zeros(0, 16)))


def nothings():
    return [None, None]


def some():
    return [(torch.randn(8, 16), torch.zeros(8, dtype=torch.long))] * 2
"""


@pytest.mark.parametrize(
    ("callable_", "option"),
    [
        *((one, "--data nothing.py:{}") for one in ("no_list", "no_generator", "no_rows")),
        *((one, "--train-data nothing.py:{} --distill 1") for one in ("no_list", "nothings")),
        ("forgot", "--data nothing.py:{}"),
        ("forgot", "--train-data nothing.py:{} --distill 1"),
        ("forgot", "--data nothing.py:some --evaluate accuracy --eval-data nothing.py:{}"),
        ("no_samples", "--data nothing.py:some --evaluate accuracy --eval-data nothing.py:{}"),
    ],
)
def test_a_callable_that_returns_no_data_is_an_error(callable_, option, command, project):
    (project / "nothing.py").write_text(NOTHING)
    line = f"build nothing.py:net --input-shape 1,16 --macs 0.5 -o out {option.format(callable_)}"
    done = command(line)
    assert done.exit_code == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "returned None" in done.stderr or callable_ != "forgot"
    assert not (project / "out").exists()


def test_a_file_of_functions_that_returns_no_data_is_an_error(command, project):
    text = NOTHING + "def load_model():\n    return net()\ndef calibration_data():\n    forgot()\n"
    (project / "forgetful.py").write_text(text)
    done = command("build forgetful.py --input-shape 1,16 --macs 0.5 -o out")
    assert done.exit_code == 2
    assert "forgetful.py:calibration_data returned None" in done.stderr
    for option in ("--inputs nothing.py:forgot", "--inputs nothing.py:no_list"):
        (project / "nothing.py").write_text(NOTHING)
        assert command(f"build nothing.py:net {option} --macs 0.5 -o out").exit_code == 2


@pytest.mark.parametrize("source", [[], (), iter(()), lambda: None, list, {}])
def test_empty_data_from_python_are_an_error(source):
    with pytest.raises(UsageError):
        compress(samples.net(), samples.example_inputs(), budget=Budget(macs=0.5), data=source)
