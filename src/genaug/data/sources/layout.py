"""A tree of class folders: its classes, its splits and what is left out.

``class_folders(root)`` knows the names that people and archives give to splits (``train``, ``Training_Set/Training_Set``,
``seg_train``, ``valid`` …), and refuses a tree whose "classes" are splits, annotations or other data sets.
"""

import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from genaug.core.errors import GenaugError
from genaug.data.sources.folder_names import ANNOTATIONS, IMAGES, UNLABELLED, nfc, plain, split_of
from genaug.data.sources.tree import Folder, reader_advice, walk

MARKERS = (
    ("coco", "*_annotations.coco.json"),
    ("coco", "*/_annotations.coco.json"),
    ("coco", "instances_*.json"),
    ("coco", "annotations/instances_*.json"),
    ("coco", "coco/instances_*.json"),
    ("voc", "Annotations/*.xml"),
    ("yolo", "data.yaml"),
    ("yolo", "data.yml"),
    ("yolo", "dataset.yaml"),
    ("table", "metadata.jsonl"),
    ("table", "*/metadata.jsonl"),
    ("table", "metadata.csv"),
    ("table", "*/metadata.csv"),
    ("table", "labels.csv"),
    ("table", "train.csv"),
)
"""Files that tell the layouts other than class folders, in order; what they are read with stands in front."""


@dataclass(kw_only=True, frozen=True, slots=True)
class Layout:
    """What a folder holds."""

    root: Path
    preset: str
    """``image_folder``, ``coco``, ``voc``, ``yolo`` or ``table``: the choice of ``dataset=``."""
    key: str = "dataset.root"
    """What names the folder: ``dataset.path`` for a data set of the Hub."""
    task: str
    """``classification`` or ``detection``."""
    overrides: tuple[str, ...] = ()
    """What to write beside ``dataset.root``, e.g. ``dataset.yaml=dataset.yaml``."""
    splits: Mapping[str, Mapping[str, tuple[Path, ...]]] = field(default_factory=dict)
    """Image files by split (``train``, ``val``, ``test``) and class name, of class folders; empty for the other presets,
    whose annotations say it."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Image-like files that are not used, by reason."""
    remarks: tuple[str, ...] = ()
    """How the folder was understood where it is not plain, in sentences."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the class folders with training images, sorted, in Unicode's form NFC."""
        return tuple(sorted(self.splits.get("train", {})))


def class_folders(root: Path, class_names: Sequence[str] | None = None) -> Layout:
    """The layout of class folders below ``root``.

    Args:
        class_names: the class folders to read, whatever their names look like; None takes all and refuses doubtful ones.

    Raises:
        GenaugError: if no two classes have training images, or the tree is another thing than class folders.
    """
    tree = walk(root)
    return _Reader(root, tree, None if class_names is None else [nfc(name) for name in class_names]).read()


def num_images(folder: Folder) -> int:
    return sum(1 for _ in folder.every_image())


