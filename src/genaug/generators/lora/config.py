"""How a LoRA of the prior is learned from the training images, together with the classes' tokens (DreamBooth-LoRA)."""

from dataclasses import dataclass, field
from typing import ClassVar

from genaug.core import fields
from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, count, positive
from genaug.core.identity import NOT_IDENTITY
from genaug.core.registry import component
from genaug.priors.config import MOST_SIDE


@component("generator/lora", "lora")
@dataclass(kw_only=True, slots=True)
class LoraFit:
    """One LoRA for all classes: low-rank changes of the attention layers (arXiv 2106.09685), begun after the tokens' own steps
    and learned jointly with them. Its strength is alpha / rank = 1."""

    seed: int = fields.seed()
    """Initial weights, images and noise. Follows the trial's seed."""
    rank: int = count(10, most=1024)
    """r of each layer's change B A."""
    text_encoder: bool = False
    """Whether the text encoder's attention gets a LoRA too; else the U-Net's alone, as in Diff-Mix."""
    prompt: str = "a photo of a {token}"
    """What every training image is called; ``{token}`` is the learned token of its class."""
    num_steps: int = count(35000)
    """Optimiser steps, over all classes."""
    batch_size: int = count(8, most=4096)
    """Images per step, drawn from all classes."""
    learning_rate: float = bounded(5e-5, 0, 1, above=True)
    """Of AdamW on the LoRA's weights."""
    token_learning_rate: float = bounded(5e-5, 0, 1)
    """Of AdamW on the tokens; 0 leaves them as they were learned alone."""
    weight_decay: float = bounded(1e-2, 0, 1)
    """Of AdamW, on both."""
    max_grad_norm: float = positive(1.0)
    """Norm to which the gradient of the LoRA's weights is clipped."""
    image_size: int | None = count(None, 8, MOST_SIDE)
    """Side of the training images in pixels; null takes the prior's."""
    checkpoint_every: int = count(500, metadata=NOT_IDENTITY)
    """Steps between the states that an interrupted run resumes from."""
    checkpoint_gradients: bool = field(default=False, metadata=NOT_IDENTITY)
    """Compute activations twice instead of keeping them: a third slower, for large images on a small GPU."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if "{token}" not in self.prompt:
            raise GenaugError(
                f"generator.lora.prompt='{self.prompt}' lacks {{token}}: write for example 'a photo of a {{token}}'."
            )
