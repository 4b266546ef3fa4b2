"""The families of ``downstream.architecture=auto`` at toy size, saved as transformers saves them."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.rt_detr.configuration_rt_detr_resnet import RTDetrResNetConfig

SIDE = 64


def _resnet() -> Any:
    sizes = [8, 16, 24, 32]
    return RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=sizes, depths=[1] * 4, layer_type="basic", out_indices=[2, 3, 4]
    )


def _hgnet() -> Any:
    return transformers.HGNetV2Config(
        stem_channels=[3, 8, 8], stage_in_channels=[8, 16, 16, 24], stage_mid_channels=[8] * 4,
        stage_out_channels=[16, 16, 24, 32], stage_num_blocks=[1] * 4, stage_numb_of_layers=[1] * 4,
        stage_light_block=[False] * 4, stage_kernel_size=[3] * 4, out_indices=[2, 3, 4],
        hidden_sizes=[16, 16, 24, 32], depths=[1] * 4, embedding_size=8,
    )  # fmt: skip


REAL_TIME: dict[str, Any] = {
    "d_model": 32, "encoder_hidden_dim": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "decoder_layers": 2, "num_queries": 20, "num_denoising": 8,
    "encoder_in_channels": [16, 24, 32],
    "decoder_in_channels": [32, 32, 32], "freeze_backbone_batch_norms": False,
}  # fmt: skip
LIGHT: dict[str, Any] = {
    "d_model": 32, "decoder_ffn_dim": 32, "decoder_layers": 2, "decoder_self_attention_heads": 2,
    "decoder_cross_attention_heads": 4,
    "num_queries": 20, "group_detr": 2, "c2f_num_blocks": 1,
}  # fmt: skip
VIT: dict[str, Any] = {
    "image_size": SIDE,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "out_indices": [1, 2],
}
CONFIGS = {
    "rt_detr": lambda: transformers.RTDetrConfig(backbone_config=_resnet(), **REAL_TIME),
    "rt_detr_v2": lambda: transformers.RTDetrV2Config(backbone_config=_resnet(), **REAL_TIME),
    "d_fine": lambda: transformers.DFineConfig(backbone_config=_hgnet(), depth_mult=0.34, **REAL_TIME),
    "deimv2": lambda: transformers.Deimv2Config(backbone_config=_hgnet(), depth_mult=0.34, **REAL_TIME),
    "lw_detr": lambda: transformers.LwDetrConfig(
        backbone_config=transformers.LwDetrViTConfig(
            **VIT, pretrain_image_size=SIDE, window_block_indices=[0], num_windows=4
        ),
        projector_scale_factors=[1.0],
        **LIGHT,
    ),
    "rf_detr": lambda: transformers.RfDetrConfig(
        backbone_config={"model_type": "rf_detr_dinov2", **VIT, "num_windows": 2}, **{**LIGHT, "dropout": 0.0}
    ),
}
PROCESSORS = {"lw_detr": "DeformableDetrImageProcessor", "rf_detr": "RfDetrImageProcessor"}


def saved(model_type: str, folder: Path, num_classes: int, seed: int = 0, side: int = SIDE) -> Path:
    """The folder with random weights, config.json and preprocessor_config.json, as on the Hub."""
    config = CONFIGS[model_type]()
    config.num_labels = num_classes
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformers.AutoModelForObjectDetection.from_config(config).save_pretrained(folder)
    processor = getattr(transformers, PROCESSORS.get(model_type, "RTDetrImageProcessor"))
    processor(size={"height": side, "width": side}).save_pretrained(folder)
    return folder
