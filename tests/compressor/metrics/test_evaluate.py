"""What a model is worth: names that are refused, ready-made metrics, and drops that end a build."""

import functools

import pytest
import torch
from compressor.passes.base.errors import GateError, UsageError
from sklearn import metrics as peer

from compressor import Budget, compress
from compressor.loading.calibration_data import Batch
from compressor.metrics.evaluate import compared, evaluations, refuse_drop
from compressor.metrics.metric import decided
from tests.compressor import samples

HALF = "build net.py:net --macs 0.5 --bench-seconds 0.1 --allow-slower"


def data(scores: torch.Tensor, targets: torch.Tensor, size: int = 7) -> list[Batch]:
    """Batches whose inputs are the scores that a model is to give."""
    pairs = zip(scores.split(size), targets.split(size), strict=True)
    return [Batch((x,), {}, y) for x, y in pairs]


@pytest.fixture(scope="module")
def guesses() -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of 5 classes for 60 samples, right for some."""
    torch.manual_seed(0)
    targets = torch.randint(0, 5, (60,))
    scores = torch.randn(60, 5) + 1.5 * torch.nn.functional.one_hot(targets, 5)
    return scores, targets


def value(name: str, batches: list[Batch]) -> float:
    (one,) = evaluations(name, batches)
    return one.run(lambda x: x, lambda x: x)[name]


@pytest.mark.parametrize("wanted", ["acuracy", "f2"])
def test_an_unknown_metric_is_refused_with_those_that_there_are(wanted, guesses):
    with pytest.raises(UsageError, match="unknown metric") as refused:
        evaluations(wanted, data(*guesses))
    assert "accuracy, agreement, f1, mse, recall" in str(refused.value)


def test_a_ready_made_metric_without_targets_is_refused(guesses):
    unlabelled = [batch._replace(target=None) for batch in data(*guesses)]
    for batches in (None, unlabelled):
        with pytest.raises(UsageError, match="accuracy is measured on inputs with targets"):
            evaluations("accuracy", batches)
    with pytest.raises(UsageError, match="agreement is measured on inputs"):
        evaluations("agreement", None)


@pytest.mark.parametrize(
    ("scores", "targets", "why"),
    [
        (torch.zeros(4, 3), torch.zeros(4, 2), "needs scores of classes"),
        (torch.zeros(4, 3), torch.zeros(4), "needs whole numbers as targets"),
        (torch.zeros(4, 3), torch.full((4,), 3), "a target is class 3, and the model knows 3"),
        (torch.zeros(4, 1), torch.zeros(4, dtype=torch.long), "needs scores of classes"),
        (torch.zeros(4, 3, dtype=torch.long), torch.zeros(4), "needs a floating-point output"),
    ],
)
def test_targets_that_do_not_fit_are_refused(scores, targets, why):
    with pytest.raises(UsageError, match=why):
        value("accuracy", data(scores, targets))


def test_ready_made_metrics_are_those_of_scikit_learn(guesses):
    scores, targets = guesses
    found = scores.argmax(1)
    wanted = {
        "accuracy": peer.accuracy_score(targets, found),
        "f1": peer.f1_score(targets, found, average="macro"),
        "recall": peer.recall_score(targets, found, average="macro"),
    }
    assert 0.3 < wanted["accuracy"] < 0.9
    for name, one in wanted.items():
        assert value(name, data(scores, targets)) == pytest.approx(one, abs=1e-6), name
    numbers = torch.randn(60, 2)
    assert value("mse", data(numbers, numbers + 2)) == pytest.approx(4, abs=1e-5)


def test_classes_of_pixels_and_of_tokens_are_found_and_padding_is_left_out(guesses):
    scores, targets = guesses
    share = value("accuracy", data(scores, targets))
    pixels = scores.view(15, 4, 5).permute(0, 2, 1)
    assert value("accuracy", data(pixels, targets.view(15, 4))) == pytest.approx(share)
    assert value("accuracy", data(scores.view(6, 10, 5), targets.view(6, 10))) == pytest.approx(
        share
    )
    padded = torch.cat([targets, torch.full((10,), -100)])
    more = torch.cat([scores, torch.zeros(10, 5)])
    assert value("accuracy", data(more, padded)) == pytest.approx(share)


def test_agreement_is_with_the_original_and_needs_no_targets(guesses):
    scores, targets = guesses
    (one,) = evaluations(
        "agreement", [batch._replace(target=None) for batch in data(scores, targets)]
    )
    right = lambda x: torch.nn.functional.one_hot(targets[: len(x)], 5).double()  # noqa: E731
    assert one.run(right, right) == {"agreement": 1.0}
    found = compared([one], lambda x: x, lambda x: x.roll(1, 1))
    assert found == {"agreement": {"original": 1.0, "small": 0.0}}


def test_a_drop_is_what_became_worse_and_the_first_metric_decides():
    found = {
        "accuracy": {"original": 0.9, "small": 0.85},
        "mse": {"original": 1.0, "small": 1.5},
        "loss": {"original": 2.0, "small": 1.0},
    }
    worse = {name: decided(found, name).worse for name in found}
    assert worse == {name: pytest.approx(one) for name, one in
                     {"accuracy": 0.05, "mse": 0.5, "loss": -1}.items()}  # fmt: skip
    assert decided(found, None).name == "accuracy"
    with pytest.raises(UsageError, match="no metric is called 'acc'"):
        refuse_drop(found, 0.05, "acc")
    refuse_drop(found, 0.05)
    with pytest.raises(GateError, match=r"accuracy is worse by 0\.05 \(limit 0\.049\)"):
        refuse_drop(found, 0.049)
    with pytest.raises(GateError, match=r"mse is worse by 0\.5 \(limit 0\.049\)"):
        refuse_drop(found, 0.049, "mse")
    with pytest.raises(GateError, match="accuracy is nan, which keeps no limit"):
        refuse_drop({"accuracy": {"original": 0.9, "small": float("nan")}}, 1)


def test_evaluations_are_called_after_the_function_and_two_may_not_share_a_name():
    class Judge:
        def __call__(self, predict):
            return 0.5

        def rmse(self, predict):
            return 0.25

    def scaled(predict, by):
        return by

    wanted = [Judge().rmse, functools.partial(scaled, by=2), Judge(), lambda predict: 1]
    found = compared(evaluations(wanted, None), None, None)
    values = {name: pair["small"] for name, pair in found.items()}
    assert values == {"rmse": 0.25, "scaled": 2.0, "Judge": 0.5, "metric": 1.0}
    with pytest.raises(UsageError, match="two evaluations measure something that is called 'rmse'"):
        compared(evaluations([Judge().rmse, lambda predict: {"rmse": 1}], None), None, None)


# ---------------------------------------------------------------------------- from the library


@pytest.fixture
def pairs() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pictures with the classes that the sample network gives them."""
    pictures = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return list(
            zip(pictures.split(32), samples.net()(pictures).argmax(1).split(32), strict=True)
        )


