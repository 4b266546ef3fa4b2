"""Diff-Mix (Wang et al., arXiv 2403.19600): each image is edited towards another class, and labelled as both.

An image of class i, edited at level s under the token of class j, is labelled (1 - s^gamma) e_i + s^gamma e_j. Diff-Aug is
the same within one class. Tokens are learned together with a DreamBooth-LoRA of the U-Net (``lora``), or alone (ti-mix).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genaug.core import seeding
from genaug.core.fields import bounded, choice
from genaug.core.identity import DRAWN
from genaug.core.registry import component
from genaug.data.sample import Dataset, Sample
from genaug.generators.base import Generated, Variant
from genaug.generators.sdedit.config import ImageToImage
from genaug.generators.sdedit.da_fusion import DAFusion

if TYPE_CHECKING:
    from genaug.priors.model import Prior


@component("generator", "diff_mix")
@dataclass(kw_only=True, slots=True)
class DiffMix(DAFusion):
    """DA-Fusion's tokens and edits; the class of the prompt is drawn per image."""

    t0: Any = bounded(0.7, 0, 1, above=True, metadata=DRAWN)
    """s: as ``ImageToImage.t0``."""
    targets: str = choice("all", ("all", "others", "own"), metadata=DRAWN)
    """Class of the prompt: ``all`` draws any class, the source's own included, as the released code does; ``others`` draws
    another one; ``own`` keeps the source's (Diff-Aug)."""
    gamma: float = bounded(0.8, 0, 100)
    """Exponent of the label: the target weighs s^gamma. Below 1 it weighs more than s; 0 labels the target alone."""
    label_sum: float = bounded(1.0, 0, 1, above=True)  # type: ignore[misc]
    """Sum of a synthetic image's class weights; 0.9 in the released code (dataset/base.py)."""

    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def draw(self, source: Sample, index: int, dataset: Dataset) -> dict[str, Any]:
        """This image's own level and the name of the class that it is edited towards."""
        own = source.class_index
        groups = dataset.train_by_class()
        trained = [c for c, group in enumerate(groups) if group]  # the classes that have a token
        options = {"all": trained, "others": [c for c in trained if c != own] or [own], "own": [own]}[self.targets]
        target = options[seeding.choice(len(options), self.seed, source.digest, index, "target")]
        name = dataset.class_names[target]
        level = {"t0": self.level(source, index, dataset)}
        others = {**self.drawn_prompt(source, index, dataset, name), **self.drawn_noise(source, index)}
        return {**level, "target": name, **others}

    def prompted_class(self, variant: Variant, dataset: Dataset) -> int:
        """The class whose token the prompt of an image holds: the drawn one."""
        return dataset.class_names.index(variant.draws["target"])

    def generate(
        self, variants: list[Variant], dataset: Dataset, prior: "Prior | None", fitted: Path | None, device: str = "cpu"
    ) -> Iterator[Generated]:
        for generated in ImageToImage.generate(self, variants, dataset, prior, fitted, device):
            variant = generated.variant
            weight = variant.draws["t0"] ** self.gamma
            label = mixed_label(variant.source.label, self.prompted_class(variant, dataset), weight, self.label_sum)
            yield replace(generated, label=label)


def mixed_label(source: dict[int, float], target: int, weight: float, total: float) -> dict[int, float]:
    """Class weights total ((1 - weight) source + weight e_target), without classes of weight 0."""
    label = {index: total * (1 - weight) * value for index, value in source.items()}
    label[target] = label.get(target, 0.0) + total * weight
    return {index: value for index, value in label.items() if value > 0}
