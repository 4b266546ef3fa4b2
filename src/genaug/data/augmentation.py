"""Classic augmentation: what any training image, real or synthetic, goes through before it is learned from.

Per image (crop, flips, rotation, RandAugment, …) on uint8 tensors, and per batch (MixUp, CutMix) on images and class
weights. With boxes it is torchvision's v2 transforms, image by image; without, ``batch_augmentation`` does the same to whole
batches. Each image draws from its own seed, so that the number of workers, the order of the work and a resumption change
nothing.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, choice, count, probability
from genaug.core.identity import NOT_IDENTITY
from genaug.core.registry import component

if TYPE_CHECKING:
    from torchvision.transforms.v2 import Transform

    from genaug.data.batch_augmentation import BatchAugment

NORMALIZATIONS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),  # as facebookresearch/mixup-cifar10 has them
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and standard deviation of each colour, for images in [0, 1]."""
RESIZES = ("squash", "crop")
POLICIES = ("none", "randaugment", "trivialaugment")
INTERPOLATIONS = ("nearest", "bilinear")
MAX_MAGNITUDE = 30  # RandAugment's scale has 31 levels, 0 … 30 (arXiv 1909.13719, section 3)
MOST_ALPHA = 1000  # both shapes of a Beta distribution, which is one half for sure from there on
IMAGENET_MEAN_COLOUR = (124, 116, 104)  # zero after ImageNet normalisation: what torchvision's recipes erase with


