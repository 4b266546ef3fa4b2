"""Any YOLO folder: a data.yaml with ``names`` and image folders, and label files beside them in ``labels/``."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from genaug.core.errors import GenaugError
from genaug.core.registry import component
from genaug.data.annotations import BoxRules, read_yolo
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.detection import DetectionFiles, image_size, sample_of
from genaug.data.sources.image_folder import EXTENSIONS


@component("dataset", "yolo")
@dataclass(kw_only=True, slots=True)
class Yolo(DetectionFiles):
    """Boxes of YOLO label files. An image without a label file is background, counted in ``images_without_boxes``."""

    yaml: str = "data.yaml"
    """The description, relative to the root: ``train``, ``val``, ``test`` (folders or lists of files) and ``names``."""

    version: ClassVar[int] = 1

    def files(self) -> Iterable[Path]:
        yield self.folder() / self.yaml
        for images in self._images(self._description()).values():
            for image in images:
                yield image
                yield label_path(image)

    def read(self) -> Dataset:
        root = self.folder()
        description = self._description()
        names = self._names(description)
        rules = BoxRules({name: i for i, name in enumerate(names.values())})
        splits: dict[str, list[Sample]] = {}
        for split, images in self._images(description).items():
            for image in images:
                size, labels = image_size(image), label_path(image)
                objects = read_yolo(labels, names, *size) if labels.is_file() else ()
                splits.setdefault(split, []).append(sample_of(root, image, objects, size, rules))
        return self.dataset(list(names.values()), splits, rules.notes)

    def _description(self) -> dict[str, Any]:
        path = self.folder() / self.yaml
        if not path.is_file():
            raise GenaugError(
                f"dataset.root={self.root} has no {self.yaml}. Write dataset.yaml=NAME, relative to the root."
            )
        try:
            description = yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark is not None else ""
            raise GenaugError(f"{path}{line}: not valid YAML ({getattr(error, 'problem', error)}).") from error
        if not isinstance(description, dict) or "names" not in description or "train" not in description:
            raise GenaugError(f"{path} needs the keys 'train' (a folder of images) and 'names' (the classes).")
        return description

    def _names(self, description: dict[str, Any]) -> dict[int, str]:
        names = description["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(index): str(name) for index, name in sorted(pairs)}

    def _images(self, description: dict[str, Any]) -> dict[str, list[Path]]:
        base = self.folder() / str(description.get("path") or "")
        found: dict[str, list[Path]] = {}
        for split in ("train", "val", "test"):
            places = description.get(split) or []
            for place in [places] if isinstance(places, str) else places:
                found.setdefault(split, []).extend(self._images_of(base, str(place), split))
        return found

    def _images_of(self, base: Path, place: str, split: str) -> Iterator[Path]:
        # exported folders often write ../train/images for what lies beside the data.yaml
        options = [base / place, self.folder() / place, self.folder() / place.removeprefix("../")]
        path = next((option for option in options if option.exists()), None)
        if path is None:
            raise GenaugError(f"{self.folder() / self.yaml}: '{split}: {place}' is not a folder or file below {base}.")
        if path.is_dir():
            yield from (p for p in sorted(path.rglob("*")) if p.suffix.lower() in EXTENSIONS and p.is_file())
            return
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if line.strip():
                image = path.parent / line.strip()
                if not image.is_file():
                    raise GenaugError(f"{path}:{number}: {line.strip()} is not a file.")
                yield image


def label_path(image: Path) -> Path:
    """``…/images/a.jpg`` to ``…/labels/a.txt``; beside the image where no folder is called images."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        place = len(parts) - 2 - parts[:-1][::-1].index("images")
        parts[place] = "labels"
    return Path(*parts).with_suffix(".txt")
