"""Real Guidance (He et al., arXiv 2210.07574) as DA-Fusion's baseline runs it: SDEdit under a written prompt.

Nothing is learned. The original edits with GLIDE; here, as in DA-Fusion, any Stable Diffusion takes its place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import II

from genaug.core.registry import component
from genaug.generators.sdedit.config import ImageToImage
from genaug.generators.tokens.prompts import check_prompts, readable

if TYPE_CHECKING:
    from genaug.priors.model import LearnedTokens, Prior


@component("generator", "real_guidance")
@dataclass(kw_only=True, slots=True)
class RealGuidance(ImageToImage):
    """Edits each source under ``prompt``, or under ``prompt_without_name`` where class names must not be known."""

    class_names: bool = II("leakage.class_names")
    """Whether the prompt may name the class."""
    prompt: str = "a photo of a {name}"
    """Prompt where class names are allowed; ``{name}`` is the class name, underscores as blanks."""
    prompt_without_name: str = "a photo"
    """Prompt under data-centric leakage prevention (DA-Fusion, figure 7)."""

    version: ClassVar[int] = 1

    def prompts(
        self, names: Sequence[str], prior: "Prior", fitted: Path | None, draws: Sequence[Mapping[str, Any]] = ()
    ) -> "tuple[list[str], LearnedTokens | None]":
        own = self.prompt if self.class_names else self.prompt_without_name
        known = [readable(name) for name in names]
        texts = [draw.get("prompt", own) for draw in draws] or [own] * len(names)
        prompts = [text.replace("{name}", name) for text, name in zip(texts, known, strict=True)]
        if not self.class_names:
            check_prompts(prompts, known, prior.word_ids)
        return prompts, None
