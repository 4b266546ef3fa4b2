"""CIFAR-10 and CIFAR-100 from the makers' Python batches.

The batches are pickles, and a pickle can run any code. They are read by an unpickler that builds arrays, texts, numbers and
containers of them, and refuses everything else.
"""

import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from genaug.core.errors import GenaugError, boundary
from genaug.core.fields import choice
from genaug.core.identity import digest_bytes
from genaug.core.registry import component
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.published import Origin, Published, tree_digest


@dataclass(kw_only=True, slots=True)
class Cifar(Published):
    """Base: pictures of 32 px in batches of rows."""

    base: ClassVar[str]
    """Folder below ``root``."""
    batches: ClassVar[dict[str, tuple[str, ...]]]
    """Files of the training and of the test images."""
    meta: ClassVar[str]
    """File with the class names."""
    archive: ClassVar[tuple[str, str]]
    """Address of the archive, and its MD5 sum."""

    def content(self) -> Any:
        if self.download and not (self.folder / self.base).is_dir():
            from torchvision.datasets.utils import download_and_extract_archive

            address, md5 = self.archive
            with boundary(f"{address} cannot be fetched", str(self.origin.missing(self.root, self.folder / self.base))):
                download_and_extract_archive(address, self.folder, md5=md5)
        self.require(self.folder / self.base)
        return tree_digest(self.folder / self.base)

    def read(self) -> Dataset:
        self.content()
        labels, names = self.columns()
        parts = {split: self.samples(split, files, labels) for split, files in self.batches.items()}
        return self.dataset(self.batch(self.meta)[names], parts["train"], parts["test"])

    def columns(self) -> tuple[str, str]:
        """Keys of the classes in a batch, and of their names in ``meta``."""
        return "labels", "label_names"

    def samples(self, split: str, files: Iterable[str], labels: str) -> list[Sample]:
        images, classes = [], []
        for name in files:
            batch = self.batch(name)
            with boundary(f"{self.folder / self.base / name} is no batch of {self.origin.title}", "Unpack it again."):
                images.append(np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
                classes += [int(value) for value in batch[labels]]
        return array_samples(split, np.concatenate(images), classes)

    def batch(self, name: str) -> dict[str, Any]:
        path = self.folder / self.base / name
        self.require(path)
        return read_pickle(path)


@component("dataset", "cifar10")
@dataclass(kw_only=True, slots=True)
class Cifar10(Cifar):
    """10 classes of 32 px with the official lists: 50,000 training (validation is carved from them) and 10,000 test
    images."""

    base: ClassVar[str] = "cifar-10-batches-py"
    batches: ClassVar[dict[str, tuple[str, ...]]] = {
        "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
        "test": ("test_batch",),
    }
    meta: ClassVar[str] = "batches.meta"
    archive: ClassVar[tuple[str, str]] = (
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
    )
    origin: ClassVar[Origin] = Origin(
        title="CIFAR-10",
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
        files="cifar-10-python.tar.gz",
        size="0.17 GB",
        licence="not stated by its makers; citation asked for",
    )


@component("dataset", "cifar100")
@dataclass(kw_only=True, slots=True)
class Cifar100(Cifar):
    """100 classes of 32 px (or the 20 superclasses) with the official lists: 50,000 training (validation is carved from
    them) and 10,000 test images."""

    level: str = choice("fine", ("fine", "coarse"))
    """``fine``: 100 classes; ``coarse``: 20 superclasses."""

    base: ClassVar[str] = "cifar-100-python"
    batches: ClassVar[dict[str, tuple[str, ...]]] = {"train": ("train",), "test": ("test",)}
    meta: ClassVar[str] = "meta"
    archive: ClassVar[tuple[str, str]] = (
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
    )
    origin: ClassVar[Origin] = Origin(
        title="CIFAR-100",
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
        files="cifar-100-python.tar.gz",
        size="0.17 GB",
        licence="not stated by its makers; citation asked for",
    )

    def columns(self) -> tuple[str, str]:
        return f"{self.level}_labels", f"{self.level}_label_names"


def array_samples(prefix: str, images: np.ndarray, labels: Sequence[int] | None) -> list[Sample]:
    """Samples of uint8 [n, h, w, 3]; without labels they are unlabelled."""
    return [
        Sample(
            id=f"{prefix}/{i:06d}",
            digest=digest_bytes(np.ascontiguousarray(image).tobytes()),
            image=image,
            label={} if labels is None else {int(labels[i]): 1.0},
        )
        for i, image in enumerate(images)
    ]


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes as pickles of Python 2's protocol write them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding}")
    return text.encode("latin1")


def _array(kind: type, shape: tuple[int, ...], code: bytes) -> np.ndarray:
    """An empty array, which the pickle's next words fill."""
    return np.ndarray.__new__(np.ndarray, shape, np.dtype(code.decode()))


ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}
"""All that a batch may name."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return ADMITTED[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """A pickled dictionary of arrays, texts, numbers and lists; nothing that the file names is run.

    Raises:
        GenaugError: for a file that holds anything else.
    """
    with boundary(f"{path} is not read: it is no batch of arrays", "Fetch the data set again from its makers' page."):
        with path.open("rb") as file:
            found = _Unpickler(file, encoding="latin1").load()
        if not isinstance(found, dict):
            raise GenaugError(f"{path} holds a {type(found).__name__}, not a dictionary. Fetch the data set again.")
        return found
