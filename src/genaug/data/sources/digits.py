"""scikit-learn's handwritten digits: 1,797 real 8x8 images, embedded in the library, nothing to download.

Source: UCI "Optical Recognition of Handwritten Digits", test part, by way of ``sklearn.datasets.load_digits`` (CC BY 4.0).
Another source than MNIST, on which the tiny prior is trained.
"""

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from genaug.core.identity import digest_bytes
from genaug.core.registry import component
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.base import Source
from genaug.data.splits import carve

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPLIT_SEED = 0
INK = 64  # of 255
TEST_FRACTION, VAL_FRACTION = 0.4, 0.25  # of all, and of what is left


def _table() -> np.ndarray:
    """float64 [1797, 65]: 64 pixels in 0 … 16 and the digit; ``load_digits`` without scikit-learn's second of imports."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.origin is not None
    return np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")


@functools.lru_cache(maxsize=1)  # the runs of a sweep read the same ones
def _samples(side: int, masks: bool) -> tuple[Sample, ...]:
    samples: dict[str, Sample] = {}
    for i, (*values, target) in enumerate(_table()):
        small = Image.fromarray(np.round(np.reshape(values, (8, 8)) / 16 * 255).astype(np.uint8))
        grey = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))
        pixels = np.repeat(grey[:, :, None], 3, axis=2)
        digest = digest_bytes(pixels.tobytes())
        mask = grey > INK if masks else None
        samples.setdefault(
            digest, Sample(id=f"digits/{i:04d}", digest=digest, image=pixels, label={int(target): 1.0}, mask=mask)
        )
    return tuple(samples.values())


@component("dataset", "digits")
@dataclass(kw_only=True, slots=True)
class Digits(Source):
    """Ten classes; 8x8 grey values enlarged to ``image_size`` (bicubic). Splits are fixed: 809 train, 269 val, 719 test."""

    masks: bool = False
    """Give every image the mask of its ink, for generators that keep or edit the object."""

    embedded: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def identity(self) -> Any:
        fields, none = Source.identity(self)
        if not self.masks:
            fields.pop("masks")  # digits as they always were keep their identity
        return [fields, none]

    def read(self) -> Dataset:
        rest, test = carve(list(_samples(self.image_size, self.masks)), len(NAMES), TEST_FRACTION, SPLIT_SEED)
        train, val = carve(rest, len(NAMES), VAL_FRACTION, SPLIT_SEED)
        return Dataset(
            name=self.name or "digits",
            task=self.task,
            class_names=NAMES,
            train=tuple(train),
            val=tuple(val),
            test=tuple(test),
        )
