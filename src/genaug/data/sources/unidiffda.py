"""The data sets that the UniDiffDA benchmark (arXiv 2603.08364) publishes already split: class folders of a training subset
and of the test."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from genaug.core.errors import GenaugError
from genaug.core.fields import choice, count
from genaug.core.registry import component
from genaug.data.sample import Dataset
from genaug.data.sources.cifar import Cifar100
from genaug.data.sources.published import Origin, Published, samples_of_files, tree_digest
from genaug.data.sources.tree import image_files

FOLDERS = {
    "caltech101": "Caltech101",
    "cifar100": "CIFAR100",
    "imagenet100": "ImageNet100",
    "blood": "Blood",
    "skin": "Skin",
}
BY_SHOTS = {"blood": (5, 25), "skin": (10, 50)}
"""Sets with a folder per number of training images of each class."""


@component("dataset", "unidiffda")
@dataclass(kw_only=True, slots=True)
class UniDiffDa(Published):
    """One of five sets: Caltech-101 (97 classes), a subset of CIFAR-100, ImageNet-100, blood cells (8 classes) or skin
    lesions (7).

    ``root`` holds the benchmark's folders: ``Caltech101/{train,test}/<class>/``, ``ImageNet100/{train,test}/<class>/``,
    ``{Blood,Skin}/shot<n>/{train,test}/<class>/``, and ``CIFAR100/train-subset/<class>/`` beside the makers'
    ``CIFAR100/cifar-100-python``, whose test images are all taken. The subset is the same for every seed, as there.
    """

    subset: str = choice("caltech101", tuple(FOLDERS))
    """Which of the five."""
    per_class: int | None = count(None)
    """Training images per class of ``blood`` (5 or 25) and ``skin`` (10 or 50): each number has its own published list."""

    origin: ClassVar[Origin] = Origin(
        title="The UniDiffDA benchmark's data",
        page="https://huggingface.co/datasets/nukezil/DiffDA-Eval",
        files="its archives (`hf download nukezil/DiffDA-Eval --repo-type dataset`)",
        licence="not stated there; each set keeps its makers' terms",
        can_download=False,
    )

    def __post_init__(self) -> None:
        Published.__post_init__(self)
        known = BY_SHOTS.get(self.subset, (None,))
        if self.per_class not in known:
            raise GenaugError(
                f"dataset.per_class={'null' if self.per_class is None else self.per_class} is not published for "
                f"dataset.subset={self.subset}: write {' or '.join('null' if n is None else str(n) for n in known)}."
            )

    @property
    def base(self) -> Path:
        folder = self.folder / FOLDERS[self.subset]
        return folder if self.per_class is None else folder / f"shot{self.per_class}"

    @property
    def train(self) -> Path:
        return self.base / ("train-subset" if self.subset == "cifar100" else "train")

    def content(self) -> Any:
        self.require(self.train)
        rest = self._cifar().content() if self.subset == "cifar100" else self._tree(self.base / "test")
        return [tree_digest(self.train), rest]

    def read(self) -> Dataset:
        self.require(self.train)
        folders = sorted(path.name for path in self.train.iterdir() if path.is_dir())
        names = [name.replace("_", " ") for name in folders]
        train = samples_of_files(self.base, self._files(self.train, folders))
        if self.subset != "cifar100":
            self.require(self.base / "test")
            return self.dataset(names, train, samples_of_files(self.base, self._files(self.base / "test", folders)))
        official = self._cifar().read()
        if list(official.class_names) != folders:
            raise GenaugError(f"{self.train} has other class folders than CIFAR-100's 100 classes. Unpack it again.")
        return self.dataset(names, train, official.test)

    def _cifar(self) -> Cifar100:
        return Cifar100(root=str(self.base), seed=0, val_fraction=0.0)

    def _tree(self, folder: Path) -> str:
        self.require(folder)
        return tree_digest(folder)

    def _files(self, folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
        unknown = sorted({path.name for path in folder.iterdir() if path.is_dir()} - set(classes))
        if unknown:
            raise GenaugError(f"{folder / unknown[0]} is a class without training images. Unpack the archive again.")
        self.require(*(folder / name for name in classes))
        return [(path, i) for i, name in enumerate(classes) for _, path in image_files(folder / name)]
