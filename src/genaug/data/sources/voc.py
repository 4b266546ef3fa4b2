"""Any folder in the Pascal VOC layout: Annotations/, JPEGImages/, ImageSets/Main/{train,val,trainval,test}.txt."""

import functools
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from genaug.core.errors import GenaugError, boundary
from genaug.core.registry import component
from genaug.data.annotations import Annotation, BoxRules, LabelledObject, numbers, read_text
from genaug.data.images import is_image
from genaug.data.sample import Dataset
from genaug.data.sources.detection import DetectionFiles


def read_voc(path: Path) -> Annotation:
    """A Pascal VOC file: boxes are 1-based with the last pixel included, so ``xmin - 1, ymin - 1, xmax, ymax`` here.

    Objects marked ``difficult`` become crowd regions: neither trained on nor counted as a miss, VOC's own rule. A box
    that is one pixel wide or high is one; a single point, and corners in the wrong order, come back with zero area.

    Raises:
        GenaugError: if the file does not parse or an object lacks a part, with the line.
    """
    data = path.read_bytes()
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise GenaugError(
            f"{path}:{error.position[0]}: not well-formed XML ({error}). Repair or remove the file."
        ) from error
    except (ValueError, LookupError) as error:
        raise GenaugError(f"{path}: its encoding cannot be read ({error}). Save the file as UTF-8.") from error
    lines = [data.count(b"\n", 0, match.start()) + 1 for match in re.finditer(rb"<object\b", data)]
    objects = []
    for number, node in enumerate(root.findall("object")):
        where = f"{path}:{lines[number] if number < len(lines) else 1}"
        name = (node.findtext("name") or "").strip()
        if not name:
            raise GenaugError(f"{where}: an object without <name>. Name its class or remove it.")
        try:
            corners = [float(node.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax")]
        except ValueError as error:
            raise GenaugError(
                f"{where}: the object {name!r} needs numbers in bndbox/xmin, ymin, xmax and ymax."
            ) from error
        x1, y1, x2, y2 = numbers(corners, 4, where, "a bndbox with")
        is_empty = x1 > x2 or y1 > y2 or (x1 == x2 and y1 == y2)
        xyxy = (x1 - 1, y1 - 1, x1 - 1, y1 - 1) if is_empty else (x1 - 1, y1 - 1, x2, y2)
        difficult = (node.findtext("difficult") or "0").strip() == "1"
        objects.append(LabelledObject(category=name, xyxy=xyxy, crowd=difficult, where=where))
    with boundary(f"{path}: width and height in <size> must be whole numbers", "Correct them, or remove <size>."):
        width, height = (int(float(root.findtext(f"size/{key}") or 0)) for key in ("width", "height"))
    file_name = (root.findtext("filename") or path.stem).strip()
    return Annotation(file_name=file_name, width=width, height=height, objects=tuple(objects), where=str(path))


@functools.lru_cache(maxsize=200_000)
def _read(path: Path, size: int, mtime_ns: int) -> Annotation:
    return read_voc(path)


@component("dataset", "voc")
@dataclass(kw_only=True, slots=True)
class Voc(DetectionFiles):
    """Boxes of VOC XML files. ``trainval.txt`` stands in for an absent ``train.txt``; without lists all splits are carved.

    Object masks come from ``SegmentationObject/`` where there is one.
    """

    class_names: list[str] | None = None
    """List of classes; null takes every name that occurs, sorted. A name outside the list is refused."""

    version: ClassVar[int] = 1

    def files(self) -> Iterable[Path]:
        root = self.folder()
        images = self._images()
        for path in self._annotations().values():
            yield path
            yield self._image(path, images)
            yield root / "SegmentationObject" / f"{path.stem}.png"
        yield from (root / "ImageSets" / "Main").glob("*.txt")

    def read(self) -> Dataset:
        root = self.folder()
        lists, paths, images = self._lists(), self._annotations(), self._images()
        annotations: dict[str, Annotation] = {}
        for split, names in lists.items():
            for name in names:
                if name not in paths:
                    raise GenaugError(
                        f"{root}/ImageSets/Main ({split}) lists {name}, but Annotations/{name}.xml is absent."
                    )
                stat = paths[name].stat()
                annotations[name] = _read(paths[name], stat.st_size, stat.st_mtime_ns)
        found = sorted({item.category for annotation in annotations.values() for item in annotation.objects})
        class_names = self.class_names if self.class_names is not None else found
        rules = BoxRules({name: i for i, name in enumerate(class_names)})
        listed = {
            split: [(self._image(paths[name], images), annotations[name]) for name in names]
            for split, names in lists.items()
        }
        masks = {self._image(path, images): root / "SegmentationObject" / f"{name}.png" for name, path in paths.items()}
        splits = self.samples(listed, rules, {image: mask for image, mask in masks.items() if mask.is_file()})
        rules.notes["annotations_in_no_list"] = len(paths.keys() - annotations.keys())
        return self.dataset(class_names, splits, rules.notes)

    def _annotations(self) -> dict[str, Path]:
        """Annotation files by their stem."""
        paths = {path.stem: path for path in sorted((self.folder() / "Annotations").glob("*.xml"))}
        paths = {stem: path for stem, path in paths.items() if not stem.startswith(".")}
        if not paths:
            raise GenaugError(
                f"dataset.root={self.root} holds no Annotations/*.xml. Expected the Pascal VOC layout: Annotations/, "
                "JPEGImages/ and, if there are fixed splits, ImageSets/Main/{train,val,test}.txt."
            )
        return paths

    def _lists(self) -> dict[str, list[str]]:
        """Image names by split."""
        folder = self.folder() / "ImageSets" / "Main"
        known = self._annotations()
        texts = {path.stem: read_text(path) for path in folder.glob("*.txt")} if folder.is_dir() else {}
        lists = {
            name: [_listed(line, known) for line in texts[name].splitlines() if line.strip()]
            for name in ("train", "val", "test", "trainval")
            if name in texts
        }
        trainval = lists.pop("trainval", [])
        if "train" not in lists and trainval:
            held = {name for names in lists.values() for name in names}
            lists = {"train": [name for name in trainval if name not in held]} | lists
        return lists or {"train": list(known)}

    def _images(self) -> dict[str, Path]:
        """Image files by their stem."""
        root = self.folder()
        found: dict[str, Path] = {}
        for folder in (root / "JPEGImages", root / "images", root / "Annotations"):
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if is_image(path) and not path.name.startswith(".") and path.is_file():
                    found.setdefault(path.stem, path)
        return found

    def _image(self, annotation: Path, images: dict[str, Path]) -> Path:
        if annotation.stem not in images:
            raise GenaugError(f"{annotation}: there is no image {annotation.stem}.* in {self.folder() / 'JPEGImages'}.")
        return images[annotation.stem]


def _listed(line: str, known: dict[str, Path]) -> str:
    """The image that a line names: ``IMG 001``, ``IMG 001.jpg`` or, in lists of one class, ``IMG 001  -1``."""
    whole = line.strip()
    for name in (whole, whole.rsplit(maxsplit=1)[0]):
        for option in (name, name.rpartition(".")[0], Path(name.replace("\\", "/")).stem):
            if option in known:
                return option
    return whole
