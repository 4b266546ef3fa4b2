"""Real and generated images for any training loop: a plain torch data set, and batches with a fixed share of real images.

real, pool = genaug.load_pool("da_fusion*_s0")
images = genaug.MixedDataset(real, pool, alpha=0.5, m=5, transform=...)
loader = torch.utils.data.DataLoader(images, batch_size=32, shuffle=True)
for epoch in range(50):
    images.set_epoch(epoch)      # other variants are drawn in each epoch
    for pictures, targets in loader: ...

images = genaug.MixedDataset(real, pool, alpha=None)                       # all real images, then all generated ones
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
        transform: Callable[[Image.Image], Any] = to_tensor,
        transforms: Callable[[Image.Image, Any], tuple[Any, Any]] | None = None,
        soft: bool = False,
        first_label: int = 0,
        seed: int = 0,
    ):
        if alpha is not None and not 0 <= alpha <= 1:
            raise GenaugError(f"alpha={alpha} is a probability: write a number from 0 to 1, or None.")
        self.real: Sequence[Sample] = real.train if isinstance(real, Dataset) else real
        groups = pool.by_source() if pool is not None else {}
        self.variants = [_first(groups.get(sample.id, ()), m) for sample in self.real]
        self.ends = np.cumsum([len(group) for group in self.variants])
        """Number of variants up to and with each real image's."""
        if pool is not None and not self.num_generated:
            raise GenaugError("No image of the pool belongs to these real images: take both from one load_pool.")
        self.num_classes = len(real.class_names) if isinstance(real, Dataset) else self._highest_class() + 1
        self.alpha, self.transform, self.transforms = alpha, transform, transforms
        self.soft, self.first_label, self.seed, self.epoch = soft, first_label, seed, 0

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
        """Draw other variants from now on. Call it before the loader starts its workers."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_real + (self.num_generated if self.alpha is None else 0)

    def sample(self, index: int) -> Sample:
        """The image of an item with its annotation."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index >= self.num_real:
            place = index - self.num_real
            source = int(np.searchsorted(self.ends, place, side="right"))
            return self.variants[source][place - int(self.ends[source])]  # counted from the end of its group
        place, variants = (self.seed, self.epoch, index), self.variants[index]
        if self.alpha is not None and variants and uniform(*place, "alpha") < self.alpha:
            return variants[choice(len(variants), *place, "variant")]
        return self.real[index]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        sample = self.sample(index)
        target = self._target(sample)
        if self.transforms is not None:
            return self.transforms(sample.open(), target)
        return self.transform(sample.open()), target

    def _target(self, sample: Sample) -> Any:
        if sample.boxes is not None:
            return {
                "boxes": torch.from_numpy(sample.boxes.xyxy.copy()),
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

    An epoch shows every real image once (those left over after the last whole batch come in another epoch); generated images
    are drawn in shuffled rounds of their own.

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
        self.real_per_batch = min(max(round(batch_size * real_share), 1), batch_size)
        if num_real < self.real_per_batch:
            raise GenaugError(
                f"A batch of {batch_size} needs {self.real_per_batch} real images, and there are {num_real}."
            )
        if num_generated < 1 and self.real_per_batch < batch_size:
            raise GenaugError("There is no generated image to fill the batches with: write real_share=1.")
        self.num_real, self.num_generated, self.batch_size = num_real, num_generated, batch_size
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Another order from now on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_real // self.real_per_batch

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng(derive(self.seed, "real", self.epoch))
        real = rng.permutation(self.num_real)
        per_batch = self.batch_size - self.real_per_batch
        first = self.epoch * len(self) * per_batch  # generated images shown in earlier epochs
        for batch in range(len(self)):
            start = batch * self.real_per_batch
            chosen = real[start : start + self.real_per_batch].tolist()
            places = range(first + batch * per_batch, first + (batch + 1) * per_batch)
            yield [*chosen, *(self.num_real + self._generated(place) for place in places)]

    def _generated(self, place: int) -> int:
        """Index of the generated image that is shown at a place of the endless sequence of shuffled rounds."""
        turn, within = divmod(place, self.num_generated)
        if getattr(self, "_turn", None) != turn:
            self._turn = turn
            self._round = np.random.default_rng(derive(self.seed, "generated", turn)).permutation(self.num_generated)
        return int(self._round[within])
