"""Checkpoints cut tensor by tensor: what is written, how much memory it takes, what is refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from compressor.passes.base.errors import UsageError
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from compressor import Budget, Built, compress
from compressor.cli.app import app
from compressor.loading.weights import load_weights
from compressor.release import kept_indices, shards
from models import decoder, grouped
from tests.compressor import samples

ROOT = Path(__file__).resolve().parents[3]
MB = 1_000_000


def run(line: str) -> Any:
    return CliRunner().invoke(app, line.split())


def sharded(folder: Path, state: dict[str, Tensor], count: int = 3) -> Path:
    """A folder as hubs have it: several files, and an index."""
    folder.mkdir()
    index: dict[str, str] = {}
    for number in range(count):
        file = f"model-{number + 1:05}-of-{count:05}.safetensors"
        part = {name: state[name] for name in list(state)[number::count]}
        save_file(part, folder / file, {"format": "pt"})
        index |= dict.fromkeys(part, file)
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


def load_all(folder: Path) -> dict[str, Tensor]:
    return {n: t for file in folder.glob("*.safetensors") for n, t in load_file(file).items()}


def halved(make: Any, inputs: Any) -> Built:
    return compress(make(), inputs(), budget=Budget(channels=0.5), uniform=True)


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (samples.net, samples.example_inputs),
        (grouped.grouped, grouped.example_inputs),
        (decoder.decoder, decoder.example_inputs),
    ],
    ids=["chain", "grouped", "tied"],
)
def test_the_cut_checkpoint_is_the_state_of_the_small_module(make, inputs, tmp_path):
    built = halved(make, inputs)
    state = {name: tensor.clone() for name, tensor in make().state_dict().items()}
    source = sharded(tmp_path / "big", state)
    done = shards.shrink_shards(kept_indices.cut_of(built.plan), source, tmp_path / "small", 20_000)
    small = state | dict(built.module.state_dict())  # no graph reads counters: they stay
    found = load_all(tmp_path / "small")
    assert found.keys() == state.keys()
    torch.testing.assert_close(found, {n: small[n] for n in found}, rtol=0, atol=0)
    assert done.tensors == len(state)
    assert done.cut == sum(state[name].shape != found[name].shape for name in state) > 0
    assert done.bytes_before == sum(one.nbytes for one in state.values())
    assert done.bytes_after == sum(one.nbytes for one in found.values())


def test_shards_are_bounded_and_the_index_names_every_tensor(tmp_path):
    built = halved(samples.net, samples.example_inputs)
    source = tmp_path / "net.safetensors"
    save_file(samples.net().state_dict(), source)
    plan = kept_indices.cut_of(built.plan)
    one = shards.shrink_shards(plan, source, tmp_path / "one")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["model.safetensors"]
    many = shards.shrink_shards(plan, source, tmp_path / "many", 6_000)
    assert one.bytes_after == many.bytes_after
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == one.bytes_after
    assert set(index["weight_map"].values()) == set(many.files) == {
        path.name for path in (tmp_path / "many").glob("*.safetensors")
    }  # fmt: skip
    for file in many.files:
        held = load_file(tmp_path / "many" / file)
        assert {name for name, at in index["weight_map"].items() if at == file} == held.keys()
        assert len(held) == 1 or sum(t.nbytes for t in held.values()) <= 6_000


def test_types_keep_their_bits_and_scalars_their_shape(tmp_path):
    state = {
        "half": torch.randn(4, 3).bfloat16(),
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False, True, True]),
        "none": torch.zeros(0, 3),
        "table": torch.arange(8, dtype=torch.int32).reshape(4, 2),
    }
    save_file(state, tmp_path / "in.safetensors")
    kept = {"half": [[0, 2], None], "flags": [[0, 2]]}
    plan = kept_indices.KeptIndices(kept, {"half": [4, 3], "flags": [4]}, frozenset(), {})
    shards.shrink_shards(plan, tmp_path / "in.safetensors", tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    wanted = state | {"half": state["half"][[0, 2]], "flags": state["flags"][[0, 2]]}
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


# ---------------------------------------------------------------------------- memory

MEASURE = """
import json, resource, sys
from pathlib import Path
from compressor.release.shards import read_plan, shrink_shards
import torch
torch.zeros(8).index_select(0, torch.tensor([1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
shrink_shards(read_plan(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


@pytest.mark.parametrize("files", [1, 4])
def test_memory_is_that_of_a_tensor_and_not_of_the_checkpoint(files, tmp_path):
    state = {f"layer{i}.weight": torch.full((2_000, 2_500), float(i)) for i in range(20)}
    sharded(tmp_path / "big", state, files)
    half = list(range(0, 2_500, 2))
    plan = kept_indices.KeptIndices(
        {name: [None, half] for name in state}, {n: [2_000, 2_500] for n in state}, frozenset(), {}
    )
    del state
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_json()))
    places = [str(tmp_path / name) for name in ("plan.json", "big", "small")]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *places],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sum(path.stat().st_size for path in (tmp_path / "big").iterdir()) > 400 * MB
    assert int(done.stdout) < 60 * MB  # the tensor has 20, what stays of it 10
    found = load_all(tmp_path / "small")
    assert {name: tensor.shape for name, tensor in found.items()} == dict.fromkeys(
        plan.kept, torch.Size([2_000, 1_250])
    )
    assert all(bool((found[f"layer{i}.weight"] == i).all()) for i in range(20))


# ---------------------------------------------------------------------------- refusals


@pytest.fixture
def plan() -> kept_indices.KeptIndices:
    return kept_indices.KeptIndices(
        {"a.weight": [[0, 1], None]}, {"a.weight": [4, 3]}, frozenset(), {}
    )


def refusal(plan: kept_indices.KeptIndices, source: Path) -> UsageError:
    target = source.parent / "out"
    with pytest.raises(UsageError) as refused:
        shards.shrink_shards(plan, source, target)
    assert not target.exists()
    assert not list(source.parent.glob(".out*"))
    return refused.value


def test_a_plan_for_other_sizes_is_refused(plan, tmp_path):
    save_file({"a.weight": torch.zeros(2, 3)}, tmp_path / "in.safetensors")
    error = refusal(plan, tmp_path / "in.safetensors")
    assert error.what == "the plan is for a model of other sizes"
    assert error.why == "a.weight is [2, 3] in the checkpoint, [4, 3] in the plan"


def test_a_checkpoint_without_a_tensor_of_the_plan_is_refused(plan, tmp_path):
    save_file({"a.weigth": torch.zeros(4, 3)}, tmp_path / "in.safetensors")
    error = refusal(plan, tmp_path / "in.safetensors")
    assert error.what == "the checkpoint has no a.weight"
    assert error.hint == "did you mean a.weigth?"


def test_a_buffer_and_all_but_one_of_tied_names_may_be_absent(plan, tmp_path):
    save_file({"b.weight": torch.arange(12.0).reshape(4, 3)}, tmp_path / "in.safetensors")
    kept = {name: [[0, 1], None] for name in ("a.weight", "b.weight", "frequencies")}
    shapes = {name: [4, 3] for name in kept}
    whole = kept_indices.KeptIndices(
        kept, shapes, frozenset({"frequencies"}), {"b.weight": "a.weight"}
    )
    shards.shrink_shards(whole, tmp_path / "in.safetensors", tmp_path / "small")
    assert load_file(tmp_path / "small" / "model.safetensors")["b.weight"].shape == (2, 3)


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({}, "is not a checkpoint"),
        ({"a.safetensors": b"", "b.safetensors": b""}, "is not a checkpoint"),
        ({"model.safetensors": b"torn"}, "cannot read"),
        ({"model.safetensors.index.json": b"{"}, "cannot read the index"),
        ({"model.safetensors.index.json": b'{"weight_map": []}'}, "cannot read the index"),
        ({"model.safetensors.index.json": b'{"weight_map": {}}'}, "names no tensors"),
        (
            {"model.safetensors.index.json": b'{"weight_map": {"a": "../x.safetensors"}}'},
            "names a file outside its folder",
        ),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "x.safetensors"}}'}, "cannot"),
    ],
)
def test_what_is_not_a_checkpoint_is_refused(files, what, plan, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    assert what in refusal(plan, folder).what


def test_an_index_that_names_an_absent_tensor_is_refused(plan, tmp_path):
    folder = sharded(tmp_path / "in", {"a.weight": torch.zeros(4, 3)}, 1)
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("a.weight", "b.weight"))
    assert "has no tensor b.weight" in refusal(plan, folder).what


