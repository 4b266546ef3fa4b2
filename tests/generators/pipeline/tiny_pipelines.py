"""Pipelines of each family with random weights at tiny size, saved as folders that ``from_pretrained`` reads."""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxFillPipeline,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

from genaug.priors.config import PriorConfig
from tests.generators.pipeline import tiny_language

TINY = PriorConfig(path="tiny", image_size=32).folder
WIDTH = 32


def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(TINY / "tokenizer")


def clip(with_projection: bool = False, **more: object) -> torch.nn.Module:
    config = CLIPTextConfig(
        vocab_size=1010, hidden_size=WIDTH, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=77, projection_dim=WIDTH, bos_token_id=1008, eos_token_id=1009, pad_token_id=1009,
        **more,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if with_projection else CLIPTextModel)(config).eval()


def t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=1010, d_model=WIDTH, d_kv=8, d_ff=37, num_layers=2, num_heads=4, is_gated_act=True)
    ).eval()


def vae(latent_channels: int = 4, shift: float | None = None) -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[16, 32], latent_channels=latent_channels, norm_num_groups=8, sample_size=32,
        shift_factor=shift, scaling_factor=0.5, use_quant_conv=shift is None, use_post_quant_conv=shift is None,
    ).eval()  # fmt: skip


def unet(in_channels: int = 4, cross: int = WIDTH, **more: object) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(16, 32), layers_per_block=1, sample_size=16, in_channels=in_channels, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=cross, norm_num_groups=8, **{"attention_head_dim": 8, **more},
    ).eval()  # fmt: skip


def sd2() -> StableDiffusionPipeline:
    """As 2.1 at 768 px: it predicts velocities, its heads are counted per level, its projections linear."""
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    return StableDiffusionPipeline(
        vae=vae(), text_encoder=clip(hidden_act="gelu"), tokenizer=tokenizer(),
        unet=unet(use_linear_projection=True, attention_head_dim=(2, 4)),
        scheduler=DDIMScheduler(**schedule, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl() -> StableDiffusionXLPipeline:
    added = {
        "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + WIDTH, "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2),
    }  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=vae(), text_encoder=clip(), text_encoder_2=clip(True), tokenizer=tokenizer(), tokenizer_2=tokenizer(),
        unet=unet(cross=2 * WIDTH, **added), scheduler=EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1),
        force_zeros_for_empty_prompt=True,
    )  # fmt: skip


def sd3() -> StableDiffusion3Pipeline:
    """With two layers: a ControlNet adds nothing to the last one."""
    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=1, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        caption_projection_dim=32, joint_attention_dim=2 * WIDTH, pooled_projection_dim=2 * WIDTH, out_channels=4,
    ).eval()  # fmt: skip
    encoder = t5_wide()
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae(4, shift=0.0),
        text_encoder=clip(True), tokenizer=tokenizer(), text_encoder_2=clip(True), tokenizer_2=tokenizer(),
        text_encoder_3=encoder, tokenizer_3=tokenizer(),
    )  # fmt: skip


def t5_wide() -> T5EncoderModel:
    """As wide as two CLIP encoders side by side, which SD 3 pads to the width of its T5."""
    return T5EncoderModel(
        T5Config(vocab_size=1010, d_model=2 * WIDTH, d_kv=8, d_ff=37, num_layers=2, num_heads=4, is_gated_act=True)
    ).eval()


def _flux(pipeline: type, in_channels: int = 16) -> FluxPipeline:
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=in_channels, out_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=[4, 4, 8],
        guidance_embeds=pipeline is not FluxPipeline,
    ).eval()  # fmt: skip
    return pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), text_encoder=clip(), text_encoder_2=t5(), tokenizer=tokenizer(),
        tokenizer_2=tokenizer(), transformer=transformer, vae=vae(4, shift=0.0),
    )  # fmt: skip


def instruct_pix2pix() -> StableDiffusionInstructPix2PixPipeline:
    return StableDiffusionInstructPix2PixPipeline(
        vae=vae(), text_encoder=clip(), tokenizer=tokenizer(), unet=unet(8), scheduler=DDIMScheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


FAMILIES: dict[str, Callable[[], object]] = {
    "sd2": sd2,
    "sdxl": sdxl,
    "sd3": sd3,
    "flux": lambda: _flux(FluxPipeline),
    "flux_kontext": lambda: _flux(FluxKontextPipeline),
    "flux_fill": lambda: _flux(FluxFillPipeline, in_channels=16 + 16 + 16),
    "instruct_pix2pix": instruct_pix2pix,
    "z_image": tiny_language.z_image,
    "flux2_klein": tiny_language.flux2_klein,
    "sana_sprint": tiny_language.sana_sprint,
    "qwen_image_edit": tiny_language.qwen_image_edit,
}


def save(family: str, folder: Path) -> Path:
    """The folder of a pipeline of this family with random weights."""
    torch.manual_seed(0)
    FAMILIES[family]().save_pretrained(folder)
    return folder
