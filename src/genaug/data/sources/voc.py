"""Any folder in the Pascal VOC layout: Annotations/, JPEGImages/, ImageSets/Main/{train,val,trainval,test}.txt."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from genaug.core.errors import GenaugError
from genaug.core.registry import component
from genaug.data.annotations import Annotation, BoxRules, read_voc
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.detection import DetectionFiles, image_size, sample_of
from genaug.data.sources.image_folder import EXTENSIONS


@component("dataset", "voc")
@dataclass(kw_only=True, slots=True)
class Voc(DetectionFiles):
    """Boxes of VOC XML files. ``trainval.txt`` stands in for an absent ``train.txt``; without lists all splits are carved.

    Object masks come from ``SegmentationObject/`` where there is one.
    """

    class_names: Any = None
    """List of classes; null takes every name that occurs, sorted. A name outside the list is refused."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        DetectionFiles.__post_init__(self)
        if self.class_names is not None and not isinstance(self.class_names, list | tuple):
            raise GenaugError(
                f"dataset.class_names={self.class_names} is not a list: write '[cat,dog]', or null for all."
            )

    def files(self) -> Iterable[Path]:
        root = self.folder()
        for path in self._annotations().values():
            yield path
            yield self._image(root, path)
        yield from (root / "ImageSets" / "Main").glob("*.txt")

    def read(self) -> Dataset:
        root = self.folder()
        lists = self._lists()
        paths = self._annotations()
        annotations: dict[str, Annotation] = {}
        for split, names in lists.items():
            for name in names:
                if name not in paths:
                    raise GenaugError(
                        f"{root}/ImageSets/Main ({split}) lists {name}, but Annotations/{name}.xml is absent."
                    )
                annotations[name] = read_voc(paths[name])
        found = sorted({item.category for annotation in annotations.values() for item in annotation.objects})
        class_names = [str(name) for name in self.class_names] if self.class_names is not None else found
        rules = BoxRules({name: i for i, name in enumerate(class_names)})
        splits: dict[str, list[Sample]] = {}
        for split, names in lists.items():
            for name in names:
                image = self._image(root, paths[name])
                mask = root / "SegmentationObject" / f"{name}.png"
                objects = annotations[name].objects
                sample = sample_of(root, image, objects, image_size(image), rules, mask if mask.is_file() else None)
                splits.setdefault(split, []).append(sample)
        return self.dataset(class_names, splits, rules.notes)

    def _annotations(self) -> dict[str, Path]:
        paths = {path.stem: path for path in sorted((self.folder() / "Annotations").glob("*.xml"))}
        if not paths:
            raise GenaugError(
                f"dataset.root={self.root} holds no Annotations/*.xml. Expected the Pascal VOC layout: Annotations/, "
                "JPEGImages/ and, if there are fixed splits, ImageSets/Main/{train,val,test}.txt."
            )
        return paths

    def _lists(self) -> dict[str, list[str]]:
        """Image names by split."""
        folder = self.folder() / "ImageSets" / "Main"
        texts = {path.stem: path.read_text() for path in folder.glob("*.txt")} if folder.is_dir() else {}
        lists = {name: [line.split()[0] for line in text.splitlines() if line.strip()] for name, text in texts.items()}
        chosen = {split: lists[split] for split in ("train", "val", "test") if split in lists}
        if "train" not in chosen and "trainval" in lists:
            held = {name for names in chosen.values() for name in names}
            chosen["train"] = [name for name in lists["trainval"] if name not in held]
        return chosen or {"train": list(self._annotations())}

    def _image(self, root: Path, annotation: Path) -> Path:
        for folder in (root / "JPEGImages", root / "images", annotation.parent):
            for extension in sorted(EXTENSIONS):
                for suffix in (extension, extension.upper()):
                    if (path := folder / f"{annotation.stem}{suffix}").is_file():
                        return path
        raise GenaugError(f"{annotation}: there is no image {annotation.stem}.* in {root / 'JPEGImages'}.")
