"""Real Guidance (He et al., arXiv 2210.07574) as DA-Fusion's baseline runs it: SDEdit under a written prompt.

Nothing is learned. The original edits with GLIDE; here, as in DA-Fusion, any Stable Diffusion takes its place.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from omegaconf import II

from genaug.data.sample import Dataset
from genaug.generators.base import Generated, Variant
from genaug.generators.image_to_image import ImageToImage
from genaug.generators.prompts import check_prompts, readable
from genaug.registry import component

if TYPE_CHECKING:
    from genaug.priors.prior import Prior


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
    uses_erasures: ClassVar[bool] = True

    def generate(
        self, variants: list[Variant], dataset: Dataset, prior: "Prior | None", fitted: Path | None
    ) -> Iterator[Generated]:
        from genaug.generators.erasure import erased_groups
        from genaug.generators.sdedit import edit_images

        assert prior is not None
        names = [readable(dataset.class_names[v.source.class_index]) for v in variants]
        if self.class_names:
            prompts = [self.prompt.replace("{name}", name) for name in names]
        else:
            prompts = [self.prompt_without_name] * len(variants)
            check_prompts(prompts, names, prior.word_ids)
        for chosen in erased_groups(prior, [dataset.class_names[v.source.class_index] for v in variants]):
            yield from edit_images(prior, [variants[i] for i in chosen], [prompts[i] for i in chosen], self)
