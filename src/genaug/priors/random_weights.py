"""Priors of Stable Diffusion's shape with random weights, in the diffusers folder layout.

For tests (``tiny``: real classes, seconds on one core) and for measurements of speed (``sd15``: the exact shapes of
Stable Diffusion 1.5, whose speed does not depend on what the weights say). They make noise, not pictures.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

PROMPT_LENGTH = 77

# every word of the templates and of some class names: each becomes one piece, other words fall into letters
WORDS = """a the my one photo of clean dirty cool nice small large weird good bright dark close up cropped
    rendering rendition zero two three four five six seven eight nine cat dog dining table view""".split()

SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": {
        "unet": {
            "sample_size": 4,
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": 32,
            "attention_head_dim": 8,
            "norm_num_groups": 8,
        },
        "vae": {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4, "sample_size": 32},
        "text": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    },
    "sd15": {
        "unet": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        "vae": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512},
        "text": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    },
}


def random_parts(shape: str = "tiny", prediction_type: Any = "epsilon", seed: int = 0) -> dict[str, Any]:
    """The five parts of a prior: ``unet``, ``vae``, ``text_encoder``, ``tokenizer``, ``scheduler``."""
    sizes = SHAPES[shape]
    tokenizer: Any = _tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**sizes["unet"])
        num_blocks = len(sizes["vae"]["block_out_channels"])
        blocks: Any = (("DownEncoderBlock2D",) * num_blocks, ("UpDecoderBlock2D",) * num_blocks)
        vae = AutoencoderKL(
            latent_channels=4,
            down_block_types=blocks[0],
            up_block_types=blocks[1],
            **sizes["vae"],
        )
        text = CLIPTextConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=PROMPT_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **sizes["text"],
        )
        text_encoder = CLIPTextModel(text)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    return {"unet": unet, "vae": vae, "text_encoder": text_encoder, "tokenizer": tokenizer, "scheduler": scheduler}


def save_random_prior(folder: Path, shape: str = "tiny", prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """Write ``random_parts`` as a folder that ``PriorConfig(path=...)`` and diffusers' pipelines read."""
    parts = random_parts(shape, prediction_type, seed)
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")
    return folder


def _tokenizer() -> CLIPTokenizer:
    """A byte-level BPE tokenizer as CLIP's: bytes, bytes at a word's end, and the prefixes that lead to ``WORDS``."""
    letters = sorted(ByteLevel.alphabet())
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: Any = []  # pairs; the annotation of CLIPTokenizer says strings
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        left = pieces[0]
        for right in pieces[1:]:
            if (left, right) not in merges:
                merges.append((left, right))
                vocabulary.append(left + right)
            left += right
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    ids = {piece: i for i, piece in enumerate(dict.fromkeys(vocabulary))}
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=PROMPT_LENGTH)
