"""Data sets read by torchvision's own loaders: Caltech-101, Flowers-102, FGVC-Aircraft, Stanford Cars, Oxford-IIIT
Pets, EuroSAT and STL-10.

Each class says which file layout below ``dataset.root`` it expects; torchvision checks it and, where the makers still
serve the set, fetches it (``dataset.download=true``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from genaug.core.errors import boundary
from genaug.core.fields import bounded, choice, count
from genaug.core.registry import component
from genaug.data.sample import Dataset, Sample, by_class
from genaug.data.sources.cifar import array_samples
from genaug.data.sources.published import Origin, Published, samples_of_files, tree_digest
from genaug.data.splits import carve


@dataclass(kw_only=True, slots=True)
class TorchvisionSet(Published):
    """Base: turns torchvision's "dataset not found" into ours."""

    base: ClassVar[str]
    """Folder below ``root`` that torchvision expects."""

    def content(self) -> Any:
        if self.download and not (self.folder / self.base).is_dir():
            self.read()  # fetches it
        self.require(self.folder / self.base)
        return tree_digest(self.folder / self.base)

    def open(self, loader: Callable[..., Any], **arguments: Any) -> Any:
        """``loader(root, download=..., **arguments)``."""
        self.folder.mkdir(parents=True, exist_ok=True) if self.download else self.require(self.folder / self.base)
        missing = str(self.origin.missing(self.root, self.folder / self.base))
        with boundary(f"torchvision cannot read {self.folder / self.base}", missing):
            return loader(self.folder, download=self.download, **arguments)

    def files(self, paths: Sequence[str | Path], labels: Sequence[int]) -> list[Sample]:
        """Samples of image files by content."""
        found = [(Path(path), int(label)) for path, label in zip(paths, labels, strict=True)]
        self.require(*(path for path, _ in found))
        return samples_of_files(self.folder, found)


@component("dataset", "caltech101")
@dataclass(kw_only=True, slots=True)
class Caltech101(TorchvisionSet):
    """There is no official split. ``split=genaug``: 101 classes without the background, ``train_per_class`` training
    images per class (3,030 in all, as DreamDA's total implies), the rest is the test. ``split=reference``:
    DA-Fusion's 102 classes with ``background google``, each halved by the trial's seed."""

    split: str = "genaug"
    train_per_class: int = count(30)
    """Training images per class of ``split=genaug``, validation images included."""

    splits: ClassVar[tuple[str, ...]] = ("genaug", "reference")
    halves: ClassVar[bool] = True
    base: ClassVar[str] = "caltech101"
    origin: ClassVar[Origin] = Origin(
        title="Caltech-101",
        page="https://data.caltech.edu/records/mzrjq-6wc02",
        files="caltech-101.zip (unpack the archive 101_ObjectCategories.tar.gz inside it too)",
        size="0.14 GB",
        licence="CC BY 4.0",
    )

    def read(self) -> Dataset:
        from torchvision.datasets import Caltech101 as Loader

        loader = self.open(Loader)
        categories = list(loader.categories)
        if self.split == "reference":
            categories = sorted((*categories, "BACKGROUND_Google"), key=str.lower)
        objects = Path(loader.root) / "101_ObjectCategories"
        self.require(*(objects / category for category in categories))
        found = [
            (path, i) for i, category in enumerate(categories) for path in sorted((objects / category).glob("*.jpg"))
        ]
        samples = self.files([path for path, _ in found], [label for _, label in found])
        names = [category.replace("_", " ").lower() for category in categories]
        if self.split == "reference":
            return self.dataset(names, samples, ())
        rng = np.random.default_rng(self.split_seed)
        train, test = [], []
        for group in by_class(samples, len(names)):
            order = [group[i] for i in rng.permutation(len(group))]
            train += order[: self.train_per_class]
            test += order[self.train_per_class :]
        return self.dataset(names, sorted(train, key=_id), sorted(test, key=_id))


@component("dataset", "flowers102")
@dataclass(kw_only=True, slots=True)
class Flowers102(TorchvisionSet):
    """102 classes. ``split=official``: 1,020 training, 1,020 validation and 6,149 test images. ``split=reference``:
    DA-Fusion's, all images halved per class by the trial's seed."""

    splits: ClassVar[tuple[str, ...]] = ("official", "reference")
    halves: ClassVar[bool] = True
    base: ClassVar[str] = "flowers-102"
    origin: ClassVar[Origin] = Origin(
        title="Oxford Flowers 102",
        page="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        files="102flowers.tgz, imagelabels.mat and setid.mat",
        size="0.34 GB",
        licence="not stated by its makers",
    )

    def read(self) -> Dataset:
        from torchvision.datasets import Flowers102 as Loader

        parts = {}
        for split in ("train", "val", "test"):
            loader = self.open(Loader, split=split)
            parts[split] = self.files(loader._image_files, loader._labels)
        if self.split == "reference":
            every = sorted((*parts["train"], *parts["val"], *parts["test"]), key=_id)
            return self.dataset(Loader.classes, every, ())
        return self.dataset(Loader.classes, parts["train"], parts["test"], parts["val"])


@component("dataset", "fgvc_aircraft")
@dataclass(kw_only=True, slots=True)
class FgvcAircraft(TorchvisionSet):
    """100 variants (or 70 families, 30 manufacturers) with the official lists: 3,334 training, 3,333 validation and
    3,333 test images. DA-Fusion's split was never released."""

    level: str = choice("variant", ("variant", "family", "manufacturer"))
    """``variant``, ``family`` or ``manufacturer``."""

    base: ClassVar[str] = "fgvc-aircraft-2013b"
    origin: ClassVar[Origin] = Origin(
        title="FGVC-Aircraft",
        page="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
        files="fgvc-aircraft-2013b.tar.gz",
        size="2.75 GB",
        licence="non-commercial research only; the photographers keep the copyright",
    )

    def read(self) -> Dataset:
        from torchvision.datasets import FGVCAircraft as Loader

        loaders = {
            split: self.open(Loader, split=split, annotation_level=self.level) for split in ("train", "val", "test")
        }
        parts = {split: self.files(loader._image_files, loader._labels) for split, loader in loaders.items()}
        return self.dataset(loaders["train"].classes, parts["train"], parts["test"], parts["val"])


