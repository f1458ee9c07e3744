"""Sound: as samples, or as spectrograms."""

from typing import Any

from models.zoo.cases import Case
from models.zoo.transformers_zoo.encoders import TEXT
from models.zoo.transformers_zoo.making import row, spectrum, wave
from models.zoo.transformers_zoo.several import PAIR

WAVE = TEXT | {
    "conv_dim": (32, 32, 32),
    "conv_stride": (5, 2, 2),
    "conv_kernel": (10, 3, 2),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "apply_spec_augment": False,
    "classifier_proj_size": 32,
    "num_labels": 5,
}


def waves(model: str, **settings: Any) -> Case:
    return row(model, WAVE | settings, wave(), family="speech")


CASES = (
    waves("Wav2Vec2ForCTC"),
    waves("Wav2Vec2ForSequenceClassification", feat_extract_norm="layer",
          do_stable_layer_norm=True),
    waves("HubertForCTC"),
    waves("WavLMForCTC"),
    waves("SEWForCTC", squeeze_factor=2),
    waves("SEWDForCTC", squeeze_factor=2, position_buckets=8),
    waves("UniSpeechForCTC"),
    waves("UniSpeechSatForSequenceClassification"),
    waves("Data2VecAudioForCTC", num_conv_pos_embeddings=2, conv_pos_kernel_size=5),
    waves("Wav2Vec2ConformerForCTC", conv_depthwise_kernel_size=7),
    row("WhisperForConditionalGeneration",
        PAIR | {"num_mel_bins": 16, "max_source_positions": 16, "max_target_positions": 32},
        spectrum(16, 32, target=7), family="speech"),
    row("WhisperForAudioClassification",
        PAIR | {"num_mel_bins": 16, "max_source_positions": 16, "max_target_positions": 32,
                "num_labels": 5}, spectrum(16, 32), family="speech"),
    row("Speech2TextForConditionalGeneration",
        PAIR | {"input_feat_per_channel": 16, "conv_channels": 64, "max_source_positions": 64,
                "max_target_positions": 32}, spectrum(40, 16, target=7), family="speech"),
    row("ASTForAudioClassification",
        {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 128, "max_length": 32, "num_mel_bins": 32, "patch_size": 8,
         "frequency_stride": 8, "time_stride": 8, "num_labels": 5},
        spectrum(32, 32, name="input_values"), family="speech"),
)  # fmt: skip
