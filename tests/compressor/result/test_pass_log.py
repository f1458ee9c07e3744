"""A release has the log of its passes: what is in it, who runs it again, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from compressor.passes.base.errors import UsageError, WrongError
from compressor.passes.ir.log import Log
from safetensors.torch import load_file, save_file
from torch import nn

import compressor
from compressor import Budget, Training, compress
from compressor.release import replay, shards
from compressor.release.verify import verify
from compressor.result import pass_log
from compressor.result.build_cache import BuildCache
from compressor.storage import manifest
from tests.compressor import samples
from tests.compressor.encrypting import seal

BEFORE = Path(__file__).parents[1] / "plan_json"
"""Releases of a build that kept a plan.json, and no log."""
KEY = bytes(range(32))


class Sound(nn.Module):
    """What one of them was built from."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 8, 3, padding=1), nn.Conv1d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))).mean(2))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


@pytest.fixture
def copy(release, tmp_path: Path) -> Path:
    return Path(shutil.copytree(release.folder, tmp_path / "copy"))


def log_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "passes.json").read_text())
    return found


def with_log(folder: Path, text: str | bytes) -> None:
    """Another log, by somebody who makes a manifest for it."""
    (folder / "passes.json").write_bytes(text.encode() if isinstance(text, str) else text)
    found = manifest.read(folder)
    facts = {name: found[name] for name in found.keys() - {"format", "files", "content"}}
    (folder / "manifest.json").write_text(json.dumps(manifest.make(folder, facts)))


def refused(folder: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        compressor.load(folder, samples.net())
    return caught.value


# ---------------------------------------------------------------------------- what is in it


def test_a_release_says_what_ran_in_order(release, built):
    found = log_of(release.folder)
    assert [one["name"] for one in found["passes"]][:3] == ["capture", "prune", "export"]
    prune = found["passes"][1]
    assert prune["metadata"]["kept"] == built.plan.kept
    assert prune["metadata"]["channels"] == built.plan.channels.tolist()
    assert prune["evidence"]["max_rel"] <= prune["evidence"]["tolerance"]
    assert any(line.startswith("head.weight: ") for line in prune["changes"])
    assert not (release.folder / "plan.json").exists()


def test_the_report_has_the_log_without_its_indices(release):
    whole = Log.from_json(log_of(release.folder))
    told = json.loads((release.folder / "report.json").read_text())["passes"]
    assert told == json.loads(json.dumps(whole.to_json(pass_log.INDICES)))
    assert told["spec"] == str(whole)
    assert told["passes"][1]["metadata"].keys() == {"unit"}


def test_repair_training_and_the_users_own_are_in_the_log():
    def train(module: nn.Module) -> None:
        module.get_parameter("head.bias").data.add_(1)

    data = list(torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0)).split(16))
    built = compress(
        samples.net(), samples.example_inputs(), budget=Budget(macs=0.5), data=data,
        training=Training(distill=1, learning_rate=0.01), finetune=train, round_to=8,
    )  # fmt: skip
    spec = "capture prune{round_to=8} repair distill{epochs=1 learning_rate=0.01} finetune"
    assert built.report["passes"]["spec"] == spec
    repair = built.log.find("repair")
    assert repair is not None
    assert repair.evidence["divergence"] == built.report["repair"]["divergences"]
    assert repair.metadata["chosen"] == built.report["repair"]["chosen"]
    train(built.module)
    later = pass_log.whole(built).entries[-1]
    assert (later.name, later.metadata) == ("finetune", {"by": "the user, after the build"})
    replay.check_known(pass_log.whole(built), Path("passes.json"))


def test_the_log_of_an_encrypted_release_is_encrypted(copy):
    plain = (copy / "passes.json").read_bytes()
    seal(copy, KEY)
    assert not (copy / "passes.json").exists()
    assert b"prune" not in (copy / "passes.json.enc").read_bytes()
    assert verify(copy, key=KEY).passes.startswith("capture prune export")
    small = compressor.load(copy, samples.net(), key=KEY)
    assert Log.from_json(json.loads(plain)).entries[1].metadata["shapes"]["head.weight"][1] == 24
    assert small.get_parameter("head.weight").shape[1] < 24


def test_what_is_kept_of_a_stage_is_known_by_what_ran_before(tmp_path, monkeypatch):
    parts: dict[str, Any] = {}

    def once(self, stage, own, make, look=None):
        parts[stage] = own
        return make()

    monkeypatch.setattr(BuildCache, "once", once)
    from compressor.config import Recipe
    from compressor.pipeline.compile import Given
    from compressor.pipeline.compress import prepared
    from compressor.process.progress import Watch

    data = list(torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0)).split(16))
    given = Given(Budget(macs=0.5), data)
    work = BuildCache(tmp_path / "work")
    job = prepared(samples.net(), samples.example_inputs(), given, Recipe.of(round_to=8), "net",
                   Watch(), work)  # fmt: skip
    built = job.run()
    assert parts["plan"]["log"] == "capture"
    assert parts["repair"]["log"] == "capture prune{round_to=8}"
    assert built.onnx.data
    assert parts["export"]["log"] == "capture prune{round_to=8} repair"


