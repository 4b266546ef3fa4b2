"""CUB-200-2011: birds with the makers' training and test list."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from genaug.core.errors import GenaugError
from genaug.core.identity import folder_digest
from genaug.core.registry import component
from genaug.data.annotations import read_text
from genaug.data.sample import Dataset
from genaug.data.sources.published import Origin, Published, samples_of_files, tree_digest

LISTS = ("images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt")


@component("dataset", "cub200")
@dataclass(kw_only=True, slots=True)
class Cub200(Published):
    """200 species with the official list (``train_test_split.txt``): 5,994 training and 5,794 test images; validation is
    carved from train. The class of ``001.Black_footed_Albatross`` is called Black footed Albatross."""

    origin: ClassVar[Origin] = Origin(
        title="CUB-200-2011",
        page="https://www.vision.caltech.edu/datasets/cub_200_2011/",
        files="CUB_200_2011.tgz",
        size="1.1 GB",
        licence="not stated by its makers; the photographers keep the copyright",
        can_download=False,
    )

    @property
    def base(self) -> Path:
        return self.folder / "CUB_200_2011"

    def content(self) -> Any:
        self.require(*(self.base / name for name in LISTS), self.base / "images")
        return [folder_digest(self.base, [self.base / name for name in LISTS]), tree_digest(self.base / "images")]

    def read(self) -> Dataset:
        paths, labels, classes, training = (self.listed(name) for name in LISTS)
        names = [name.partition(".")[2].replace("_", " ") for name in classes.values()]
        index = {key: i for i, key in enumerate(classes)}
        parts: dict[str, list[tuple[Path, int]]] = {"0": [], "1": []}
        for key, name in paths.items():
            for file, known in (("image_class_labels.txt", labels), ("train_test_split.txt", training)):
                if key not in known:
                    raise GenaugError(
                        f"{self.base / file} has no row for image {key} ({name}). Unpack the archive again."
                    )
            if labels[key] not in index or training[key] not in parts:
                raise GenaugError(
                    f"{self.base}: image {key} ({name}) has the class {labels[key]} and is_training_image {training[key]}: "
                    "write a class of classes.txt, and 0 or 1. Unpack the archive again."
                )
            parts[training[key]].append((self.base / "images" / name, index[labels[key]]))
        self.require(*(path for part in parts.values() for path, _ in part))
        train, test = (samples_of_files(self.base / "images", parts[part]) for part in ("1", "0"))
        return self.dataset(names, train, test)

    def listed(self, name: str) -> dict[str, str]:
        """Rows ``<id> <value>`` of one of the makers' lists, in order."""
        self.require(self.base / name)
        rows: dict[str, str] = {}
        for number, line in enumerate(read_text(self.base / name).splitlines(), start=1):
            key, _, value = line.strip().partition(" ")
            if not value or key in rows:
                raise GenaugError(f"{self.base / name}:{number}: {line.strip()!r} is not an id of its own and a value.")
            rows[key] = value.strip()
        return rows
