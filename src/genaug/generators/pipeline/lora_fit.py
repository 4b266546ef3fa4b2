"""How a LoRA of a pipeline's denoiser is learned from the training images (DreamBooth-LoRA without tokens)."""

from dataclasses import dataclass, field
from typing import ClassVar

from genaug.core import fields
from genaug.core.fields import bounded, count, positive
from genaug.core.identity import NOT_IDENTITY
from genaug.core.registry import component


@component("generator/lora_fit", "pipeline_lora")
@dataclass(kw_only=True, slots=True)
class PipelineLora:
    """One LoRA for all classes in the attention layers of SDXL's U-Net or FLUX.1's transformer, under the generator's own
    prompt, by the targets of diffusers' training scripts."""

    seed: int = fields.seed()
    """Initial weights, images, noise and times. Follows the trial's seed."""
    rank: int = count(4, most=1024)
    """r of each layer's change B A; its strength is alpha / rank = 1."""
    num_steps: int = count(500)
    """Steps of the optimiser."""
    batch_size: int = count(1)
    """Images per step."""
    learning_rate: float = positive(1e-4)
    """Of AdamW."""
    weight_decay: float = bounded(1e-4, 0, 1)
    """Of AdamW."""
    max_grad_norm: float = positive(1.0)
    """Norm to which the gradient is clipped."""
    guidance: float = bounded(1.0, 0, 100)
    """``guidance`` that a distilled FLUX.1 is told while it is trained."""
    checkpoint_gradients: bool = field(default=False, metadata=NOT_IDENTITY)
    """Compute activations twice instead of keeping them."""

    version: ClassVar[int] = 1
