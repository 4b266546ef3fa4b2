"""Any image data set on the Hugging Face Hub, its columns named in the configuration."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from omegaconf import MISSING

from genaug.core.errors import GenaugError, boundary
from genaug.core.fields import choice
from genaug.core.identity import content_by, content_digest
from genaug.core.registry import component
from genaug.data.annotations import BoxRules, LabelledObject, numbers, stated_area
from genaug.data.images import check_readable, inspect_all
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.detection import carve_any
from genaug.data.sources.folder_names import nfc
from genaug.data.sources.published import samples_of_files
from genaug.data.sources.records import Export, RecordSource, load_hub


@component("dataset", "hf")
@dataclass(kw_only=True, slots=True)
class HubClassification(RecordSource):
    """A Hub data set with an image and a label column (extra ``hf``). Its images are written once below
    ``cache_dir``."""

    path: str = field(default=MISSING, metadata=content_by("content"))
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

    def __post_init__(self) -> None:
        RecordSource.__post_init__(self)
        if not self.path.strip():
            raise GenaugError("dataset.path= is empty: write a Hub id, e.g. owner/set, or a local folder.")
        local = Path(self.path).expanduser()
        self.name = self.name or nfc(local.absolute().name if local.is_dir() else self.path)

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
        """Samples by split, class names, and counts of what was corrected."""
        export = self.exported()
        rows = {split: list(export.rows(name, self.image)) for split, name in self._splits().items()}
        for split, items in rows.items():
            if items and self.label not in items[0][1]:
                raise GenaugError(
                    f"dataset.label={self.label} is not a column of {self.path} ({split}): write one of "
                    f"{', '.join(items[0][1])}."
                )
        for items in rows.values():
            for _, row in items:
                row[self.label] = _class_of(row[self.label])
        names, index = class_index(
            export.names(self.label),
            [
                (row[self.label], f"{self.path}, {split} row {i}")
                for split, items in rows.items()
                for i, (_, row) in enumerate(items)
            ],
            f"dataset.label={self.label}",
        )
        check_readable(inspect_all(path for items in rows.values() for path, _ in items))
        parts = {
            split: samples_of_files(export.folder, [(path, index[row[self.label]]) for path, row in items])
            for split, items in rows.items()
        }
        return parts, [name.replace("_", " ") for name in names], {}


def class_index(
    names: list[str] | None, values: Iterable[tuple[Any, str]], column: str
) -> tuple[list[str], dict[Any, int]]:
    """Class names, and the class of each value of a label column.

    Args:
        names: of the values 0, 1, …, where the data set states them; None takes the values themselves, sorted.
        values: of the column, each with its place for messages.

    Raises:
        GenaugError: for a value that names no class: null, NaN, an empty text, a list, or a number without a name.
    """
    found: dict[Any, str] = {}
    for value, where in values:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is None or isinstance(value, float | list | dict) or (isinstance(value, str) and not value.strip()):
            raise GenaugError(
                f"{where} has the label {json.dumps(value)} ({column}), which names no class: label it, or choose splits that "
                "are labelled."
            )
        found.setdefault(value, where)
    if names is None:
        ordered = sorted(found, key=lambda value: (str(type(value)), value))
        return [str(value) for value in ordered], {value: i for i, value in enumerate(ordered)}
    unknown = next((value for value in found if not isinstance(value, int) or not 0 <= value < len(names)), None)
    if unknown is not None:
        raise GenaugError(
            f"{found[unknown]} has the label {unknown!r} ({column}), but the data set names the classes 0 to {len(names) - 1}; "
            "-1 stands for images without a label: choose splits that are labelled."
        )
    return names, {i: i for i in range(len(names))}


@component("dataset", "hf_detection")
@dataclass(kw_only=True, slots=True)
class HubDetection(HubClassification):
    """A Hub data set with an image and an objects column, a mapping of lists or a list of mappings: boxes, categories and,
    where there are such, ``iscrowd`` (or ``crowd``) and ``area``."""

    objects: str = "objects"
    """Column with the objects."""
    bbox: str = "bbox"
    """Key of the boxes in it."""
    category: str = "category"
    """Key of the classes in it."""
    box_format: str = choice("xywh", ("xywh", "xyxy"))
    """``xywh``: left, top, width, height as in COCO; ``xyxy``: corners. In pixels."""

    version: ClassVar[int] = 2
    task: ClassVar[str] = "detection"

    def carve(self, samples: list[Sample], num_classes: int, fraction: float) -> tuple[list[Sample], list[Sample]]:
        return carve_any(samples, fraction, self.split_seed)

    def _parts(self) -> tuple[dict[str, list[Sample]], list[str], dict[str, int]]:
        export = self.exported()
        names = export.names(f"{self.objects}.{self.category}")
        rows = {split: list(export.rows(name, self.image)) for split, name in self._splits().items()}
        for items in rows.values():
            keys = {key for _, row in items for key in _keys(row.get(self.objects))}  # none where no image has objects
            if items and (self.objects not in items[0][1] or (keys and not {self.bbox, self.category} <= keys)):
                raise GenaugError(
                    f"{self.path} has no column {self.objects} with {self.bbox} and {self.category}: set "
                    f"dataset.objects, dataset.bbox and dataset.category; its columns are {', '.join(items[0][1])}."
                )
        listed = {
            split: [
                (
                    path,
                    objects_of(
                        row[self.objects], self.bbox, self.category, self.box_format, f"{self.path}, {split} row {i}"
                    ),
                )
                for i, (path, row) in enumerate(items)
            ]
            for split, items in rows.items()
        }
        every = [(box.category, box.where) for items in listed.values() for _, boxes in items for box in boxes]
        class_names, index = class_index(names, every, f"dataset.category={self.category}")
        rules = BoxRules({name: i for i, name in enumerate(class_names)})
        facts = inspect_all(path for items in listed.values() for path, _ in items)
        check_readable(facts)
        parts: dict[str, list[Sample]] = {}
        for split, items in listed.items():
            for path, boxes in items:
                objects = [box.labelled(class_names[index[box.category]]) for box in boxes]
                parts.setdefault(split, []).append(
                    Sample(
                        id=path.relative_to(export.folder).as_posix(),
                        digest=content_digest(path),
                        image=path,
                        boxes=rules.apply(objects, *facts[path].size),
                    )
                )
        rules.check_inside()
        return parts, [name.replace("_", " ") for name in class_names], dict(rules.notes)


class Box(NamedTuple):
    """A box of a table's row."""

    xyxy: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels; right and bottom exclusive."""
    category: Any
    """As the table has it: a number or a name."""
    crowd: bool
    area: float | None
    """In square pixels as the table states it; None where it does not."""
    where: str
    """Table and row, for messages."""

    def labelled(self, name: str) -> LabelledObject:
        """As an object of the class of this name."""
        return LabelledObject(category=name, xyxy=self.xyxy, crowd=self.crowd, area=self.area, where=self.where)


def objects_of(objects: Any, bbox: str, category: str, box_format: str, where: str) -> list[Box]:
    """The boxes of a row.

    Args:
        objects: a mapping of lists, or a list of mappings; ``crowd`` or ``iscrowd`` and ``area`` are read, too.
        bbox: key of the boxes.
        category: key of the classes.
        box_format: ``xywh`` or ``xyxy``.
        where: the row, for messages.

    Raises:
        GenaugError: if the lists are of several lengths, or a box or an area is none, with the row.
    """
    if not objects:
        return []
    result = []
    with boundary(f"{where}: its objects cannot be read", "Repair the row, or leave it out."):
        if isinstance(objects, list):
            keys = dict.fromkeys(key for item in objects for key in item)
            objects = {key: [item.get(key) for item in objects] for key in keys}
        nothing = [None] * len(objects[bbox])
        crowds = objects.get("crowd") or objects.get("iscrowd") or nothing
        areas = objects.get("area") or nothing
        for number, (box, value, crowd, area) in enumerate(
            zip(objects[bbox], objects[category], crowds, areas, strict=True)
        ):
            place = f"{where}, box {number}"
            x1, y1, x2, y2 = numbers(box, 4, place, bbox)
            if box_format == "xywh":
                x2, y2 = x1 + x2, y1 + y2
            result.append(Box((x1, y1, x2, y2), value, bool(crowd), stated_area(area, place), place))
    return result


def _keys(objects: Any) -> set[str]:
    """Keys of an objects column, whichever of its two forms it has."""
    if isinstance(objects, list):
        return set(objects[0]) if objects else set()
    return set(objects or ())


def _class_of(label: Any) -> Any:
    """The class of a label; of class weights (a published pool has them) the largest."""
    if not isinstance(label, dict):
        return label
    return max((name for name, weight in label.items() if weight), key=lambda name: label[name])
