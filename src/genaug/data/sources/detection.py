"""What the detection data sets share: splits without classes, image files, identity of their content."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from omegaconf import MISSING
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.core.identity import NOT_IDENTITY, content_digest
from genaug.data.annotations import BoxRules, LabelledObject
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.base import Source


@dataclass(kw_only=True, slots=True)
class DetectionSource(Source):
    """Base of data sets with boxes."""

    image_size: int = 640
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
class DetectionFiles(DetectionSource):
    """Base of data sets with boxes in files."""

    root: str = field(default=MISSING, metadata=NOT_IDENTITY)
    """The folder. Its content counts for the identity, not its place."""
    val_fraction: float = 0.2
    """Share of the training images carved for validation where there is no validation list, in [0, 1)."""
    test_fraction: float = 0.25
    """Share of the training images taken for the test where there is no test list, in (0, 1)."""
    split_seed: int = 0
    """Seed of the carved splits; not the trial's seed."""

    def __post_init__(self) -> None:
        DetectionSource.__post_init__(self)
        if not 0 <= self.val_fraction < 1:
            raise GenaugError(f"dataset.val_fraction={self.val_fraction} must lie in [0, 1).")
        if not 0 < self.test_fraction < 1:
            raise GenaugError(f"dataset.test_fraction={self.test_fraction} must lie in (0, 1).")

    def folder(self) -> Path:
        root = Path(self.root).expanduser().absolute()
        if not root.is_dir():
            raise GenaugError(f"dataset.root={self.root} is not a folder.")
        return root

    def content(self) -> Any:
        root = self.folder()
        files = sorted({path for path in self.files() if path.is_file()})
        with ThreadPoolExecutor() as threads:  # hashing waits for the disk
            digests = list(threads.map(content_digest, files))
        names = [path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name for path in files]
        lines = (f"{name} {digest}" for name, digest in zip(names, digests, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def files(self) -> Iterable[Path]:
        """Annotation files and images that ``read`` reads."""
        raise AssertionError(f"{type(self).__name__} names no files")

    def dataset(self, class_names: Sequence[str], splits: dict[str, list[Sample]], notes: Counter[str]) -> Dataset:
        """The data set of the given splits; what is missing is carved from train, whatever the classes.

        With train and val alone, val is the test, as the public parts of COCO and VOC 2012 are used.
        """
        splits = {name: list(samples) for name, samples in splits.items() if samples}
        if "train" not in splits:
            raise GenaugError(
                f"dataset.root={self.root} has no training images (found: {', '.join(splits) or 'nothing'})."
            )
        if "test" not in splits and "val" in splits:
            splits["test"] = splits.pop("val")
            notes["val_list_used_as_test"] = 1
        if "test" not in splits:
            splits["train"], splits["test"] = carve_any(splits["train"], self.test_fraction, self.split_seed)
        if "val" not in splits:
            splits["train"], splits["val"] = carve_any(splits["train"], self.val_fraction, self.split_seed)
        return Dataset(
            name=self.name or self.folder().name,
            task=self.task,
            class_names=tuple(class_names),
            train=tuple(splits["train"]),
            val=tuple(splits["val"]),
            test=tuple(splits["test"]),
            notes={key: count for key, count in sorted(notes.items()) if count},
        )


def carve_any(samples: Sequence[Sample], fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Split ``samples`` into (kept, carved), ``fraction`` of them carved, at least one kept; sorted by id first."""
    ordered = sorted(samples, key=lambda sample: sample.id)
    order = np.random.default_rng(seed).permutation(len(ordered))
    count = min(round(fraction * len(ordered)), max(len(ordered) - 1, 0))
    carved = {int(i) for i in order[:count]}
    return [s for i, s in enumerate(ordered) if i not in carved], [s for i, s in enumerate(ordered) if i in carved]


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file as it is seen (EXIF rotation applied), from its header."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except (OSError, SyntaxError, ValueError) as error:
        raise GenaugError(f"Cannot read the image {path}: {error}. Replace or remove the file.") from error
    return (height, width) if turned else (width, height)


def sample_of(
    root: Path, path: Path, objects: Sequence[LabelledObject], size: tuple[int, int], rules: BoxRules, mask: Any = None
) -> Sample:
    """The sample of an image file with its objects."""
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return Sample(id=name, digest=content_digest(path), image=path, boxes=rules.apply(objects, *size), mask=mask)