def test_a_source_that_is_not_there_or_of_another_kind_is_refused(plan, tmp_path):
    assert "no such file or folder" in refusal(plan, tmp_path / "nothing").what
    (tmp_path / "net.pt").write_bytes(b"")
    assert "is not a safetensors checkpoint" in refusal(plan, tmp_path / "net.pt").what


def test_a_full_target_is_refused_and_left_alone(plan, tmp_path):
    save_file({"a.weight": torch.zeros(4, 3)}, tmp_path / "in.safetensors")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        shards.shrink_shards(plan, tmp_path / "in.safetensors", tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


def test_nothing_is_left_behind_where_reading_fails_midway(plan, tmp_path, monkeypatch):
    save_file({"a.weight": torch.zeros(4, 3)}, tmp_path / "in.safetensors")

    def torn(self, name):
        raise UsageError("cannot read it")

    monkeypatch.setattr(shards.ShardedWeights, "__getitem__", torn)
    assert refusal(plan, tmp_path / "in.safetensors").what == "cannot read it"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": 2}, "format 2 is not known"),
        ({"shapes": {}}, "do not belong together"),
        ({"kept": {"a.weight": [[0, 4], None]}}, "a.weight"),
        ({"kept": {"a.weight": [[], None]}}, "a.weight"),
        ({"kept": {"a.weight": [["0"], None]}}, "a.weight"),
        ({"kept": 3}, "TypeError"),
    ],
)
def test_what_is_not_a_plan_is_refused(change, why, plan, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan.to_json() | change))
    with pytest.raises(UsageError, match="is not a plan") as refused:
        shards.read_plan(path)
    assert why in refused.value.why


