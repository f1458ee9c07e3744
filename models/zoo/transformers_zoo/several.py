"""Encoders beside decoders, pictures beside words, and series of numbers."""

from typing import Any

from models._random import normal
from models.zoo.cases import Case
from models.zoo.transformers_zoo.encoders import TEXT
from models.zoo.transformers_zoo.making import (
    UNTRACEABLE,
    VOCABULARY,
    both,
    described,
    row,
)

PAIR = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "use_cache": False,
}
T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
    "use_cache": False,
}
VISION = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 32,
    "patch_size": 8,
}


def pair(model: str, frozen: str = "", **settings: Any) -> Case:
    return row(model, PAIR | settings, both(), family="encoder-decoder", frozen=frozen)


def t5(model: str, frozen: str = "", **settings: Any) -> Case:
    return row(model, T5 | settings, both(), family="encoder-decoder", frozen=frozen)


def with_pictures(model: str, more: dict[str, Any] | None = None, **settings: Any) -> Case:
    """Two towers, each with a configuration of its own."""
    towers = {"text_config": TEXT | settings.pop("text", {}),
              "vision_config": VISION | settings.pop("vision", {})}  # fmt: skip
    return row(model, towers | settings, described(**(more or {})), family="multi-modal")


def series(model: str, inputs: dict[str, tuple[int, ...]], **settings: Any) -> Case:
    return row(
        model,
        settings,
        lambda: {name: normal(*shape) for name, shape in inputs.items()},
        family="time series",
    )


CASES = (
    pair("BartForConditionalGeneration"),
    pair("MBartForConditionalGeneration"),
    pair("PegasusForConditionalGeneration"),
    pair("MarianMTModel"),
    pair("M2M100ForConditionalGeneration"),
    pair("BlenderbotForConditionalGeneration"),
    pair("BlenderbotSmallForConditionalGeneration"),
    pair("PLBartForConditionalGeneration"),
    pair("MvpForConditionalGeneration"),
    pair("LEDForConditionalGeneration", attention_window=8, max_encoder_position_embeddings=64,
         max_decoder_position_embeddings=64, frozen=UNTRACEABLE),
    row("ProphetNetForConditionalGeneration", {"vocab_size": VOCABULARY, "hidden_size": 64,
        "num_encoder_layers": 2, "num_decoder_layers": 2, "num_encoder_attention_heads": 4,
        "num_decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128,
        "max_position_embeddings": 64, "use_cache": False}, both(), family="encoder-decoder"),
    t5("T5ForConditionalGeneration"),
    t5("MT5ForConditionalGeneration", feed_forward_proj="gated-gelu"),
    t5("UMT5ForConditionalGeneration"),
    t5("LongT5ForConditionalGeneration", local_radius=4),
    t5("SwitchTransformersForConditionalGeneration", num_experts=4, num_sparse_encoder_layers=1,
       num_sparse_decoder_layers=1, expert_capacity=8, frozen=UNTRACEABLE),
    with_pictures("CLIPModel", projection_dim=32),
    with_pictures("SiglipModel"),
    with_pictures("BlipForImageTextRetrieval", projection_dim=32, image_text_hidden_size=32,
                  text={"encoder_hidden_size": 64}),
    with_pictures("ChineseCLIPModel", projection_dim=32),
    with_pictures("AltCLIPModel", projection_dim=32, text={"project_dim": 64}),
    with_pictures("AlignModel", {"size": 64}, projection_dim=80, vision={
        "image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320}),
    with_pictures("GroupViTModel", projection_dim=32, projection_intermediate_dim=64, vision={
        "depths": [1, 1], "num_group_tokens": [4, 0], "num_output_groups": [4, 2],
        "hidden_size": 64}),
    with_pictures("CLIPSegForImageSegmentation", projection_dim=32, reduce_dim=32,
                  extract_layers=[0, 1], decoder_num_attention_heads=4,
                  decoder_intermediate_size=64),
    with_pictures("Owlv2ForObjectDetection", projection_dim=64),
    row("ViltForQuestionAnswering", TEXT | {"image_size": 32, "patch_size": 8, "num_labels": 5,
        "max_image_length": -1}, described(), family="multi-modal", frozen=UNTRACEABLE),
    series("PatchTSTForPrediction", {"past_values": (2, 32, 3)}, num_input_channels=3,
           context_length=32, patch_length=8, patch_stride=8, d_model=64, num_hidden_layers=2,
           num_attention_heads=4, ffn_dim=128, prediction_length=8),
    series("PatchTSTForClassification", {"past_values": (2, 32, 3)}, num_input_channels=3,
           context_length=32, patch_length=8, patch_stride=8, d_model=64, num_hidden_layers=2,
           num_attention_heads=4, ffn_dim=128, num_targets=5),
    series("PatchTSMixerForPrediction", {"past_values": (2, 32, 3)}, num_input_channels=3,
           context_length=32, patch_length=8, patch_stride=8, d_model=32, num_layers=2,
           expansion_factor=2, prediction_length=8),
    series("TimesFmModelForPrediction", {"past_values": (2, 64)}, hidden_size=64,
           num_hidden_layers=2, num_attention_heads=4, head_dim=16, intermediate_size=128,
           patch_length=8, context_length=64, horizon_length=16),
)  # fmt: skip
