"""Shenzhen chest X-rays (tuberculosis): the label is the last digit of the file's stem, ``CHNCXR_0001_0.png`` is
normal."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from genaug.core.errors import GenaugError
from genaug.core.fields import bounded
from genaug.core.registry import component
from genaug.data.sample import Dataset
from genaug.data.sources.published import Origin, Published, listing_digest, samples_of_files
from genaug.data.splits import carve

NAMES = ("normal", "tuberculosis")
FILE = re.compile(r"CHNCXR_\d{4}_([01])\.png")
LISTS = ("train.txt", "test.txt")


@component("dataset", "shenzhen_tb")
@dataclass(kw_only=True, slots=True)
class ShenzhenTb(Published):
    """662 X-rays: 326 normal, 336 with tuberculosis. ``split=genaug``: ``test_fraction`` of each class by
    ``split_seed`` (the papers' lists are unpublished). ``split=listed``: file names in ``train.txt`` and
    ``test.txt`` beside the images' folder."""

    split: str = "genaug"
    test_fraction: float = bounded(0.3, 0, 1, above=True, below=True)
    """Share of each class taken for the test, in (0, 1): 463 of 662 images train, as in DreamDA."""

    version: ClassVar[int] = 1
    splits: ClassVar[tuple[str, ...]] = ("genaug", "listed")
    origin: ClassVar[Origin] = Origin(
        title="Shenzhen Hospital X-ray Set",
        page="https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html#tuberculosis-image-data-sets",
        files="ChinaSet_AllFiles.zip",
        licence="none stated; its makers ask to be named, with Jaeger et al. 2014 and Candemir et al. 2014 cited",
        can_download=False,
    )

    def content(self) -> Any:
        digest = listing_digest(self._images(), self._files())
        return [digest, self._lists()] if self.split == "listed" else digest

    def read(self) -> Dataset:
        folder = self._images()
        samples = samples_of_files(folder, [(path, int(path.stem[-1])) for path in self._files()])
        if self.split == "genaug":
            train, test = carve(samples, len(NAMES), self.test_fraction, self.split_seed)
            return self.dataset(NAMES, train, test)
        by_id = {sample.id: sample for sample in samples}
        lists = self._lists()
        unknown = [name for names in lists for name in names if name not in by_id]
        if unknown:
            raise GenaugError(
                f"{folder.parent} lists {unknown[0]}, which is not in {folder} ({len(unknown)} such names)."
            )
        train, test = ([by_id[name] for name in names] for names in lists)
        return self.dataset(NAMES, train, test)

    def _images(self) -> Path:
        for folder in (self.folder / "ChinaSet_AllFiles" / "CXR_png", self.folder / "CXR_png"):
            if folder.is_dir():
                return folder
        raise self.origin.missing(self.root, self.folder / "ChinaSet_AllFiles" / "CXR_png")

    def _files(self) -> list[Path]:
        files = [path for path in sorted(self._images().iterdir()) if FILE.fullmatch(path.name)]
        if not files:
            raise self.origin.missing(self.root, self._images() / "CHNCXR_0001_0.png")
        return files

    def _lists(self) -> list[list[str]]:
        folder = self._images().parent
        for name in LISTS:
            if not (folder / name).exists():
                raise GenaugError(
                    f"dataset.split=listed needs {folder / name}: one file name per line, e.g. CHNCXR_0001_0.png."
                )
        return [(folder / name).read_text().split() for name in LISTS]
