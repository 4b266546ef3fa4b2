"""Splits: nested seeded draws, and validation splits carved from train. Tests sets are never touched."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from genaug.core.errors import GenaugError
from genaug.data.sample import Dataset, Sample, by_class


def few_shot(dataset: Dataset, shots: int, seed: int) -> Dataset:
    """``shots`` training images per class: in class order, the first of ``rng.permutation(count)``.

    DA-Fusion's draw (``numpy.random.default_rng(seed)``): for one seed, fewer shots are a subset of more.

    Raises:
        GenaugError: if a class has fewer images than ``shots``.
    """
    rng = np.random.default_rng(seed)
    chosen: list[Sample] = []
    for name, group in zip(dataset.class_names, dataset.train_by_class(), strict=True):
        if len(group) < shots:
            raise GenaugError(
                f"dataset.shots={shots}, but class {name!r} of {dataset.name} has only {len(group)} training image(s)"
                f"{_carved_from(dataset, name, len(group))}. Write dataset.shots={max(len(group), 1)} or less, or null to take "
                "all."
            )
        chosen += [group[i] for i in rng.permutation(len(group))[:shots]]
    drawn = {sample.id for sample in chosen}
    undrawn = tuple(sample for sample in dataset.train if sample.id not in drawn)
    return dataclasses.replace(dataset, train=tuple(chosen), undrawn=undrawn)


def _carved_from(dataset: Dataset, name: str, num_train: int) -> str:
    """Of how many images of a class the training images are, where splits were carved from them."""
    index, names = dataset.class_names.index(name), {"val": "validation", "test": "the test"}
    taken = {
        split: sum(s.has_class and s.class_index == index for s in getattr(dataset, split)) for split in dataset.carved
    }
    taken = {split: number for split, number in taken.items() if number}
    if not taken:
        return ""
    parts = " and ".join(f"{number} for {names[split]} (dataset.{split}_fraction)" for split, number in taken.items())
    return f", as {parts} were carved from its {num_train + sum(taken.values())}"


def fraction_of(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """The first ``ceil(fraction * n)`` of a seeded permutation of the training images: nested in ``fraction``."""
    order = np.random.default_rng(seed).permutation(len(dataset.train))
    count = int(np.ceil(fraction * len(dataset.train) - 1e-9))
    drawn, undrawn = (tuple(dataset.train[i] for i in part) for part in (order[:count], order[count:]))
    return dataclasses.replace(dataset, train=drawn, undrawn=undrawn)


def carve(samples: Sequence[Sample], num_classes: int, fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Split ``samples`` per class into (kept, carved), ``fraction`` of each class carved, at least one kept.

    Sorted by id first: the order in which a file system lists files must not matter.
    """
    rng = np.random.default_rng(seed)
    kept: list[Sample] = []
    carved: list[Sample] = []
    for group in by_class(sorted(samples, key=lambda sample: sample.id), num_classes):
        count = min(round(fraction * len(group)), max(len(group) - 1, 0))
        order = [group[i] for i in rng.permutation(len(group))]
        carved += order[:count]
        kept += order[count:]
    return sorted(kept, key=lambda s: s.id), sorted(carved, key=lambda s: s.id)


def halve(samples: Sequence[Sample], num_classes: int, seed: int) -> tuple[list[Sample], list[Sample]]:
    """DA-Fusion's halves: per class in class order, ``numpy.array_split(rng.permutation(count), 2)``, the first is train.

    The order within a half is the permutation's, so that the first n of each class are the reference's n-shot draw.
    """
    rng = np.random.default_rng(seed)
    halves: tuple[list[Sample], list[Sample]] = ([], [])
    for group in by_class(samples, num_classes):
        for half, indices in zip(halves, np.array_split(rng.permutation(len(group)), 2), strict=True):
            half += [group[i] for i in indices]
    return halves