# ---------------------------------------------------------------------------- command line

TIED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.body = nn.Embedding(20, 16), nn.Linear(16, 16)
        self.inside, self.head = nn.Linear(16, 16), nn.Linear(16, 20)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.inside(torch.relu(self.body(self.embed(ids)))))

def make():
    with torch.device("meta"):
        return Net()

def example_inputs():
    return torch.zeros(2, 4, dtype=torch.long)
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A model on the meta device, and a checkpoint that has its tied weight once."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(TIED)
    generator = torch.Generator().manual_seed(0)
    state = {
        "embed.weight": torch.randn(20, 16, generator=generator),
        "head.bias": torch.zeros(20),
        **{f"{n}.weight": torch.randn(16, 16, generator=generator) for n in ("body", "inside")},
        **{f"{n}.bias": torch.zeros(16) for n in ("body", "inside")},
    }
    sharded(Path("big"), state, 2)
    return tmp_path


def test_a_model_without_values_is_planned_and_its_checkpoint_cut(here):
    planned = run("plan net.py:make --weights big --channels 0.5 --round-to 1 -o plan.json --json")
    assert planned.exit_code == 0, planned.stderr
    found = json.loads(planned.stdout)
    assert found["cost"]["channels"] == {"original": 32, "small": 16}
    cut = run("shards plan.json big -o small --json")
    assert cut.exit_code == 0, cut.stderr
    done = json.loads(cut.stdout)
    assert done["files"] == ["model.safetensors"]
    assert done["bytes_after"] < done["bytes_before"]
    # The same as of the model with values, cut in one piece.
    save_file(load_all(here / "big"), "big.safetensors")
    whole = run("plan net.py:make --weights big.safetensors --channels 0.5 --round-to 1 -o p.json")
    assert whole.exit_code == 0, whole.stderr
    assert Path("p.json").read_text() == Path("plan.json").read_text()
    assert "channels: 32 -> 16" in whole.stdout
    built = run(
        "build net.py:make --weights big.safetensors --channels 0.5 --round-to 1 -o built -q "
        "--bench-seconds 0.1 --allow-slower"
    )
    assert built.exit_code == 0, built.stderr
    small, wanted = load_file("small/model.safetensors"), load_file("built/model.safetensors")
    torch.testing.assert_close(small, {name: wanted[name] for name in small}, rtol=0, atol=0)
    plan = json.loads(Path("plan.json").read_text())
    log = shards.read_plan(Path("built/passes.json"))
    assert plan == log.to_json()


def test_weights_given_to_a_model_without_values_become_its_own_and_tied_ones_stay_tied(here):
    from compressor.loading import load_model

    save_file(load_all(here / "big"), "big.safetensors")
    model, _ = load_model("net.py:make", Path("big.safetensors"))
    assert model.head.weight is model.embed.weight
    assert torch.equal(model.embed.weight, load_file("big.safetensors")["embed.weight"])
    load_weights(model, Path("big.safetensors"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("plan net.py:make --params 0.5 -o p.json", "give its checkpoint by --weights"),
        ("plan net.py:make --params 0.5 -o nowhere/p.json", "there is no folder nowhere"),
        ("plan net.py:make --params 0.5 -o big", "it is a folder"),
        ("plan net.py:make --params 0.5 --weights absent -o p.json", "no such file or folder"),
        ("plan net.py:make --params 0.5 --weights other -o p.json", "1 missing: body.weight"),
        ("plan net.py:make --params 0.5 --weights odd -o p.json", "body.weight is [8, 16]"),
        ("build net.py:make --params 0.5 -o b", "it is on the meta device"),
        ("shards absent.json big -o small", "no such file: absent.json"),
    ],
)
def test_what_cannot_work_is_refused(line, message, here):
    state = load_all(here / "big")
    sharded(Path("odd"), state | {"body.weight": torch.zeros(8, 16)})
    del state["body.weight"]
    sharded(Path("other"), state)
    done = run(line)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not Path("p.json").exists()
