"""Pictures: classes, boxes, masks and depths."""

from typing import Any

from models.zoo.cases import Case
from models.zoo.transformers_zoo.making import Inputs, picture, row

VIT = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}
WINDOW = {
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 32,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "num_labels": 5,
}


def plain(model: str, family: str = "vision", **settings: Any) -> Case:
    """One width throughout."""
    return row(model, VIT | settings, picture(), family=family)


def windows(model: str, **settings: Any) -> Case:
    return row(model, WINDOW | settings, picture(64), family="vision")


def other(
    model: str, inputs: Inputs | None = None, family: str = "vision", **settings: Any
) -> Case:
    family = settings.pop("family", "vision")
    return row(model, {"num_labels": 5} | settings, inputs or picture(64), family=family)


CASES = (
    plain("ViTForImageClassification"),
    plain("DeiTForImageClassificationWithTeacher"),
    plain("BeitForImageClassification", use_relative_position_bias=True),
    plain("Data2VecVisionForImageClassification", use_relative_position_bias=True),
    plain("Dinov2ForImageClassification", mlp_ratio=2),
    plain("Dinov2WithRegistersForImageClassification", mlp_ratio=2),
    plain("ViTMSNForImageClassification"),
    plain("IJepaForImageClassification"),
    plain("YolosForObjectDetection", family="detection", image_size=[32, 32],
          num_detection_tokens=7),
    windows("SwinForImageClassification"),
    windows("Swinv2ForImageClassification"),
    windows("DonutSwinForImageClassification"),
    other("Swin2SRForImageSuperResolution", picture(32), image_size=32, embed_dim=32,
          depths=[2, 2], num_heads=[4, 4], window_size=4, upscale=2),
    other("FocalNetForImageClassification", embed_dim=32, depths=[1, 1], image_size=64,
          focal_levels=[2, 2], focal_windows=[3, 3], hidden_sizes=[32, 64]),
    other("HieraForImageClassification", image_size=[64, 64], embed_dim=32, depths=[1, 1, 1],
          num_heads=[1, 2, 4], query_stride=[2, 2], num_query_pool=2, masked_unit_size=[4, 4],
          patch_stride=[4, 4]),
    other("ConvNextForImageClassification", hidden_sizes=[32, 32, 64, 64], depths=[1, 1, 1, 1]),
    other("ConvNextV2ForImageClassification", hidden_sizes=[32, 32, 64, 64], depths=[1, 1, 1, 1]),
    other("ResNetForImageClassification", embedding_size=32, hidden_sizes=[32, 64],
          depths=[1, 2]),
    other("RegNetForImageClassification", embedding_size=32, hidden_sizes=[32, 64],
          depths=[1, 2], groups_width=8),
    other("BitForImageClassification", embedding_size=32, hidden_sizes=[64, 128], depths=[1, 1],
          num_groups=8),
    other("HGNetV2ForImageClassification", embedding_size=32, stem_channels=[3, 16, 32],
          stage_in_channels=[32, 64], stage_mid_channels=[16, 32], stage_out_channels=[64, 64],
          stage_num_blocks=[1, 1], stage_downsample=[False, True], stage_light_block=[False, True],
          stage_kernel_size=[3, 5], stage_numb_of_layers=[2, 2], hidden_sizes=[64, 64],
          depths=[1, 1], stage_downsample_strides=[2, 2]),
    other("MobileNetV1ForImageClassification", depth_multiplier=0.25, image_size=64),
    other("MobileNetV2ForImageClassification", depth_multiplier=0.35, image_size=64),
    other("MobileViTForImageClassification", image_size=64, hidden_sizes=[32, 32, 32],
          neck_hidden_sizes=[16, 16, 32, 32, 32, 32, 64], intermediate_size=64),
    other("MobileViTV2ForImageClassification", image_size=64, width_multiplier=0.25),
    other("EfficientNetForImageClassification", image_size=64, width_coefficient=0.25,
          depth_coefficient=0.25, hidden_dim=320),
    other("PvtForImageClassification", image_size=64, hidden_sizes=[16, 32, 32, 64],
          depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 4]),
    other("PvtV2ForImageClassification", image_size=64, hidden_sizes=[16, 32, 32, 64],
          depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 4]),
    other("LevitForImageClassification", image_size=64, hidden_sizes=[32, 48, 64],
          num_attention_heads=[2, 3, 4], depths=[1, 1, 1], key_dim=[8, 8, 8]),
    other("PoolFormerForImageClassification", hidden_sizes=[16, 32, 32, 64],
          depths=[1, 1, 1, 1]),
    other("SegformerForImageClassification", hidden_sizes=[16, 32, 32, 64], depths=[1, 1, 1, 1],
          num_attention_heads=[1, 2, 2, 4]),
    other("CvtForImageClassification", embed_dim=[16, 32, 64], num_heads=[1, 2, 4],
          depth=[1, 2, 3], drop_path_rate=[0.0, 0.0, 0.0]),
    other("SwiftFormerForImageClassification", embed_dims=[16, 32, 32, 64], depths=[1, 1, 1, 1]),
    other("TextNetForImageClassification", stem_out_channels=16,
          hidden_sizes=[16, 16, 32, 32, 64]),
    other("SegformerForSemanticSegmentation", family="segmentation", hidden_sizes=[16, 32, 32, 64],
          depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 4], decoder_hidden_size=64),
    other("MobileViTForSemanticSegmentation", family="segmentation", image_size=64,
          hidden_sizes=[32, 32, 32], neck_hidden_sizes=[16, 16, 32, 32, 32, 32, 64],
          intermediate_size=64, aspp_out_channels=32),
    other("MobileNetV2ForSemanticSegmentation", family="segmentation", depth_multiplier=0.35),
    other("GLPNForDepthEstimation", family="depth", hidden_sizes=[16, 32, 32, 64],
          depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 4], decoder_hidden_size=32),
    other("SuperPointForKeypointDetection", family="detection"),
)  # fmt: skip
