"""Real and generated images for any training loop: a plain torch data set, and batches with a fixed share of real images.

real, pool = genaug.load_pool("da_fusion*_s0")
images = genaug.MixedDataset(real, pool, alpha=0.5, m=5, image_size=64)
loader = torch.utils.data.DataLoader(images, batch_size=32, shuffle=True)
for epoch in range(50):
    images.set_epoch(epoch)      # other variants are drawn in each epoch
    for pictures, targets in loader: ...

images = genaug.MixedDataset(real, pool, alpha=None, image_size=64)        # all real images, then all generated ones
batches = genaug.FixedShareBatches(images.num_real, images.num_generated, batch_size=32, real_share=0.5)
loader = torch.utils.data.DataLoader(images, batch_sampler=batches)
"""

import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from genaug.core.errors import GenaugError
from genaug.core.seeding import choice, derive, uniform
from genaug.data.mixing import Order
from genaug.data.pool import Pool
from genaug.data.sample import Dataset, Sample, SyntheticSample


def to_tensor(image: Image.Image) -> torch.Tensor:
    """float32 [3, height, width] in [0, 1]."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)


class MixedDataset(TorchDataset[tuple[Any, Any]]):
    """Training images of which some give way to generated ones.

    With ``alpha`` an item is the real image of that index, or with this probability one of its own first ``m`` accepted
    variants (DA-Fusion, Eq. 7 and 8; a real image without any stays). Which one follows from seed, epoch and index alone, so
    that workers and shuffling change nothing. Without ``alpha`` the items are all real images and then all variants.

    An item is ``(transform(image), target)``: the class index; class weights [classes] where ``soft``; or, where images have
    boxes, ``{"boxes": float32 [n, 4] left, top, right, bottom in pixels, "labels": int64 [n], "crowd": bool [n]}``.

    Args:
        real: a data set, whose training images are taken, or its samples.
        pool: its variants; None mixes nothing.
        alpha: probability of a generated image, in [0, 1], or None.
        m: variants per real image; None takes all.
        image_size: side in pixels of the square to which every image is stretched before ``transform``, boxes with it. Without
            it each keeps its own: a real one that of its file, a generated one that of the generator.
        transform: what turns a PIL image into what the model takes. Where boxes must follow, give ``transforms``.
        transforms: takes (PIL image, target) and gives both.
        soft: give class weights instead of the class.
        first_label: added to the labels of boxes: 1 where 0 is the background, as in torchvision's detectors.
        seed: of the draws.
    """

    def __init__(
        self,
        real: Dataset | Sequence[Sample],
        pool: Pool | None,
        alpha: float | None = 0.5,
        m: int | None = None,
        image_size: int | None = None,
        transform: Callable[[Image.Image], Any] = to_tensor,
        transforms: Callable[[Image.Image, Any], tuple[Any, Any]] | None = None,
        soft: bool = False,
        first_label: int = 0,
        seed: int = 0,
    ):
        if alpha is not None and not 0 <= alpha <= 1:
            raise GenaugError(f"alpha={alpha} is a probability: write a number from 0 to 1, or None.")
        for name, value in (("m", m), ("image_size", image_size)):
            if value is not None and value < 1:
                raise GenaugError(
                    f"{name}={value} must be 1 or more, or None. For real images alone give None for the pool."
                )
        self.real: Sequence[Sample] = real.train if isinstance(real, Dataset) else real
        groups = pool.by_source() if pool is not None else {}
        self.variants = [_first(groups.get(sample.id, ()), m) for sample in self.real]
        self.ends = np.cumsum([len(group) for group in self.variants])
        """Number of variants up to and with each real image's."""
        if pool is not None and not self.num_generated:
            raise GenaugError("No image of the pool belongs to these real images: take both from one load_pool.")
        self.num_classes = len(real.class_names) if isinstance(real, Dataset) else self._highest_class() + 1
        self.alpha, self.image_size, self.transform, self.transforms = alpha, image_size, transform, transforms
        self.soft, self.first_label, self.seed = soft, first_label, seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by workers that live on, too

    def _highest_class(self) -> int:
        samples = itertools.chain(self.real, *self.variants)
        return max((index for sample in samples for index in sample.label), default=-1)

    @property
    def num_real(self) -> int:
        return len(self.real)

    @property
    def num_generated(self) -> int:
        """Variants that may be drawn."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def set_epoch(self, epoch: int) -> None:
        """Draw other variants from now on. Call it before the loop over the loader begins."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return self.num_real + (self.num_generated if self.alpha is None else 0)

    def sample(self, index: int) -> Sample:
        """The image of an item with its annotation."""
        index = range(len(self))[index]
        if index >= self.num_real:
            place = index - self.num_real
            source = int(np.searchsorted(self.ends, place, side="right"))
            return self.variants[source][place - int(self.ends[source])]  # counted from the end of its group
        place, variants = (self.seed, int(self._epoch), index), self.variants[index]
        if self.alpha is not None and variants and uniform(*place, "alpha") < self.alpha:
            return variants[choice(len(variants), *place, "variant")]
        return self.real[index]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        sample = self.sample(index)
        image, scale = sample.open(), np.ones(2, dtype=np.float32)
        if self.image_size is not None:
            scale = np.asarray([self.image_size / image.width, self.image_size / image.height], dtype=np.float32)
            image = image.resize((self.image_size, self.image_size), Image.Resampling.BILINEAR)
        target = self._target(sample, scale)
        return self.transforms(image, target) if self.transforms is not None else (self.transform(image), target)

    def _target(self, sample: Sample, scale: np.ndarray) -> Any:
        if sample.boxes is not None:
            return {
                "boxes": torch.from_numpy(sample.boxes.xyxy * np.tile(scale, 2)),
                "labels": torch.from_numpy(sample.boxes.labels.copy()) + self.first_label,
                "crowd": torch.from_numpy(sample.boxes.crowd.copy()),
            }
        if not self.soft:
            return sample.class_index
        weights = torch.zeros(self.num_classes)
        for index, weight in sample.label.items():
            weights[index] = weight
        return weights


