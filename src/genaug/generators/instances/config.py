"""Instance Augmentation (Kupyn and Rupprecht, arXiv 2406.08249): the objects of an image are painted again, one by one, within
their own outlines."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genaug.core.cost import ForwardPasses
from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, choice, count, probability
from genaug.core.identity import DRAWN
from genaug.core.registry import component
from genaug.core.seeding import choice as choose
from genaug.core.seeding import uniform
from genaug.data.sample import Dataset, Sample
from genaug.generators.base import Generated, Variant
from genaug.generators.pipeline.config import Pipeline
from genaug.generators.sdedit.edit_region import EDIT_MASKS

if TYPE_CHECKING:
    from genaug.priors.model import Prior


@component("generator", "instance_augmentation")
@dataclass(kw_only=True, slots=True)
class InstanceAugmentation(Pipeline):
    """Inpaints a crop around each drawn object with an inpainting pipeline of diffusers and blends it into the image."""

    mask: str = choice("edit_object", EDIT_MASKS)
    """``edit_object``; the object's mask in the data set's annotation, else what its box holds alone."""
    redraw_prob: float = probability(0.5, metadata=DRAWN)
    """Probability that an object is painted again in a variant (the released code: 0.5 while training)."""
    min_area: float = bounded(1000, 0)
    """Objects of a smaller area, in square pixels of the source, are kept."""
    max_objects: int = count(10, most=1000)
    """Largest objects of an image that may be painted again; the others are kept."""
    context: float = bounded(0.9, 0, 100)
    """Share of the box's width and height that the crop shows on each side of it."""
    guidances: list[float] = bounded([], 0, 100, metadata=DRAWN)
    """``guidance_scale`` values of which one is drawn per object; empty takes ``guidance``."""

    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("detection",)

    def __post_init__(self) -> None:
        Pipeline.__post_init__(self)
        if self.mask != "edit_object":
            raise GenaugError(
                f"generator.mask={self.mask}: generator={self.name} paints objects: write generator.mask=edit_object."
            )

    def draw(self, source: Sample, index: int, dataset: Dataset) -> dict[str, Any]:
        """Which objects are painted again, by their place among the boxes, and the prompt and guidance of each."""
        objects, prompts, guidances = [], [], []
        for place in self.eligible(source):
            words = (self.seed, source.digest, index, place)
            if uniform(*words, "redrawn") >= self.redraw_prob:
                continue
            assert source.boxes is not None
            name = dataset.class_names[int(source.boxes.labels[place])]
            own = self.prompt if self.class_names else self.prompt_without_name
            if self.sentences is not None:
                found = self.sentences.of(source, name)
                own = found[choose(len(found), *words, "prompt")]
            objects.append(place)
            prompts.append(own)
            if self.guidances:
                guidances.append(float(self.guidances[choose(len(self.guidances), *words, "guidance")]))
        drawn: dict[str, Any] = {"objects": objects, "prompts": prompts, "guidances": guidances}
        return drawn if self.strength is None else {**drawn, "strength": self.drawn_strength(source, index)}

    def eligible(self, source: Sample) -> list[int]:
        """Places of the boxes that may be painted again, the largest first: later ones lie over earlier ones."""
        boxes = source.boxes
        if boxes is None:
            return []
        x1, y1, x2, y2 = boxes.xyxy.T
        area = (x2 - x1) * (y2 - y1) if boxes.area is None else boxes.area
        wanted = [i for i in range(len(area)) if not boxes.crowd[i] and area[i] >= self.min_area]
        return sorted(wanted, key=lambda i: (-float(area[i]), i))[: self.max_objects]

    def generate(
        self, variants: list[Variant], dataset: Dataset, prior: "Prior | None", fitted: Path | None, device: str = "cpu"
    ) -> Iterator[Generated]:
        from genaug.generators.instances.painting import painted

        return painted(self, variants, dataset, self.finish(dataset, fitted, device), device, fitted)

    def forward_passes(self, variants: list[Variant]) -> ForwardPasses:
        """Denoising steps, as ``Pipeline`` counts them, of each object."""
        steps = sum(
            max(int(self.num_steps * variant.draws.get("strength", 1.0)), 1) * len(variant.draws["objects"])
            for variant in variants
        )
        return ForwardPasses(network=f"the denoiser of {self.path}", count=steps)
