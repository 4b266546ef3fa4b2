"""Any image data set on the Hugging Face Hub, its columns named in the configuration."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import MISSING

from genaug.core.errors import GenaugError
from genaug.core.registry import component
from genaug.data.annotations import BoxRules, LabelledObject
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.detection import carve_any, image_size, sample_of
from genaug.data.sources.published import samples_of_files
from genaug.data.sources.records import Export, RecordSource, load_hub

BOX_FORMATS = ("xywh", "xyxy")


@component("dataset", "hf")
@dataclass(kw_only=True, slots=True)
class HubClassification(RecordSource):
    """A Hub data set with an image and a label column (extra ``hf``). Its images are written once below
    ``cache_dir``."""

    path: str = MISSING
    """Hub id, e.g. ``owner/set``, or a local folder that ``datasets`` can load."""
    config: str | None = None
    """Name of the configuration, where the set has several."""
    revision: str | None = None
    """Commit, branch or tag; name a commit for results to be repeatable."""
    image: str = "image"
    """Image column."""
    label: str = "label"
    """Class column: integers with class names, or text."""
    train_split: str = "train"
    """Name of the training split."""
    val_split: str | None = None
    """Name of the validation split; null carves one from train."""
    test_split: str | None = "test"
    """Name of the test split; null carves one from train."""

    def exported(self) -> Export:
        return load_hub(
            self.path, self.config, self.revision, tuple(self._splits().values()), Path(self.cache_dir).expanduser()
        )

    def read(self) -> Dataset:
        parts, names, notes = self._parts()
        return self.assemble(self.path, names, parts, notes)

    def _splits(self) -> dict[str, str]:
        """The set's own name of each of our splits that it has."""
        named = {"train": self.train_split, "val": self.val_split, "test": self.test_split}
        return {split: name for split, name in named.items() if name is not None}

    def _parts(self) -> tuple[dict[str, list[Sample]], list[str], dict[str, int]]:
        """Samples by split, class names, and counts of what was mended."""
        export = self.exported()
        rows = {split: list(export.rows(name, self.image)) for split, name in self._splits().items()}
        for split, items in rows.items():
            if items and self.label not in items[0][1]:
                raise GenaugError(
                    f"dataset.label={self.label} is not a column of {self.path} ({split}): write one of "
                    f"{', '.join(items[0][1])}."
                )
        values = sorted(
            {row[self.label] for items in rows.values() for _, row in items}, key=lambda v: (str(type(v)), v)
        )
        names = export.names(self.label)
        if names is None:
            names = [str(value) for value in values]
            index = {value: i for i, value in enumerate(values)}
        else:
            index = {i: i for i in range(len(names))}
        if any(value not in index for value in values):
            raise GenaugError(
                f"{self.path} has images without a label ({self.label} = -1): choose splits that are labelled."
            )
        parts = {
            split: samples_of_files(export.folder, [(path, index[row[self.label]]) for path, row in items])
            for split, items in rows.items()
        }
        return parts, [name.replace("_", " ") for name in names], {}


@component("dataset", "hf_detection")
@dataclass(kw_only=True, slots=True)
class HubDetection(HubClassification):
    """A Hub data set with an image and an objects column, each a mapping of lists: boxes and categories."""

    objects: str = "objects"
    """Column with the objects."""
    bbox: str = "bbox"
    """Key of the boxes in it."""
    category: str = "category"
    """Key of the classes in it."""
    box_format: str = "xywh"
    """``xywh``: left, top, width, height as in COCO; ``xyxy``: corners. In pixels."""

    task: ClassVar[str] = "detection"

    def __post_init__(self) -> None:
        RecordSource.__post_init__(self)
        if self.box_format not in BOX_FORMATS:
            raise GenaugError(f"dataset.box_format={self.box_format}: write {' or '.join(BOX_FORMATS)}.")

    def carve(self, samples: list[Sample], num_classes: int, fraction: float) -> tuple[list[Sample], list[Sample]]:
        return carve_any(samples, fraction, self.split_seed)

    def _parts(self) -> tuple[dict[str, list[Sample]], list[str], dict[str, int]]:
        export = self.exported()
        names = export.names(f"{self.objects}.{self.category}")
        rows = {split: list(export.rows(name, self.image)) for split, name in self._splits().items()}
        for items in rows.values():
            if items and not {self.bbox, self.category} <= set(items[0][1].get(self.objects) or {}):
                raise GenaugError(
                    f"{self.path} has no column {self.objects} with {self.bbox} and {self.category}: set "
                    f"dataset.objects, dataset.bbox and dataset.category; its columns are {', '.join(items[0][1])}."
                )
        if names is None:
            found = {value for items in rows.values() for _, row in items for value in row[self.objects][self.category]}
            by_value: dict[Any, str] = {value: str(value) for value in sorted(found, key=str)}
        else:
            by_value = dict(enumerate(names))
        rules = BoxRules({name: i for i, name in enumerate(by_value.values())})
        parts = {
            split: [
                sample_of(
                    export.folder, path, self._objects(row[self.objects], by_value, path), image_size(path), rules
                )
                for path, row in items
            ]
            for split, items in rows.items()
        }
        return parts, [name.replace("_", " ") for name in by_value.values()], dict(rules.notes)

    def _objects(self, objects: dict[str, list[Any]], by_value: dict[Any, str], path: Path) -> list[LabelledObject]:
        """One per box, its class looked up by the value that the column holds."""
        result = []
        for bbox, value in zip(objects[self.bbox], objects[self.category], strict=True):
            x1, y1, x2, y2 = bbox
            if self.box_format == "xywh":
                x2, y2 = x1 + x2, y1 + y2
            category = by_value.get(value, str(value))
            result.append(LabelledObject(category=category, xyxy=(x1, y1, x2, y2), where=str(path)))
        return result
