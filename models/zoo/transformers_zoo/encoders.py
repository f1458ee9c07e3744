"""Encoders of words."""

from typing import Any

import torch

from models.zoo.cases import Case
from models.zoo.transformers_zoo.making import UNTRACEABLE, VOCABULARY, Inputs, row, words

TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def encoder(model: str, inputs: Inputs | None = None, frozen: str = "", **settings: Any) -> Case:
    return row(model, TEXT | settings, inputs or words(), family="encoder", frozen=frozen)


CASES = (
    encoder("BertForMaskedLM"),
    encoder("BertForSequenceClassification", num_labels=5),
    encoder("RobertaForMaskedLM"),
    encoder("RobertaPreLayerNormForSequenceClassification", num_labels=5),
    encoder("DistilBertForTokenClassification", num_labels=5, hidden_dim=128),
    encoder("AlbertForMaskedLM", embedding_size=32),
    encoder("ElectraForSequenceClassification", embedding_size=32, num_labels=5),
    encoder("DebertaForSequenceClassification", num_labels=5, relative_attention=True,
            pos_att_type=["p2c", "c2p"]),
    encoder("DebertaV2ForSequenceClassification", num_labels=5, relative_attention=True,
            position_buckets=8, norm_rel_ebd="layer_norm", share_att_key=True,
            pos_att_type=["p2c", "c2p"]),
    encoder("MPNetForSequenceClassification", num_labels=5),
    encoder("MobileBertForSequenceClassification", num_labels=5, embedding_size=32,
            intra_bottleneck_size=32, true_hidden_size=32, num_feedforward_networks=2),
    encoder("ConvBertForSequenceClassification", num_labels=5, embedding_size=32, head_ratio=2,
            num_groups=2),
    encoder("SqueezeBertForSequenceClassification", num_labels=5, embedding_size=64),
    row("FunnelForSequenceClassification", {"vocab_size": VOCABULARY, "block_sizes": [1, 1],
        "d_model": 64, "n_head": 4, "d_head": 16, "d_inner": 128, "num_labels": 5}, words(),
        family="encoder"),
    encoder("FNetForSequenceClassification", words(masked=False), num_labels=5),
    encoder("ModernBertForSequenceClassification", num_labels=5, cls_token_id=1, sep_token_id=2,
            local_attention=8, global_attn_every_n_layers=2, reference_compile=False),
    encoder("LongformerForSequenceClassification", words(32), num_labels=5,
            attention_window=[8, 8], frozen=UNTRACEABLE),
    encoder("BigBirdForSequenceClassification", num_labels=5, attention_type="original_full"),
    encoder("NystromformerForSequenceClassification",
            words(32, attention_mask=torch.zeros(2, 1, 1, 32)),
            num_labels=5, segment_means_seq_len=32, num_landmarks=8),
    encoder("YosoForSequenceClassification", num_labels=5, use_expectation=True),
    encoder("RoFormerForSequenceClassification", num_labels=5, embedding_size=32),
    encoder("RemBertForSequenceClassification", num_labels=5, input_embedding_size=32,
            output_embedding_size=32),
    row("XLNetForSequenceClassification", {"vocab_size": VOCABULARY, "d_model": 64, "n_layer": 2,
        "n_head": 4, "d_inner": 128, "use_mems_eval": False, "num_labels": 5}, words(),
        family="encoder"),
    encoder("XLMRobertaForTokenClassification", num_labels=5),
    encoder("CamembertForMaskedLM"),
    encoder("MegatronBertForSequenceClassification", num_labels=5),
    encoder("LayoutLMForTokenClassification", num_labels=5, max_2d_position_embeddings=64),
    encoder("NomicBertForSequenceClassification", num_labels=5),
    encoder("EsmForTokenClassification", num_labels=5, mask_token_id=3,
            position_embedding_type="rotary", token_dropout=False),
    encoder("IBertForSequenceClassification", num_labels=5),
    encoder("CanineForSequenceClassification", num_labels=5, num_hash_buckets=64,
            downsampling_rate=4, local_transformer_stride=16),
    encoder("ErnieForSequenceClassification", num_labels=5),
    encoder("EuroBertForSequenceClassification", num_labels=5, mask_token_id=3),
    encoder("FlaubertForSequenceClassification", num_labels=5, emb_dim=64, n_layers=2, n_heads=4,
            n_words=VOCABULARY),
)  # fmt: skip
