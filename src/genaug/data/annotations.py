"""Reading box annotations: Pascal VOC XML, COCO instances JSON, YOLO rows. Faults are named with file and line."""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genaug.core.errors import GenaugError
from genaug.data.sample import Boxes


@dataclass(kw_only=True, frozen=True, slots=True)
class LabelledObject:
    """One annotated object."""

    category: str
    xyxy: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels; right and bottom exclusive."""
    crowd: bool = False
    segmentation: Any = None
    """COCO polygons or run lengths."""
    where: str = ""
    """File and line, for messages."""


@dataclass(kw_only=True, frozen=True, slots=True)
class Annotation:
    """The annotation of one image."""

    file_name: str
    width: int
    """0 where the file does not say."""
    height: int
    objects: tuple[LabelledObject, ...] = ()


def read_voc(path: Path) -> Annotation:
    """A Pascal VOC file: boxes are 1-based with the last pixel included, so ``xmin - 1, ymin - 1, xmax, ymax`` here.

    Objects marked ``difficult`` become crowd regions: neither trained on nor counted as a miss, VOC's own rule. A box
    with ``xmin >= xmax`` or ``ymin >= ymax`` in the file comes back with zero area.

    Raises:
        GenaugError: if the file does not parse or an object lacks a part, with the line.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise GenaugError(
            f"{path}:{error.position[0]}: not well-formed XML ({error}). Repair or remove the file."
        ) from error
    lines = [text.count("\n", 0, match.start()) + 1 for match in re.finditer(r"<object\b", text)]
    objects = []
    for number, node in enumerate(root.findall("object")):
        where = f"{path}:{lines[number] if number < len(lines) else 1}"
        name = (node.findtext("name") or "").strip()
        if not name:
            raise GenaugError(f"{where}: an object without <name>. Name its class or remove it.")
        try:
            x1, y1, x2, y2 = (float(node.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError as error:
            raise GenaugError(
                f"{where}: the object {name!r} needs numbers in bndbox/xmin, ymin, xmax and ymax."
            ) from error
        is_empty = x1 >= x2 or y1 >= y2
        xyxy = (x1 - 1, y1 - 1, x1 - 1, y1 - 1) if is_empty else (x1 - 1, y1 - 1, x2, y2)
        difficult = (node.findtext("difficult") or "0").strip() == "1"
        objects.append(LabelledObject(category=name, xyxy=xyxy, crowd=difficult, where=where))
    size = [int(float(root.findtext(f"size/{key}") or 0)) for key in ("width", "height")]
    return Annotation(
        file_name=(root.findtext("filename") or "").strip(), width=size[0], height=size[1], objects=tuple(objects)
    )


def read_coco(path: Path) -> tuple[list[str], list[Annotation]]:
    """A COCO instances file: class names in order of their category id, and every image with its objects.

    Raises:
        GenaugError: if the file does not parse, lacks a part, or an annotation names an undeclared image or category.
    """
    try:
        data = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise GenaugError(
            f"{path}:{error.lineno}: not valid JSON ({error.msg}). Repair or replace the file."
        ) from error
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(data, dict) or key not in data]
    if missing:
        raise GenaugError(
            f"{path} lacks {', '.join(missing)}: it is no COCO instances file. Point dataset.root at one."
        )
    categories = {entry["id"]: entry["name"] for entry in sorted(data["categories"], key=lambda entry: entry["id"])}
    objects: dict[int, list[LabelledObject]] = {}
    images = {image["id"]: image for image in data["images"]}
    for entry in data["annotations"]:
        where = f"{path}: annotation {entry.get('id', '?')}"
        if entry.get("category_id") not in categories:
            raise GenaugError(
                f"{where} has category_id {entry.get('category_id')}, which 'categories' does not declare: add or remove it."
            )
        if entry.get("image_id") not in images:
            raise GenaugError(f"{where} has image_id {entry.get('image_id')}, which 'images' does not declare.")
        box = entry.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, int | float) for value in box):
            raise GenaugError(f"{where} has bbox {box}: four numbers x, y, width, height are needed.")
        x, y, w, h = box
        item = LabelledObject(
            category=categories[entry["category_id"]],
            xyxy=(x, y, x + w, y + h),
            crowd=bool(entry.get("iscrowd", 0)),
            segmentation=entry.get("segmentation"),
            where=where,
        )
        objects.setdefault(entry["image_id"], []).append(item)
    annotations = [
        Annotation(
            file_name=image["file_name"],
            width=int(image.get("width", 0)),
            height=int(image.get("height", 0)),
            objects=tuple(objects.get(key, ())),
        )
        for key, image in images.items()
    ]
    return list(categories.values()), annotations


