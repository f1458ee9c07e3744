"""Scenes: boxes, masks and depths, from a backbone and what reads it."""

from typing import Any

from models._random import normal
from models.zoo.cases import Case
from models.zoo.transformers_zoo.making import Inputs, picture, row

RESNET = {
    "model_type": "resnet",
    "embedding_size": 32,
    "hidden_sizes": [32, 32, 64, 64],
    "depths": [1, 1, 1, 1],
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
SWIN = {
    "model_type": "swin",
    "image_size": 64,
    "embed_dim": 16,
    "depths": [1, 1, 2, 1],
    "num_heads": [2, 2, 4, 4],
    "window_size": 4,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
VIT = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 64,
    "patch_size": 16,
}
QUERIES = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "num_queries": 6,
    "num_labels": 5,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
}


def detection(model: str, **settings: Any) -> Case:
    backbone = RESNET | {"out_features": settings.pop("out_features", ["stage4"])}
    return row(model, QUERIES | {"backbone_config": backbone} | settings, picture(64),
               family="detection")  # fmt: skip


def scene(model: str, family: str, inputs: Inputs | None = None, **settings: Any) -> Case:
    return row(model, {"num_labels": 5} | settings, inputs or picture(64), family=family)


CASES = (
    detection("DetrForObjectDetection"),
    detection("DetrForSegmentation", encoder_attention_heads=8, decoder_attention_heads=8,
              out_features=["stage1", "stage2", "stage3", "stage4"]),
    detection("TableTransformerForObjectDetection"),
    detection("ConditionalDetrForObjectDetection"),
    detection("DabDetrForObjectDetection", hidden_size=64),
    detection("DeformableDetrForObjectDetection", out_features=["stage2", "stage3", "stage4"]),
    scene("RTDetrForObjectDetection", "detection", d_model=64, encoder_hidden_dim=64,
          encoder_in_channels=[32, 64, 64], encoder_ffn_dim=128, encoder_attention_heads=4,
          decoder_in_channels=[64, 64, 64], decoder_ffn_dim=128, decoder_layers=2,
          decoder_attention_heads=4, num_queries=6, hidden_expansion=0.5, num_denoising=0,
          anchor_image_size=[64, 64], eval_size=64,
          backbone_config={"model_type": "rt_detr_resnet", "embedding_size": 32,
                           "hidden_sizes": [32, 32, 64, 64], "depths": [1, 1, 1, 1],
                           "out_features": ["stage2", "stage3", "stage4"]}),
    scene("UperNetForSemanticSegmentation", "segmentation", hidden_size=32,
          use_auxiliary_head=True, auxiliary_in_channels=64, auxiliary_channels=32,
          backbone_config=RESNET),
    scene("MaskFormerForInstanceSegmentation", "segmentation", fpn_feature_size=32,
          mask_feature_size=32, backbone_config=SWIN,
          decoder_config={**QUERIES, "model_type": "detr"}),
    scene("Mask2FormerForUniversalSegmentation", "segmentation", feature_size=32,
          mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=64, dim_feedforward=64,
          encoder_layers=2, decoder_layers=2, num_attention_heads=4, num_queries=6,
          backbone_config=SWIN),
    scene("SamModel", "segmentation", lambda: {**picture(64)(),
          "input_points": normal(2, 1, 2, 2).abs() * 20},
          vision_config=VIT | {"num_hidden_layers": 2, "output_channels": 32, "mlp_dim": 128,
                               "window_size": 2, "global_attn_indexes": [1], "num_pos_feats": 16},
          prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 16},
          mask_decoder_config={"hidden_size": 32, "num_hidden_layers": 2, "mlp_dim": 64,
                               "num_attention_heads": 4, "iou_head_hidden_dim": 32}),
    scene("BeitForSemanticSegmentation", "segmentation", **VIT, out_indices=[1, 2, 3, 4],
          use_absolute_position_embeddings=True, pool_scales=[1, 2]),
    scene("DPTForDepthEstimation", "depth", **VIT, backbone_out_indices=[0, 1, 2, 3],
          neck_hidden_sizes=[16, 16, 32, 32], fusion_hidden_size=32),
    scene("DPTForSemanticSegmentation", "segmentation", **VIT, backbone_out_indices=[0, 1, 2, 3],
          neck_hidden_sizes=[16, 16, 32, 32], fusion_hidden_size=32),
    scene("DepthAnythingForDepthEstimation", "depth", patch_size=16, reassemble_hidden_size=64,
          neck_hidden_sizes=[16, 16, 32, 32], fusion_hidden_size=32, head_hidden_size=16,
          backbone_config=VIT | {"model_type": "dinov2", "out_indices": [1, 2, 3, 4],
                                 "reshape_hidden_states": False, "apply_layernorm": True}),
    scene("VitMatteForImageMatting", "segmentation",
          lambda: {"pixel_values": normal(2, 4, 64, 64)}, hidden_size=64,
          fusion_hidden_sizes=[32, 32, 16, 16], convstream_hidden_sizes=[16, 32, 32],
          backbone_config=VIT | {"model_type": "vitdet", "num_channels": 4, "window_size": 2,
                                 "out_features": ["stage4"], "num_attention_heads": 4}),
    scene("VitPoseForPoseEstimation", "detection", num_labels=3,
          backbone_config=VIT | {"model_type": "vitpose_backbone", "image_size": [64, 64],
                                 "patch_size": [16, 16], "out_indices": [4]}),
)  # fmt: skip
