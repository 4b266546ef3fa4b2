"""DALDA (Jung et al., arXiv 2409.16949): sentences of a language model, and each source as an image prompt whose weight
depends on how well CLIP knows it."""

from dataclasses import dataclass, field
from typing import ClassVar

from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, probability
from genaug.core.identity import CONTENT
from genaug.core.registry import component
from genaug.data.sample import Dataset
from genaug.generators.base import Variant
from genaug.generators.pipeline.config import Pipeline
from genaug.priors.hub import check_model


@component("generator", "dalda")
@dataclass(kw_only=True, slots=True)
class Dalda(Pipeline):
    """A pipeline with an IP-Adapter whose weight is drawn for each image (adaptive guidance scaling)."""

    clip_path: str = field(default="openai/clip-vit-base-patch16", metadata=CONTENT)
    """Folder or Hub id of a CLIP model in transformers' layout."""
    text: str = "a photo of a {name}"
    """How CLIP is told of a class."""
    threshold: float = probability(0.3)
    """CLIP's probability of the source's class up to which it counts as unknown."""
    unknown: list[float] = bounded([0.7, 0.9], 0, 10)
    """Least and greatest weight of the picture where CLIP does not know its class: it stays close to the source."""
    known: list[float] = bounded([0.1, 0.4], 0, 10)
    """The same where CLIP does: the sentence rules."""
    sigma_per_shot: float = bounded(0.05, 0, 10)
    """Standard deviation of the weight per training image of a class."""
    widening: float = bounded(0.1, 0, 10)
    """What the greatest weight of ``known`` grows by, times the root of the training images of a class."""

    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    weighs_each: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Pipeline.__post_init__(self)
        for key in ("unknown", "known"):
            values = getattr(self, key)
            if len(values) != 2 or values[0] > values[1]:
                raise GenaugError(f"generator.{key}={values} must be a least and a greatest weight, e.g. [0.1,0.4].")
        if self.ip_adapter.path is None:
            raise GenaugError(
                f"generator={self.name} shows the pipeline its source by an IP-Adapter: write "
                "generator.ip_adapter.path=FOLDER or h94/IP-Adapter."
            )
        if not self.class_names:
            raise GenaugError(
                f"generator={self.name} asks CLIP for the classes by name, which leakage=data_centric forbids: write "
                "leakage=none."
            )

    def check(self, task: str) -> None:
        Pipeline.check(self, task)
        check_model("generator.clip_path", self.clip_path)

    def picture_scale(self, variant: Variant, dataset: Dataset, device: str) -> float:
        from genaug.generators.dalda.scaling import drawn_scale

        return drawn_scale(self, variant, dataset, device)
