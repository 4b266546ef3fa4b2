"""Any YOLO folder: a data.yaml with ``names`` and image folders, and label files beside them in ``labels/``."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from genaug.core.errors import GenaugError, boundary
from genaug.core.registry import component
from genaug.data.annotations import Annotation, BoxRules, LabelledObject, read_text
from genaug.data.images import inspect_all, is_image
from genaug.data.sample import Dataset
from genaug.data.sources.detection import DetectionFiles
from genaug.data.sources.tree import walk

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
SLACK = 0.05
"""Share of the image by which a coordinate may lie outside it, as tools round or let a box reach over."""


def read_yolo(
    path: Path, names: Mapping[int, str], width: int, height: int, keypoints: int = 0
) -> tuple[LabelledObject, ...]:
    """Rows ``class xc yc w h`` (or ``class x1 y1 x2 y2 x3 y3 …``, a polygon), normalised to the image's size.

    Args:
        keypoints: numbers that follow the box in the rows of a pose data set; they are left out.

    Raises:
        GenaugError: if a row has other fields, coordinates in pixels, or a class that the data.yaml does not name, with the
            line.
    """
    objects = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            index, *values = [float(word) for word in line.split()]
        except ValueError as error:
            raise GenaugError(f"{where}: {line.strip()[:80]!r} is not a row of numbers.") from error
        if not all(map(math.isfinite, (index, *values))):
            raise GenaugError(f"{where}: {line.strip()[:80]!r} has a number that is not finite.")
        if keypoints and len(values) == 4 + keypoints:
            values = values[:4]
        if len(values) != 4 and (len(values) < 6 or len(values) % 2 or keypoints):
            pose = f", or {5 + keypoints} fields by kpt_shape" if keypoints else ", or class and a polygon's corners"
            raise GenaugError(f"{where}: {len(values) + 1} fields. Write class xc yc w h{pose}.")
        flags = values[6::3] if len(values) > 4 and (len(values) - 4) % 3 == 0 else []
        if 2 in flags and all(flag in (0, 1, 2) for flag in flags):  # COCO's 2 is a visible point
            raise GenaugError(
                f"{where}: the row looks like a box with keypoints, not like a polygon. Write kpt_shape into data.yaml, e.g. "
                f"kpt_shape: [{(len(values) - 4) // 3}, 3]."
            )
        if index != int(index) or int(index) not in names:
            raise GenaugError(
                f"{where}: class {index:g} is not among the {len(names)} names of data.yaml. Add its name "
                "there, or remove the line."
            )
        if max(values) > 1 + SLACK or min(values) < -SLACK:
            raise GenaugError(
                f"{where}: {max(values, key=abs):g} is no share of the image: YOLO's coordinates go from 0 to 1. Divide those "
                "in pixels by the image's width and height."
            )
        if len(values) == 4:
            xc, yc, w, h = values
            corners = (xc - w / 2, yc - h / 2, xc + w / 2, yc + h / 2)
        else:
            corners = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        xyxy = (corners[0] * width, corners[1] * height, corners[2] * width, corners[3] * height)
        objects.append(LabelledObject(category=names[int(index)], xyxy=xyxy, where=where))
    return tuple(objects)


@component("dataset", "yolo")
@dataclass(kw_only=True, slots=True)
class Yolo(DetectionFiles):
    """Boxes of YOLO label files. An image without a label file is background, and counted in the notes.

    Of pose data (``kpt_shape``) the boxes are read, of segmentation rows the boxes around the polygons.
    """

    yaml: str = "data.yaml"
    """The description, relative to the root: ``train``, ``val`` or ``valid``, ``test`` (folders or lists of files) and
    ``names`` (a list, a mapping, or a file with one name per line)."""

    version: ClassVar[int] = 1

    def files(self) -> Iterable[Path]:
        description = self._description()
        yield self.folder() / self.yaml
        if isinstance(description["names"], str):
            yield self.folder() / description["names"]
        for images in self._images(description).values():
            for image in images:
                yield image
                yield label_path(image)

    def read(self) -> Dataset:
        description = self._description()
        names = self._names(description)
        keypoints = self._keypoints(description)
        rules = BoxRules({name: i for i, name in enumerate(names.values())})
        images = self._images(description)
        facts = inspect_all(image for split in images.values() for image in split)
        listed: dict[str, list[tuple[Path, Annotation]]] = {}
        for split, paths in images.items():
            for image in paths:
                labels = label_path(image)
                size = facts[image].size if facts[image].fault is None else (1, 1)  # refused below
                objects = read_yolo(labels, names, *size, keypoints) if labels.is_file() else ()
                rules.notes["images_without_a_label_file"] += not labels.is_file()
                annotation = Annotation(file_name=image.name, width=0, height=0, objects=objects, where=str(labels))
                listed.setdefault(split, []).append((image, annotation))
        remarks = ["The boxes of pose data are read, their keypoints are not."] if keypoints else []
        return self.dataset(list(names.values()), self.samples(listed, rules, False), rules.notes, remarks)

    def _description(self) -> dict[str, Any]:
        """The data.yaml, every value as it is written: ``no`` is a name, not a truth value."""
        path = self.folder() / self.yaml
        if not path.is_file():
            raise GenaugError(
                f"dataset.root={self.root} has no {self.yaml}. Write dataset.yaml=NAME, relative to the root."
            )
        try:
            description = yaml.load(read_text(path), Loader=yaml.BaseLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark is not None else ""
            raise GenaugError(f"{path}{line}: not valid YAML ({getattr(error, 'problem', error)}).") from error
        if not isinstance(description, dict) or "names" not in description or "train" not in description:
            raise GenaugError(f"{path} needs the keys 'train' (a folder of images) and 'names' (the classes).")
        return description

    def _names(self, description: dict[str, Any]) -> dict[int, str]:
        path = self.folder() / self.yaml
        names = description["names"]
        if isinstance(names, str):
            listed = self.folder() / names
            if not names or not listed.is_file():
                raise GenaugError(
                    f"{path}: 'names: {names}' is neither a list of classes nor a file with one per line."
                )
            names = [line.strip() for line in read_text(listed).splitlines() if line.strip()]
        with boundary(f"{path}: 'names' cannot be read", "Write a list, e.g. names: [cat, dog]."):
            if isinstance(names, dict) and not any(str(key).isdigit() for key in names):
                names = {int(index): name for name, index in names.items()}  # names: {cat: 0, dog: 1}
            pairs = names.items() if isinstance(names, dict) else enumerate(names)
            found = {int(index): name.strip() for index, name in sorted((int(i), n) for i, n in pairs)}
        if not found or not all(found.values()):
            raise GenaugError(f"{path}: 'names' is empty or has an empty name. Write a list, e.g. names: [cat, dog].")
        twice = [name for name, count in Counter(found.values()).items() if count > 1]
        if twice:
            raise GenaugError(f"{path}: 'names' has {twice[0]!r} twice. Give each class a name of its own.")
        if str(description.get("nc", len(found))) != str(len(found)):
            raise GenaugError(f"{path}: 'nc: {description['nc']}' does not agree with the {len(found)} 'names'.")
        return found

    def _keypoints(self, description: dict[str, Any]) -> int:
        """Numbers after the box in each row of a pose data set; 0 for others."""
        shape = description.get("kpt_shape")
        if shape is None:
            return 0
        with boundary(
            f"{self.folder() / self.yaml}: 'kpt_shape: {shape}' cannot be read", "Write e.g. kpt_shape: [17, 3]."
        ):
            points, numbers = (int(value) for value in shape)
        return points * numbers

    def _images(self, description: dict[str, Any]) -> dict[str, list[Path]]:
        base = self.folder() / str(description.get("path") or "")
        found: dict[str, list[Path]] = {}
        for split, keys in SPLITS.items():
            key = next((key for key in keys if description.get(key) not in (None, "", "~", "null", [])), None)
            places = description[key] if key is not None else []
            for place in [places] if isinstance(places, str) else places:
                found.setdefault(split, []).extend(self._images_of(base, str(place), split))
        return found

    def _images_of(self, base: Path, written: str, split: str) -> Iterator[Path]:
        # exported folders often write ../train/images for what lies beside the data.yaml
        place = written.replace("\\", "/")
        options = [base / place, self.folder() / place, self.folder() / place.removeprefix("../")]
        path = next((option for option in options if option.exists()), None)
        if path is None:
            raise GenaugError(
                f"{self.folder() / self.yaml}: '{split}: {written}' is not a folder or file below {base}."
            )
        if path.is_dir():
            yield from walk(path).every_image()
            return
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            if name := line.strip().replace("\\", "/"):
                image = next((p for p in (path.parent / name, base / name, self.folder() / name) if p.is_file()), None)
                if image is None or not is_image(image):
                    raise GenaugError(f"{path}:{number}: {line.strip()} is not an image file.")
                yield image


def label_path(image: Path) -> Path:
    """``…/images/a.jpg`` to ``…/labels/a.txt``; beside the image where no folder is called images."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        place = len(parts) - 2 - parts[:-1][::-1].index("images")
        parts[place] = "labels"
    return Path(*parts).with_suffix(".txt")
