"""Training: refusals, what is fed, what is learned, and where a killed run goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compressor.passes.base.errors import UsageError
from compressor.passes.ir.rebuild import with_tensors
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from compressor import Budget, Built, compress
from compressor.config.training import Training
from compressor.loading.calibration_data import Batch, Signature
from compressor.metrics.evaluate import Evaluation
from compressor.process.progress import Watch
from compressor.train.feed import Feed, share
from compressor.train.objectives import features_of, usual_loss
from compressor.train.phases import Task, trained
from models import digits
from models.residual import Residual
from tests.compressor import samples

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.randn(100, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def net(pictures: torch.Tensor) -> nn.Module:
    """The sample network as one that was trained: its statistics are those of its data."""
    model = samples.net()
    model.norm.momentum = None
    model.norm.reset_running_stats()
    with torch.no_grad():
        model.train()(pictures)
        model.norm.momentum = 0.1
        model.eval()
        model.head.weight.mul_(10)
        model.head.bias.copy_(-model(pictures).mean(0))
    return model


@pytest.fixture(scope="module")
def built(pictures: torch.Tensor) -> Built:
    return compress(net(pictures), samples.example_inputs(), budget=Budget(macs=0.5))


@pytest.fixture(scope="module")
def classes(pictures: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return net(pictures)(pictures).argmax(1)


def run(built, source, watch=None, evaluation=None, **settings):
    """The small network after training, and what happened in its only phase."""
    settings = {"learning_rate": 1e-2, **settings}
    judged = () if evaluation is None else (Evaluation("score", evaluation),)
    task = Task(Training(**settings), source, judged)
    small, (found,) = trained(built.original, built.small, built.plan, task, watch or Watch())
    return small, found


def weights(program):
    return {name: one.detach().clone() for name, one in program.tensors().items()}


def assert_same(one, other):
    torch.testing.assert_close(weights(one), weights(other), rtol=0, atol=0)


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"distill": -1}, "distill is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"feature_weight": -1.0}, "feature_weight is -1"),
        ({"precision": "int4"}, "precision is 'int4'"),
        ({"penalty": "l0"}, "penalty is 'l0'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, why):
    with pytest.raises(UsageError, match=why):
        Training(**settings)


def test_fine_tuning_without_targets_is_refused(built, pictures):
    with pytest.raises(UsageError, match="finetune needs targets") as refused:
        run(built, pictures, finetune=1)
    assert "--distill" in str(refused.value)


def test_training_without_data_is_refused():
    with pytest.raises(UsageError, match="nothing to train on"):
        compress(
            samples.net(),
            samples.example_inputs(),
            budget=Budget(macs=0.5),
            training=Training(distill=1),
        )


def test_a_library_that_is_missing_is_named_with_its_command(built, pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)

    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("compressor.base.optional.importlib.import_module", missing)
    with pytest.raises(UsageError, match="training needs accelerate") as refused:
        run(built, pictures, distill=1)
    assert "pip install 'compressor[train]'" in str(refused.value)


def test_one_batch_cannot_be_split_and_an_evaluation_makes_up_for_it(built, pictures):
    with pytest.raises(UsageError, match="nothing can be held out of one batch"):
        run(built, [pictures], distill=1)
    run(built, [pictures], distill=1, evaluation=lambda predict, _: {"score": 1.0})


def test_a_loss_that_diverges_ends_the_run(built, pictures):
    with pytest.raises(UsageError, match="training diverged"):
        run(built, pictures, distill=3, learning_rate=1e30)


def test_targets_that_fit_no_usual_loss_are_refused():
    with pytest.raises(UsageError, match="no usual loss fits"):
        usual_loss([torch.zeros(4, 3)], [torch.zeros(5, dtype=torch.long)])
    with pytest.raises(UsageError, match="1 outputs and 2 targets"):
        usual_loss([torch.zeros(4, 3)], [torch.zeros(4), torch.zeros(4)])


# ---------------------------------------------------------------------------- what is fed


def rows(batches) -> list[float]:
    return [float(value) for batch in batches for value in batch.args[0][:, 0, 0, 0]]


@pytest.mark.parametrize("kind", ["tensor", "dataset", "loader", "batches", "generator"])
def test_each_epoch_has_every_row_once_in_an_order_of_its_own(kind, built, pictures, classes):
    sources = {
        "tensor": pictures,
        "dataset": TensorDataset(pictures, classes),
        "loader": DataLoader(TensorDataset(pictures, classes), 16, shuffle=True),
        "batches": list(pictures.split(16)),
        "generator": iter(pictures.split(16)),
    }
    feed = Feed(sources[kind], built.original, 16, 0, hold_out=False)
    first, second, again = rows(feed.epoch(0)), rows(feed.epoch(1)), rows(feed.epoch(0))
    assert sorted(first) == sorted(second) == sorted(rows([Batch((pictures,), {})]))
    assert first != second
    assert first == again
    assert feed.batches() == 7


@pytest.mark.parametrize("kind", ["tensor", "dataset", "loader", "batches"])
def test_what_is_held_out_is_never_trained_on(kind, built, pictures, classes):
    sources = {
        "tensor": (pictures, classes),
        "dataset": TensorDataset(pictures, classes),
        "loader": DataLoader(TensorDataset(pictures, classes), 5, shuffle=True),
        "batches": list(zip(pictures.split(5), classes.split(5), strict=True)),
    }
    feed = Feed(sources[kind], built.original, 5, 0, hold_out=True)
    trained_on, rest = rows(feed.epoch(0)) + rows(feed.epoch(1)), rows(feed.held_out())
    assert len(rest) == 10
    assert not set(rest) & set(trained_on)
    assert len(set(rest) | set(trained_on)) == 100
    assert all(batch.target is not None for batch in feed.held_out())


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_shares_of_all_processes_are_the_batch_and_weigh_like_its_rows(count, built, pictures):
    signature = Signature((built.original.args, {}), built.original.batch, {})
    batch = Batch((pictures[:33],), {}, torch.arange(33))
    parts = [share(batch, rank, count, signature) for rank in range(count)]
    assert torch.equal(torch.cat([part.args[0] for part, _ in parts]), pictures[:33])
    assert torch.cat([part.target for part, _ in parts]).tolist() == list(range(33))
    means = [weight * part.target.double().mean() for part, weight in parts]
    assert sum(means) / count == pytest.approx(16.0)


# ---------------------------------------------------------------------------- what is learned


@pytest.fixture(scope="module")
def halved() -> Built:
    """A trained network that lost more than a third of its accuracy with half of its work."""
    return compress(digits.digits_resnet(), digits.example_inputs(), budget=Budget(macs=0.5))


def test_distillation_needs_no_labels_and_leaves_the_others_alone(halved):
    images = digits.data().train_images
    before, original = weights(halved.small), weights(halved.original)
    small, found = run(halved, images, distill=2, learning_rate=2e-3)
    assert found["scores"][found["best"]] > 0.5 * found["scores"][0]  # negative errors
    assert len(found["losses"]) == 2 * 17  # a tenth of 1198 is held out
    assert digits.accuracy(halved.small.module)["accuracy"] < 0.7
    assert digits.accuracy(small.module)["accuracy"] > 0.95
    torch.testing.assert_close(weights(halved.small), before, rtol=0, atol=0)
    torch.testing.assert_close(weights(halved.original), original, rtol=0, atol=0)


def test_fine_tuning_learns_the_targets(halved):
    images, labels = digits.data()[:2]
    small, found = run(halved, (images, labels), finetune=2, learning_rate=2e-3)
    assert found["losses"][-1] < 0.5 * found["losses"][0]
    assert digits.accuracy(small.module)["accuracy"] > 0.95


def test_the_users_own_loss_is_given_what_the_model_returns(built, pictures, classes):
    seen = []

    def loss(outputs, target):
        seen.append((outputs.shape, target.shape))
        return (outputs - 3).square().mean()

    _, found = run(built, (pictures, classes), finetune=2, batch_size=30, loss=loss)
    assert ((30, 10), (30,)) in {tuple(map(tuple, pair)) for pair in seen}
    assert found["losses"][-1] < found["losses"][0]


def test_the_best_state_is_what_comes_out_even_the_first(built, pictures):
    scores = iter([0.5, 0.7, 0.6, 0.6, 0.9])
    best, found = run(
        built, pictures, distill=4, patience=2, evaluation=lambda *_: {"score": next(scores)}
    )
    assert found["scores"] == [0.5, 0.7, 0.6, 0.6]
    assert found["best"] == 1
    assert found["stopped"] == "no better score in 2 epochs"
    scores = iter([0.5, 0.7])
    once, _ = run(built, pictures, distill=4, evaluation=lambda *_: {"score": next(scores, 0.0)})
    assert_same(best, once)
    worse = iter([0.9, 0.1, 0.1, 0.1])
    same, found = run(built, pictures, distill=4, evaluation=lambda *_: {"score": next(worse)})
    assert found["best"] == 0
    assert_same(same, built.small)


def test_a_metric_that_is_better_when_lower_is_made_small(built, pictures):
    task = Task(Training(distill=2), pictures, (Evaluation("mse", lambda *_: {"mse": 2.0}),))
    _, (found,) = trained(built.original, built.small, built.plan, task, Watch())
    assert found["scores"] == [-2.0, -2.0, -2.0]


def test_the_direction_of_a_metric_is_said_or_asked_for(built, pictures):
    judged = (Evaluation("ev", lambda *_: {"ev": 2.0}),)
    task = Task(Training(distill=1), pictures, judged, metric="ev:min")
    _, (found,) = trained(built.original, built.small, built.plan, task, Watch())
    assert found["scores"] == [-2.0, -2.0]
    with pytest.raises(UsageError, match="not known whether 'ev' is better"):
        trained(built.original, built.small, built.plan, replace(task, metric=None), Watch())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_is_never_the_best(value, built, pictures):
    def scored(*values):
        scores = iter(values)
        return lambda *_: {"score": next(scores)}

    _, found = run(built, pictures, distill=2, evaluation=scored(0.5, value, 0.4))
    assert found["best"] == 0
    _, found = run(built, pictures, distill=2, evaluation=scored(value, 0.1, value))
    assert found["best"] == 1
    with pytest.raises(UsageError, match="no state of distill has a finite score"):
        run(built, pictures, distill=2, evaluation=scored(value, value, value))


def test_running_statistics_follow_the_data_and_frozen_ones_stay(built, pictures):
    shifted = pictures + 3
    small, _ = run(built, shifted, distill=2, evaluation=_rising())
    name = "norm.running_mean"
    assert not torch.equal(small.tensors()[name], built.small.tensors()[name])
    task = Task(Training(distill=2), shifted, (Evaluation("score", _rising()),), frozen=("norm",))
    frozen, _ = trained(built.original, built.small, built.plan, task, Watch())
    assert torch.equal(frozen.tensors()[name], built.small.tensors()[name])
    assert not torch.equal(frozen.tensors()["mid.weight"], built.small.tensors()["mid.weight"])


def _rising():
    numbers = iter(range(100))
    return lambda *_: {"score": float(next(numbers))}


def test_a_norm_that_the_user_froze_stays_frozen_from_the_library(pictures):
    for freeze in (lambda m: m.train() and m.norm.eval(), lambda m: m.norm.requires_grad_(False)):
        model = samples.net()
        freeze(model)
        built = compress(
            model,
            samples.example_inputs(),
            budget=Budget(macs=0.5),
            data=pictures + 3,
            evaluate=None,
            training=Training(distill=1, learning_rate=1e-2),
        )
        kept = built.plan.kept.get("norm.running_mean", [None])[0]
        wanted = model.norm.running_mean if kept is None else model.norm.running_mean[kept]
        found = built.small.tensors()["norm.running_mean"]
        if built.measured["training"]["phases"][0]["best"]:
            assert torch.equal(found, wanted)
            assert not torch.equal(built.small.tensors()["head.bias"], model.head.bias)


class Dropping(samples.Net):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.5, self.training))


def test_dropout_stays_off(pictures):
    torch.manual_seed(0)
    built = compress(Dropping().eval(), samples.example_inputs(), budget=Budget(macs=0.5))
    calls = [node for node in built.small.module.graph.nodes if "dropout" in str(node.target)]
    assert len(calls) == 1  # it is there, and could be switched on
    settings = {"distill": 1, "batch_size": 100, "feature_weight": 0.0, "learning_rate": 1e-9}
    _, found = run(built, [pictures], evaluation=lambda *_: {"score": 0.0}, **settings)
    _, twice = run(built, [pictures], evaluation=lambda *_: {"score": 0.0}, seed=7, **settings)
    assert found["losses"] == twice["losses"]  # another seed would drop other numbers


def test_several_batches_of_a_step_are_one_large_batch(pictures, classes):
    class Plain(samples.Net):
        def __init__(self):
            super().__init__()
            self.norm = nn.Identity()  # type: ignore[assignment]

    torch.manual_seed(0)
    built = compress(Plain().eval(), samples.example_inputs(), budget=Budget(macs=0.5))
    score = lambda *_: {"score": 0.0}  # noqa: E731
    pairs = (pictures[:96], classes[:96])
    whole = DataLoader(TensorDataset(*pairs), 32)
    parts = DataLoader(TensorDataset(*pairs), 8)
    settings = {"finetune": 2, "learning_rate": 1e-3, "patience": 9}
    _, one = run(built, whole, evaluation=score, **settings)
    _, four = run(built, parts, evaluation=score, accumulate=4, **settings)
    assert len(one["losses"]) == len(four["losses"]) == 6
    torch.testing.assert_close(one["losses"], four["losses"], rtol=1e-5, atol=1e-6)


def test_half_precision_trains_and_weights_stay_single(halved):
    images = digits.data().train_images
    small, _ = run(halved, images, distill=2, learning_rate=2e-3, precision="bf16")
    assert digits.accuracy(small.module)["accuracy"] > 0.95
    assert {one.dtype for one in small.tensors().values()} == {torch.float32}


def test_the_features_are_the_ends_of_blocks():
    torch.manual_seed(0)
    model = Residual().eval()
    x = torch.randn(2, 3, 8, 8)
    built = compress(model, x, budget=Budget(macs=0.5))
    found = features_of(built.small, built.plan)
    assert len(found) >= 2
    nodes = {node.name: node for node in built.original.module.graph.nodes}
    after = list(nodes)
    for name in found:  # what was there before it is not read after it
        reads = [
            one.name
            for later in after[after.index(name) + 1 :]
            for one in nodes[later].all_input_nodes
            if one.op == "call_function"
        ]
        assert all(after.index(read) >= after.index(name) for read in reads), name


def test_a_network_with_other_values_is_the_same_network(built):
    again = with_tensors(built.small, {k: v + 1 for k, v in built.small.tensors().items()})
    for name, one in again.tensors().items():
        old = built.small.tensors()[name]
        assert torch.equal(one, old + 1)
        assert isinstance(one, nn.Parameter) == isinstance(old, nn.Parameter)


def test_a_build_trains_and_its_report_says_so(fast, pictures, classes):
    built = compress(
        net(pictures),
        samples.example_inputs(),
        budget=Budget(macs=0.5),
        train_data=(pictures, classes),
        evaluate="accuracy",
        eval_data=(pictures, classes),
        training=Training(sparse=1, distill=2, finetune=1, learning_rate=1e-3),
    )
    report = built.report
    phases = report["training"]["phases"]
    assert [phase["name"] for phase in phases] == ["sparse", "distill", "finetune"]
    assert [len(phase["scores"]) for phase in phases] == [0, 3, 2]
    before, after = phases[1]["scores"][0], max(phases[2]["scores"])
    found = report["accuracy"]["accuracy"]
    assert found["original"] == 1.0
    assert found["small"] == pytest.approx(after)
    assert after >= before
    assert not any("sliced, not repaired" in line for line in report["warnings"])
    wanted = net(pictures)(pictures)  # it is compared with the user's, not with the sparse one
    torch.testing.assert_close(built.original.module(pictures), wanted)


# ---------------------------------------------------------------------------- killed runs


class Broken(Watch):
    """Ends a run after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def advance(self, done: int, total: int) -> None:
        if done >= self._steps:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("steps", "after"), [(0, 4), (0, 8), (1, 5), (1, 6)])
