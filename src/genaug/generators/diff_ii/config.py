"""Diff-II (Wang and Chen, arXiv 2408.16266): a point on the circle through two inverted images of a class, denoised."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genaug.core import seeding
from genaug.core.cost import ForwardPasses
from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, count, probability
from genaug.core.identity import DRAWN
from genaug.core.registry import component
from genaug.data.sample import Dataset, Sample
from genaug.generators.base import Generated, Variant, check_first_step, steps_taken
from genaug.generators.sdedit.config import ImageToImage
from genaug.generators.sdedit.da_fusion import DAFusion

if TYPE_CHECKING:
    from genaug.priors.model import Prior


@component("generator", "diff_ii")
@dataclass(kw_only=True, slots=True)
class DiffII(DAFusion):
    """DA-Fusion's tokens, and a LoRA as Diff-Mix has it; images begin between the inversions of two real ones."""

    t0: Any = bounded(1.0, 0, 1, above=True, metadata=DRAWN)
    """Level in (0, 1] to which both images are inverted; the paper: all of the schedule."""
    inversion_steps: int = count(200, 2, 1000)
    """DDIM steps of an inversion over the whole schedule, without guidance."""
    first_stage: float = probability(0.3)
    """s: share of the schedule, from its noisy end, that is denoised under one of ``sentences`` instead of ``prompt``; without
    sentences both stages are one."""

    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    uses_erasures: ClassVar[bool] = False

    def __post_init__(self) -> None:
        DAFusion.__post_init__(self)
        if self.mask != "none":
            raise GenaugError(
                f"generator.mask={self.mask} keeps a part of one source, and generator={self.name} begins between two: write "
                "generator.mask=none."
            )
        if self.scheduler != "ddim":
            raise GenaugError(
                f"generator.scheduler={self.scheduler} does not undo a DDIM inversion: write generator.scheduler=ddim."
            )
        if self.cache_interval is not None:
            raise GenaugError(
                f"generator.cache_interval={self.cache_interval} keeps features of a step, and generator={self.name} changes "
                "its prompt between steps: write generator.cache_interval=null."
            )
        for level in self.levels:
            check_first_step("inversion_steps", self.inversion_steps, level)

    def check_dataset(self, dataset: Dataset) -> None:
        ImageToImage.check_dataset(self, dataset)
        for name, group in zip(dataset.class_names, dataset.train_by_class(), strict=True):
            if len({sample.digest for sample in group}) == 1:
                raise GenaugError(
                    f"generator={self.name} interpolates between two images of a class, and '{name}' has one training image: "
                    "write dataset.shots=2 or more."
                )

    def draw(self, source: Sample, index: int, dataset: Dataset) -> dict[str, Any]:
        """This image's level, its partner of the same class, and the angle on their circle, in [0, 2 pi)."""
        own = dataset.train_by_class()[source.class_index]
        others = [sample for sample in own if sample.digest != source.digest]
        partner = others[seeding.choice(len(others), self.seed, source.digest, index, "partner")]
        angle = 2 * math.pi * seeding.uniform(self.seed, source.digest, index, "angle")
        return {**DAFusion.draw(self, source, index, dataset), "partner": partner.digest, "angle": round(angle, 6)}

    def generate(
        self, variants: list[Variant], dataset: Dataset, prior: "Prior | None", fitted: Path | None, device: str = "cpu"
    ) -> Iterator[Generated]:
        from genaug.generators.diff_ii.circle import interpolated

        assert prior is not None
        yield from interpolated(self, variants, dataset, prior, fitted)

    def forward_passes(self, variants: list[Variant]) -> ForwardPasses:
        """Those of DA-Fusion, and one inversion of each image that takes part at each level."""
        levels = {(digest, v.draws["t0"]) for v in variants for digest in (v.source.digest, v.draws["partner"])}
        inversions = sum(steps_taken(self.inversion_steps, t0) for _, t0 in levels)
        return ForwardPasses(network="U-Net", count=DAFusion.forward_passes(self, variants).count + inversions)
