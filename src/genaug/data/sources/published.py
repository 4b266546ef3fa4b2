"""What published data sets have in common: a root, a download that is the user's choice, named splits, and a message
for those who lack the data."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from genaug.core.errors import GenaugError
from genaug.core.fields import bounded
from genaug.core.identity import NOT_IDENTITY, canonical, content_by, content_digest, digest_bytes
from genaug.data.sample import Dataset, Sample, by_class, check_disjoint
from genaug.data.sources.base import Source
from genaug.data.splits import carve, halve


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a data set comes from."""

    title: str
    page: str
    """The official page."""
    files: str
    """What to download there."""
    licence: str
    size: str | None = None
    """Of the download; None where nobody states it."""
    can_download: bool = True
    """Whether ``dataset.download=true`` fetches it."""

    def missing(self, root: str, expected: Path) -> GenaugError:
        """The error for data that is not there: what, from where, how large, where to, under which licence."""
        size = f" ({self.size})" if self.size else ""
        choice = ", or write dataset.download=true to have it fetched there" if self.can_download else ""
        return GenaugError(
            f"{self.title} is not in dataset.root={root}: there is no {expected}. Download {self.files}{size} "
            f"from {self.page} and unpack it so that this path exists{choice}. Licence: {self.licence}."
        )


@dataclass(kw_only=True, slots=True)
class Published(Source):
    """Base of the published classification sets."""

    root: str = field(default="data", metadata=content_by("content"))
    """Folder that holds the set. Its content counts for the identity, not its place."""
    download: bool = field(default=False, metadata=NOT_IDENTITY)
    """Fetch the set into ``root`` if it is not there and its makers still serve it."""
    split: str = "official"
    """``official``: the makers' lists. ``genaug``: our own seeded stratified split, where there is no official one.
    ``reference``: that of the method's released code. Each set offers some of them; they are never mixed."""
    val_fraction: float = bounded(0.2, 0, 1, below=True)
    """Share of each class carved from train for validation where the split has no validation list, in [0, 1).
    ``split=reference`` carves nothing: the released code selects on the images that it reports."""
    split_seed: int = bounded(0, 0)
    """Seed of what is carved; not the trial's seed."""

    version: ClassVar[int] = 1
    splits: ClassVar[tuple[str, ...]] = ("official",)
    halves: ClassVar[bool] = False
    """Whether ``split=reference`` halves each class by the trial's seed."""
    origin: ClassVar[Origin]

    def __post_init__(self) -> None:
        Source.__post_init__(self)
        if self.download and not self.origin.can_download:
            raise GenaugError(
                f"dataset.download=true: {self.origin.title} is not fetched by this program. Download {self.origin.files} from "
                f"{self.origin.page} and write dataset.download=false."
            )
        if self.split not in self.splits:
            raise GenaugError(
                f"dataset.split={self.split} is not offered by {self.name or type(self).__name__}: write "
                f"{' or '.join(self.splits)}."
            )

    @property
    def folder(self) -> Path:
        return Path(self.root).expanduser().absolute()

    def content(self) -> Any:
        """What the set's files add to the identity."""
        raise AssertionError(f"{type(self).__name__} has no content")

    def require(self, *paths: Path) -> None:
        """Raise the message of ``origin`` for the first path that does not exist."""
        for path in paths:
            if not path.exists():
                raise self.origin.missing(self.root, path)

    def identity(self) -> Any:
        if self.split == "reference" and self.halves:
            return [canonical(self), None]  # each seed has its own train and validation half
        return Source.identity(self)  # by name: slots dataclasses are rebuilt, which breaks zero-argument super()

    def whole(self) -> Dataset:
        # of the halves, all images are in ``train``
        return self.read() if self.split == "reference" and self.halves else Source.whole(self)

    def draw(self, dataset: Dataset) -> Dataset:
        if not (self.split == "reference" and self.halves):
            return Source.draw(self, dataset)
        if self.fraction is not None:
            raise GenaugError("dataset.fraction does not go with dataset.split=reference: write dataset.shots=N.")
        num_classes = len(dataset.class_names)
        train, test = halve(dataset.train, num_classes, self.seed)
        if self.shots is not None:
            groups = by_class(train, num_classes)
            for name, group in zip(dataset.class_names, groups, strict=True):
                if len(group) < self.shots:
                    raise GenaugError(
                        f"dataset.shots={self.shots}, but the train half of class {name!r} has {len(group)} image(s). "
                        f"Write dataset.shots={max(len(group), 1)} or less, or null to take all."
                    )
            train = [sample for group in groups for sample in group[: self.shots]]
        drawn = drop_repeats(replace(dataset, train=tuple(train), test=tuple(test)))
        check_disjoint(drawn)
        return drawn

    def dataset(
        self,
        class_names: Sequence[str],
        train: Sequence[Sample],
        test: Sequence[Sample],
        val: Sequence[Sample] | None = None,
        unlabelled: Sequence[Sample] = (),
        notes: dict[str, int] | None = None,
    ) -> Dataset:
        """The data set; without ``val``, validation images are carved from train unless the split is the
        reference's."""
        carved = val is None and self.split != "reference" and bool(self.val_fraction)
        if carved:
            train, val = carve(train, len(class_names), self.val_fraction, self.split_seed)
        dataset = Dataset(
            name=self.name or type(self).__name__.lower(),
            task=self.task,
            class_names=tuple(class_names),
            train=tuple(train),
            val=tuple(val or ()),
            test=tuple(test),
            unlabelled=tuple(unlabelled),
            carved=("val",) if carved else (),
            notes=notes or {},
        )
        return drop_repeats(dataset)


