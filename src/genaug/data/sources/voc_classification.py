"""PASCAL VOC 2012 as DA-Fusion classifies it: the segmentation lists, each image labelled by its largest instance.

Ids 0 (background) and 255 (void) are left out by value. The released code zeroes the first and the last id that occur,
whatever they are, which loses the last instance of an image without void and the first of one without background.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from genaug.core.registry import component
from genaug.data.masks import palette_values
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.published import Origin, Published, listing_digest, samples_of_files

# index + 1 = value in SegmentationClass; the spelling is DA-Fusion's, which reads as words in a prompt
NAMES = (
    "airplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "dining table",
    "dog",
    "horse",
    "motorcycle",
    "person",
    "potted plant",
    "sheep",
    "sofa",
    "train",
    "television",
)
BACKGROUND, VOID = 0, 255


def largest_instance(objects: np.ndarray, classes: np.ndarray) -> tuple[int, np.ndarray] | None:
    """(class value 1 … 20, mask) of the instance with the most pixels, the lower id on a tie; None if there is no
    object.

    Args:
        objects: uint8 [h, w], ``SegmentationObject``: instance ids, 0 background, 255 void.
        classes: uint8 [h, w], ``SegmentationClass``: class values, 0 background, 255 void.
    """
    counts = np.bincount(objects.ravel(), minlength=256)
    counts[[BACKGROUND, VOID]] = 0
    if not counts.any():
        return None
    mask = objects == counts.argmax()
    inside = np.bincount(classes[mask], minlength=256)
    inside[[BACKGROUND, VOID]] = 0
    return (int(inside.argmax()), mask) if inside.any() else None


@component("dataset", "voc_classification")
@dataclass(kw_only=True, slots=True)
class VocClassification(Published):
    """20 classes, 1,464 training and 1,449 test images, object masks.

    ``split=official``: train.txt and val.txt of the segmentation task; val.txt is the test (the challenge's test
    labels are not public) and validation is carved from train.txt. ``split=reference``: the same lists, nothing
    carved, order of the lists kept for the few-shot draw.
    """

    masks: bool = True
    """Keep the largest instance's mask of each training image (0.2 MB each), for generators that edit or keep the
    object."""

    version: ClassVar[int] = 1
    splits: ClassVar[tuple[str, ...]] = ("official", "reference")
    origin: ClassVar[Origin] = Origin(
        title="PASCAL VOC 2012",
        page="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        files="VOCtrainval_11-May-2012.tar",
        size="2.0 GB",
        licence="images under Flickr's terms of use",
    )

    @property
    def voc(self) -> Path:
        """The folder with ``ImageSets``: ``root/VOCdevkit/VOC2012``, or ``root`` itself if that is it."""
        return self.folder if (self.folder / "ImageSets").is_dir() else self.folder / "VOCdevkit" / "VOC2012"

    def content(self) -> Any:
        lists = self._lists()
        files = [path for names in lists.values() for name in names for path in self._paths(name)]
        self.require(*files)
        return [lists, listing_digest(self.voc, files)]

    def read(self) -> Dataset:
        lists = self._lists()
        by_split: dict[str, list[Sample]] = {}
        skipped = 0
        for split, names in lists.items():
            self.require(*(path for name in names for path in self._paths(name)))
            with ThreadPoolExecutor() as threads:
                found = list(threads.map(self._largest, names))
            files = [(self._paths(name)[0], value[0] - 1) for name, value in zip(names, found, strict=True) if value]
            skipped += len(names) - len(files)
            by_split[split] = samples_of_files(self.voc, files)
        notes = {"images_without_object_skipped": skipped} if skipped else {}
        return self.dataset(NAMES, by_split["train"], by_split["val"], notes=notes)

    def draw(self, dataset: Dataset) -> Dataset:
        drawn = Published.draw(self, dataset)
        return replace(drawn, train=self._with_masks(drawn.train)) if self.masks else drawn

    def _with_masks(self, samples: Sequence[Sample]) -> tuple[Sample, ...]:
        with ThreadPoolExecutor() as threads:
            found = list(threads.map(self._largest, (Path(sample.id).stem for sample in samples)))
        return tuple(replace(s, mask=value[1]) for s, value in zip(samples, found, strict=True) if value is not None)

    def _largest(self, name: str) -> tuple[int, np.ndarray] | None:
        _, classes, objects = self._paths(name)
        return largest_instance(palette_values(objects), palette_values(classes))

    def _paths(self, name: str) -> tuple[Path, Path, Path]:
        voc = self.voc
        return (
            voc / "JPEGImages" / f"{name}.jpg",
            voc / "SegmentationClass" / f"{name}.png",
            voc / "SegmentationObject" / f"{name}.png",
        )

    def _lists(self) -> dict[str, list[str]]:
        folder = self.voc / "ImageSets" / "Segmentation"
        if self.download and not folder.is_dir():
            from torchvision.datasets import VOCSegmentation

            VOCSegmentation(self.folder, year="2012", image_set="train", download=True)
        self.require(folder / "train.txt", folder / "val.txt")
        return {split: (folder / f"{split}.txt").read_text().split() for split in ("train", "val")}
