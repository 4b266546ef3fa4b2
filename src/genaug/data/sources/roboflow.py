"""Roboflow's YOLO exports, whose splits may show one picture several times.

Roboflow writes ``<original>.rf.<hash>.jpg`` for every copy that it augments, and splits uploaded copies like any other
image: the test of such a set can hold what was trained on.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from genaug.core.errors import GenaugError, boundary
from genaug.core.registry import component
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.yolo import Yolo

ORIGINAL = r"^(.+?)\.rf\."
"""The original's name in that of a copy."""


@component("dataset", "roboflow")
@dataclass(kw_only=True, slots=True)
class Roboflow(Yolo):
    """A YOLO folder in which training images of a picture that is also in val or test are left out, and validation images of
    one in test; the notes count them. The test stays as it was exported."""

    original: str = ORIGINAL
    """Pattern (Python's ``re``) whose first group is the original picture in a file name."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        Yolo.__post_init__(self)
        with boundary(f"dataset.original={self.original} is no regular expression"):
            if re.compile(self.original).groups < 1:
                raise GenaugError(
                    f"dataset.original={self.original} has no group: write the original's name in brackets."
                )

    def read(self) -> Dataset:
        dataset = Yolo.read(self)
        names = [Path(sample.id).name for part in (dataset.train, dataset.val, dataset.test) for sample in part]
        others = [name for name in names if not re.search(self.original, name)]
        if len(others) == len(names):
            raise GenaugError(
                f"dataset.original={self.original} matches none of {len(names)} file names, so that copies of a picture cannot "
                f"be told, e.g. {', '.join(sorted(names)[:3])}. Write a pattern whose first group is the original's name, or "
                "dataset=yolo where no picture has copies."
            )
        test = {self.picture(sample) for sample in dataset.test}
        val = tuple(sample for sample in dataset.val if self.picture(sample) not in test)
        held_out = test | {self.picture(sample) for sample in val}
        train = tuple(sample for sample in dataset.train if self.picture(sample) not in held_out)
        left_out = {
            "train_images_of_pictures_in_val_or_test_left_out": len(dataset.train) - len(train),
            "val_images_of_pictures_in_test_left_out": len(dataset.val) - len(val),
            "images_whose_name_tells_no_original": len(others),
        }
        if not train:
            raise GenaugError(
                f"dataset.original={self.original} finds every training picture in val or test, e.g. "
                f"{self.picture(dataset.train[0])!r} in {Path(dataset.train[0].id).name}: write another pattern."
            )
        notes = dataset.notes | {note: number for note, number in left_out.items() if number}
        return replace(dataset, train=train, val=val, notes=notes)

    def picture(self, sample: Sample) -> str:
        """What tells the original of an image: the pattern's first group, or the name where it does not match."""
        name = Path(sample.id).name
        found = re.search(self.original, name)
        return found[1] if found else name
