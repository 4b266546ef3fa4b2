"""MNIST from its idx files, packed or not, in one folder or as torchvision lays them out (``root/MNIST/raw``)."""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from omegaconf import MISSING
from PIL import Image

from genaug.core.errors import GenaugError, boundary
from genaug.core.fields import bounded, choice
from genaug.core.files import read_packed
from genaug.core.identity import content_by, digest_bytes
from genaug.core.registry import component
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.base import Source
from genaug.data.sources.digits import NAMES
from genaug.data.splits import carve

SIDE = 28
IMAGES, LABELS = 2051, 2049  # magic numbers of idx files of three and one dimensions of bytes
SPLITS = {"train": "train", "test": "t10k"}
MOST_BYTES = 2**30
"""Of one file, unpacked: more than a million images."""


@component("dataset", "mnist")
@dataclass(kw_only=True, slots=True)
class Mnist(Source):
    """Ten classes of handwritten digits, 28x28 grey: 60,000 for training and validation, 10,000 for the test."""

    root: str = field(default=MISSING, metadata=content_by("content"))
    """Folder of ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the two ``t10k-…`` files, each with or without
    ``.gz``; also torchvision's root, whose files lie in ``MNIST/raw``."""
    enlarge: str = choice("pad", ("pad", "resize"))
    """From 28 px to ``image_size``: ``pad`` with black, or ``resize`` (bicubic)."""
    val_fraction: float = bounded(1 / 12, 0, 1, below=True)
    """Share of each class of the 60,000 that becomes the validation split, in [0, 1)."""
    split_seed: int = bounded(0, 0)
    """Seed of the validation split; not the trial's seed."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        Source.__post_init__(self)
        if self.enlarge == "pad" and self.image_size < SIDE:
            raise GenaugError(
                f"dataset.image_size={self.image_size} is less than {SIDE}, so nothing can be padded. "
                "Write dataset.enlarge=resize."
            )

    def content(self) -> Any:
        return [digest_bytes(array.tobytes()) for split in SPLITS for array in self._arrays(split)]

    def read(self) -> Dataset:
        train = self._samples("train")
        val: list[Sample] = []
        if self.val_fraction:
            train, val = carve(train, len(NAMES), self.val_fraction, self.split_seed)
        return Dataset(
            name=self.name or "mnist",
            task=self.task,
            class_names=NAMES,
            train=tuple(train),
            val=tuple(val),
            test=tuple(self._samples("test")),
            carved=("val",) if val else (),
        )

    def _samples(self, split: str) -> list[Sample]:
        images, labels = self._arrays(split)
        if len(images) != len(labels):
            raise GenaugError(f"dataset.root={self.root}: {len(images)} {split} images, but {len(labels)} labels.")
        enlarged = self._enlarge(images)
        return [
            Sample(
                id=f"{split}/{i:05d}",
                digest=digest_bytes(image.tobytes()),
                image=np.broadcast_to(large[:, :, None], (*large.shape, 3)),
                label={int(label): 1.0},
            )
            for i, (image, large, label) in enumerate(zip(images, enlarged, labels, strict=True))
        ]

    def _enlarge(self, images: np.ndarray) -> np.ndarray:
        size = self.image_size
        if self.enlarge == "pad":
            before = (size - SIDE) // 2
            edges = (before, size - SIDE - before)
            return np.pad(images, ((0, 0), edges, edges))
        return np.stack([np.asarray(Image.fromarray(i).resize((size, size), Image.Resampling.BICUBIC)) for i in images])

    def _arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        prefix = SPLITS[split]
        return self._array(f"{prefix}-images-idx3-ubyte", IMAGES), self._array(f"{prefix}-labels-idx1-ubyte", LABELS)

    def _array(self, name: str, magic: int) -> np.ndarray:
        root = Path(self.root).expanduser()
        for folder in (root, root / "MNIST" / "raw", root / "raw"):
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    return read_idx(path, magic)
        raise GenaugError(
            f"dataset.root={self.root} holds no {name} or {name}.gz (nor MNIST/raw/{name} below it): it should be the "
            "folder of the four idx files of MNIST."
        )


def read_idx(path: Path, magic: int) -> np.ndarray:
    """The read-only uint8 array of an idx file: images [n, 28, 28] for ``IMAGES``, labels [n] for ``LABELS``.

    Raises:
        GenaugError: if the file is missing, damaged or of another kind.
    """
    if not path.is_file():
        raise GenaugError(f"{path} is missing: put the idx files of MNIST there.")
    stat = path.stat()
    return _read_idx(path, magic, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _read_idx(path: Path, magic: int, size: int, mtime_ns: int) -> np.ndarray:
    """The uint8 array of an idx file; read once per process and per change."""
    with boundary(f"{path} cannot be read", "Copy the file again."):
        data = read_packed(path, MOST_BYTES)
    dimensions = 3 if magic == IMAGES else 1
    header = np.frombuffer(data[: 4 * (dimensions + 1)], dtype=">i4")
    if len(header) <= dimensions or header[0] != magic:
        found = int(header[0]) if len(header) else "nothing"
        raise GenaugError(f"{path} is no idx file of this kind: it begins with {found} instead of {magic}.")
    shape = tuple(int(n) for n in header[1:])
    values = np.frombuffer(data, dtype=np.uint8, offset=4 * (dimensions + 1))
    if values.size != np.prod(shape) or (dimensions == 3 and shape[1:] != (SIDE, SIDE)):
        raise GenaugError(f"{path} holds {values.size} bytes, but its header says {shape}. Copy the file again.")
    return values.reshape(shape)
