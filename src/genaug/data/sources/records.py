"""Data sets that come as records (Hub rows, tar shards), written out once as image files.

Generators, training and galleries read single images in any order, which records do not allow. The folder of an
export is named by what was exported, is published whole by a rename under a lock, and holds the images' own bytes, one
``rows.jsonl`` per split and, written last, ``export.json`` with the number of rows.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from genaug.core.errors import GenaugError, boundary
from genaug.core.fields import bounded
from genaug.core.files import read_json, write_json
from genaug.core.identity import NOT_IDENTITY, fingerprint
from genaug.core.store import HASH, Store, file_hash
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.base import Source
from genaug.data.sources.published import drop_repeats
from genaug.data.splits import carve

Record = tuple[dict[str, bytes], dict[str, Any]]
"""Image bytes by column, and the other columns as JSON values."""

SIGNATURES = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"RIFF": "webp",
    b"II*\x00": "tif",
}


@dataclass(frozen=True, slots=True)
class Export:
    """A finished export."""

    folder: Path

    @property
    def digest(self) -> str:
        """Identity: what was exported, not where."""
        return self.folder.name.rpartition("-")[2]

    def names(self, column: str) -> list[str] | None:
        """Class names of a label column, where the records state them."""
        return read_json(self.folder / "export.json")["names"].get(column)

    def rows(self, split: str, column: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """(image file of ``column``, other columns) of each record of a split, in order."""
        for line in (self.folder / split / "rows.jsonl").read_text().splitlines():
            row = json.loads(line)
            if column not in row["images"]:
                raise GenaugError(
                    f"The records have no image column {column!r}, only {', '.join(row['images']) or 'none'}."
                )
            yield self.folder / split / row["images"][column], row["values"]


def export(
    folder: Path, title: str, identity: Any, splits: Mapping[str, Iterable[Record]], names: dict[str, list[str]]
) -> Export:
    """Write records below ``folder``, unless a whole export with this identity is there already."""
    digest = fingerprint(identity)
    final = folder / f"{title}-{digest}"
    if _complete(final):
        return Export(final)
    with Store(folder).lock(digest):
        if _complete(final):  # another process wrote it meanwhile
            return Export(final)
        work = final.with_name(f".{final.name}.partial")
        shutil.rmtree(work, ignore_errors=True)
        num_rows = {split: _write(work / split, records) for split, records in splits.items()}
        hashes = {split: file_hash(work / split / "rows.jsonl") for split in splits}
        write_json(work / "export.json", {"names": names, "num_rows": num_rows, HASH: hashes})
        if final.exists():  # present but incomplete
            shutil.rmtree(final)
        work.rename(final)
    return Export(final)


def _write(folder: Path, records: Iterable[Record]) -> int:
    """Write one split; returns its number of rows."""
    folder.mkdir(parents=True)
    count = 0
    with (folder / "rows.jsonl").open("w") as rows:
        for images, values in records:
            files = {}
            for column, data in images.items():
                files[column] = f"{count:07d}_{column}.{_suffix(data)}"
                (folder / files[column]).write_bytes(data)
            rows.write(json.dumps({"images": files, "values": values}) + "\n")
            count += 1
    return count


def _complete(folder: Path) -> bool:
    """Whether every split has the rows that were written; exports of earlier versions have their number alone."""
    about = read_json(folder / "export.json", {"names": dict, "num_rows": dict})
    if about is None:
        return False
    for split, expected in about["num_rows"].items():
        rows = folder / split / "rows.jsonl"
        if not rows.is_file() or len(rows.read_bytes().splitlines()) != expected:
            return False
        if HASH in about and about[HASH].get(split) != file_hash(rows):
            return False
    return True


@dataclass(kw_only=True, slots=True)
class RecordSource(Source):
    """Base of data sets that are written out once and then read as image files."""

    val_fraction: float = bounded(0.2, 0, 1, below=True)
    """Share of the training images carved for validation where there is no validation split, in [0, 1)."""
    test_fraction: float = bounded(0.25, 0, 1, above=True, below=True)
    """Share of the training images taken for the test where there is no test split, in (0, 1)."""
    split_seed: int = bounded(0, 0)
    """Seed of what is carved; not the trial's seed."""
    cache_dir: str = field(default="~/.cache/genaug", metadata=NOT_IDENTITY)
    """Folder of the written images."""

    version: ClassVar[int] = 1

    def content(self) -> str:
        """What was exported, whatever it is called."""
        return self.exported().digest

    def exported(self) -> Export:
        """The images on disk, written now if they are not there yet."""
        raise AssertionError(f"{type(self).__name__} exports nothing")

    def carve(self, samples: list[Sample], num_classes: int, fraction: float) -> tuple[list[Sample], list[Sample]]:
        """(kept, carved), a share of each class."""
        return carve(samples, num_classes, fraction, self.split_seed)

    def assemble(
        self, title: str, class_names: Sequence[str], parts: Mapping[str, list[Sample]], notes: Mapping[str, int] = {}
    ) -> Dataset:
        """The data set of its ``train``, ``val`` and ``test`` samples; a split that is missing is carved from train."""
        splits = dict(parts)
        carved = tuple(split for split in ("val", "test") if split not in splits)
        for split, fraction in (("test", self.test_fraction), ("val", self.val_fraction)):
            if split in carved:
                splits["train"], splits[split] = self.carve(splits["train"], len(class_names), fraction)
        return drop_repeats(
            Dataset(
                name=self.name or title,
                task=self.task,
                class_names=tuple(class_names),
                train=tuple(splits["train"]),
                val=tuple(splits["val"]),
                test=tuple(splits["test"]),
                carved=carved,
                notes=dict(notes),
            )
        )


