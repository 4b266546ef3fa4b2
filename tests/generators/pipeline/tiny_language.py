"""Pipelines whose text encoder is a language model, with random weights at tiny size: Z-Image, FLUX.2 klein, Sana-Sprint and
Qwen-Image-Edit."""

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    ModelMixin,
    QwenImageEditPipeline,
    QwenImageTransformer2DModel,
    SanaSprintImg2ImgPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

WIDTH = 32
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
)


def byte_vocabulary() -> dict[str, int]:
    """A token for each byte, then the special ones."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return {token: i for i, token in enumerate((*letters, *SPECIAL))}


def qwen_tokenizer() -> Qwen2Tokenizer:
    return Qwen2Tokenizer(
        vocab=byte_vocabulary(), merges=[], additional_special_tokens=list(SPECIAL), pad_token=SPECIAL[0],
        eos_token=SPECIAL[2], unk_token=SPECIAL[0], chat_template=CHAT,
    )  # fmt: skip


def small(layers: int) -> dict[str, int]:
    return {
        "vocab_size": 300, "hidden_size": WIDTH, "intermediate_size": 37, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 4096,
    }  # fmt: skip


def loud(network: ModelMixin) -> ModelMixin:
    """The network with weights so large that its images show what it was given."""
    for weight in network.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return network


def flow() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler()


def z_image() -> ZImagePipeline:
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, block_out_channels=[16, 32],
        latent_channels=4, norm_num_groups=8, sample_size=32, shift_factor=0.0, scaling_factor=0.5,
        use_quant_conv=False, use_post_quant_conv=False,
    ).eval()  # fmt: skip
    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH,
        axes_dims=[4, 4, 8], axes_lens=[1024, 64, 64],
    ).eval()  # fmt: skip
    encoder = Qwen3Model(Qwen3Config(**small(2))).eval()
    return ZImagePipeline(flow(), vae, encoder, qwen_tokenizer(), transformer)


def flux2_klein() -> Flux2KleinPipeline:
    """The prompt is read from the layers 9, 18 and 27 of the text encoder, so it has as many."""
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(16, 32),
        layers_per_block=1, latent_channels=4, norm_num_groups=8, sample_size=32,
    ).eval()  # fmt: skip
    transformer = Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=3 * WIDTH, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    ).eval()  # fmt: skip
    encoder = Qwen3ForCausalLM(Qwen3Config(**small(28))).eval()
    return Flux2KleinPipeline(flow(), vae, encoder, qwen_tokenizer(), loud(transformer), is_distilled=True)


def sana_sprint() -> SanaSprintImg2ImgPipeline:
    vae = AutoencoderDC(
        latent_channels=4, attention_head_dim=2, encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"), encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8), encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)), downsample_block_type="conv",
        upsample_block_type="interpolate", decoder_norm_types="rms_norm", decoder_act_fns="silu", scaling_factor=0.41407,
    ).eval()  # fmt: skip
    transformer = SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
        num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=WIDTH,
        sample_size=32, qk_norm="rms_norm_across_heads", guidance_embeds=True,
    ).eval()  # fmt: skip
    letters = Tokenizer(models.BPE(vocab=byte_vocabulary(), merges=[]))
    letters.pre_tokenizer, letters.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    letters.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, pad_token=SPECIAL[0], padding_side="right")
    encoder = Gemma2Model(Gemma2Config(**small(1), query_pre_attn_scalar=8)).eval()
    return SanaSprintImg2ImgPipeline(tokenizer, encoder, vae, transformer, SCMScheduler())


def qwen_image_edit() -> QwenImageEditPipeline:
    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 2, 4], num_res_blocks=1, temperal_downsample=[False, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    ).eval()  # fmt: skip
    transformer = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, axes_dims_rope=(4, 4, 8),
    ).eval()  # fmt: skip
    numbers = byte_vocabulary()
    text = {**small(2), "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}
    text.pop("head_dim")
    vision = {
        "depth": 1, "hidden_size": WIDTH, "intermediate_size": 37, "num_heads": 2, "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [0], "patch_size": 14,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=numbers["<|image_pad|>"],
        video_token_id=numbers["<|video_pad|>"], vision_start_token_id=numbers["<|vision_start|>"],
        vision_end_token_id=numbers["<|vision_end|>"],
    )  # fmt: skip
    tokenizer = qwen_tokenizer()
    sides = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=sides), tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=sides), chat_template=CHAT,
    )  # fmt: skip
    encoder = Qwen2_5_VLForConditionalGeneration(config).eval()
    return QwenImageEditPipeline(flow(), vae, encoder, tokenizer, processor, loud(transformer))
