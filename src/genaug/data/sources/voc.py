"""Any folder of Pascal VOC's XML files: Annotations/, JPEGImages/, ImageSets/Main/{train,val,trainval,test}.txt; or the files
beside their images, in one folder or one per split, as labelling programs and Roboflow write them."""

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
from genaug.data.sources.folder_names import ANNOTATIONS, split_of


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
        is_empty = x1 == x2 and y1 == y2
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
    """Boxes of VOC XML files. ``trainval.txt`` stands in for an absent ``train.txt``; without lists, folders called ``train``,
    ``valid`` and ``test`` are the splits; without those, all splits are carved.

    Object masks come from ``SegmentationObject/`` where there is one.
    """

    class_names: list[str] | None = None
    """List of classes; null takes every name that occurs, sorted. A name outside the list is refused."""

    version: ClassVar[int] = 1

    def files(self) -> Iterable[Path]:
        root = self.folder()
        for path in self._annotations().values():
            yield path
            yield self._image(path)
            yield root / "SegmentationObject" / f"{path.stem}.png"
        yield from (root / "ImageSets" / "Main").glob("*.txt")

    def read(self) -> Dataset:
        root = self.folder()
        lists, paths = self._lists(), self._annotations()
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
        images = {name: self._image(path) for name, path in paths.items()}
        listed = {split: [(images[name], annotations[name]) for name in names] for split, names in lists.items()}
        masks = {images[name]: root / "SegmentationObject" / f"{path.stem}.png" for name, path in paths.items()}
        splits = self.samples(listed, rules, {image: mask for image, mask in masks.items() if mask.is_file()})
        rules.notes["annotations_in_no_list"] = len(paths.keys() - annotations.keys())
        return self.dataset(class_names, splits, rules.notes)

    def _annotations(self) -> dict[str, Path]:
        """Annotation files by their stem, with the split's folder before it where each split has one."""
        found: dict[str, Path] = {}
        for split, place in voc_folders(self.folder()).items():
            paths = (path for path in sorted(place.glob("*.xml")) if not path.name.startswith("."))
            found |= {f"{split}/{path.stem}" if split else path.stem: path for path in paths}
        if not found:
            raise GenaugError(
                f"dataset.root={self.root} holds no Annotations/*.xml. Expected the Pascal VOC layout: Annotations/, "
                "JPEGImages/ and, if there are fixed splits, ImageSets/Main/{train,val,test}.txt; or XML files beside images."
            )
        return found

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
        if not lists:
            for name in known:
                lists.setdefault(split_of(name.rpartition("/")[0]) or "train", []).append(name)
        trainval = lists.pop("trainval", [])
        if "train" not in lists and trainval:
            held = {name for names in lists.values() for name in names}
            lists = {"train": [name for name in trainval if name not in held]} | lists
        return lists

    def _image(self, annotation: Path) -> Path:
        """The image of an annotation file: in the usual folders, or beside it."""
        if annotation.parent.name.lower() in ANNOTATIONS:
            base = annotation.parent.parent
            places = (base / "JPEGImages", base / "images", annotation.parent, base)
        else:
            places = (annotation.parent, self.folder() / "JPEGImages", self.folder() / "images")
        for place in places:
            if annotation.stem in (images := _images(place)):
                return images[annotation.stem]
        raise GenaugError(f"{annotation}: there is no image {annotation.stem}.* in {places[0]}.")


def voc_folders(root: Path) -> dict[str, Path]:
    """Folders of VOC's XML files: of the root under an empty name, or else of each folder that is called like a split."""
    if (place := _annotations_in(root)) is not None:
        return {"": place}
    splits = (path for path in sorted(root.iterdir()) if path.is_dir() and split_of(path.name) is not None)
    return {path.name: place for path in splits if (place := _annotations_in(path)) is not None}


def _annotations_in(folder: Path) -> Path | None:
    """``Annotations/`` or so in a folder, or itself, whichever holds VOC's XML files; None if neither does."""
    inner = (path for path in sorted(folder.iterdir()) if path.is_dir() and path.name.lower() in ANNOTATIONS)
    return next((place for place in (*inner, folder) if any(_is_voc(path) for path in place.glob("*.xml"))), None)


def _is_voc(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    with path.open("rb") as file:
        return b"annotation" in file.read(1000).replace(b"\0", b"")  # UTF-16, too


@functools.lru_cache(maxsize=64)
def _images_of(folder: Path, mtime_ns: int) -> dict[str, Path]:
    paths = sorted((path for path in folder.iterdir() if is_image(path) and path.is_file()), reverse=True)
    return {path.stem: path for path in paths if not path.name.startswith(".")}


def _images(folder: Path) -> dict[str, Path]:
    """Image files of a folder by their stem."""
    return _images_of(folder, folder.stat().st_mtime_ns) if folder.is_dir() else {}


def _listed(line: str, known: dict[str, Path]) -> str:
    """The image that a line names: ``IMG 001``, ``IMG 001.jpg`` or, in lists of one class, ``IMG 001  -1``."""
    whole = line.strip()
    for name in (whole, whole.rsplit(maxsplit=1)[0]):
        for option in (name, name.rpartition(".")[0], Path(name.replace("\\", "/")).stem):
            if option in known:
                return option
    return whole