def test_the_number_in_the_report_is_that_of_the_exported_models(fast, pairs):
    built = compress(
        samples.net(),
        samples.example_inputs(),
        budget=Budget(macs=0.5),
        evaluate=["accuracy", "agreement", samples.ten],
        eval_data=pairs,
    )
    found = built.report["accuracy"]
    assert list(found) == ["accuracy", "agreement", "ten"]
    from compressor.onnx.runtime import OnnxModel

    model = OnnxModel(built.onnx.data, built.small)
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in pairs)
    assert found["accuracy"] == {"original": 1.0, "small": right / 64}


def test_a_drop_is_refused_by_the_library_too(fast, pairs):
    given = {"budget": Budget(macs=0.3), "evaluate": "accuracy", "eval_data": pairs}
    with pytest.raises(GateError, match="accuracy is worse by"):
        compress(samples.net(), samples.example_inputs(), max_drop=0.001, **given)
    with pytest.raises(UsageError, match="nothing is evaluated"):
        compress(samples.net(), samples.example_inputs(), budget=Budget(macs=0.5), max_drop=0.1)
    with pytest.raises(UsageError, match="--metric would be ignored"):
        compress(
            samples.net(), samples.example_inputs(), budget=Budget(macs=0.5), metric="rmse:min"
        )


def test_a_drop_ends_a_build_with_1_and_leaves_nothing(command, fast, tmp_path):
    asked = f"--evaluate net.py:agreement --max-drop 0.001 -o {tmp_path}/out"
    done = command(f"{HALF} {asked}")
    assert done.exit_code == 1
    assert "error: agreement is worse by" in done.stderr
    assert "(limit 0.001)" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_metric_that_decides_can_be_named(command, fast, tmp_path):
    asked = f"--evaluate net.py:two_numbers --max-drop 0 --metric ten:max -o {tmp_path}/out"
    assert command(f"{HALF} {asked}").exit_code == 0
