"""Any COCO instances JSON, whatever folder its images are in."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from genaug.core.errors import GenaugError
from genaug.core.registry import component
from genaug.data.annotations import Annotation, BoxRules, object_mask, read_coco
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.detection import DetectionFiles, sample_of

SPLITS = ("train", "val", "test")
MASK_LIMIT = 2**32  # bytes of decoded training masks


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
    """Decode the training images' object masks (one byte per pixel in memory), for generators that keep or edit
    objects."""

    version: ClassVar[int] = 1

    def files(self) -> Iterable[Path]:
        for split, path in self._json_files().items():
            yield path
            for annotation in read_coco(path)[1]:
                yield self._image(split, path, annotation)

    def read(self) -> Dataset:
        root = self.folder()
        parsed = {split: (path, *read_coco(path)) for split, path in self._json_files().items()}
        class_names = list(parsed["train"][1]) if "train" in parsed else []
        rules = BoxRules({name: i for i, name in enumerate(class_names)})
        splits: dict[str, list[Sample]] = {}
        for split, (path, _, annotations) in parsed.items():
            if self.masks and split == "train":
                self._check_memory(annotations)
            for annotation in annotations:
                image = self._image(split, path, annotation)
                size = (annotation.width, annotation.height)
                if min(size) < 1:
                    raise GenaugError(
                        f"{path}: the image {annotation.file_name} has width {size[0]} and height {size[1]}."
                    )
                mask = object_mask(annotation.objects, *size) if self.masks and split == "train" else None
                splits.setdefault(split, []).append(sample_of(root, image, annotation.objects, size, rules, mask))
        return self.dataset(class_names, splits, rules.notes)

    def _check_memory(self, annotations: list[Annotation]) -> None:
        total = sum(annotation.width * annotation.height for annotation in annotations)
        if total > MASK_LIMIT:
            raise GenaugError(
                f"The masks of {len(annotations)} training images would take {total / 2**30:.0f} GB of memory. "
                "Write dataset.masks=false: boxes alone are enough unless a generator edits or keeps objects by mask."
            )

    def _json_files(self) -> dict[str, Path]:
        root = self.folder()
        found: dict[str, Path] = {}
        for split in SPLITS:
            named = getattr(self, f"{split}_json")
            if named is not None:
                if not (root / named).is_file():
                    raise GenaugError(f"dataset.{split}_json={named} is not a file below dataset.root={self.root}.")
                found[split] = root / named
                continue
            folders = [folder for folder in (root, root / "annotations", root / "coco") if folder.is_dir()]
            options = [path for folder in folders for path in sorted(folder.glob(f"instances_{split}*.json"))]
            aliases = {"val": ("val", "valid", "validation")}.get(split, (split,))
            options += [path for alias in aliases if (path := root / alias / "_annotations.coco.json").is_file()]
            if options:
                found[split] = options[0]
        if not found:
            raise GenaugError(
                f"dataset.root={self.root} holds no instances_train*.json (looked in it, annotations/ and coco/) and no "
                "train/_annotations.coco.json. Name the file: dataset.train_json=FILE."
            )
        return found

    def _image(self, split: str, json_path: Path, annotation: Annotation) -> Path:
        root = self.folder()
        if self.image_dir is not None:
            folders = [root / self.image_dir]
        else:
            folders = [json_path.parent, root, root / "images", root / "JPEGImages"]
            folders += [
                parent / name
                for parent in (root, root / "images")
                for name in (split, json_path.stem.partition("_")[2])
            ]
        for folder in folders:
            if (path := folder / annotation.file_name).is_file():
                return path
        looked = ", ".join(str(folder) for folder in folders)
        raise GenaugError(
            f"{json_path}: the image {annotation.file_name} is in none of {looked}. Write dataset.image_dir=FOLDER."
        )