def test_a_run_that_was_stopped_goes_on_and_ends_the_same(steps, after, built, pictures, tmp_path):
    settings = {"distill": 3, "batch_size": 33, "checkpoint_steps": steps}
    whole, wanted = run(built, pictures, **settings)
    with pytest.raises(KeyboardInterrupt):
        run(built, pictures, Broken(after), checkpoints=tmp_path, **settings)
    assert len(list((tmp_path / "distill").iterdir())) == 1
    again, found = run(built, pictures, checkpoints=tmp_path, **settings)
    assert found == wanted
    assert_same(again, whole)
    finished, found = run(built, pictures, Broken(0), checkpoints=tmp_path, **settings)
    assert found == wanted  # nothing is left to do
    assert_same(finished, whole)


def test_what_else_is_in_the_folder_of_checkpoints_stays(built, pictures, tmp_path):
    for name in ("mine", ".mine", "epoch-notes"):
        (tmp_path / "distill" / name).mkdir(parents=True)
    run(built, pictures, distill=1, checkpoints=tmp_path)
    left = {path.name for path in (tmp_path / "distill").iterdir()}
    assert {"mine", ".mine", "epoch-notes"} < left
    assert len(left) == 4


def test_checkpoints_of_another_run_are_refused(built, pictures, tmp_path):
    run(built, pictures, distill=1, checkpoints=tmp_path)
    with pytest.raises(UsageError, match="checkpoints of another run"):
        run(built, pictures, distill=2, checkpoints=tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.bin", "random_states_0.pkl"])
def test_a_checkpoint_with_a_spoilt_file_is_refused(built, pictures, tmp_path, name):
    run(built, pictures, distill=1, checkpoints=tmp_path)
    (file,) = tmp_path.rglob(name)
    file.write_bytes(b"\x93" + file.read_bytes()[1:40])
    with pytest.raises(UsageError, match="not a checkpoint of ours"):
        run(built, pictures, distill=1, checkpoints=tmp_path)


def test_a_checkpoint_that_is_being_deleted_is_not_called_like_a_complete_one(
    built, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # power fails before it begins
    run(built, pictures, distill=2, checkpoints=tmp_path)
    left = {path.name for path in (tmp_path / "distill").iterdir()}
    assert [one for one in left if not one.startswith(".")] == ["epoch-0002-batch-000000"]


def child(file: Path, *more: object, processes: int = 1, port: int = 29517) -> int:
    """Run `train_child.py`; its exit code."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
                   "ACCELERATE_USE_CPU": "true"}  # fmt: skip
    launch = [] if processes == 1 else [
        *("-m", "torch.distributed.run", "--nproc-per-node", str(processes)),
        *("--master-port", str(port)),
    ]  # fmt: skip
    line = [sys.executable, *launch, "-m", "tests.compressor.train.train_child", file, *more]
    done = subprocess.run([*map(str, line)], cwd=ROOT, env=environment, check=False, timeout=300)
    return done.returncode


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    assert child(one) == 0
    assert child(two, processes=2) == 0
    first, second = json.loads(one.read_text()), json.loads(two.read_text())
    assert len(first["losses"]) == len(second["losses"]) == 9
    assert first["losses"] != second["losses"]  # they were two: sums in another order
    assert first["losses"] == pytest.approx(second["losses"], abs=1e-3)
    assert first["scores"] == pytest.approx(second["scores"], abs=1e-3)
    assert first["state"] == pytest.approx(second["state"], rel=1e-3, abs=1e-2)


@pytest.mark.slow
def test_a_process_that_was_killed_goes_on_and_ends_the_same(tmp_path):
    whole, again = tmp_path / "whole.json", tmp_path / "again.json"
    assert child(whole) == 0
    assert child(again, tmp_path / "checkpoints", 5) == -signal.SIGKILL
    assert not again.exists()
    assert child(again, tmp_path / "checkpoints") == 0
    assert json.loads(again.read_text()) == json.loads(whole.read_text())
