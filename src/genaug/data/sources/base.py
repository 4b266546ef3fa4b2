"""What every data set offers: fixed splits, a nested few-shot draw, and an identity that needs no pixels decoded."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from omegaconf import II

from genaug.core.errors import GenaugError
from genaug.core.identity import NOT_IDENTITY, canonical
from genaug.data.sample import Dataset, check_disjoint
from genaug.data.splits import few_shot, fraction_of


@dataclass(kw_only=True, slots=True)
class Source:
    """Base of all data sets."""

    name: str = field(default="", metadata=NOT_IDENTITY)
    """Shown in folders and tables."""
    image_size: int = 32
    """Side in pixels at which downstream models train, unless they say otherwise."""
    shots: int | None = None
    """Training images per class (nested: the draw of 4 contains the draw of 2); null takes all."""
    fraction: float | None = None
    """Share of the training images in (0, 1], nested likewise; null takes all. For data without one class per image."""
    seed: int = II("seed")
    """Seed of the few-shot draw. Follows the trial's seed."""

    version: ClassVar[int] = 1
    task: ClassVar[str] = "classification"
    embedded: ClassVar[bool] = False
    """Whether the images come with the installed packages."""

    def __post_init__(self) -> None:
        if self.shots is not None and self.shots < 1:
            raise GenaugError(f"dataset.shots={self.shots} must be at least 1, or null for all training images.")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise GenaugError(
                f"dataset.fraction={self.fraction} must lie in (0, 1], or be null for all training images."
            )
        if self.shots is not None and self.fraction is not None:
            raise GenaugError(
                "dataset.shots and dataset.fraction are two ways to say one thing: set one of them to null."
            )
        if self.image_size < 8:
            raise GenaugError(f"dataset.image_size={self.image_size} is too small: write 8 or more.")

    def read(self) -> Dataset:
        """All samples with their fixed splits, before any few-shot draw."""
        raise AssertionError(f"{type(self).__name__} does not read")

    def content(self) -> Any:
        """What the files on disk add to the identity: a digest of their content; None where the code holds the data."""
        return None

    def identity(self) -> Any:
        """Everything that decides which samples a trial sees."""
        drawn = self.shots is not None or self.fraction is not None
        fields = canonical(self)
        if not drawn:
            fields.pop("seed")  # all training images are taken: every seed sees the same
        return [fields, self.content()]

    def load(self) -> Dataset:
        """The data set of one trial: splits checked to be disjoint, the few-shot draw taken from them."""
        dataset = self.read()
        check_disjoint(dataset)  # before the draw, so that all seeds are refused or none
        if self.shots is not None:
            dataset = few_shot(dataset, self.shots, self.seed)
        if self.fraction is not None:
            dataset = fraction_of(dataset, self.fraction, self.seed)
        return dataset
