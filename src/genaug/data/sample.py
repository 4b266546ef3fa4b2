"""What flows through the code: a sample is an image, its annotation and a stable id."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from genaug.core.errors import GenaugError, boundary
from genaug.core.identity import digest_bytes, fingerprint
from genaug.core.shards import Packed
from genaug.data.images import decode, inspect


@dataclass(kw_only=True, frozen=True, slots=True, eq=False)
class Boxes:
    """Labelled boxes of one image."""

    xyxy: np.ndarray
    """float32 [n, 4]: left, top, right, bottom in pixels of the image; right and bottom exclusive."""
    labels: np.ndarray
    """int64 [n]: index into the data set's class names."""
    crowd: np.ndarray
    """bool [n]: a region that holds many objects; neither trained on nor counted as a miss."""
    area: np.ndarray | None = None
    """float32 [n]: area of each object in square pixels as its annotation states it (COCO's ``area``, that of the mask), by
    which COCO tells small, medium and large; None where nothing states it, so that the boxes' own area counts."""


class UnreadMask(Protocol):
    """An object mask in a file: decoded only when something needs it, identified without being decoded."""

    @property
    def digest(self) -> str:
        """Hash of what it is read from."""
        ...

    def read(self) -> np.ndarray:
        """bool [height, width]."""
        ...


@dataclass(kw_only=True, frozen=True, slots=True, eq=False)
class Sample:
    """One real image. ``SyntheticSample`` adds where a generated one came from."""

    id: str
    """Unique in its data set and stable over runs, e.g. ``train/seven/0012.png``."""
    digest: str
    """Hash of the image's content."""
    image: Path | Packed | np.ndarray
    """A file, one inside a shard, or uint8 [height, width, 3]."""
    label: dict[int, float] = field(default_factory=dict)
    """Class weights: class index to weight, summing to 1. Hard, two-hot and soft labels alike; empty for detection."""
    boxes: Boxes | None = None
    white: float | None = None
    """Grey value that is white in a file with more than 8 bits, one for the whole data set (``sources.base``)."""
    mask: np.ndarray | UnreadMask | None = None
    """Object mask: bool [height, width], or where to read one; ``read_mask`` gives the pixels."""

    def open(self) -> Image.Image:
        """The image as RGB, upright (EXIF orientation applied)."""
        if isinstance(self.image, np.ndarray):
            return Image.fromarray(self.image)
        is_packed = isinstance(self.image, Packed)
        remedy = "Run the command that made it again: it is made again." if is_packed else "Replace or remove the file."
        with boundary(f"Cannot read the image {self.image}", remedy):
            return decode(self.image, self.white)[0]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright image, in pixels."""
        if isinstance(self.image, np.ndarray):
            return self.image.shape[1], self.image.shape[0]
        return inspect(self.image).size if isinstance(self.image, Path) else self.open().size

    def read_mask(self) -> np.ndarray | None:
        """The object mask, bool [height, width]; None where there is none."""
        return self.mask if self.mask is None or isinstance(self.mask, np.ndarray) else self.mask.read()

    @property
    def has_class(self) -> bool:
        """Whether there is a label or a box; a crowd region alone is none."""
        return bool(self.label) or (self.boxes is not None and not self.boxes.crowd.all())

    @property
    def class_index(self) -> int:
        """The class with the largest weight; of boxes, that of the largest one that is no crowd region."""
        if self.label:
            return max(self.label, key=lambda index: self.label[index])
        assert self.boxes is not None
        sides = self.boxes.xyxy[:, 2:] - self.boxes.xyxy[:, :2]
        return int(self.boxes.labels[np.where(self.boxes.crowd, -1.0, sides.prod(axis=1)).argmax()])

    def identity(self) -> dict[str, Any]:
        """What a generator may depend on: content and annotation, not the file's place."""
        parts: dict[str, Any] = {"digest": self.digest, "label": self.label}
        if self.boxes is not None:
            parts["boxes"] = [*self.boxes.xyxy.round(3).tolist(), *self.boxes.labels.tolist()]
            if self.boxes.crowd.any():
                parts["crowd"] = self.boxes.crowd.astype(int).tolist()
        if self.white is not None:
            parts["white"] = self.white
        if self.mask is not None:
            mask = self.mask
            parts["mask"] = digest_bytes(np.packbits(mask).tobytes()) if isinstance(mask, np.ndarray) else mask.digest
        return parts


@dataclass(kw_only=True, frozen=True, slots=True, eq=False)
class SyntheticSample(Sample):
    """A generated image: variant ``index`` of the real sample ``source_id``."""

    source_id: str
    index: int
    """j = 0 … M-1."""
    about: dict[str, Any] = field(default_factory=dict)
    """The manifest row: t0, seed, prompt, scores, seconds …"""


NO_TEST = (
    "{name} has no test images: nothing could be measured. Give it a test split, or more images of each class, of which "
    "a share is taken for the test."
)
"""Why no run takes a data set without test images."""