def load_hub(path: str, config: str | None, revision: str | None, splits: Sequence[str], folder: Path) -> Export:
    """An export of splits of a Hub data set, through ``datasets`` and its cache.

    Raises:
        GenaugError: if ``datasets`` is not installed, or the set is neither cached nor reachable.
    """
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise GenaugError('Hub data sets are read by the package datasets: pip install "genaug[hf]".') from error
    with boundary(
        f"The Hub data set {path} (config {config}, splits {', '.join(splits)}) is not in the local cache and was not fetched",
        f"On a machine with network run `hf download {path} --repo-type dataset`, correct its name, config or split names, or "
        "read a local copy.",
    ):
        loaded = {split: datasets.load_dataset(path, config, split=split, revision=revision) for split in splits}
    for split, one in loaded.items():
        for column in (name for name, feature in one.features.items() if _is_packed(feature)):
            loaded[split] = loaded[split].cast_column(column, datasets.Image())
    names: dict[str, list[str]] = {}
    for column, feature in next(iter(loaded.values())).features.items():
        inner = getattr(feature, "feature", feature)
        for name, part in inner.items() if isinstance(inner, dict) else ((None, inner),):
            part = getattr(part, "feature", part)
            if isinstance(part, datasets.ClassLabel):
                names[column if name is None else f"{column}.{name}"] = list(part.names)
    fingerprints = {
        split: one._fingerprint for split, one in loaded.items()
    }  # of the cached files' content and revision
    records = {split: _hub_records(one) for split, one in loaded.items()}
    return export(folder, path.replace("/", "--"), [path, config, revision, fingerprints], records, names)


def _hub_records(loaded: Any) -> Iterator[Record]:
    import datasets  # pyright: ignore[reportMissingImports]

    columns = [name for name, feature in loaded.features.items() if isinstance(feature, datasets.Image)]
    for column in columns:
        loaded = loaded.cast_column(column, datasets.Image(decode=False))
    for row in loaded:
        images = {}
        for column in columns:
            value = row.pop(column)
            images[column] = value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()
        yield images, _plain(row)


def _is_packed(feature: Any) -> bool:
    """Whether a column holds files' bytes that nobody declared to be images: such are written with pandas, say."""
    packed = feature.get("bytes") if isinstance(feature, dict) else feature
    return getattr(packed, "dtype", None) in ("binary", "large_binary")


def _plain(value: Any) -> Any:
    """JSON-ready: what is neither number, text nor a container of them (dates, sound …) becomes text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _suffix(data: bytes) -> str:
    return next((suffix for start, suffix in SIGNATURES.items() if data.startswith(start)), "img")
