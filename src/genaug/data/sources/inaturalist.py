"""iNaturalist 2021 from its JSON files: photos of plants, animals and fungi by species."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from genaug.core.errors import GenaugError, boundary
from genaug.core.fields import choice
from genaug.core.identity import folder_digest
from genaug.core.registry import component
from genaug.data.annotations import read_text
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.published import Origin, Published, samples_of_files, unique_names

SPLITS = {"mini": ("train_mini.json", "val.json"), "full": ("train.json", "val.json")}


@component("dataset", "inaturalist2021")
@dataclass(kw_only=True, slots=True)
class INaturalist2021(Published):
    """10,000 species: 50 training images of each (``mini``, 500,000 in all) or all 2,686,843; the 100,000 validation images are
    the test, since the test labels are not public, and validation is carved from train.

    ``root`` holds ``train_mini.json`` (or ``train.json``), ``val.json`` and the unpacked folders ``train_mini/`` and ``val/``.
    Its lists are identified by their content, images by path and size.
    """

    subset: str = choice("mini", tuple(SPLITS))
    """``mini`` or ``full``."""
    supercategory: str | None = None
    """One of the makers' groups alone, e.g. ``Birds`` (1,486 species) or ``Fungi``; null takes all."""
    names: str = choice("common", ("common", "scientific"))
    """How classes are called: by common name, or by their scientific one."""

    origin: ClassVar[Origin] = Origin(
        title="iNaturalist 2021",
        page="https://github.com/visipedia/inat_comp/tree/master/2021",
        files="train_mini.tar.gz and val.tar.gz with train_mini.json.tar.gz and val.json.tar.gz (or train.*)",
        size="42 GB + 8.4 GB; the full training images 224 GB",
        licence="non-commercial research and education only; each photo has a licence of its own",
        can_download=False,
    )

    def content(self) -> Any:
        files = [self.folder / name for name in SPLITS[self.subset]]
        self.require(*files, *(self.folder / path.stem for path in files))
        return folder_digest(self.folder, files)

    def read(self) -> Dataset:
        train, test = (self.listed(name) for name in SPLITS[self.subset])
        chosen = {
            key: row
            for key, row in train[0].items()
            if self.supercategory is None or row["supercategory"] == self.supercategory
        }
        if len(chosen) < 2:
            groups = sorted({row["supercategory"] for row in train[0].values()})
            raise GenaugError(f"dataset.supercategory={self.supercategory}: write one of {', '.join(groups)}, or null.")
        index = {key: i for i, key in enumerate(sorted(chosen))}
        rows = [chosen[key] for key in sorted(chosen)]
        own = "common_name" if self.names == "common" else "name"
        names = unique_names([row[own] or row["name"] for row in rows], [row["name"] for row in rows])
        return self.dataset(names, self.samples(train[1], index), self.samples(test[1], index))

    def samples(self, images: list[tuple[str, int]], index: dict[int, int]) -> list[Sample]:
        found: list[tuple[Path, int]] = [(self.folder / name, index[key]) for name, key in images if key in index]
        self.require(*(path for path, _ in found))
        return samples_of_files(self.folder, found, by_listing=True)

    def listed(self, name: str) -> tuple[dict[int, dict[str, Any]], list[tuple[str, int]]]:
        """Categories by id, and (file name, category id) of each image."""
        path = self.folder / name
        self.require(path)
        with boundary(f"{path} is not the makers' list", "Fetch it again."):
            data = json.loads(read_text(path))
            categories = {
                row["id"]: {key: row.get(key) for key in ("name", "common_name", "supercategory")}
                for row in data["categories"]
            }
            files = {row["id"]: row["file_name"] for row in data["images"]}
            return categories, [(files[row["image_id"]], row["category_id"]) for row in data["annotations"]]
