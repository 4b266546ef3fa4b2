"""From samples to batches: every image is decoded once, then each training step is a pure function of its number."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from genaug.data.batch_augmentation import BatchAugment
from genaug.data.mixing import Stream
from genaug.data.sample import Sample
from genaug.downstream.trainer import TrainerConfig

MEMORY_LIMIT = 2**30  # bytes of decoded images that are kept in memory; more go to a memory map


@dataclass(slots=True)
class Inputs:
    """What a network reads, one row per distinct sample: pixels, or a frozen backbone's features of them."""

    values: np.ndarray
    """uint8 [n, 3, size, size], or float32 [n, num_features]."""
    rows: dict[str, int]
    """Sample id to row."""

    @property
    def are_features(self) -> bool:
        return self.values.ndim == 2

    def of(self, samples: Sequence[Sample]) -> torch.Tensor:
        """The rows of ``samples``, in order."""
        return torch.from_numpy(self.values[[self.rows[sample.id] for sample in samples]])


def resized(image: Image.Image, size: int, resize: str) -> np.ndarray:
    """uint8 [3, size, size], bilinear, antialiased: the whole image (``squash``) or its central square (``crop``)."""
    if resize == "crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def decode(samples: Sequence[Sample], size: int, resize: str, folder: Path) -> Inputs:
    """Decode every sample once. Above ``MEMORY_LIMIT`` they lie in a file in ``folder`` that goes with the process."""
    distinct = list({sample.id: sample for sample in samples}.values())
    shape = (len(distinct), 3, size, size)
    if np.prod(shape) <= MEMORY_LIMIT:
        pixels = np.empty(shape, dtype=np.uint8)
    else:
        with tempfile.TemporaryFile(dir=folder) as file:  # has no name: nothing is left behind, however the run ends
            file.truncate(int(np.prod(shape)))
            if hasattr(
                os, "posix_fallocate"
            ):  # else a disk that fills up would end the process by SIGBUS: this raises now
                os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))
            pixels = np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)

    def read(row: int) -> None:
        pixels[row] = resized(distinct[row].open(), size, resize)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as readers:
        for _ in readers.map(read, range(len(distinct))):
            pass
    return Inputs(pixels, {sample.id: row for row, sample in enumerate(distinct)})


def class_weights(samples: Sequence[Sample], num_classes: int) -> torch.Tensor:
    """float32 [n, num_classes]: hard, two-hot and soft labels alike."""
    weights = np.zeros((len(samples), num_classes), dtype=np.float32)
    for row, sample in enumerate(samples):
        for index, weight in sample.label.items():
            weights[row, index] = weight
    return torch.from_numpy(weights)


class StreamBatches(Dataset):
    """Batch number ``step`` of a stream: ``(inputs [b, …], class weights [b, classes])``.

    With a global batch of B, step s is made of the draws B·s … B·(s+1) - 1; each of several devices takes its share.
    """

    def __init__(
        self,
        stream: Stream,
        inputs: Inputs,
        num_classes: int,
        batch_size: int,
        transform: BatchAugment | None = None,
        rank: int = 0,
        num_ranks: int = 1,
    ):
        self.stream, self.inputs, self.num_classes, self.transform = stream, inputs, num_classes, transform
        self.batch_size, self.rank, self.num_ranks = batch_size, rank, num_ranks

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        first = step * self.batch_size
        draws = [self.stream[d] for d in range(first + self.rank, first + self.batch_size, self.num_ranks)]
        samples = [draw.sample for draw in draws]
        inputs = self.inputs.of(samples)
        if self.transform is not None:
            inputs = self.transform(inputs, [draw.augment_seed for draw in draws])
        return inputs, class_weights(samples, self.num_classes)


class Steps(Sampler[int]):
    """Step numbers from ``first`` on. Its length counts all steps, as Lightning expects of a resumed loader."""

    def __init__(self, first: int, total: int):
        self.first, self.total = first, total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.total))

    def __len__(self) -> int:
        return self.total


def step_loader(batches: Dataset, first_step: int, num_steps: int, trainer: TrainerConfig) -> DataLoader:
    """Batches of steps ``first_step`` … ``num_steps`` - 1, made in ``trainer.num_workers`` processes."""
    return DataLoader(
        batches,
        batch_size=None,  # an item is a whole batch already
        sampler=Steps(first_step, num_steps),
        num_workers=trainer.num_workers,
        pin_memory=torch.cuda.is_available(),
    )
