"""From samples to batches: every image is decoded once, then each training step is a pure function of its number."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from genaug.core.device import best_device
from genaug.core.store import Store
from genaug.data.batch_augmentation import BatchAugment
from genaug.data.mixing import Stream
from genaug.data.sample import Sample
from genaug.downstream.decoded import Decoded, distinct
from genaug.downstream.trainer import TrainerConfig


@dataclass(slots=True)
class Inputs:
    """What a network reads, one row per distinct sample: pixels, or a frozen backbone's features of them."""

    values: Decoded | np.ndarray
    """uint8 [n, 3, size, size], or float32 [n, num_features]."""
    rows: dict[str, int]
    """Sample id to row."""

    @property
    def are_features(self) -> bool:
        return self.values.ndim == 2

    def of(self, samples: Sequence[Sample]) -> torch.Tensor:
        """The rows of ``samples``, in order."""
        return torch.from_numpy(self.values[[self.rows[sample.id] for sample in samples]])


def decode(samples: Sequence[Sample], size: int, resize: str, store: Store) -> Inputs:
    """The pictures of ``samples``, each once; they are decoded when they are first read (``decoded``)."""
    once, rows = distinct(samples)
    return Inputs(Decoded(once, size, resize, store), rows)


def class_weights(samples: Sequence[Sample], num_classes: int) -> torch.Tensor:
    """float32 [n, num_classes]: hard, two-hot and soft labels alike."""
    weights = np.zeros((len(samples), num_classes), dtype=np.float32)
    for row, sample in enumerate(samples):
        for index, weight in sample.label.items():
            weights[row, index] = weight
    return torch.from_numpy(weights)


class StreamBatches(Dataset):
    """Batch number ``step`` of a stream: ``(inputs [b, …], class weights [b, classes])``, and the seeds of the augmentation
    where it is for the training step to apply (``later``).

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
        later: bool = False,
    ):
        self.stream, self.inputs, self.num_classes = stream, inputs, num_classes
        self.transform, self.later = transform, later
        self.batch_size, self.rank, self.num_ranks = batch_size, rank, num_ranks

    def __getitem__(self, step: int) -> tuple[Any, ...]:
        first = step * self.batch_size
        draws = [self.stream[d] for d in range(first + self.rank, first + self.batch_size, self.num_ranks)]
        samples = [draw.sample for draw in draws]
        inputs, weights = self.inputs.of(samples), class_weights(samples, self.num_classes)
        if self.transform is None:
            return inputs, weights
        seeds = [draw.augment_seed for draw in draws]
        return (inputs, weights, seeds) if self.later else (self.transform(inputs, seeds), weights)


class Steps(Sampler[int]):
    """Step numbers from ``first`` on. Its length counts all steps, as Lightning expects of a resumed loader."""

    def __init__(self, first: int, total: int):
        self.first, self.total = first, total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.total))

    def __len__(self) -> int:
        return self.total


def step_loader(batches: Dataset, first_step: int, num_steps: int, trainer: TrainerConfig) -> DataLoader:
    """Batches of steps ``first_step`` … ``num_steps`` - 1, made by the trainer's workers.

    The loader runs through all steps once, so its workers live as long as the training.
    """
    return DataLoader(
        batches,
        batch_size=None,  # an item is a whole batch already
        sampler=Steps(first_step, num_steps),
        num_workers=trainer.workers(),
        pin_memory=best_device(trainer.accelerator) == "cuda",  # Lightning then copies without waiting
    )
