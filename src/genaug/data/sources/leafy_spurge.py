"""Leafy Spurge: drone images of grassland with and without the weed (arXiv 2405.03702), from the Hub or from
folders."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from genaug.core.errors import GenaugError
from genaug.core.fields import choice
from genaug.core.identity import NOT_IDENTITY
from genaug.core.registry import component
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.published import Origin, Published, samples_of_files, tree_digest
from genaug.data.sources.records import Export, load_hub
from genaug.data.sources.tree import image_files

NAMES = ("no spurge", "leafy spurge")
FOLDERS = {0: ("absent",), 1: ("present", "apparent")}  # of the Hub's repository, and of DA-Fusion's own data
VARIANTS = ("crop", "context")


@component("dataset", "leafy_spurge")
@dataclass(kw_only=True, slots=True)
class LeafySpurge(Published):
    """Two classes. With ``hub``, the set is read through the package ``datasets`` (extra ``hf``); without, from
    folders below ``root``: ``{crop,context}/{train,test}/{absent,present}/`` as in the Hub's repository, or
    ``{absent,apparent}/``.

    ``split=official``: the makers' train and test. ``split=reference``: DA-Fusion's, all images halved per class
    by the trial's seed (folders sorted first; the released code relies on the file system's order).
    """

    variant: str = choice("crop", VARIANTS)
    """``crop``: 39 px around the surveyed point; ``context``: 1024 px."""
    hub: bool = field(default=False, metadata=NOT_IDENTITY)
    """Read ``mpg-ranch/leafy_spurge`` from the Hub or its local cache instead of from folders."""
    revision: str | None = None
    """Commit of the Hub's repository."""
    version: ClassVar[int] = 1
    splits: ClassVar[tuple[str, ...]] = ("official", "reference")
    halves: ClassVar[bool] = True
    origin: ClassVar[Origin] = Origin(
        title="Leafy Spurge",
        page="https://huggingface.co/datasets/mpg-ranch/leafy_spurge",
        files="the folder data/ (`hf download mpg-ranch/leafy_spurge --repo-type dataset`)",
        licence="CC BY 4.0",
    )

    def __post_init__(self) -> None:
        Published.__post_init__(self)
        if self.download and not self.hub:
            raise GenaugError(
                "dataset.download=true with folders: write dataset.hub=true to have the set fetched from the Hub."
            )

    def content(self) -> Any:
        if self.hub:
            return self._export().digest
        return tree_digest(self._base())

    def read(self) -> Dataset:
        parts = self._hub_parts() if self.hub else self._folder_parts()
        if self.split == "reference":
            every = sorted((sample for part in parts.values() for sample in part), key=lambda sample: sample.id)
            return self.dataset(NAMES, every, ())
        if "test" not in parts:
            raise GenaugError(
                f"{self._base()} has no train/ and test/ folders, so the official split is unknown: "
                "write dataset.split=reference to halve each class by the trial's seed."
            )
        return self.dataset(NAMES, parts["train"], parts["test"])

    def _base(self) -> Path:
        """The folder that holds ``train``/``test``, or the class folders themselves."""
        for folder in (
            self.folder / "data" / self.variant,
            self.folder / self.variant,
            self.folder / "spurge",
            self.folder,
        ):
            if (folder / "train" / "absent").is_dir() or (folder / "absent").is_dir():
                return folder
        raise self.origin.missing(self.root, self.folder / "data" / self.variant / "train" / "absent")

    def _folder_parts(self) -> dict[str, list[Sample]]:
        base = self._base()
        splits = [split for split in ("train", "test") if (base / split).is_dir()] or [""]
        return {split or "all": samples_of_files(self.folder, list(self._files(base / split))) for split in splits}

    def _files(self, folder: Path) -> Iterator[tuple[Path, int]]:
        for label, names in FOLDERS.items():
            found = [folder / name for name in names if (folder / name).is_dir()]
            if not found:
                raise self.origin.missing(self.root, folder / names[0])
            for _, path in image_files(found[0]):
                yield path, label

    def _export(self) -> Export:
        return load_hub("mpg-ranch/leafy_spurge", self.variant, self.revision, ("train", "test"), self.folder / "hub")

    def _hub_parts(self) -> dict[str, list[Sample]]:
        """Labels by the Hub's own class names, whatever their order there."""
        export = self._export()
        names = export.names("label") or ["absent", "present"]
        position = {name: next(label for label, known in FOLDERS.items() if name in known) for name in names}
        return {
            split: samples_of_files(
                export.folder, [(path, position[names[row["label"]]]) for path, row in export.rows(split, "image")]
            )
            for split in ("train", "test")
        }