def _first(variants: Sequence[SyntheticSample], m: int | None) -> Sequence[SyntheticSample]:
    """Those of the first ``m`` indices; in order, so that those of a packed pool need not all be made."""
    return variants if m is None else variants[: bisect.bisect_left(variants, m, key=lambda variant: variant.index)]


class FixedShareBatches(Sampler[list[int]]):
    """Batches of indices with the same number of real images in each: of any data set that lists the real ones first.

    Real and generated images come in shuffled rounds of their own, which go on from batch to batch and from epoch to epoch: all
    are shown equally often. An epoch has as many batches as the real images fill, at least one; where a batch needs more than
    there are, some come twice in it. Batch k of epoch e follows from the seed alone, so a training can begin at any.

    Args:
        num_real: real images, at indices 0 … num_real - 1.
        num_generated: generated ones, at the indices after them.
        batch_size: images per batch.
        real_share: of a batch, in (0, 1]; rounded to whole images, at least one.
        seed: of the order.
    """

    def __init__(self, num_real: int, num_generated: int, batch_size: int, real_share: float = 0.5, seed: int = 0):
        if not 0 < real_share <= 1:
            raise GenaugError(f"real_share={real_share} must lie in (0, 1].")
        if batch_size < 1:
            raise GenaugError(f"batch_size={batch_size} must be 1 or more.")
        if num_real < 1:
            raise GenaugError("There is no real image to fill the batches with.")
        self.real_per_batch = min(max(round(batch_size * real_share), 1), batch_size)
        if num_generated < 1 and self.real_per_batch < batch_size:
            raise GenaugError("There is no generated image to fill the batches with: write real_share=1.")
        self.num_real, self.num_generated, self.batch_size = num_real, num_generated, batch_size
        self.seed, self.epoch, self.first_batch = seed, 0, 0

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Other batches from now on; those before ``first_batch`` are left out, as they were shown before an interruption."""
        self.epoch, self.first_batch = epoch, first_batch

    @property
    def per_epoch(self) -> int:
        """Batches of a whole epoch."""
        return max(self.num_real // self.real_per_batch, 1)

    def __len__(self) -> int:
        """Batches that this epoch still has."""
        return max(self.per_epoch - self.first_batch, 0)

    def __iter__(self) -> Iterator[list[int]]:
        real = Order(self.num_real, derive(self.seed, "real"))
        generated = Order(self.num_generated, derive(self.seed, "generated"))
        rest = self.batch_size - self.real_per_batch
        for batch in range(self.epoch * self.per_epoch + self.first_batch, (self.epoch + 1) * self.per_epoch):
            chosen = [real[batch * self.real_per_batch + place] for place in range(self.real_per_batch)]
            yield [*chosen, *(self.num_real + generated[batch * rest + place] for place in range(rest))]