@component("augment", "augment")
@dataclass(kw_only=True, slots=True)
class Augment:
    """Classic augmentation. Every default switches its part off."""

    name: str = field(default="", metadata=NOT_IDENTITY)
    """Shown in tables."""
    horizontal_flip_prob: float = probability(0.0)
    """Probability of a left-right flip. Leave 0 where the direction carries the class, as in digits."""
    vertical_flip_prob: float = probability(0.0)
    """Probability of an upside-down flip."""
    crop_min_area: float = bounded(1.0, 0, 1, above=True)
    """Smallest share of the image's area that a random resized crop keeps, in (0, 1]; 1 is no crop."""
    rotation: float = bounded(0.0, 0, 180)
    """Largest angle in degrees, drawn uniformly from both directions; 0 to 180."""
    shift: float = bounded(0.0, 0, 1)
    """Largest shift as a share of the side, drawn uniformly per axis; 0 to 1."""
    zoom: float = bounded(0.0, 0, 1, below=True)
    """Scale drawn uniformly from [1 - zoom, 1 + zoom]; 0 to 1, 1 excluded."""
    interpolation: str = choice("bilinear", INTERPOLATIONS)
    """``nearest`` or ``bilinear``, for rotation, shift and zoom."""
    policy: str = choice("none", POLICIES)
    """``none``, ``randaugment`` (arXiv 1909.13719) or ``trivialaugment`` (TrivialAugmentWide, arXiv 2103.10158)."""
    randaugment_num_ops: int = count(2, most=100)
    """Operations in a row (N of RandAugment)."""
    randaugment_magnitude: int = count(9, 0, MAX_MAGNITUDE)
    """Strength of each operation (M of RandAugment), 0 to 30."""
    erasing_prob: float = probability(0.0)
    """Probability of erasing a rectangle (arXiv 1708.04896; area 2 to 33 %, aspect 0.3 to 3.3)."""
    mixup_alpha: float = bounded(0.0, 0, MOST_ALPHA)
    """MixUp (arXiv 1710.09412): the share of the first image is drawn from Beta(alpha, alpha); 0 is off."""
    cutmix_alpha: float = bounded(0.0, 0, MOST_ALPHA)
    """CutMix (arXiv 1905.04899): the share of the first image is drawn from Beta(alpha, alpha); 0 is off."""
    manifold_alpha: float = bounded(0.0, 0, MOST_ALPHA)
    """Manifold mixup (arXiv 1806.05236): the share of a row's own hidden state is drawn from Beta(alpha, alpha); 0 is off."""
    manifold_layers: int = count(3, most=100)
    """Places from which manifold mixup draws one per batch: the input and the first stages (the paper: 3, k in {0, 1, 2})."""
    mix_prob: float = probability(1.0)
    """Probability that a batch is mixed at all. With both MixUp and CutMix on, each takes half of the mixed batches."""

    version: ClassVar[int] = 2
    pastes: ClassVar[bool] = False
    """Whether objects of one image are pasted into another."""

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed with each other."""
        return (self.mixup_alpha > 0 or self.cutmix_alpha > 0) and self.mix_prob > 0

    def check(self, task: str) -> None:
        """Raise ``GenaugError`` if something is asked for that ``task`` cannot do; nothing is left out in silence."""
        if task == "classification":
            return
        asked = {
            f"augment.policy={self.policy}": self.policy != "none",
            f"augment.mixup_alpha={self.mixup_alpha}": self.mixup_alpha > 0,
            f"augment.cutmix_alpha={self.cutmix_alpha}": self.cutmix_alpha > 0,
            f"augment.manifold_alpha={self.manifold_alpha}": self.manifold_alpha > 0,
        }
        impossible = [key for key, on in asked.items() if on]
        if impossible:
            raise GenaugError(
                f"{' and '.join(impossible)} cannot move boxes along, so {task} cannot use it. "
                "Write augment=none or augment=flip_crop, or switch these keys off."
            )

    def image_transform(self, size: int) -> "Transform | None":
        """For uint8 tensors [3, size, size] (and tv_tensors along with them); None if every part is off."""
        from torchvision.transforms import v2

        interpolation = v2.InterpolationMode(self.interpolation)
        steps: list[v2.Transform] = []
        if self.crop_min_area < 1:
            steps.append(v2.RandomResizedCrop(size, scale=(self.crop_min_area, 1.0), antialias=True))
        if self.horizontal_flip_prob > 0:
            steps.append(v2.RandomHorizontalFlip(self.horizontal_flip_prob))
        if self.vertical_flip_prob > 0:
            steps.append(v2.RandomVerticalFlip(self.vertical_flip_prob))
        if self.rotation > 0 or self.shift > 0 or self.zoom > 0:
            steps.append(
                v2.RandomAffine(
                    degrees=(-self.rotation, self.rotation),
                    translate=(self.shift, self.shift) if self.shift > 0 else None,
                    scale=(1 - self.zoom, 1 + self.zoom) if self.zoom > 0 else None,
                    interpolation=interpolation,
                )
            )
        if self.policy == "randaugment":
            steps.append(v2.RandAugment(self.randaugment_num_ops, self.randaugment_magnitude))
        if self.policy == "trivialaugment":
            steps.append(v2.TrivialAugmentWide())
        if self.erasing_prob > 0:
            steps.append(v2.RandomErasing(self.erasing_prob, value=IMAGENET_MEAN_COLOUR))  # type: ignore[arg-type]
        if not steps:
            return None
        return v2.Compose(steps) if len(steps) > 1 else steps[0]

    @property
    def changes_images(self) -> bool:
        """Whether any part that works image by image is on."""
        parts = (
            self.horizontal_flip_prob,
            self.vertical_flip_prob,
            self.rotation,
            self.shift,
            self.zoom,
            self.erasing_prob,
        )
        return any(parts) or self.crop_min_area < 1 or self.policy != "none"

    def images_transform(self) -> "BatchAugment | None":
        """``image_transform`` of whole batches, ``transform(images, seeds)``; None if every part is off."""
        from genaug.data.batch_augmentation import BatchAugment

        return BatchAugment(self) if self.changes_images else None

    def batch_transform(self) -> "Transform | None":
        """MixUp or CutMix on ``(float images [b, 3, h, w], class weights [b, classes])``; None if both are off."""
        from torchvision.transforms import v2

        if not self.mixes:
            return None
        choices: list[v2.Transform] = []
        if self.mixup_alpha > 0:
            choices.append(v2.MixUp(alpha=self.mixup_alpha))
        if self.cutmix_alpha > 0:
            choices.append(v2.CutMix(alpha=self.cutmix_alpha))
        return v2.RandomApply([v2.RandomChoice(choices)], p=self.mix_prob)


@component("augment", "copy_paste")
@dataclass(kw_only=True, slots=True)
class CopyPaste(Augment):
    """Objects of other real training images pasted into images, along their masks where there are some and as boxes otherwise
    (Simple Copy-Paste, arXiv 2012.07177), before mosaics and everything else: new images without a generator. With
    ``mix=paste`` the objects come from generated images."""

    paste_prob: float = probability(0.5)
    """Probability that anything is pasted into an image."""
    min_visible: float = probability(0.3)
    """Share of an object's pixels that must stay in sight under pasted ones; others lose their box."""

    version: ClassVar[int] = 1
    pastes: ClassVar[bool] = True

    def check(self, task: str) -> None:
        Augment.check(self, task)
        if task != "detection":
            raise GenaugError(
                f"augment={self.name} pastes objects, which {task} has not. Write e.g. augment=flip_crop."
            )


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's CPU random numbers come from ``seed`` inside, and go on as if nothing had happened afterwards."""
    import torch

    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
