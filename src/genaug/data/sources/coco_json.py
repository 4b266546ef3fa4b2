"""Reading a COCO instances file: every entry is checked, and faults are named with file and entry."""

import functools
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genaug.core.errors import GenaugError, boundary
from genaug.data.annotations import Annotation, LabelledObject, numbers, read_text, stated_area

ROBOFLOW = "_annotations.coco.json"
PARTS = ("images", "annotations", "categories")


@dataclass(kw_only=True, frozen=True, slots=True)
class CocoFile:
    """A parsed file."""

    class_names: tuple[str, ...]
    """In order of the category ids."""
    groups: frozenset[str]
    """Names that other categories state as their supercategory, and Roboflow's category 0."""
    annotations: tuple[Annotation, ...]


def read_coco(path: Path) -> CocoFile:
    """Class names in order of their category id, and every image with its objects; parsed once per change of the file.

    Raises:
        GenaugError: if the file does not parse, lacks a part, or an entry is wrong; it names the entry.
    """
    stat = path.stat()
    return _read(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=6)
def _read(path: Path, size: int, mtime_ns: int) -> CocoFile:
    text = read_text(path)
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise GenaugError(
            f"{path}:{error.lineno}: not valid JSON ({error.msg}). Repair or replace the file."
        ) from error
    except RecursionError as error:
        raise GenaugError(f"{path}: not valid JSON (nested without end). Repair or replace the file.") from error
    missing = [key for key in PARTS if not isinstance(data, dict) or key not in data]
    if missing:
        raise GenaugError(
            f"{path} lacks {', '.join(missing)}: it is no COCO instances file. Point dataset.root at one."
        )
    entries = {part: _entries(data[part], part, path) for part in PARTS}
    categories = {
        key: _text(entry, "name", f"{path}: category {key}") for key, entry in _by_id(entries, "categories", path)
    }
    images = dict(_by_id(entries, "images", path))
    objects: dict[Any, list[LabelledObject]] = {}
    seen: set[Any] = set()
    for number, entry in enumerate(entries["annotations"]):
        where = f"{path}: annotation {entry.get('id', f'number {number}')}"
        with boundary(f"{where} cannot be read", "Repair or remove it."):
            if (key := entry.get("id")) is not None:
                if key in seen:
                    raise GenaugError(f"{where} occurs twice. Give each annotation an id of its own.")
                seen.add(key)
            objects.setdefault(entry.get("image_id"), []).append(_object(entry, where, images, categories))
    annotations = [_image(key, image, objects.get(key, ()), path) for key, image in images.items()]
    _check_once([annotation.file_name for annotation in annotations], path)
    groups = {str(entry.get("supercategory")) for entry in entries["categories"]}
    if path.name == ROBOFLOW and 0 in categories:
        groups.add(categories[0])
    ordered = sorted(categories)
    return CocoFile(
        class_names=tuple(categories[key] for key in ordered),
        groups=frozenset(groups),
        annotations=tuple(annotations),
    )


def _entries(value: Any, part: str, path: Path) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise GenaugError(f"{path}: '{part}' must be a list of objects. Replace the file.")
    return value


def _by_id(entries: dict[str, list[dict[str, Any]]], part: str, path: Path) -> list[tuple[Any, dict[str, Any]]]:
    """(id, entry), ids checked to be there, unique and of one type."""
    pairs = []
    for number, entry in enumerate(entries[part]):
        key = entry.get("id")
        if isinstance(key, bool) or not isinstance(key, int | str):
            name = entry.get("name", entry.get("file_name"))
            raise GenaugError(
                f"{path}: entry {number} of '{part}' ({name}) has the id {key}: a whole number is needed."
            )
        pairs.append((key, entry))
    counts = Counter(key for key, _ in pairs)
    twice = next((key for key, count in counts.items() if count > 1), None)
    if twice is not None:
        raise GenaugError(
            f"{path}: {counts[twice]} entries of '{part}' have the id {twice!r}. Give each one of its own."
        )
    if len({type(key) for key, _ in pairs}) > 1:
        raise GenaugError(f"{path}: the ids of '{part}' are numbers and texts mixed. Write all of them as numbers.")
    return pairs


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise GenaugError(f"{where} has {key} {value!r}: a text is needed.")
    return value.strip() if key == "name" else value


def _object(entry: dict[str, Any], where: str, images: dict[Any, Any], categories: dict[Any, str]) -> LabelledObject:
    for key, part, known in (("category_id", "categories", categories), ("image_id", "images", images)):
        if not isinstance(entry.get(key), int | str) or entry[key] not in known:
            raise GenaugError(
                f"{where} has {key} {entry.get(key)!r}, which '{part}' does not declare: add or remove it."
            )
    x, y, w, h = numbers(entry.get("bbox"), 4, where, "bbox")
    if w < 0 or h < 0:
        raise GenaugError(
            f"{where} has bbox {entry['bbox']}: its width or height is below 0. COCO's are x, y, width, height."
        )
    crowd = entry.get("iscrowd") or 0
    if crowd not in (0, 1) or isinstance(crowd, str):
        raise GenaugError(f"{where} has iscrowd {crowd!r}: write 0 or 1.")
    return LabelledObject(
        category=categories[entry["category_id"]],
        xyxy=(x, y, x + w, y + h),
        crowd=bool(crowd),
        area=stated_area(entry.get("area"), where),
        segmentation=entry.get("segmentation"),
        where=where,
    )


def _image(key: Any, image: dict[str, Any], objects: Any, path: Path) -> Annotation:
    where = f"{path}: image {key}"
    name = _text(image, "file_name", where)
    sizes = []
    for side in ("width", "height"):
        value = image.get(side) or 0
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6 or value != int(value):
            raise GenaugError(f"{where} ({name}) has {side} {value!r}: a whole number of pixels is needed.")
        sizes.append(int(value))
    return Annotation(file_name=name, width=sizes[0], height=sizes[1], objects=tuple(objects), where=where)


def _check_once(names: list[str], path: Path) -> None:
    counts = Counter(names)
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice is not None:
        raise GenaugError(
            f"{path}: {counts[twice]} images have the file_name {twice}. Merge their annotations into one."
        )
