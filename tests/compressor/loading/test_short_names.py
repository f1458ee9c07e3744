"""Checkpoints of transformers: words have a mask, and batch and sequence are free."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from compressor.passes.base.errors import UsageError

from compressor import passes
from compressor.base.optional import loadable_torchvision
from compressor.loading import load_model, short_names

loadable_torchvision()
transformers = pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 99, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 32, "initializer_range": 0.5,
}  # fmt: skip


def saved(kind: str, folder, **settings) -> None:
    """A tiny checkpoint with random weights."""
    model = getattr(transformers, kind)
    torch.manual_seed(0)
    model(model.config_class(**settings)).save_pretrained(folder)


LINE = "build hf:{}/net --params 0.7 --bench-seconds 0.1 --allow-slower -o {}/out --json"


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    saved("BertForSequenceClassification", folder / "net", **SMALL)
    return folder


def test_a_bert_is_exported_with_its_mask_and_a_free_sequence(bert, command, fast):
    done = command(LINE.format(bert, bert))
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert {tuple(one["sizes"].items()) for one in found["parity"]} >= {(("sequence", 17),)}
    assert any("token_type_ids" in line for line in found["warnings"])
    assert "token\\_type\\_ids" in (bert / "out" / "summary.md").read_text()
    graph = onnx.load(bert / "out" / "model.onnx").graph
    assert [one.name for one in graph.input] == ["input_ids", "attention_mask"]
    for one in graph.input:
        assert [size.dim_param for size in one.type.tensor_type.shape.dim] == ["batch", "sequence"]
    session = onnxruntime.InferenceSession(bert / "out" / "model.onnx")
    ids = np.arange(1, 34).reshape(3, 11) % 99
    mask = np.ones_like(ids)
    whole = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    mask[:, 5:] = 0
    other = np.where(mask, ids, 7)
    masked = [
        session.run(None, {"input_ids": one, "attention_mask": mask})[0] for one in (ids, other)
    ]
    assert whole.shape == (3, 2)
    np.testing.assert_allclose(masked[0], masked[1], atol=1e-4)  # padding is not looked at
    assert np.abs(masked[0] - whole).max() > 1e-3


def test_inspect_looks_at_the_same_network(bert, command):
    done = command(f"inspect hf:{bert}/net --json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["groups"]


def test_sizes_that_the_user_names_come_first(bert, command):
    line = LINE.format(bert, bert).replace("/out", "/own")
    done = command(f"{line} --dynamic attention_mask:1=words --dynamic input_ids:1=words")
    assert done.exit_code == 0, done.stderr
    graph = onnx.load(bert / "own" / "model.onnx").graph
    assert {one.type.tensor_type.shape.dim[1].dim_param for one in graph.input} == {"words"}
    done = command(f"{line} --force --input-shape 2,8:int64")
    assert done.exit_code == 0, done.stderr
    graph = onnx.load(bert / "own" / "model.onnx").graph
    assert [one.name for one in graph.input] == ["input_ids"]


def test_a_sequence_that_cannot_be_free_is_told(bert, command, fast, monkeypatch):
    capture = passes.capture

    def fixed(model, args, kwargs, dynamic=None):
        if dynamic:
            raise UsageError("axis 1 of input_ids cannot be free", why="is fixed at 16 by add")
        return capture(model, args, kwargs, dynamic)

    monkeypatch.setattr(passes, "capture", fixed)
    done = command(LINE.format(bert, bert).replace("/out", "/fixed"))
    assert done.exit_code == 0, done.stderr
    (line,) = [one for one in json.loads(done.stdout)["warnings"] if "cannot be free" in one]
    assert "is fixed at 16 by add" in line
    assert "cannot be free" in (bert / "fixed" / "summary.md").read_text()


def refuses_masks(self, input_ids=None, attention_mask=None, **more):
    if attention_mask is not None:
        raise ValueError("no masks here")
    return self.config.vocab_size * input_ids.float()


def test_a_mask_that_does_not_run_is_told(bert, monkeypatch):
    kind = transformers.BertForSequenceClassification
    monkeypatch.setattr(kind, "forward", refuses_masks)
    _, namespace = load_model(f"hf:{bert}/net")
    axes, remarks = short_names.wishes(namespace)
    assert list(namespace.example_inputs) == ["input_ids"]
    assert list(axes) == ["input_ids"]
    assert any("attends to padding" in line for line in remarks)


@pytest.mark.parametrize(
    ("kind", "settings", "inputs"),
    [
        ("DistilBertModel", {"vocab_size": 99, "dim": 16, "n_layers": 1, "n_heads": 2,
                             "hidden_dim": 32}, ["input_ids", "attention_mask"]),
        ("GPT2LMHeadModel", {"vocab_size": 99, "n_embd": 16, "n_layer": 1, "n_head": 2},
         ["input_ids", "attention_mask"]),
        ("LlamaForCausalLM", SMALL, ["input_ids", "attention_mask"]),
        ("T5ForConditionalGeneration",
         {"vocab_size": 99, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2,
          "decoder_start_token_id": 0},
         ["input_ids", "attention_mask", "decoder_input_ids"]),
        ("ViTModel", {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                      "intermediate_size": 32, "image_size": 32, "patch_size": 8},
         ["pixel_values"]),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)  # fmt: skip
def test_a_model_is_called_with_what_it_takes(kind, settings, inputs, tmp_path):
    saved(kind, tmp_path / "net", **settings)
    model, namespace = load_model(f"hf:{tmp_path}/net")
    assert list(namespace.example_inputs) == inputs
    with torch.no_grad():
        model(**namespace.example_inputs)
    axes, _ = short_names.wishes(namespace)
    assert list(axes) == [name for name in inputs if name != "pixel_values"]
    sizes = [one.shape[0] for one in namespace.example_inputs.values()]
    assert len(set(sizes)) == 1