@component("dataset", "stanford_cars")
@dataclass(kw_only=True, slots=True)
class StanfordCars(TorchvisionSet):
    """196 classes with the official lists, 8,144 training and 8,041 test images; validation is carved from train.
    DA-Fusion's split was never released."""

    base: ClassVar[str] = "stanford_cars"
    origin: ClassVar[Origin] = Origin(
        title="Stanford Cars",
        page="https://ai.stanford.edu/~jkrause/cars/car_dataset.html (gone; issue 7545 of pytorch/vision lists copies)",
        files="cars_train.tgz, cars_test.tgz, car_devkit.tgz (as devkit/) and cars_test_annos_withlabels.mat",
        size="2.0 GB",
        licence="not known: the makers' page, which stated it, is gone",
        can_download=False,
    )

    def read(self) -> Dataset:
        from torchvision.datasets import StanfordCars as Loader

        loaders = {split: self.open(Loader, split=split) for split in ("train", "test")}
        parts = {split: self.files(*zip(*loader._samples, strict=True)) for split, loader in loaders.items()}
        return self.dataset(loaders["train"].classes, parts["train"], parts["test"])


@component("dataset", "oxford_pets")
@dataclass(kw_only=True, slots=True)
class OxfordPets(TorchvisionSet):
    """37 breeds with the official lists, 3,680 trainval and 3,669 test images; validation is carved from trainval.
    GIF's split (the first 52 % of an unsorted listing) depends on the file system and is not offered."""

    base: ClassVar[str] = "oxford-iiit-pet"
    origin: ClassVar[Origin] = Origin(
        title="Oxford-IIIT Pet",
        page="https://www.robots.ox.ac.uk/~vgg/data/pets/",
        files="images.tar.gz and annotations.tar.gz",
        size="0.8 GB",
        licence="CC BY-SA 4.0",
    )

    def read(self) -> Dataset:
        from torchvision.datasets import OxfordIIITPet as Loader

        train, test = self.open(Loader, split="trainval"), self.open(Loader, split="test")
        return self.dataset(
            train.classes, self.files(train._images, train._labels), self.files(test._images, test._labels)
        )


@component("dataset", "eurosat")
@dataclass(kw_only=True, slots=True)
class EuroSat(TorchvisionSet):
    """10 land uses, 27,000 satellite images of 64 px. There is no official split: ``test_fraction`` of each class is
    the test by ``split_seed``."""

    split: str = "genaug"
    test_fraction: float = bounded(0.2, 0, 1, above=True, below=True)
    """Share of each class taken for the test, in (0, 1); 0.2 as in the makers' paper (80/20)."""

    splits: ClassVar[tuple[str, ...]] = ("genaug",)
    base: ClassVar[str] = "eurosat"
    origin: ClassVar[Origin] = Origin(
        title="EuroSAT (RGB)",
        page="https://github.com/phelber/EuroSAT",
        files="EuroSAT.zip (or EuroSAT_RGB.zip of Zenodo record 7711810, its folder renamed to 2750)",
        size="0.09 GB",
        licence="MIT",
    )

    def read(self) -> Dataset:
        from torchvision.datasets import EuroSAT as Loader

        loader = self.open(Loader)
        samples = self.files([path for path, _ in loader.samples], [label for _, label in loader.samples])
        train, test = carve(samples, len(loader.classes), self.test_fraction, self.split_seed)
        return self.dataset([_spaced(name) for name in loader.classes], train, test)


@component("dataset", "stl10")
@dataclass(kw_only=True, slots=True)
class Stl10(TorchvisionSet):
    """10 classes of 96 px: 5,000 training (validation is carved from them), 8,000 test and 100,000 unlabelled
    images, in memory (3.1 GB with the unlabelled part). ``fold`` takes one of the ten official folds of 1,000
    training images."""

    unlabelled: bool = True
    """Load the unlabelled part."""
    fold: int | None = bounded(None, 0, 9)
    """0 … 9: one of the official folds; null takes all training images."""

    base: ClassVar[str] = "stl10_binary"
    origin: ClassVar[Origin] = Origin(
        title="STL-10",
        page="https://cs.stanford.edu/~acoates/stl10/",
        files="stl10_binary.tar.gz",
        size="2.6 GB",
        licence="not stated by its makers; the images come from ImageNet (non-commercial research only)",
    )

    def read(self) -> Dataset:
        from torchvision.datasets import STL10 as Loader

        train, test = self.open(Loader, split="train", folds=self.fold), self.open(Loader, split="test")
        unlabelled = (
            self.open(Loader, split="unlabeled").data if self.unlabelled else np.empty((0, 3, 96, 96), np.uint8)
        )
        return self.dataset(
            train.classes,
            array_samples("train", train.data.transpose(0, 2, 3, 1), train.labels),
            array_samples("test", test.data.transpose(0, 2, 3, 1), test.labels),
            unlabelled=array_samples("unlabelled", unlabelled.transpose(0, 2, 3, 1), None),
        )


def _id(sample: Sample) -> str:
    return sample.id


def _spaced(name: str) -> str:
    """``AnnualCrop`` to ``annual crop``."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()