def listing_digest(folder: Path, files: Iterable[Path]) -> str:
    """Identity of files by name and size: no picture of a set of many gigabytes is read for it."""
    lines = sorted(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in files)
    return digest_bytes("\n".join(lines).encode())


def tree_digest(folder: Path) -> str:
    """``listing_digest`` of all files below a folder."""
    return listing_digest(folder, (path for path in folder.rglob("*") if path.is_file()))


def samples_of_files(folder: Path, files: Sequence[tuple[Path, int]], by_listing: bool = False) -> list[Sample]:
    """Samples of (image file, class index); ids are paths relative to ``folder``.

    Args:
        by_listing: take an image's digest from its name and size instead of its content, for sets too large to be read
            whole at each start.
    """

    def digest(path: Path) -> str:
        if by_listing:
            return digest_bytes(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}".encode())
        return content_digest(path)

    with ThreadPoolExecutor() as threads:  # hashing waits for the disk
        digests = list(threads.map(digest, (path for path, _ in files)))
    return [
        Sample(id=path.relative_to(folder).as_posix(), digest=value, image=path, label={label: 1.0})
        for (path, label), value in zip(files, digests, strict=True)
    ]


def drop_repeats(dataset: Dataset) -> Dataset:
    """Without the images of ``train`` that are, byte for byte, also in ``val`` or ``test``, and those of ``val`` that are
    also in ``test``; their numbers go into the notes."""
    test = {sample.digest for sample in dataset.test}
    val = tuple(sample for sample in dataset.val if sample.digest not in test)
    held_out = test | {sample.digest for sample in dataset.val}
    train = tuple(sample for sample in dataset.train if sample.digest not in held_out)
    dropped = {
        "train_images_repeated_in_val_or_test_dropped": len(dataset.train) - len(train),
        "val_images_repeated_in_test_dropped": len(dataset.val) - len(val),
    }
    notes = dataset.notes | {note: count for note, count in dropped.items() if count}
    return replace(dataset, train=train, val=val, notes=notes)


def unique_names(names: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """Stripped names; a name that occurred before gets its suffix in brackets, since a pool stores classes by name."""
    result: list[str] = []
    for name, suffix in zip((n.strip() for n in names), suffixes, strict=True):
        result.append(f"{name} ({suffix})" if name in result else name)
    return result
