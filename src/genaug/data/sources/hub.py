"""Any image data set on the Hugging Face Hub, its columns named in the configuration."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from omegaconf import MISSING

from genaug.data.sample import Boxes, Dataset, Sample
from genaug.data.sources.base import Source
from genaug.data.sources.published import drop_repeats, samples_of_files
from genaug.data.sources.records import Export, load_hub
from genaug.data.splits import carve
from genaug.errors import GenaugError
from genaug.identity import NOT_IDENTITY
from genaug.registry import component

BOX_FORMATS = ("xywh", "xyxy")


@component("dataset", "hf")
@dataclass(kw_only=True, slots=True)
class HubClassification(Source):
    """A Hub data set with an image and a label column (extra ``hf``). Its images are written once below
    ``cache_dir``."""

    path: str = MISSING
    """Hub id, e.g. ``owner/set``, or a local folder that ``datasets`` can load."""
    config: str | None = None
    """Name of the configuration, where the set has several."""
    revision: str | None = None
    """Commit, branch or tag; name a commit for results to be repeatable."""
    image: str = "image"
    """Image column."""
    label: str = "label"
    """Class column: integers with class names, or text."""
    train_split: str = "train"
    """Name of the training split."""
    val_split: str | None = None
    """Name of the validation split; null carves ``val_fraction`` of each class from train."""
    test_split: str | None = "test"
    """Name of the test split; null carves ``test_fraction`` of each class from train."""
    val_fraction: float = 0.2
    """In [0, 1)."""
    test_fraction: float = 0.25
    """In (0, 1)."""
    split_seed: int = 0
    """Seed of what is carved; not the trial's seed."""
    cache_dir: str = field(default="~/.cache/genaug", metadata=NOT_IDENTITY)
    """Folder of the written images."""

    version: ClassVar[int] = 1

    def content(self) -> Any:
        return self._export().digest

    def read(self) -> Dataset:
        parts, names = self._parts()
        train = parts[self.train_split]
        if self.test_split is None:
            train, test = self._carve(train, len(names), self.test_fraction)
        else:
            test = parts[self.test_split]
        if self.val_split is None:
            train, val = self._carve(train, len(names), self.val_fraction)
        else:
            val = parts[self.val_split]
        return drop_repeats(
            Dataset(
                name=self.name or self.path,
                task=self.task,
                class_names=tuple(names),
                train=tuple(train),
                val=tuple(val),
                test=tuple(test),
            )
        )

    def _carve(self, samples: list[Sample], num_classes: int, fraction: float) -> tuple[list[Sample], list[Sample]]:
        return carve(samples, num_classes, fraction, self.split_seed)

    def _splits(self) -> tuple[str, ...]:
        return tuple(split for split in (self.train_split, self.val_split, self.test_split) if split is not None)

    def _export(self) -> Export:
        return load_hub(self.path, self.config, self.revision, self._splits(), Path(self.cache_dir).expanduser())

    def _parts(self) -> tuple[dict[str, list[Sample]], list[str]]:
        """Samples by split, and class names."""
        export = self._export()
        rows = {split: list(export.rows(split, self.image)) for split in self._splits()}
        for split, items in rows.items():
            if items and self.label not in items[0][1]:
                raise GenaugError(
                    f"dataset.label={self.label} is not a column of {self.path} ({split}): write one of "
                    f"{', '.join(items[0][1])}."
                )
        values = sorted(
            {row[self.label] for items in rows.values() for _, row in items}, key=lambda v: (str(type(v)), v)
        )
        names = export.names(self.label)
        if names is None:
            names = [str(value) for value in values]
            index = {value: i for i, value in enumerate(values)}
        else:
            index = {i: i for i in range(len(names))}
        if any(value not in index for value in values):
            raise GenaugError(
                f"{self.path} has images without a label ({self.label} = -1): choose splits that are labelled."
            )
        parts = {
            split: samples_of_files(export.folder, [(path, index[row[self.label]]) for path, row in items])
            for split, items in rows.items()
        }
        return parts, [name.replace("_", " ") for name in names]


@component("dataset", "hf_detection")
@dataclass(kw_only=True, slots=True)
class HubDetection(HubClassification):
    """A Hub data set with an image and an objects column, each a mapping of lists: boxes and categories."""

    objects: str = "objects"
    """Column with the objects."""
    bbox: str = "bbox"
    """Key of the boxes in it."""
    category: str = "category"
    """Key of the classes in it."""
    box_format: str = "xywh"
    """``xywh``: left, top, width, height as in COCO; ``xyxy``: corners. In pixels."""

    task: ClassVar[str] = "detection"

    def __post_init__(self) -> None:
        Source.__post_init__(self)
        if self.box_format not in BOX_FORMATS:
            raise GenaugError(f"dataset.box_format={self.box_format}: write {' or '.join(BOX_FORMATS)}.")

    def _carve(self, samples: list[Sample], num_classes: int, fraction: float) -> tuple[list[Sample], list[Sample]]:
        order = np.random.default_rng(self.split_seed).permutation(len(samples))
        count = round(fraction * len(samples))
        ordered = [samples[i] for i in order]
        return ordered[count:], ordered[:count]

    def _parts(self) -> tuple[dict[str, list[Sample]], list[str]]:
        export = self._export()
        names = export.names(f"{self.objects}.{self.category}")
        rows = {split: list(export.rows(split, self.image)) for split in self._splits()}
        for items in rows.values():
            if items and not {self.bbox, self.category} <= set(items[0][1].get(self.objects) or {}):
                raise GenaugError(
                    f"{self.path} has no column {self.objects} with {self.bbox} and {self.category}: set "
                    f"dataset.objects, dataset.bbox and dataset.category; its columns are {', '.join(items[0][1])}."
                )
        if names is None:
            found = {value for items in rows.values() for _, row in items for value in row[self.objects][self.category]}
            names = [str(value) for value in sorted(found, key=str)]
            index: dict[Any, int] = {value: i for i, value in enumerate(sorted(found, key=str))}
        else:
            index = {i: i for i in range(len(names))}
        parts = {}
        for split, items in rows.items():
            plain = samples_of_files(export.folder, [(path, 0) for path, _ in items])
            parts[split] = [
                Sample(
                    id=sample.id, digest=sample.digest, image=sample.image, boxes=self._boxes(row[self.objects], index)
                )
                for sample, (_, row) in zip(plain, items, strict=True)
            ]
        return parts, [name.replace("_", " ") for name in names]

    def _boxes(self, objects: dict[str, list[Any]], index: dict[Any, int]) -> Boxes:
        """Boxes without area are left out: nothing can be learned or scored on them."""
        xyxy = np.asarray(objects[self.bbox], dtype=np.float32).reshape(-1, 4).copy()
        if self.box_format == "xywh":
            xyxy[:, 2:] += xyxy[:, :2]
        labels = np.asarray([index[value] for value in objects[self.category]], dtype=np.int64)
        whole = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
        return Boxes(xyxy=xyxy[whole], labels=labels[whole], crowd=np.zeros(int(whole.sum()), dtype=bool))
