"""ISIC 2018, task 3: dermoscopic pictures of skin lesions (HAM10000), classes as columns of zeros and a one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from genaug.core.identity import folder_digest
from genaug.core.registry import component
from genaug.data.sample import Dataset
from genaug.data.sources.published import Origin, Published, listing_digest, samples_of_files
from genaug.data.sources.rows import one_hot, read_table

CLASSES = {
    "MEL": "melanoma",
    "NV": "melanocytic nevus",
    "BCC": "basal cell carcinoma",
    "AKIEC": "actinic keratosis",
    "BKL": "benign keratosis",
    "DF": "dermatofibroma",
    "VASC": "vascular lesion",
}
PARTS = {"train": "Training", "val": "Validation", "test": "Test"}


@component("dataset", "isic2018")
@dataclass(kw_only=True, slots=True)
class Isic2018(Published):
    """7 diagnoses with the official lists: 10,015 training, 193 validation and 1,512 test images. Several training images
    may show one lesion; those of the three lists do not overlap."""

    origin: ClassVar[Origin] = Origin(
        title="ISIC 2018, task 3",
        page="https://challenge.isic-archive.com/data/#2018",
        files="ISIC2018_Task3_{Training,Validation,Test}_{Input,GroundTruth}.zip",
        size="3.0 GB",
        licence="CC BY-NC 4.0",
        can_download=False,
    )

    def folder_of(self, part: str) -> Path:
        return self.folder / f"ISIC2018_Task3_{PARTS[part]}_Input"

    def table(self, part: str) -> Path:
        name = f"ISIC2018_Task3_{PARTS[part]}_GroundTruth"
        beside = self.folder / f"{name}.csv"
        return beside if beside.is_file() else self.folder / name / f"{name}.csv"

    def content(self) -> Any:
        self.require(*map(self.table, PARTS), *map(self.folder_of, PARTS))
        images = [path for part in PARTS for path in self.folder_of(part).glob("*.jpg")]
        return [folder_digest(self.folder, map(self.table, PARTS)), listing_digest(self.folder, images)]

    def read(self) -> Dataset:
        self.require(*map(self.table, PARTS))
        parts = {}
        for part in PARTS:
            rows = read_table(self.table(part))
            found = [
                (self.folder_of(part) / f"{row.get('image')}.jpg", one_hot(row, list(CLASSES), where))
                for where, row in rows
            ]
            self.require(*(path for path, _ in found))
            parts[part] = samples_of_files(self.folder, found)
        return self.dataset(list(CLASSES.values()), parts["train"], parts["test"], parts["val"])