# ---------------------------------------------------------------------------- run again


def test_axes_that_were_free_are_free_again(tmp_path):
    torch.manual_seed(0)
    net, x = Sound(), torch.randn(2, 1, 16)
    built = compress(net, x, budget=Budget(channels=0.6), dynamic={"x": {2: "length"}},
                     ignore=("head.*",))  # fmt: skip
    folder = built.save(tmp_path / "net")
    (folder / "recipe.toml").unlink()  # the log says it
    small = compressor.load(folder, net)
    longer = torch.randn(3, 1, 23)
    assert torch.equal(small(longer), built.module(longer))


def test_a_checkpoint_is_cut_by_the_log_of_a_release(release, command, tmp_path):
    save_file(samples.net().state_dict(), tmp_path / "net.safetensors")
    line = f"shards {release.folder}/passes.json {tmp_path}/net.safetensors -o {tmp_path}/small"
    done = command(line)
    assert done.exit_code == 0, done.stderr
    found = load_file(tmp_path / "small" / "model.safetensors")
    wanted = load_file(release.folder / "model.safetensors")
    torch.testing.assert_close({n: found[n] for n in wanted}, wanted, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "what", "why"),
    [
        ({"name": "polish"}, "has a pass that is not known: 'polish'", "known are align, "),
        ({"version": 7}, "has the pass prune in a version that is not known", "it is version 7"),
    ],
)
def test_a_pass_of_another_version_of_the_compressor_is_refused(change, what, why, copy):
    found = log_of(copy)
    found["passes"][1] |= change
    found["spec"] = str(Log.from_json(found | {"spec": _spec(found)}))
    with_log(copy, json.dumps(found))
    verify(copy)  # its model is what it was
    for error in (refused(copy), _not_cut(copy / "passes.json")):
        assert what in error.what
        assert error.where == f"pass 2 of {len(found['passes'])}"
        assert error.why.startswith(why)
        assert error.hint == "another version of the compressor made it: use that one"


def _spec(found: dict[str, Any]) -> str:
    from compressor.passes.ir.spec import said

    return " ".join(said(one["name"], one["options"]) for one in found["passes"])


def _not_cut(path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        shards.read_plan(path)
    return caught.value


def test_a_log_that_cuts_twice_or_never_cuts_no_checkpoint(copy):
    found = log_of(copy)
    capture, prune, *others = found["passes"]
    for passes, times in (([capture, prune, prune], 2), ([capture, *others], 0)):
        found["passes"] = passes
        with_log(copy, json.dumps(found | {"spec": _spec(found)}))
        assert f"the pass prune {times} times" in _not_cut(copy / "passes.json").why


@pytest.mark.parametrize("order", [[], [1, 0], [0, 0, 1], [1]])
def test_a_log_begins_with_its_only_capture(order, copy):
    found = log_of(copy)
    found["passes"] = [found["passes"][number] for number in order]
    with_log(copy, json.dumps(found | {"spec": _spec(found)}))
    what = refused(copy).what
    assert "begin with its only capture" in what or "has no passes" in what


# ---------------------------------------------------------------------------- hostile


def _prune(**metadata: Any) -> dict[str, Any]:
    return {"metadata": metadata}


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b"3", b"[" * 100_000, b'{"format": 1e999}',
     b'{"format": 1, "passes": ' + b"[" * 70 + b"]" * 70 + b"}",
     b'{"format": ' + b"9" * 5000 + b"}",
     b'{"format": 1, "format": 1, "spec": "", "passes": []}', b'{"format": 2, "passes": []}',
     b'{"format": 1, "passes": [], "spec": "prune"}', b'{"format": 1, "passes": {}, "spec": ""}',
     b'{"format": 1, "passes": [[]], "spec": ""}', b'{"format": 1, "passes": "prune", "spec": ""}'],
    ids=range(16),
)  # fmt: skip
def test_what_is_no_log_is_refused_in_words(text, copy):
    with_log(copy, text)
    assert "passes.json" in refused(copy).what
    with pytest.raises(WrongError, match=r"passes\.json"):
        verify(copy)
    with pytest.raises(UsageError, match=r"passes\.json"):
        shards.read_plan(copy / "passes.json")


_WHOLE = {"kept": {"a": [[0, 2], None]}, "shapes": {"a": [4, 3]}, "buffers": [], "tied": {}}


