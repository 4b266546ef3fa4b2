"""What every data set offers: fixed splits, a nested few-shot draw, and an identity that needs no pixels decoded."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import MISSING

from genaug.core.errors import GenaugError, lacks
from genaug.core.fields import bounded, count, seed
from genaug.core.identity import NOT_IDENTITY, canonical, content_by, content_digest, digest_bytes
from genaug.data.images import inspect_all, white_of
from genaug.data.sample import Dataset, Sample, check_disjoint, check_samples, without_objects
from genaug.data.sources.folder_names import nfc
from genaug.data.sources.tree import check_folder
from genaug.data.splits import few_shot, fraction_of


@dataclass(kw_only=True, slots=True)
class Source:
    """Base of all data sets."""

    name: str = field(default="", metadata=NOT_IDENTITY)
    """Shown in folders and tables."""
    image_size: int = count(32, least=8)
    """Side in pixels at which downstream models train, unless they say otherwise."""
    shots: int | None = count(None)
    """Training images per class (nested: the draw of 4 contains the draw of 2); null takes all."""
    fraction: float | None = bounded(None, 0, 1, above=True)
    """Share of the training images in (0, 1], nested likewise; null takes all. For data without one class per image."""
    seed: int = seed()
    """Seed of the few-shot draw. Follows the trial's seed."""

    identity_name: ClassVar[str]
    version: ClassVar[int] = 1
    task: ClassVar[str] = "classification"
    embedded: ClassVar[bool] = False
    """Whether the images come with the installed packages."""

    def __post_init__(self) -> None:
        if self.shots is not None and self.fraction is not None:
            raise GenaugError(
                f"dataset.shots={self.shots} and dataset.fraction={self.fraction:g} are two ways to say one thing, of which a "
                "preset may have set one: write dataset.shots=null or dataset.fraction=null."
            )

    def read(self) -> Dataset:
        """All samples with their fixed splits, before any few-shot draw."""
        raise lacks(self, "read")

    def identity(self) -> Any:
        """Everything that decides which samples a trial sees."""
        drawn = self.shots is not None or self.fraction is not None
        fields = canonical(self)
        if not drawn:
            fields.pop("seed")  # all training images are taken: every seed sees the same
        return [
            fields,
            None,
        ]  # the None was the files' content, which stands in the fields now: identities stay as they were

    def load(self) -> Dataset:
        """The data set of one trial: splits checked to be disjoint, the few-shot draw taken from them."""
        return self.draw(self.whole())

    def whole(self) -> Dataset:
        """What all trials draw from, whatever ``shots``, ``fraction`` and ``seed``."""
        found = self.read()
        if not isinstance(found, Dataset):
            raise GenaugError(
                f"The method read of dataset={self.name} returns {type(found).__name__}: return a Dataset."
            )
        dataset = with_white_points(found)
        check_samples(dataset)
        check_disjoint(dataset)  # before the draw, so that all seeds are refused or none
        if self.task == "detection" and (faults := without_objects(dataset, "train")):
            raise GenaugError(faults[0])
        return dataset

    def draw(self, dataset: Dataset) -> Dataset:
        """The data set of this trial, from what ``whole`` returned."""
        if self.shots is not None:
            dataset = few_shot(dataset, self.shots, self.seed)
        if self.fraction is not None:
            dataset = fraction_of(dataset, self.fraction, self.seed)
        return dataset


@dataclass(kw_only=True, slots=True)
class FolderSource(Source):
    """Base of data sets in a user's own folder."""

    root: str = field(default=MISSING, metadata=content_by("content"))
    """The folder. Its content counts for the identity, not its place."""

    def __post_init__(self) -> None:
        Source.__post_init__(self)
        self.name = self.name or nfc(Path(os.path.abspath(Path(self.root).expanduser())).name)

    def folder(self) -> Path:
        return check_folder(Path(self.root).expanduser().absolute(), self.root)

    def files(self) -> Iterable[Path]:
        """Annotation files and images that ``read`` reads."""
        raise lacks(self, "files")

    def content(self) -> str:
        """Hash of the names and contents of ``files``."""
        root = self.folder()
        files = sorted({path for path in self.files() if path.is_file()})
        with ThreadPoolExecutor() as threads:  # hashing waits for the disk
            digests = list(threads.map(content_digest, files))
        names = [path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name for path in files]
        return digest_bytes("\n".join(f"{n} {digest}" for n, digest in zip(names, digests, strict=True)).encode())


ALWAYS_8_BITS = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".webp")


def with_white_points(dataset: Dataset) -> Dataset:
    """The data set with one white point for all its images of more than 8 bits, which the notes state.

    A microscope's 12 bits come in files of 16: white is the least of 8, 10, 12, 14 and 16 bits (of floats 1, 255 and 65535)
    that no image of the set exceeds, so that images keep their brightness relative to each other.

    Raises:
        GenaugError: for 16-bit colour that uses only its lower bits, which Pillow does not keep.
    """
    parts = {"train": dataset.train, "val": dataset.val, "test": dataset.test, "unlabelled": dataset.unlabelled}
    paths = {s.image for part in parts.values() for s in part if isinstance(s.image, Path)}
    facts = inspect_all(path for path in paths if path.suffix.lower() not in ALWAYS_8_BITS)
    peaks: dict[str, float] = {}
    for found in facts.values():
        if found.deep:
            peaks[found.deep] = max(peaks.get(found.deep, 0.0), found.peak)
    if not peaks:
        return dataset
    whites = {kind: white_of(peak, kind == "float") for kind, peak in peaks.items()}
    if whites.get("colour", 65535) < 65535:
        example = next(path for path, found in facts.items() if found.deep == "colour")
        raise GenaugError(
            f"{dataset.name}: its images of 16 bits per colour, e.g. {example.name}, hold no value above "
            f"{whites['colour']:g}, so they would be nearly black. Save them with 8 bits per colour."
        )

    def white(sample: Sample) -> float | None:
        found = facts.get(sample.image) if isinstance(sample.image, Path) else None
        return None if found is None or found.deep in ("", "colour") else whites[found.deep]

    def with_white(samples: Sequence[Sample]) -> tuple[Sample, ...]:
        return tuple(s if (top := white(s)) is None else replace(s, white=top) for s in samples)

    notes = dict(dataset.notes)
    for kind, top in whites.items():
        if kind != "colour":
            count = sum(found.deep == kind for found in facts.values())
            notes[f"images_of_more_than_8_bits_with_white_at_{top:g}"] = count
    return replace(dataset, **{split: with_white(samples) for split, samples in parts.items()}, notes=notes)
