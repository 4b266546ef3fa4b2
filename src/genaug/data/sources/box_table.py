"""Images with their boxes in a table: the Hub's ``imagefolder`` (``metadata.jsonl``), or a CSV with a row per box."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from genaug.core.errors import GenaugError
from genaug.core.fields import choice
from genaug.core.registry import component
from genaug.data.annotations import Annotation, BoxRules
from genaug.data.sample import Dataset
from genaug.data.sources.detection import DetectionFiles
from genaug.data.sources.hub import Box, class_index, objects_of
from genaug.data.sources.rows import (
    IMAGE,
    LABEL,
    SPLIT,
    find_column,
    find_image,
    find_tables,
    named_split,
    read_table,
    usual_column,
)

OBJECTS = ("objects", "annotations")
CATEGORY = ("category", "categories", "category_id", "label", "labels", "class", "classes", "name")
CORNERS = (
    ("xmin", "x_min", "x1", "left"),
    ("ymin", "y_min", "y1", "top"),
    ("xmax", "x_max", "x2", "right"),
    ("ymax", "y_max", "y2", "bottom"),
)
"""Names that columns and keys usually have, in lower case."""


@component("dataset", "box_table")
@dataclass(kw_only=True, slots=True)
class BoxTable(DetectionFiles):
    """Boxes in a table: one for all images, or one per split in ``train/``, ``valid/``, ``test/``.

    Rows are images with an ``objects`` column of ``bbox``, ``category`` and, where there are such, ``iscrowd`` (or ``crowd``)
    and ``area`` (the Hub's convention), or boxes with the columns xmin, ymin, xmax, ymax (Roboflow's ``_annotations.csv``,
    Kaggle's ``train.csv``). Columns are found by their usual names.
    """

    table: str | None = None
    """The table, relative to the root; null looks for metadata.jsonl, labels.csv, train.csv or the only table there."""
    image: str | None = None
    """Column of the image files, relative to the table's folder or to ``image_dir``, with or without their ending."""
    label: str | None = None
    """Column, or key of the objects, of the classes."""
    split: str | None = None
    """Column that says train, val or test; null uses one called so where there is one."""
    image_dir: str | None = None
    """Folder of the images, relative to the root; null looks beside the table, in images/ and in train/."""
    box_format: str = choice("xywh", ("xywh", "xyxy"))
    """Of ``bbox`` in objects. ``xywh``: left, top, width, height, as in COCO; ``xyxy``: corners. In pixels."""

    version: ClassVar[int] = 2

    def files(self) -> Iterable[Path]:
        yield from find_tables(self.folder(), self.table).values()
        yield from (path for images in self._images().values() for path in images)

    def read(self) -> Dataset:
        images = self._images()
        every = [(box.category, box.where) for part in images.values() for boxes in part.values() for box in boxes]
        column = f"dataset.label={self.label or 'found by its name'}"
        names, index = class_index(None, every, column)
        rules = BoxRules({name: i for i, name in enumerate(names)})
        listed: dict[str, list[tuple[Path, Annotation]]] = {}
        for split, part in images.items():
            for path, boxes in part.items():
                objects = tuple(box.labelled(names[index[box.category]]) for box in boxes)
                place = boxes[0].where if boxes else str(path)
                item = Annotation(file_name=path.name, width=0, height=0, objects=objects, where=place)
                listed.setdefault(split, []).append((path, item))
        splits = self.samples(listed, rules, masks=False)
        return self.dataset([name.replace("_", " ") for name in names], splits, rules.notes)

    def _images(self) -> dict[str, dict[Path, list[Box]]]:
        """Boxes by split and image file."""
        found: dict[str, dict[Path, list[Box]]] = {}
        for split, table in find_tables(self.folder(), self.table).items():
            rows = read_table(table)
            columns = list(dict.fromkeys(key for _, row in rows for key in row))
            image = find_column("image", self.image, IMAGE, columns, table)
            objects = usual_column(OBJECTS, columns)
            corners = [usual_column(usual, columns) for usual in CORNERS]
            if objects is None and None in corners:
                raise GenaugError(
                    f"{table} has the columns {', '.join(columns) or 'none'}: boxes stand in a column objects, or in columns "
                    "xmin, ymin, xmax and ymax."
                )
            named = self.split or usual_column(SPLIT, columns)
            for where, row in rows:
                part = split if named is None else named_split(row.get(named), named, where)
                path = find_image(str(row.get(image)), table, self.folder(), self.image_dir, where)
                boxes = found.setdefault(part, {}).setdefault(path, [])
                if objects is not None:
                    boxes += self._objects(row.get(objects), where)
                elif any(row.get(key) not in (None, "") for key in corners if key):  # else an image without boxes
                    label = find_column("label", self.label, (*LABEL, *CATEGORY), columns, table)
                    boxes.append(Box(_corners(row, corners, where), row.get(label), False, None, where))
        return found

    def _objects(self, objects: Any, where: str) -> list[Box]:
        """The boxes of the Hub's column of objects."""
        first = objects[0] if isinstance(objects, list) and objects else objects
        keys = list(first) if isinstance(first, dict) else []
        if not keys:
            return []
        if "bbox" not in keys:
            raise GenaugError(f"{where}: its objects have {', '.join(keys)}, but no bbox.")
        category = self.label or usual_column(CATEGORY, keys)
        if category is None or category not in keys:
            raise GenaugError(f"{where}: its objects have {', '.join(keys)}: name the classes with dataset.label=KEY.")
        return objects_of(objects, "bbox", category, self.box_format, where)


def _corners(row: dict[str, Any], keys: list[str | None], where: str) -> tuple[float, float, float, float]:
    values = [row.get(key) for key in keys if key]
    try:
        x1, y1, x2, y2 = (float(value) for value in values)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise GenaugError(f"{where}: its box is {values}: four numbers are needed.") from error
    return x1, y1, x2, y2
