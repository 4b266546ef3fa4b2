"""What the detection data sets share: splits without classes, image files, identity of their content."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from genaug.core.errors import GenaugError
from genaug.core.fields import bounded, count
from genaug.core.identity import content_digest
from genaug.data.annotations import Annotation, BoxRules, Fit, check_segmentation, fit
from genaug.data.images import Facts, check_readable, inspect_all
from genaug.data.masks import MaskImage, Segmentations
from genaug.data.sample import Dataset, Sample, UnreadMask
from genaug.data.sources.base import FolderSource, Source
from genaug.data.sources.folder_names import ANNOTATIONS, plain
from genaug.data.sources.tree import walk


@dataclass(kw_only=True, slots=True)
class DetectionSource(Source):
    """Base of data sets with boxes."""

    image_size: int = count(640, least=8)
    """Longest side in pixels at which detectors train, unless they say otherwise."""

    task: ClassVar[str] = "detection"

    def __post_init__(self) -> None:
        Source.__post_init__(self)
        if self.shots is not None:
            raise GenaugError(
                f"dataset.shots={self.shots} counts images of one class, but images of {self.name or 'a detection set'} "
                "hold several. Write dataset.shots=null and dataset.fraction=0.1, a share of the training images."
            )


@dataclass(kw_only=True, slots=True)
class DetectionFiles(DetectionSource, FolderSource):
    """Base of data sets with boxes in files."""

    val_fraction: float = bounded(0.2, 0, 1, below=True)
    """Share of the training images carved for validation where there is no validation list, in [0, 1)."""
    test_fraction: float = bounded(0.25, 0, 1, above=True, below=True)
    """Share of the training images taken for the test where there is no test list, in (0, 1)."""
    split_seed: int = bounded(0, 0)
    """Seed of the carved splits; not the trial's seed."""
    rescale_boxes: bool = False
    """Scale boxes and masks to the files where the annotations were made on copies of another size and the same shape; false
    refuses them."""

    def __post_init__(self) -> None:
        FolderSource.__post_init__(self)
        DetectionSource.__post_init__(self)

    def samples(
        self,
        listed: Mapping[str, Sequence[tuple[Path, Annotation]]],
        rules: BoxRules,
        masks: Mapping[Path, Path] | bool,
    ) -> dict[str, list[Sample]]:
        """Samples by split of image files with their annotations; every file is opened as training will open it.

        Args:
            masks: whether the training images' segmentations serve as masks, or mask pictures by image file.
        """
        root = self.folder()
        facts = inspect_all(path for pairs in listed.values() for path, _ in pairs)
        check_readable(facts)
        ids = _ids(facts, root)
        found: dict[str, list[Sample]] = {}
        for split, pairs in listed.items():
            for path, annotation in pairs:
                how = fit(annotation, facts[path], self.rescale_boxes, rules.notes)
                mask = mask_of(path, annotation, how, facts[path], masks, rules) if split == "train" else None
                boxes = rules.apply([how.apply(item) for item in annotation.objects], *facts[path].size)
                found.setdefault(split, []).append(
                    Sample(id=ids[path], digest=content_digest(path), image=path, boxes=boxes, mask=mask)
                )
        rules.check_inside()
        return found

    def dataset(
        self,
        class_names: Sequence[str],
        splits: Mapping[str, Sequence[Sample]],
        notes: Counter[str],
        remarks: Sequence[str] = (),
    ) -> Dataset:
        """The data set of the given splits; what is missing is carved from train, whatever the classes.

        With train and val alone, val is the test, as the public parts of COCO and VOC 2012 are used.
        """
        parts = {name: list(samples) for name, samples in splits.items() if samples}
        if "train" not in parts:
            raise GenaugError(
                f"dataset.root={self.root} has no training images (found: {', '.join(parts) or 'nothing'})."
            )
        if "test" not in parts and "val" in parts:
            parts["test"] = parts.pop("val")
            notes["val_list_used_as_test"] = 1
        if "test" not in parts:
            parts["train"], parts["test"] = carve_any(parts["train"], self.test_fraction, self.split_seed)
        if "val" not in parts:
            parts["train"], parts["val"] = carve_any(parts["train"], self.val_fraction, self.split_seed)
        used = {sample.image for part in splits.values() for sample in part if isinstance(sample.image, Path)}
        left_out = Counter[str]()
        folders = [walk(self.folder())]
        while folders:
            folder = folders.pop()
            left_out += folder.unusable
            left_out["images_without_annotations"] += sum(path not in used for path in folder.images)
            folders += [
                inner for inner in folder.folders if plain(inner.name) not in ANNOTATIONS
            ]  # masks are no images
        return Dataset(
            name=self.name,
            task=self.task,
            class_names=tuple(class_names),
            train=tuple(parts["train"]),
            val=tuple(parts["val"]),
            test=tuple(parts["test"]),
            notes={key: count for key, count in sorted((notes + left_out).items()) if count},
            remarks=tuple(remarks),
        )


def _ids(paths: Iterable[Path], root: Path) -> dict[Path, str]:
    """Place of each image file below the root; of those elsewhere, below the folder that holds them all."""
    elsewhere = [path.parent for path in paths if not path.is_relative_to(root)]
    base = Path(os.path.commonpath(elsewhere)) if elsewhere else root
    return {path: path.relative_to(root if path.is_relative_to(root) else base).as_posix() for path in paths}


def mask_of(
    path: Path, annotation: Annotation, how: Fit, facts: Facts, masks: Mapping[Path, Path] | bool, rules: BoxRules
) -> UnreadMask | None:
    """Where the object mask of an image is; None where there is none. Segmentations are checked here and decoded later."""
    if isinstance(masks, Mapping):
        if path not in masks:
            return None
        found = MaskImage(masks[path], facts.width, facts.height)
        found.check()
        return found
    parts = []
    for item in annotation.objects if masks else ():
        if item.crowd or not item.segmentation:
            continue
        part = check_segmentation(item.segmentation, how.width, how.height, item.where)
        if part is None:
            rules.notes["segmentations_of_fewer_than_3_points_taken_as_their_box"] += 1
            x1, y1, x2, y2 = item.xyxy
            part = [[x1, y1, x2, y1, x2, y2, x1, y2]]
        parts.append(part)
    return Segmentations(parts, how.width, how.height, annotation.where, how.scale, how.orientation) if parts else None


def carve_any(samples: Sequence[Sample], fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Split ``samples`` into (kept, carved), ``fraction`` of them carved, at least one kept; sorted by id first."""
    ordered = sorted(samples, key=lambda sample: sample.id)
    order = np.random.default_rng(seed).permutation(len(ordered))
    count = min(round(fraction * len(ordered)), max(len(ordered) - 1, 0))
    carved = {int(i) for i in order[:count]}
    return [s for i, s in enumerate(ordered) if i not in carved], [s for i, s in enumerate(ordered) if i in carved]
