"""GIF, guided imagination (Zhang et al., arXiv 2211.13976): SDEdit, then one step towards what CLIP finds informative."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, count, positive
from genaug.core.identity import CONTENT, DRAWN
from genaug.core.registry import component
from genaug.generators.base import Variant
from genaug.generators.sdedit.config import ImageToImage
from genaug.generators.sdedit.real_guidance import RealGuidance
from genaug.priors.hub import check_model

if TYPE_CHECKING:
    from torch import Tensor

    from genaug.priors.model import Prior


@component("generator", "gif")
@dataclass(kw_only=True, slots=True)
class Gif(RealGuidance):
    """Edits under sentences about the class; the latents of each edit are perturbed per channel, guided by CLIP."""

    t0: Any = bounded(0.9, 0, 1, above=True, metadata=DRAWN)
    """As ``ImageToImage.t0``."""
    clip_path: str = field(default="openai/clip-vit-base-patch32", metadata=CONTENT)
    """Folder or Hub id of a CLIP model in transformers' layout."""
    text: str = "This is a photo of a {name}"
    """How CLIP is told of a class."""
    step_size: float = positive(0.1)
    """Change of zeta and b along the sign of their gradient."""
    epsilon: float = positive(0.8)
    """Largest change of a latent, in units of the U-Net's latents."""
    copies: int = count(2, 2, 64)
    """Perturbations whose features shall differ; the first becomes the image."""

    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __post_init__(self) -> None:
        ImageToImage.__post_init__(self)
        if self.mask != "none":
            raise GenaugError(
                f"generator.mask={self.mask}: generator={self.name} perturbs all latents: write generator.mask=none."
            )
        if not self.class_names:
            raise GenaugError(
                f"generator={self.name} asks CLIP for the classes by name, which leakage=data_centric forbids: write "
                "leakage=none."
            )

    def check(self, task: str) -> None:
        ImageToImage.check(self, task)
        check_model("generator.clip_path", self.clip_path)

    def refined(self, prior: "Prior", z: "Tensor", variants: Sequence[Variant], class_names: Sequence[str]) -> "Tensor":
        from genaug.generators.gif.imagination import imagined

        return imagined(self, prior, z, variants, class_names)