def read_yolo(path: Path, names: Mapping[int, str], width: int, height: int) -> tuple[LabelledObject, ...]:
    """Rows ``class xc yc w h`` (or ``class x1 y1 x2 y2 x3 y3 …``, a polygon), normalised to the image's size.

    Raises:
        GenaugError: if a row has other fields, or a class that the data.yaml does not name, with the line.
    """
    objects = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            index, *values = [float(word) for word in line.split()]
        except ValueError as error:
            raise GenaugError(f"{where}: {line.strip()!r} is not a row of numbers.") from error
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise GenaugError(
                f"{where}: {len(values) + 1} fields. Write class xc yc w h, or class and a polygon's corners."
            )
        if int(index) not in names:
            raise GenaugError(f"{where}: class {int(index)} is not among the {len(names)} names of data.yaml.")
        if len(values) == 4:
            xc, yc, w, h = values
            corners = (xc - w / 2, yc - h / 2, xc + w / 2, yc + h / 2)
        else:
            corners = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        xyxy = (corners[0] * width, corners[1] * height, corners[2] * width, corners[3] * height)
        objects.append(LabelledObject(category=names[int(index)], xyxy=xyxy, where=where))
    return tuple(objects)


@dataclass(slots=True)
class BoxRules:
    """What becomes of boxes that cannot be trained on, and how often it did (``Dataset.notes``)."""

    class_index: dict[str, int]
    notes: Counter[str] = field(default_factory=Counter)

    def apply(self, objects: Sequence[LabelledObject], width: int, height: int) -> Boxes:
        """Boxes of one image, clipped to it; those outside it or without area are dropped; crowds are kept apart.

        Raises:
            GenaugError: if an object's class is not among the data set's, with file and line.
        """
        kept: list[LabelledObject] = []
        corners: list[list[float]] = []
        for item in objects:
            if item.category not in self.class_index:
                near = ", ".join(list(self.class_index)[:12])
                raise GenaugError(f"{item.where}: the class {item.category!r} is not among the data set's: {near}.")
            x1, y1, x2, y2 = item.xyxy
            if x2 <= x1 or y2 <= y1:
                self.notes["boxes_without_area_dropped"] += 1
                continue
            inside = [min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)]
            if inside[2] <= inside[0] or inside[3] <= inside[1]:
                self.notes["boxes_outside_dropped"] += 1
                continue
            if max(abs(a - b) for a, b in zip(inside, item.xyxy, strict=True)) > 0.5:  # less is rounding of the format
                self.notes["boxes_clipped"] += 1
            if item.crowd:
                self.notes["crowd_regions"] += 1
            kept.append(item)
            corners.append(inside)
        if not kept:
            self.notes["images_without_boxes"] += 1
        return Boxes(
            xyxy=np.asarray(corners, dtype=np.float32).reshape(-1, 4),
            labels=np.asarray([self.class_index[item.category] for item in kept], dtype=np.int64),
            crowd=np.asarray([item.crowd for item in kept], dtype=bool),
        )


def object_mask(objects: Sequence[LabelledObject], width: int, height: int) -> np.ndarray | None:
    """bool [height, width]: the union of the objects' COCO segmentations, crowds left out; None where there is none."""
    from pycocotools import mask as coco_mask

    total: np.ndarray | None = None
    for item in objects:
        if item.crowd or not item.segmentation:
            continue
        lengths = item.segmentation
        if isinstance(lengths, list):
            lengths = coco_mask.merge(coco_mask.frPyObjects(lengths, height, width))
        elif isinstance(lengths.get("counts"), list):
            lengths = coco_mask.frPyObjects(lengths, height, width)
        inside = coco_mask.decode(lengths).astype(bool)
        total = inside if total is None else total | inside
    return total
