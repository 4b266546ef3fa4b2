"""Any folder of images, class = folder: ``root/<class>/…`` or ``root/{train,val,test}/<class>/…``."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import MISSING

from genaug.core.errors import GenaugError
from genaug.core.identity import NOT_IDENTITY, content_digest
from genaug.core.registry import component
from genaug.data.images import inspect_all
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.base import Source
from genaug.data.splits import carve

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
SPLIT_NAMES = {
    "train": ("train", "train-val", "trainval", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


@component("dataset", "image_folder")
@dataclass(kw_only=True, slots=True)
class ImageFolder(Source):
    """Classification images in folders. EXIF rotation is applied; grey, palette and transparent images become RGB.

    With ``test/`` (and ``val/``) folders these are the splits. What is missing is carved from the training images, per
    class, by ``split_seed``: the same for every trial.
    """

    root: str = field(default=MISSING, metadata=NOT_IDENTITY)
    """The folder. Its content counts for the identity, not its place."""
    val_fraction: float = 0.2
    """Share of each class carved from train for validation where there is no ``val`` folder, in [0, 1)."""
    test_fraction: float = 0.25
    """Share of each class taken for the test where there is no ``test`` folder, in (0, 1)."""
    split_seed: int = 0
    """Seed of the carved splits; not the trial's seed."""
    skip_corrupt: bool = False
    """Leave unreadable images out, counted in the result's notes, instead of refusing them."""

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        Source.__post_init__(self)
        if not 0 <= self.val_fraction < 1:
            raise GenaugError(f"dataset.val_fraction={self.val_fraction} must lie in [0, 1).")
        if not 0 < self.test_fraction < 1:
            raise GenaugError(f"dataset.test_fraction={self.test_fraction} must lie in (0, 1).")

    def content(self) -> Any:
        files = list(image_files(self._folder()))
        return hashlib.sha256(
            "\n".join(f"{name} {content_digest(path)}" for name, path in _digests(files)).encode()
        ).hexdigest()[:16]

    def read(self) -> Dataset:
        root = self._folder()
        files = list(image_files(root))
        parts = {split: _first_folder(root, names) for split, names in SPLIT_NAMES.items()}
        if parts["train"] is None and any(parts.values()):
            raise GenaugError(f"dataset.root={self.root} has a val or test folder, but no train folder beside it.")
        by_split = {split: folder for split, folder in parts.items() if folder is not None} or {"train": root}
        class_names = sorted(
            {
                name.split("/")[0]
                for folder in by_split.values()
                for name, _ in image_files(folder)
                if "/" in name  # an image beside the class folders has no class
            }
        )
        if not files or len(class_names) < 2:
            raise GenaugError(
                f"dataset.root={self.root} holds {len(files)} image(s) in {len(class_names)} class folder(s). Expected "
                "<root>/<class>/<image> or <root>/train/<class>/<image> with at least two classes "
                f"({', '.join(sorted(EXTENSIONS))})."
            )
        corrupt = _corrupt(files)
        if corrupt and not self.skip_corrupt:
            name, reason = next(iter(corrupt.items()))
            raise GenaugError(
                f"{len(corrupt)} image(s) below {self.root} cannot be read, the first is {name} ({reason}). "
                "Repair or remove them, or write dataset.skip_corrupt=true to leave them out."
            )
        samples: dict[str, list[Sample]] = {split: [] for split in SPLIT_NAMES}
        index = {name: i for i, name in enumerate(class_names)}
        for split, folder in by_split.items():
            for name, path in image_files(folder):
                relative = path.relative_to(root).as_posix()
                if relative in corrupt or name.split("/")[0] not in index:
                    continue
                sample = Sample(
                    id=relative, digest=content_digest(path), image=path, label={index[name.split("/")[0]]: 1.0}
                )
                samples[split].append(sample)
        num_classes = len(class_names)
        if "test" not in by_split:
            samples["train"], samples["test"] = carve(
                samples["train"], num_classes, self.test_fraction, self.split_seed
            )
        if "val" not in by_split and self.val_fraction:
            samples["train"], samples["val"] = carve(samples["train"], num_classes, self.val_fraction, self.split_seed)
        return Dataset(
            name=self.name or root.name,
            task=self.task,
            class_names=tuple(name.replace("_", " ") for name in class_names),
            train=tuple(samples["train"]),
            val=tuple(samples["val"]),
            test=tuple(samples["test"]),
            notes={"corrupt_images_skipped": len(corrupt)} if corrupt else {},
        )

    def _folder(self) -> Path:
        root = Path(self.root).expanduser().absolute()
        if not root.is_dir():
            raise GenaugError(f"dataset.root={self.root} is not a folder.")
        return root


def _first_folder(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def image_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name relative to ``folder``, path) of every image file below it, sorted; hidden files and folders are left out."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.suffix.lower() in EXTENSIONS and not hidden and path.is_file():
            yield relative.as_posix(), path


def _digests(files: list[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Warm the digest cache from threads: hashing waits for the disk."""
    with ThreadPoolExecutor() as threads:
        list(threads.map(content_digest, (path for _, path in files)))
    return files


def _corrupt(files: list[tuple[str, Path]]) -> dict[str, str]:
    """Reason by name for each file that cannot be read as RGB."""
    facts = inspect_all(path for _, path in files)
    return {name: fault for name, path in files if (fault := facts[path].fault) is not None}