@dataclass(slots=True)
class _Reader:
    root: Path
    tree: Folder
    chosen: list[str] | None
    left_out: Counter[str] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)

    def read(self) -> Layout:
        self.left_out += self.tree.every_unusable()
        if num_images(self.tree) == 0:
            raise self.no_images(self.tree)
        base = self.descend(self.tree)
        splits = self.find_splits(base)
        if base not in splits.values():
            self.left_out["images_without_class_folder"] += len(base.images)
        by_split = {split: self.classes_of(folder, split) for split, folder in splits.items()}
        self.check_classes(by_split)
        return Layout(
            root=self.root,
            preset="image_folder",
            task="classification",
            splits=by_split,
            left_out={reason: count for reason, count in sorted(self.left_out.items()) if count},
            remarks=tuple(self.remarks),
        )

    def descend(self, base: Folder) -> Folder:
        """Through folders that hold nothing but one folder, and into ``images/`` beside annotations."""
        while True:
            inner = base.with_images
            pictures = [folder for folder in inner if plain(folder.name) in IMAGES and folder.with_images]
            beside = [folder for folder in inner if folder not in pictures]
            if len(pictures) == 1 and all(plain(folder.name) in ANNOTATIONS for folder in beside):
                self.left_out["pictures_in_annotation_folders"] += sum(map(num_images, beside))
            elif len(inner) == 1 and not base.images and inner[0].with_images and split_of(inner[0].name) is None:
                pictures = inner
            else:
                return base
            self.left_out["images_without_class_folder"] += len(base.images)
            base = pictures[0]
            self.remarks.append(f"The class folders are those of {base.path.relative_to(self.root).as_posix()}/.")

    def find_splits(self, base: Folder) -> dict[str, Folder]:
        """The folders of the splits; all of ``base`` is ``train`` where there are none."""
        named: dict[str, list[Folder]] = {}
        for folder in base.with_images:
            if (split := split_of(folder.name)) is not None:
                named.setdefault(split, []).append(folder)
        inner = {split: [self.unwrap(folder, split) for folder in folders] for split, folders in named.items()}
        others = [folder for folder in base.with_images if split_of(folder.name) is None]
        with_classes = {split: [f for f in folders if f.with_images] for split, folders in inner.items()}
        with_classes = {split: folders for split, folders in with_classes.items() if folders}
        if not with_classes:
            if named and not others:
                hint = self.other_layout(base.path) or "with a table of labels write dataset=table"
                raise GenaugError(
                    f"{_listed(named)} of dataset.root={self.root} hold images, but no class folders. Expected "
                    f"<root>/train/<class>/<image>; {hint}."
                )
            return {"train": base}  # a class may be called train
        if self.chosen is not None and {nfc(folder.name) for folder in base.with_images} >= set(self.chosen):
            return {"train": base}
        if "trainval" in with_classes:
            if "train" not in with_classes:
                with_classes["train"] = with_classes.pop("trainval")
            else:
                folders = with_classes.pop("trainval")
                self.left_out["images_of_trainval_beside_train"] += sum(map(num_images, folders))
        for split, folders in with_classes.items():
            if len(folders) > 1:
                names = " and ".join(f"{folder.path.relative_to(self.root).as_posix()}/" for folder in folders)
                raise GenaugError(
                    f"dataset.root={self.root} has several folders for the {split} split: {names}. Leave one of them, or "
                    "merge them."
                )
        if "train" not in with_classes:
            flat = "with class folders in it " if "train" in named else ""
            raise GenaugError(
                f"dataset.root={self.root} has {_listed(named)}, but no train folder {flat}beside: write "
                "<root>/train/<class>/<image>."
            )
        self.leave_out_beside(named, inner, with_classes, others)
        return {split: folders[0] for split, folders in with_classes.items()}

    def leave_out_beside(
        self,
        named: Mapping[str, list[Folder]],
        inner: Mapping[str, list[Folder]],
        used: Mapping[str, list[Folder]],
        others: Sequence[Folder],
    ) -> None:
        """Count what lies beside the splits; refuse what may be classes beside a class that is called train."""
        unknown = []
        for folder in others:
            name = plain(folder.name)
            if name in ANNOTATIONS:
                self.left_out["pictures_in_annotation_folders"] += num_images(folder)
            elif UNLABELLED.fullmatch(name):
                self.left_out["unlabelled_images"] += num_images(folder)
            else:
                unknown.append(folder)
                self.left_out["images_beside_the_splits"] += num_images(folder)
        if unknown and len(named) == 1:
            raise GenaugError(
                f"dataset.root={self.root} has {_listed(named)} beside {_names(unknown)}: is it a split or a class? For a "
                f"split, move the others away; for classes write dataset.class_names=[{_all_names(named, unknown)}]."
            )
        for split, folders in inner.items():
            for folder in folders:
                if folder.images and not folder.with_images:
                    self.left_out["unlabelled_images"] += len(folder.images)
                    self.remarks.append(f"{split}: {folder.name}/ has no class folders, so its images have no labels.")

    def unwrap(self, folder: Folder, split: str) -> Folder:
        """``training_set/training_set/`` and ``train/images/`` to where the class folders are."""
        while True:
            inner = folder.with_images
            again = [f for f in inner if split_of(f.name) == split or plain(f.name) in IMAGES]
            beside = [f for f in inner if f not in again]
            if folder.images or len(again) != 1 or any(plain(f.name) not in ANNOTATIONS for f in beside):
                return folder
            if not again[0].with_images and split == "train" and split_of(again[0].name) != split:
                return folder  # train/images/*.jpg: no class folders
            self.left_out["pictures_in_annotation_folders"] += sum(map(num_images, beside))
            folder = again[0]

    def classes_of(self, folder: Folder, split: str) -> dict[str, tuple[Path, ...]]:
        """Image files by class name."""
        self.left_out["images_without_class_folder"] += len(folder.images)
        found: dict[str, list[Path]] = {}
        for child in folder.folders:
            name = nfc(child.name)
            images = list(child.every_image())
            if self.chosen is not None and name not in self.chosen:
                self.left_out["images_of_classes_not_chosen"] += len(images)
            elif images:
                found.setdefault(name, []).extend(images)
            elif endings := [reason.split("_")[0] for reason in child.every_unusable() if reason.startswith(".")]:
                raise GenaugError(
                    f"The class {name!r} ({child.path}) has no image that can be read here, only "
                    f"{', '.join(endings)} files: {reader_advice(endings)}, or remove the folder."
                )
            else:
                self.remarks.append(f"{split}: the folder {name}/ holds no image, so it is no class.")
        if self.chosen is None:
            self.refuse_doubtful(folder.with_images, folder)
        return {name: tuple(sorted(images)) for name, images in found.items()}

    def refuse_doubtful(self, children: Sequence[Folder], parent: Folder) -> None:
        """Refuse classes whose names or contents say that they are none."""
        place = parent.path.relative_to(self.root).as_posix()
        where = f"dataset.root={self.root}" + ("" if place == "." else f" ({place}/)")
        for child in children:
            inner = child.with_images
            splits = [folder for folder in inner if split_of(folder.name)]
            is_set = len(splits) > 1 or any(folder.with_images for folder in splits)
            if is_set or any(next(child.path.glob(pattern), None) for _, pattern in MARKERS):
                raise GenaugError(
                    f"{where} holds {_names(children)}, and {child.name}/ is a data set of its own: write "
                    f"dataset.root={child.path}, or dataset.class_names=[…] if these are the classes."
                )
        odd = [child for child in children if plain(child.name) in ANNOTATIONS | IMAGES]
        if odd:
            hint = self.other_layout(parent.path) or "point dataset.root at the class folders"
            raise GenaugError(
                f"{where} holds {_names(children)}: {odd[0].name}/ looks like images and annotations, not like a class. "
                f"{hint[0].upper()}{hint[1:]}; if these are the classes, write {_chosen(children)}."
            )
        deep = [child for child in children if not child.images and len(child.with_images) > 1]
        if len(deep) > 1:
            inner = deep[0].with_images
            raise GenaugError(
                f"{where}: the images of {_names(deep)} lie in further folders ({deep[0].name}/{inner[0].name}/, "
                f"{deep[0].name}/{inner[1].name}/ …). If those are the classes, write "
                f"{shlex.quote(f'dataset.root={deep[0].path}')}; if {_names(children)} are, write {_chosen(children)}."
            )

    def check_classes(self, by_split: Mapping[str, Mapping[str, tuple[Path, ...]]]) -> None:
        train = by_split["train"]
        absent = [name for name in self.chosen or () if name not in train]
        if absent:
            raise GenaugError(
                f"dataset.class_names: there is no folder {absent[0]!r} with training images, only "
                f"{', '.join(list(train)[:12]) or 'others'}."
            )
        if len(train) < 2:
            hint = self.other_layout(self.root)
            num = sum(len(images) for images in train.values()) + self.left_out["images_without_class_folder"]
            raise GenaugError(
                f"dataset.root={self.root} holds {num} image(s) in {len(train)} class folder(s). Expected "
                "<root>/<class>/<image> or <root>/train/<class>/<image> with at least two classes"
                + (f"; {hint}." if hint else ".")
            )
        for split in ("val", "test"):
            alone = {name: images for name, images in by_split.get(split, {}).items() if name not in train}
            if alone:
                name, images = next(iter(alone.items()))
                alike = next((known for known in train if plain(known) == plain(name)), None)
                reason = (
                    f", which is {alike!r} in the training split: give both folders one name"
                    if alike
                    else f" ({len(images)} images), of which there are no training images: add some, or remove it, or write "
                    "dataset.class_names=[…] with the classes to read"
                )
                raise GenaugError(f"dataset.root={self.root}: the {split} split has the class {name!r}{reason}.")

    def no_images(self, tree: Folder) -> GenaugError:
        reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in self.left_out.items())
        endings = [reason.split("_")[0] for reason in self.left_out if reason.startswith(".")]
        advice = f": {reader_advice(endings)}" if endings else ""
        hint = self.other_layout(self.root)
        return GenaugError(
            f"dataset.root={self.root} holds 0 images"
            + (f" that can be read ({reasons}){advice}" if reasons else "")
            + ". Expected <root>/<class>/<image> or <root>/train/<class>/<image>"
            + (f"; {hint}." if hint else ".")
        )

    def other_layout(self, folder: Path) -> str:
        """How to read a folder that is no tree of class folders."""
        for preset, pattern in MARKERS:
            for place in (folder, self.root):
                if next(place.glob(pattern), None) is not None:
                    return f"it looks like dataset={preset} dataset.root={place}"
        if next(self.root.rglob("*.xml"), None) is not None:
            return (
                "XML files of Pascal VOC are read with dataset=voc where each lies beside its image, in one folder or one per "
                "split, or all in Annotations/"
            )
        beside = (image.with_suffix(".txt").is_file() for image in self.tree.every_image())
        if any((self.root / name).is_dir() for name in ("labels", "train/labels")) or next(beside, False):
            return (
                "it looks like dataset=yolo, whose data.yaml is missing: write one with train: FOLDER (of images), val and "
                "test where there are such, and names: [CLASS, CLASS]"
            )
        if next(self.root.glob("*.csv"), None) is not None:
            return "labels in a table are read with dataset=table"
        return ""


def _chosen(folders: Sequence[Folder]) -> str:
    """What to write so that these are the classes, as a shell takes it."""
    names = [nfc(folder.name) for folder in folders[:20]]
    words = [
        name if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) else json.dumps(name, ensure_ascii=False)
        for name in names
    ]
    return shlex.quote(f"dataset.class_names=[{','.join(words)}]")


def _names(folders: Sequence[Folder]) -> str:
    """Folder names for a message, shortened when many."""
    shown = ", ".join(f"{folder.name}/" for folder in folders[:6])
    return shown + (f" and {len(folders) - 6} more" if len(folders) > 6 else "")


def _listed(named: Mapping[str, list[Folder]]) -> str:
    return _names([folder for folders in named.values() for folder in folders])


def _all_names(named: Mapping[str, list[Folder]], others: Sequence[Folder]) -> str:
    folders = [*(folder for folders in named.values() for folder in folders), *others]
    return ",".join(nfc(folder.name) for folder in folders[:20])
