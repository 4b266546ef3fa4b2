"""What Real Guidance and DA-Fusion share: each variant is its source, noised to a level t0 and denoised (SDEdit)."""

import math
from dataclasses import dataclass, field
from typing import Any

from genaug.data.sample import Dataset, Sample
from genaug.errors import GenaugError
from genaug.generators.base import Generator, Variant
from genaug.identity import DRAWN, NOT_IDENTITY
from genaug.seeding import choice

SCHEDULERS = ("ddim", "dpmsolver++", "unipc", "ddim_trailing", "lcm", "pndm_ref")
RESIZES = ("squash", "crop")


@dataclass(kw_only=True, slots=True)
class ImageToImage(Generator):
    """Base of the generators that edit their source. Text features, and what is learned, are the subclass's."""

    t0: Any = field(default=0.5, metadata=DRAWN)
    """Level in (0, 1] to which the source is noised; 1 keeps least of it. A number, or a list of levels of which one is
    drawn uniformly per image (repeat a level to make it likelier). Null takes ``t0_by_shots``."""
    t0_by_shots: dict[int, float] | None = field(default=None, metadata=DRAWN)
    """Level by number of training images per class, where ``t0`` is null; the nearest listed number counts."""
    num_steps: int = 50
    """Steps of the whole schedule; a variant takes ``int(num_steps * t0)`` of them."""
    guidance: float = 7.5
    """w of classifier-free guidance; 1 turns it off and halves the cost."""
    scheduler: str = "ddim"
    """``ddim``, ``dpmsolver++``, ``unipc``; for distilled models of few steps ``ddim_trailing`` (SD-Turbo) and ``lcm``
    (LCM-LoRA), both with guidance near 1; or ``pndm_ref``: PNDM as the released code runs it, off by one included."""
    negative_prompt: str = ""
    """What guidance moves away from."""
    resize: str = "squash"
    """``squash`` to a square, as the released code does, or ``crop`` the centre square."""
    save_size: int | None = None
    """Side in pixels of the saved images; null keeps the prior's ``image_size``."""
    batch_size: int = field(default=16, metadata=NOT_IDENTITY)
    """Images denoised at once."""

    def __post_init__(self) -> None:
        for key, known in (("scheduler", SCHEDULERS), ("resize", RESIZES)):
            if getattr(self, key) not in known:
                raise GenaugError(f"generator.{key}={getattr(self, key)} is unknown: write {' or '.join(known)}.")
        for key in ("num_steps", "batch_size"):
            if getattr(self, key) < 1:
                raise GenaugError(f"generator.{key}={getattr(self, key)} must be at least 1.")
        if self.num_steps > 1000:
            raise GenaugError(
                f"generator.num_steps={self.num_steps} is more than the 1000 training steps: write at most 1000."
            )
        if self.save_size is not None and self.save_size < 1:
            raise GenaugError(f"generator.save_size={self.save_size} must be at least 1, or null for the prior's size.")
        check_levels(self.t0, self.t0_by_shots, self.num_steps)

    def check(self, task: str) -> None:
        if task == "detection":
            raise GenaugError(
                f"generator={self.name} redraws the whole image, so objects move and the boxes no longer fit them. "
                "Write generator=psld with generator.mask=keep_object (or outpainting), which keeps the labelled pixels."
            )
        Generator.check(self, task)

    def draw(self, source: Sample, index: int, dataset: Dataset) -> dict[str, Any]:
        """This image's own t0."""
        if self.t0 is None:
            assert self.t0_by_shots is not None
            shots = len(dataset.train) / len(dataset.class_names)
            nearest = min(sorted(self.t0_by_shots), key=lambda listed: abs(listed - shots))
            return {"t0": float(self.t0_by_shots[nearest])}
        levels = self.t0 if isinstance(self.t0, list | tuple) else [self.t0]
        return {"t0": float(levels[choice(len(levels), self.seed, source.digest, index, "t0")])}

    def cost(self, variants: list[Variant]) -> int:
        """U-Net evaluations: one per step, image and prompt; PNDM repeats one step."""
        num_prompts = 1 if self.guidance == 1 else 2
        extra = 1 if self.scheduler == "pndm_ref" else 0
        return num_prompts * sum(steps_taken(self.num_steps, v.draws["t0"]) + extra for v in variants)


def steps_taken(num_steps: int, t0: float) -> int:
    """K = floor(N t0); the 1e-9 keeps 0.58 * 50 = 28.999… at 29."""
    return min(math.floor(num_steps * t0 + 1e-9), num_steps)


def check_levels(t0: Any, t0_by_shots: dict[int, float] | None, num_steps: int) -> None:
    """Raise ``GenaugError`` unless every level lies in (0, 1] and takes at least one of ``num_steps`` steps."""
    levels = list(t0) if isinstance(t0, list | tuple) else [t0]
    if t0 is None:
        levels = list((t0_by_shots or {}).values())
    if not levels:
        raise GenaugError(
            f"generator.t0={t0} holds no level: write a number such as 0.5 or a list such as [0.25,0.5,0.75,1]."
        )
    for level in levels:
        if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level <= 1:
            raise GenaugError(
                f"generator.t0={t0 if t0 is not None else t0_by_shots}: {level} does not lie in (0, 1]. "
                "Write a number such as 0.5 or a list such as [0.25,0.5,0.75,1]; 1 keeps least of the source."
            )
        if steps_taken(num_steps, level) < 1:
            raise GenaugError(
                f"generator.t0={level} with generator.num_steps={num_steps} takes no denoising step: "
                f"raise num_steps to at least {math.ceil(1 / level - 1e-9)}, or t0 to at least {1 / num_steps:g}."
            )
