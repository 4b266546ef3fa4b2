"""COCO 2017 as DA-Fusion classifies it: each image labelled by its annotation with the largest ``area``."""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from genaug.core.errors import boundary
from genaug.core.identity import folder_digest
from genaug.core.registry import component
from genaug.data.annotations import check_segmentation
from genaug.data.masks import Segmentations
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.published import Origin, Published, samples_of_files

Annotation = dict[str, Any]


def largest_annotations(instances: dict[str, Any], crowd: bool) -> dict[int, Annotation]:
    """The annotation with the largest ``area`` of each image id, the earlier one on a tie.

    Args:
        instances: a parsed ``instances_*.json``.
        crowd: whether crowd regions (``iscrowd`` 1) may name an image.
    """
    largest: dict[int, Annotation] = {}
    for annotation in instances["annotations"]:
        if annotation.get("iscrowd", 0) and not crowd:
            continue
        known = largest.get(annotation["image_id"])
        if known is None or annotation["area"] > known["area"]:
            largest[annotation["image_id"]] = annotation
    return largest


@component("dataset", "coco_classification")
@dataclass(kw_only=True, slots=True)
class CocoClassification(Published):
    """80 classes, 117,266 training and 4,952 test images; images without annotation are left out and counted.

    ``split=official``: train2017 and val2017; val2017 is the test and validation is carved from train2017.
    ``split=reference``: the same lists, nothing carved. Images are identified by name and size, not by content.
    """

    crowd: bool = True
    """Whether a crowd region can be the largest annotation, as in the released code. False leaves crowds out."""
    masks: bool = False
    """Keep the largest annotation's mask of each training image (0.3 MB each; needs pycocotools), for generators that
    edit or keep the object. Meant for few-shot draws."""
    annotations: str = "annotations/instances_{split}2017.json"
    """Path of the two annotation files below ``root``; ``{split}`` is train or val."""
    images: str = "{split}2017"
    """Folder of the images below ``root``."""

    version: ClassVar[int] = 1
    splits: ClassVar[tuple[str, ...]] = ("official", "reference")
    origin: ClassVar[Origin] = Origin(
        title="COCO 2017",
        page="https://cocodataset.org/#download",
        files="train2017.zip, val2017.zip and annotations_trainval2017.zip",
        size="19.3 GB + 0.8 GB + 0.25 GB",
        licence="annotations CC BY 4.0; images under Flickr's terms of use, each with its own licence (field license)",
        can_download=False,
    )

    def content(self) -> Any:
        paths = [self._annotations(split) for split in ("train", "val")]
        self.require(*paths, *(self._images(split) for split in ("train", "val")))
        return folder_digest(self.folder, paths)

    def read(self) -> Dataset:
        self.content()  # says what is missing
        by_split: dict[str, list[Sample]] = {}
        skipped = 0
        names: list[str] = []
        for split in ("train", "val"):
            instances = self._instances(split)
            categories = sorted(instances["categories"], key=lambda category: category["id"])
            names = [category["name"] for category in categories]
            class_index = {category["id"]: i for i, category in enumerate(categories)}  # ids run to 90 with gaps
            largest = largest_annotations(instances, self.crowd)
            folder = self._images(split)
            files = [
                (folder / image["file_name"], class_index[largest[image["id"]]["category_id"]])
                for image in instances["images"]
                if image["id"] in largest
            ]
            self.require(*(path for path, _ in files))
            skipped += len(instances["images"]) - len(files)
            by_split[split] = samples_of_files(self.folder, files, by_listing=True)
        notes = {"images_without_annotation_skipped": skipped} if skipped else {}
        return self.dataset(names, by_split["train"], by_split["val"], notes=notes)

    def draw(self, dataset: Dataset) -> Dataset:
        drawn = Published.draw(self, dataset)
        return replace(drawn, train=self._with_masks(drawn.train)) if self.masks else drawn

    def _with_masks(self, samples: Sequence[Sample]) -> tuple[Sample, ...]:
        instances = self._instances("train")
        images = {self._images("train") / image["file_name"]: image for image in instances["images"]}
        largest = largest_annotations(instances, self.crowd)
        result = []
        for sample in samples:
            assert isinstance(sample.image, Path)
            image = images[sample.image]
            annotation = largest[image["id"]]
            where = f"{self._annotations('train')}: annotation {annotation['id']}"
            part = check_segmentation(annotation["segmentation"], image["width"], image["height"], where)
            mask = None if part is None else Segmentations([part], image["width"], image["height"], where)
            result.append(replace(sample, mask=mask))
        return tuple(result)

    def _annotations(self, split: str) -> Path:
        return self.folder / self.annotations.format(split=split)

    def _images(self, split: str) -> Path:
        return self.folder / self.images.format(split=split)

    def _instances(self, split: str) -> dict[str, Any]:
        path = self._annotations(split)
        return _parse(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _parse(path: Path, mtime_ns: int) -> dict[str, Any]:
    with boundary(f"{path} is not valid JSON", "Unpack the annotations again."):
        return json.loads(path.read_text())