@dataclass(kw_only=True, frozen=True, slots=True)
class Dataset:
    """A loaded data set: real samples only."""

    name: str
    task: str
    """``classification`` or ``detection``."""
    class_names: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]
    unlabelled: tuple[Sample, ...] = ()
    """Images without annotation, for semi-supervised learners; no generator and no mix reads them."""
    undrawn: tuple[Sample, ...] = ()
    """Training images that the draw of ``shots`` or ``fraction`` did not take. Nothing reads their annotation; a fit that needs
    no labels may learn from their pixels where its configuration says so."""
    notes: dict[str, int] = field(default_factory=dict)
    """Counts of what was left out or changed while reading, by reason."""
    carved: tuple[str, ...] = ()
    """Splits (``val``, ``test``) that were taken from the training images, as the files have none."""
    remarks: tuple[str, ...] = ()
    """What else a user should know of how the files were understood, in sentences."""
    _known: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """``train_identity`` and ``train_by_class``, once they were asked for."""

    def __post_init__(self) -> None:
        if len(set(self.class_names)) == len(self.class_names):
            return
        name = next(name for name in self.class_names if self.class_names.count(name) > 1)
        first = self.class_names.index(name)
        second = self.class_names.index(name, first + 1)
        raise GenaugError(
            f"{self.name}: class {first} ({self._example(first)}) and class {second} ({self._example(second)}) are both "
            f"called {name!r}, but a pool stores classes by name. Give one of them another name; in the names of class "
            "folders and Hub classes an underscore reads as a blank."
        )

    def _example(self, label: int) -> str:
        """Where a class is from, for a message."""
        samples = (sample for split in (self.train, self.val, self.test) for sample in split)
        found = next((s.id for s in samples if label in s.label or (s.boxes and label in s.boxes.labels)), None)
        return "no image" if found is None else f"e.g. {found}"

    def train_identity(self) -> str:
        """Fingerprint of the training images, their annotations and the class names."""
        if "identity" not in self._known:
            images = [sample.identity() for sample in self.train]
            self._known["identity"] = fingerprint(list(self.class_names), images)
        return self._known["identity"]

    def train_by_class(self) -> list[list[Sample]]:
        """The training images of each class, as ``by_class`` groups them; nobody changes these lists."""
        if "by_class" not in self._known:
            self._known["by_class"] = by_class(self.train, len(self.class_names))
        return self._known["by_class"]


def by_class(samples: Sequence[Sample], num_classes: int) -> list[list[Sample]]:
    """Samples grouped by their class (``Sample.class_index``), each group in the given order; those without one left out."""
    groups: list[list[Sample]] = [[] for _ in range(num_classes)]
    for sample in samples:
        if sample.has_class:
            groups[sample.class_index].append(sample)
    return groups


def check_samples(dataset: Dataset) -> None:
    """Raise ``GenaugError`` for an image or a label that is not as ``Sample`` says: own data are told what to give."""
    if not dataset.train:
        raise GenaugError(f"{dataset.name} has no training images.")
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    for samples in (*splits.values(), dataset.unlabelled):
        for sample in samples:
            image = sample.image
            if isinstance(image, Path | Packed):
                continue
            pixels = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
            if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,):
                raise GenaugError(
                    f"{dataset.name}: the image of {sample.id} is {pixels}: give a pathlib.Path, or pixels as a numpy array of "
                    "uint8 [height, width, 3]."
                )
    for split, samples in splits.items():
        contents = {sample.id: sample.digest for sample in samples}
        for sample in samples:
            if contents[sample.id] != sample.digest:
                raise GenaugError(f"{dataset.name}: two images of {split} have the id {sample.id}. Give each its own.")
    if dataset.task != "classification":
        return
    indices = range(len(dataset.class_names))
    for split, samples in splits.items():
        seen: set[tuple[tuple[int, float], ...]] = set()
        for sample in samples:
            label = tuple(sample.label.items()) if isinstance(sample.label, dict) else None
            if label in seen:
                continue
            if label is None or any(i not in indices for i, _ in label) or abs(sum(w for _, w in label) - 1) > 1e-3:
                raise GenaugError(
                    f"{dataset.name}: {sample.id} ({split}) has the label {sample.label}: write the weights of classes, which "
                    f"sum to 1, by their index from 0 to {indices[-1]}, e.g. {{0: 1.0}}."
                )
            seen.add(label)


def without_objects(dataset: Dataset, *splits: str) -> list[str]:
    """A sentence for each of the splits (``train``, ``val``, ``test``) that has images, but no box that is no crowd region."""
    notes = ", ".join(f"{count} {reason}" for reason, count in dataset.notes.items())
    return [
        f"No {'training' if split == 'train' else split} image of {dataset.name} has a box that is no crowd region: there is "
        f"nothing to detect. Found: {notes or 'no boxes'}. Check the annotations of that split."
        for split in splits
        if (samples := getattr(dataset, split)) and not any(sample.has_class for sample in samples)
    ]


def check_disjoint(dataset: Dataset) -> None:
    """No image may be in two of ``train``, ``val`` and ``test``, by id or by content."""
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    for attribute in ("id", "digest"):
        for first, second in itertools.combinations(splits, 2):
            known = {getattr(sample, attribute): sample for sample in splits[first]}
            pairs = [(known[key], s) for s in splits[second] if (key := getattr(s, attribute)) in known]
            if pairs:
                raise GenaugError(
                    f"{len(pairs)} image(s) of the {second} split are also in {first}, e.g. {pairs[0][1].id} is "
                    f"{pairs[0][0].id}. Remove the copies: results on them would not count."
                )
