"""Any COCO instances JSON, whatever folder its images are in."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from genaug.core.errors import GenaugError
from genaug.core.registry import component
from genaug.data.annotations import Annotation, BoxRules
from genaug.data.sample import Dataset
from genaug.data.sources.coco_json import ROBOFLOW, CocoFile, read_coco
from genaug.data.sources.detection import DetectionFiles

NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""A split's names in files and folders."""


@component("dataset", "coco")
@dataclass(kw_only=True, slots=True)
class Coco(DetectionFiles):
    """Boxes and masks of COCO JSON files: ``instances_<split>*.json`` in the root, ``annotations/`` or ``coco/``, or
    ``<split>/_annotations.coco.json``. Without a test file, the validation file is the test and validation is carved.
    """

    train_json: str | None = None
    """File of the training annotations, relative to the root; null looks for it."""
    val_json: str | None = None
    """The same for validation."""
    test_json: str | None = None
    """The same for the test."""
    image_dir: str | None = None
    """Folder of all images, relative to the root; null looks in the usual ones."""
    masks: bool = True
    """Offer the training images' object masks to generators that keep or edit objects; they are decoded when one does."""

    version: ClassVar[int] = 1

    def files(self) -> Iterable[Path]:
        for split, path in self._json_files().items():
            yield path
            for annotation in read_coco(path).annotations:
                yield self._image(split, path, annotation)

    def read(self) -> Dataset:
        paths = self._json_files()
        parsed = {split: read_coco(path) for split, path in paths.items()}
        if "train" not in parsed:
            raise GenaugError(
                f"dataset.root={self.root} has annotations for {' and '.join(parsed)}, but none for training. Name the file: "
                "dataset.train_json=FILE."
            )
        class_names, remarks = classes_of(parsed)
        rules = BoxRules({name: i for i, name in enumerate(class_names)})
        listed = {
            split: [(self._image(split, paths[split], annotation), annotation) for annotation in file.annotations]
            for split, file in parsed.items()
        }
        for pairs in listed.values():
            twice = next((path for path, count in Counter(path for path, _ in pairs).items() if count > 1), None)
            if twice is not None:
                where, other = (annotation.where for path, annotation in pairs if path == twice)
                raise GenaugError(f"{where} and {other} both mean {twice}. Give each file a name of its own.")
            rules.notes["images_found_by_the_last_part_of_their_paths"] += sum(
                not path.as_posix().endswith(_tail(annotation.file_name)) for path, annotation in pairs
            )
        splits = self.samples(listed, rules, self.masks)
        return self.dataset(class_names, splits, rules.notes, remarks)

    def _json_files(self) -> dict[str, Path]:
        found = self.json_files()
        if not found:
            raise GenaugError(
                f"dataset.root={self.root} holds no instances_train*.json (looked in it, annotations/ and coco/) and no "
                "train/_annotations.coco.json. Name the file: dataset.train_json=FILE."
            )
        return found

    def json_files(self) -> dict[str, Path]:
        """Files of the annotations by split, as named or as usually called."""
        root = self.folder()
        found: dict[str, Path] = {}
        for split, names in NAMES.items():
            named = getattr(self, f"{split}_json")
            if named is not None:
                if not (root / named).is_file():
                    raise GenaugError(f"dataset.{split}_json={named} is not a file below dataset.root={self.root}.")
                found[split] = root / named
                continue
            folders = [folder for folder in (root, root / "annotations", root / "coco") if folder.is_dir()]
            options = [path for folder in folders for path in sorted(folder.glob("instances_*.json"))]
            options = [path for path in options if _first_word(path.stem.removeprefix("instances_")) in names]
            for pattern in (f"{{}}/{ROBOFLOW}", "{}.json", "annotations/{}.json"):
                options = options or [path for name in names if (path := root / pattern.format(name)).is_file()]
            if len(options) > 1:
                listed = " and ".join(path.relative_to(root).as_posix() for path in options)
                raise GenaugError(
                    f"dataset.root={self.root} has several files for the {split} split: {listed}. Name one: "
                    f"dataset.{split}_json={options[0].relative_to(root).as_posix()}."
                )
            if options:
                found[split] = options[0]
        return found

    def _image(self, split: str, json_path: Path, annotation: Annotation) -> Path:
        """The image file that an annotation names, which lies below the root.

        Raises:
            GenaugError: if it is in none of the usual folders, or its name leads out of them.
        """
        root = self.folder()
        if self.image_dir is not None:
            folders = [root / self.image_dir]
        else:
            folders = [json_path.parent, root, root / "images", root / "JPEGImages"]
            folders += [
                parent / name
                for parent in (root, root / "images")
                for name in (*NAMES[split], json_path.stem.partition("_")[2])
            ]
        names = dict.fromkeys((annotation.file_name, annotation.file_name.replace("\\", "/")))
        if (tail := _tail(annotation.file_name)) != annotation.file_name.replace("\\", "/"):
            names[tail.rpartition("/")[2]] = None  # a path of the place where they were labelled
        for name in names:
            for folder in folders:
                path = folder / name
                if not _is_file(path):
                    continue
                if not any(path.resolve().is_relative_to(place.resolve()) for place in (root, folder)):
                    raise GenaugError(
                        f"{annotation.where} has the file_name {name[:80]!r}, which leads out of {folder}. Write "
                        "names relative to the images' folder, which dataset.image_dir=FOLDER may name."
                    )
                return path
        looked = ", ".join(dict.fromkeys(str(folder) for folder in folders if folder.is_dir()))
        raise GenaugError(
            f"{annotation.where}: the image {annotation.file_name[:80]} is in none of {looked}. Write "
            "dataset.image_dir=FOLDER, or take the image out of the file."
        )


def _first_word(name: str) -> str:
    """``train`` of ``train2017`` and of ``Train_v2``."""
    return re.split(r"[^a-z]", name.lower())[0]


def _tail(name: str) -> str:
    """A path without what leads out of a folder: a drive, slashes and dots at its beginning."""
    return re.sub(r"^(?:[A-Za-z]:|\.\.?(?=[\\/])|[\\/])+", "", name).replace("\\", "/")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file system has: too long, or with a null character
        return False


def classes_of(parsed: dict[str, CocoFile]) -> tuple[list[str], list[str]]:
    """Class names, and what to say of categories that are none: Roboflow's first one only groups the others."""
    used = {item.category for file in parsed.values() for image in file.annotations for item in image.objects}
    groups = [name for name in parsed["train"].class_names if name not in used and name in parsed["train"].groups]
    class_names = [name for name in parsed["train"].class_names if name not in groups]
    return class_names, [
        f"The category {name!r} has no box and groups the others, so it is no class." for name in groups
    ]