@pytest.mark.parametrize(
    "metadata",
    [{}, {"kept": {}}, {"kept": 3}, {"kept": {"a": [[0, 4], None]}}, {"kept": {"a": [[], None]}},
     {"kept": {"a": [[-1, 2], None]}}, {"kept": {"a": [[2, 0], None]}},
     {"kept": {"a": [[0, 0], None]}}, {"kept": {"a": [[0, 10**400], None]}},
     {"kept": {"a": [[True, 2], None]}}, {"kept": {"a": [[0.5], None]}}, {"kept": {"a": ["01", 0]}},
     {"kept": {"a": [{"0": 1}, None]}}, {"kept": {"a": [[[0], [0, 1]], None]}},
     {"shapes": {"a": ["4", 3]}}, {"shapes": {"b": [4, 3]}}, {"buffers": [[]]}, {"buffers": 3},
     {"tied": {"b": ["a"]}}, {"tied": [1]}],
    ids=str,
)  # fmt: skip
def test_indices_that_are_none_are_refused_in_words(metadata, copy):
    found = log_of(copy)
    found["passes"][1]["metadata"] = _WHOLE | metadata if metadata else {}
    with_log(copy, json.dumps(found))
    for error in (refused(copy), _not_cut(copy / "passes.json")):
        assert error.what.endswith("passes.json does not say what stays")
        assert (error.where, bool(error.why)) == ("the pass prune", True)
    with pytest.raises(WrongError, match="does not say what stays"):
        verify(copy)


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        ((1, "metadata", "channels"), None, "does not say which channels go"),
        ((1, "metadata", "channels"), ["1"], "does not say which channels go"),
        ((1, "metadata", "channels"), [-1], "does not say which channels go"),
        ((1, "metadata", "channels"), [10**30], "does not say which channels go"),
        ((1, "metadata", "channels"), [True], "does not say which channels go"),
        ((1, "metadata", "channels"), [10**15], "the plan is for another model"),
        ((1, "metadata", "channels"), [], "the plan is for another model"),
        ((1, "metadata", "channels"), list(range(72)), "the plan is for another model"),
        ((1, "options", "ignore"), ["*"], "the plan is for another model"),
        ((1, "options", "ignore"), [3], "ignore is no list of words"),
        ((0, "options", "dynamic"), "x:2=a", "dynamic is no list of words"),
        ((0, "options", "dynamic"), ["x"], "cannot read what is dynamic"),
        ((0, "metadata", "call"), None, "does not say how the model is called"),
        ((0, "metadata", "call"), {"value": 3}, "does not say how the model is called"),
        ((0, "metadata", "call"), {"tuple": [{"value": 3}, {"value": 3}]}, "how the model is"),
        ((0, "metadata", "call"), "tensor", "does not say how the model is called"),
    ],
    ids=str,
)
def test_a_log_that_makes_no_network_is_refused_in_words(place, value, what, copy):
    found = log_of(copy)
    number, part, key = place
    found["passes"][number][part][key] = value
    with_log(copy, json.dumps(found | {"spec": _spec(found)}))
    assert what in refused(copy).what


@pytest.mark.parametrize("shape", [[10**12], [2**70], [-1], ["2"], "22", [2.5], [1 << 20] * 3])
def test_example_inputs_that_nobody_has_are_not_made(shape, copy):
    found = log_of(copy)
    inputs = found["passes"][0]["metadata"]["call"]["tuple"][0]["tuple"]
    inputs[0]["shape"] = shape
    with_log(copy, json.dumps(found))
    error = refused(copy)
    assert "does not say how the model is called" in error.what
    assert error.hint == "give example_inputs="


def test_weights_of_other_sizes_are_refused(copy):
    state = load_file(copy / "model.safetensors")
    save_file(state | {"head.bias": torch.zeros(3)}, copy / "model.safetensors")
    with_log(copy, (copy / "passes.json").read_bytes())
    assert refused(copy).what == "the weights are for another model"


# ---------------------------------------------------------------------------- earlier releases


@pytest.mark.parametrize(
    ("name", "make", "shape", "signed"),
    [("plain", Sound, (3, 1, 23), None), ("signed", mlp, (3, 4), BEFORE / "key.pub")],
)
def test_releases_with_a_plan_and_no_log_are_read(name, make, shape, signed, tmp_path):
    folder, net = BEFORE / name, make()
    found = verify(folder, signed)
    assert (found.passes, found.signed) == ("", signed is not None)
    small = compressor.load(folder, net)
    assert small(torch.randn(shape)).shape == (3, 2)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    shards.shrink_shards(
        shards.read_plan(folder / "plan.json"), tmp_path / "net.safetensors", tmp_path / "small"
    )
    cut = load_file(tmp_path / "small" / "model.safetensors")
    released = load_file(folder / "model.safetensors")
    assert {n: t.shape for n, t in cut.items()} == {n: t.shape for n, t in released.items()}
    with pytest.raises(UsageError, match=r"the plan is for another model|no input is called"):
        compressor.load(folder, samples.net(), samples.example_inputs())


def test_an_earlier_release_is_ours_to_replace(built, tmp_path):
    folder = Path(shutil.copytree(BEFORE / "signed", tmp_path / "net"))
    built.save(folder, force=True)
    assert not (folder / "plan.json").exists()
    assert verify(folder).passes
