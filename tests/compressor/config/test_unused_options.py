"""No option is ignored in silence: each that would do nothing says what it needs."""

import tomllib

import pytest
import torch
from compressor.passes import Budget
from compressor.passes.base.errors import UsageError

from compressor import Training, compress
from compressor.config import Recipe
from compressor.config.toml import resolved
from compressor.config.unused_options import AMOUNTS, READY, ROWS, asked_of, refuse_idle
from compressor.metrics import evaluate as metrics
from tests.compressor import samples

IDLE = [
    ({"train_data": "a:b"}, "train-data"),
    ({"train_data": "a:b", "train_with": "a:c"}, "train-data"),
    ({"learning_rate": 0.1}, "learning-rate"),
    ({"batch_size": 8}, "batch-size"),
    ({"accumulate": 2, "train_with": "a:b"}, "accumulate"),
    ({"precision": "bf16"}, "precision"),
    ({"checkpoints": "there"}, "checkpoints"),
    ({"patience": 5}, "patience"),
    ({"patience": 5, "sparse_train": 1}, "patience"),
    ({"loss": "a:b"}, "loss"),
    ({"loss": "a:b", "distill": 1}, "loss"),
    ({"feature_weight": 2.0, "finetune": 1}, "feature-weight"),
    ({"penalty": "bn-scale", "finetune": 1}, "penalty"),
    ({"penalty_weight": 1.0}, "penalty-weight"),
    ({"finetune": 1, "train_with": "a:b"}, "train-with"),
    ({"eval_data": "a:b"}, "eval-data"),
    ({"eval_data": "a:b", "evaluate": "a:c"}, "eval-data"),
    ({"metric": "top5"}, "metric"),
    ({"metric": "top5", "evaluate": "a:b"}, "metric"),
    ({"device": "d.json"}, "device"),
    ({"sensitivity": "s.json", "uniform": True}, "sensitivity"),
    ({"search": True, "max_drop": 0.1, "params": 0.5}, "search"),
    ({"race": False, "allow_slower": True}, "allow-slower"),
    ({"allow_worse": True}, "allow-worse"),
    ({"race": False, "threads": 2}, "threads"),
    ({"race": False, "bench_seconds": 1.0}, "bench-seconds"),
]
USED = [
    {"distill": 1, "train_data": "a:b", "feature_weight": 2.0, "patience": 5, "batch_size": 8},
    {"sparse_train": 1, "penalty": "bn-scale", "penalty_weight": 1.0, "loss": "a:b"},
    {"finetune": 1, "loss": "a:b", "checkpoints": "there", "precision": "bf16"},
    {"eval_data": "a:b", "evaluate": ["a:c", "f1"], "metric": "f1", "max_drop": 0.1},
    {"latency": "0.5", "device": "d.json"},
    {"sensitivity": "s.json"},
    {"data": "a:b", "allow_worse": True},
    {"train_with": "a:b", "distill": 1},
    {"search": True, "max_drop": 0.1},
    {"race": False, "latency": "0.5", "threads": 2, "bench_seconds": 1.0},
]


@pytest.mark.parametrize(("options", "name"), IDLE, ids=str)
def test_an_option_without_a_use_is_refused(options, name):
    with pytest.raises(UsageError, match=f"^--{name} would be ignored") as caught:
        refuse_idle(asked_of(Recipe.of(macs=0.5, **options)))
    assert caught.value.why
    assert caught.value.hint


@pytest.mark.parametrize("options", USED, ids=str)
def test_an_option_with_a_use_is_not(options):
    refuse_idle(asked_of(Recipe.of(macs=0.5, **options)))


def test_every_row_has_a_case_and_names_a_field():
    assert {row.option for row in ROWS} == {name.replace("-", "_") for _, name in IDLE}
    assert {row.option for row in ROWS} | set(AMOUNTS) <= Recipe.model_fields.keys()
    assert set(READY) == metrics.READY.keys()


def test_a_recipe_that_states_every_default_asks_for_nothing(tmp_path):
    stored = tomllib.loads(resolved(Recipe.of(macs=0.5)))
    assert asked_of(Recipe.checked(stored, str)) == {"macs": 0.5}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("build net.py:net --macs 0.5 -o out --penalty bn-scale", "--penalty would be ignored"),
        ("build net.py:net --macs 0.5 -o out --dry-run --loss a.py:b", "--loss would be ignored"),
        ("build net.py:net --macs 0.5 -o out --dry-run --until plan", "--until would be ignored"),
        ("build net.py:net --macs 0.5 -o out --dry-run --from plan", "--from would be ignored"),
        ("build net.py:net --macs 0.5 --save-config x --dry-run", "--dry-run would be ignored"),
        ("build net.py:net --macs 0.5 --save-config x --until plan", "--until would be ignored"),
        ("build net.py:net --macs 0.5 -o out --bench-seconds -1", "bench-seconds is -1"),
        ("sweep net.py:net --latency 0.5,0.4 -o out --loss a.py:b", "--loss would be ignored"),
        ("plan net.py:net --macs 0.5 -o p.json --device d.json", "--device would be ignored"),
        ("profile --weights w.pt -o d.json", "--weights would be ignored"),
        ("check a.onnx --baseline b.onnx --metric top5", "--metric would be ignored"),
    ],
)
def test_commands_refuse_what_they_would_ignore(line, words, command, project):
    before = sorted(project.iterdir())
    done = command(line)
    assert done.exit_code == 2, done.stderr
    assert words in done.stderr
    assert sorted(project.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"eval_data": torch.zeros(2, 3, 8, 8)}, "eval-data"),
        ({"eval_data": [], "evaluate": samples.agreement}, "eval-data"),
        ({"train_data": torch.zeros(2, 3, 8, 8)}, "train-data"),
        ({"training": Training(learning_rate=0.1)}, "learning-rate"),
        ({"training": Training(distill=1, loss=torch.add), "train_data": []}, "loss"),
        ({"training": Training(finetune=1), "finetune": samples.net}, "train-with"),
        ({"metric": "top5"}, "metric"),
        ({"device": "d.json"}, "device"),
        ({"race": False, "allow_slower": True}, "allow-slower"),
        ({"allow_worse": True}, "allow-worse"),
    ],
    ids=str,
)
def test_python_refuses_the_same(options, name):
    with pytest.raises(UsageError, match=f"^--{name} would be ignored"):
        compress(samples.net(), samples.example_inputs(), budget=Budget(macs=0.5), **options)


def test_a_metric_that_nothing_measures_is_refused():
    with pytest.raises(UsageError, match="no metric is called 'top5'"):
        compress(samples.net(), samples.example_inputs(), budget=Budget(macs=0.5),
                 evaluate=lambda predict: 1.0, metric="top5", max_drop=0.1)  # fmt: skip
