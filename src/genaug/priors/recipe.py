"""How the tiny prior is trained: every hyper-parameter, without importing torch.

The training itself is in `training.py`, its pictures in `corpus.py`, and what came out is measured by `measure.py`.
"""

from dataclasses import dataclass, field
from pathlib import Path

from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, choice, count, probability, seed
from genaug.core.identity import NOT_IDENTITY
from genaug.core.registry import section

PRECISIONS = ("fp32", "bf16")


@section("recipe", "recipe")
@dataclass(kw_only=True, slots=True)
class PriorRecipe:
    """A Stable-Diffusion-shaped prior small enough for a CPU. The defaults are those of the shipped weights."""

    data_dir: str = field(default="../shared/data", metadata=NOT_IDENTITY)
    """Folder that holds mnist, custom_coco_256, coco_cc and bccd."""
    device: str = field(default="cpu", metadata=NOT_IDENTITY)
    """Torch device: cpu, cuda, cuda:1 …"""
    seed: int = seed(0)
    """Seed of the initial weights and of every batch; batch k depends on (seed, stage, k) alone."""
    num_threads: int = count(2, most=1024, metadata=NOT_IDENTITY)
    """CPU threads of torch, >= 1."""
    checkpoint_every: int = count(100, metadata=NOT_IDENTITY)
    """Steps between two checkpoints of a stage, >= 1; an interrupted run loses at most these."""
    log_every: int = count(50, metadata=NOT_IDENTITY)
    """Steps between two progress lines, >= 1."""

    vocab_size: int = count(1200, 514, 65_536)
    """Most tokens of the tokenizer, at least 514: 256 bytes, inside and at the end of a word, two special tokens."""

    vae_channels: list[int] = count([24, 48, 64, 64], 8, 65_536)
    """Width of the autoencoder's four levels (factor 8), multiples of 8."""
    vae_steps: int = count(1200)
    """Optimiser steps of the autoencoder."""
    vae_batch_size: int = count(40, 6)
    """Pictures of 32 px in a step of the autoencoder, >= 6: five of six are digits."""
    vae_large_batch_size: int = count(6, 4)
    """Pictures of 64 px in a step of the autoencoder, >= 4: one of four is a scene of digits."""
    vae_lr: float = bounded(1e-3, 0, 100, above=True)
    """Peak learning rate of the autoencoder (AdamW, linear warm-up, cosine to 2 %)."""
    vae_precision: str = choice("bf16", PRECISIONS)
    """Precision of the autoencoder's training: fp32, or bf16 (autocast)."""
    kl_weight: float = bounded(1e-4, 0, 1000)
    """Weight of the KL divergence per latent element against the squared error per pixel value in [-1, 1]."""
    l1_weight: float = bounded(0.05, 0, 1000)
    """Weight of the absolute error."""
    gradient_weight: float = bounded(0.1, 0, 1000)
    """Weight of the absolute error of horizontal and vertical differences; keeps edges sharp."""

    bank_digits: int = count(90_000)
    """Digit pictures of 32 px that are encoded once for the U-Net."""
    bank_small_pictures: int = count(6_000)
    """Photographs and micrographs of 32 px in the latent bank."""
    bank_scenes: int = count(6_000)
    """Digit scenes of 64 px in the latent bank."""
    bank_pictures: int = count(9_000)
    """Photographs and micrographs of 64 px in the latent bank."""

    text_width: int = count(64, 4, 65_536)
    """Width of the text encoder and of cross-attention, a multiple of 4."""
    text_layers: int = count(2, most=1000)
    """Layers of the text encoder."""
    unet_channels: list[int] = count([64, 128], 16, 65_536)
    """Width of the U-Net's levels, multiples of 16; both have cross-attention."""
    unet_steps: int = count(3000)
    """Optimiser steps of U-Net and text encoder."""
    unet_batch_size: int = count(128, 4)
    """Latents of 4x4 in a step, >= 4; a step on 8x8 latents takes a fourth of that."""
    unet_large_every: int = count(4, 2)
    """Every how many steps the batch is of 8x8 latents (64 px), >= 2."""
    unet_lr: float = bounded(1e-3, 0, 100, above=True)
    """Peak learning rate of U-Net and text encoder (AdamW, linear warm-up, cosine to 2 %)."""
    unet_precision: str = choice("fp32", PRECISIONS)
    """Precision of the U-Net's training: fp32, or bf16 (autocast)."""
    ema_decay: float = bounded(0.998, 0, 1, below=True)
    """Decay per step of the moving average of the weights that are saved, in [0, 1)."""
    empty_prompt_prob: float = probability(0.12)
    """Share of samples whose prompt is empty, for classifier-free guidance."""
    generic_prompt_prob: float = probability(0.1)
    """Share of samples whose prompt names no subject ("a photo")."""

    def __post_init__(self) -> None:
        if len(self.vae_channels) != 4 or any(width % 8 for width in self.vae_channels):
            raise GenaugError(
                f"recipe.vae_channels={self.vae_channels}: write four multiples of 8, such as [24, 48, 64, 64]."
            )
        if not 2 <= len(self.unet_channels) <= 3 or any(width % 16 for width in self.unet_channels):
            raise GenaugError(
                f"recipe.unet_channels={self.unet_channels}: write two or three multiples of 16, such as [64, 128]."
            )
        if self.text_width % 4:
            raise GenaugError(f"recipe.text_width={self.text_width} must be a multiple of 4.")
        if self.empty_prompt_prob + self.generic_prompt_prob > 1:
            raise GenaugError(
                f"recipe.empty_prompt_prob={self.empty_prompt_prob} and recipe.generic_prompt_prob="
                f"{self.generic_prompt_prob} are more than 1 together: lower one of them."
            )


def train_prior(recipe: PriorRecipe, out_dir: str | Path) -> Path:
    """Trains tokenizer, autoencoder, and U-Net with text encoder; asked again, it goes on from the last checkpoint.

    Returns:
        `out_dir / "prior"`, a folder in the layout of diffusers' StableDiffusionPipeline with fp16 weights. Checkpoints
        lie in `out_dir / "checkpoints"` and may be deleted afterwards.

    Raises:
        GenaugError: when the data is missing, or when `out_dir` holds the checkpoints of another recipe.
    """
    from genaug.priors.training import train

    return train(recipe, Path(out_dir))
