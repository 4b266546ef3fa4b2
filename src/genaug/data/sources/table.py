"""Images with their classes in a table: CSV, TSV, Parquet, or the Hub's ``imagefolder`` convention (``metadata.jsonl``)."""

import csv
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from genaug.core.errors import GenaugError, boundary
from genaug.core.fields import bounded
from genaug.core.identity import content_digest
from genaug.core.registry import component
from genaug.data.annotations import read_text
from genaug.data.images import check_readable, extensions, inspect_all
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.base import FolderSource
from genaug.data.sources.folder_names import split_of
from genaug.data.sources.hub import class_index
from genaug.data.sources.tree import walk
from genaug.data.splits import carve

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
IMAGE = ("file_name", "filename", "image", "image_path", "path", "file", "image_id", "id")
LABEL = ("label", "class", "category", "class_name", "target", "breed", "species", "diagnosis")
SPLIT = ("split", "set", "subset", "partition")
"""Names that columns usually have, in lower case."""


@component("dataset", "table")
@dataclass(kw_only=True, slots=True)
class ImageTable(FolderSource):
    """Classification images whose classes stand in a table: one for all, or one per split in ``train/``, ``test/`` … .

    Columns are found by their usual names. A split that no table and no column names is carved from the training images.
    """

    table: str | None = None
    """The table, relative to the root; null looks for metadata.jsonl, labels.csv, train.csv or the only table there."""
    image: str | None = None
    """Column of the image files, relative to the table's folder or to ``image_dir``, with or without their ending."""
    label: str | None = None
    """Column of the classes."""
    split: str | None = None
    """Column that says train, val or test; null uses one called so where there is one."""
    image_dir: str | None = None
    """Folder of the images, relative to the root; null looks beside the table, in images/ and in train/."""
    val_fraction: float = bounded(0.2, 0, 1, below=True)
    """Share of each class carved from train for validation where nothing names one, in [0, 1)."""
    test_fraction: float = bounded(0.25, 0, 1, above=True, below=True)
    """Share of each class taken for the test where nothing names one, in (0, 1)."""
    split_seed: int = bounded(0, 0)
    """Seed of the carved splits; not the trial's seed."""

    version: ClassVar[int] = 1

    def files(self) -> Iterable[Path]:
        yield from self._tables().values()
        yield from (path for rows in self._rows().values() for path, _, _ in rows)

    def read(self) -> Dataset:
        root, rows = self.folder(), self._rows()
        column = f"dataset.label={self.label or 'found by its name'}"
        names, index = class_index(None, [(v, w) for part in rows.values() for _, v, w in part], column)
        every = Counter(path for part in rows.values() for path, _, _ in part)
        twice = next((path for path, number in every.items() if number > 1), None)
        if twice is not None:
            raise GenaugError(f"{twice} stands in {every[twice]} rows: an image has one class. Leave one row.")
        check_readable(inspect_all(every))
        samples = {
            split: [
                Sample(
                    id=path.relative_to(root).as_posix(),
                    digest=content_digest(path),
                    image=path,
                    label={index[value]: 1.0},
                )
                for path, value, _ in part
            ]
            for split, part in rows.items()
        }
        if not samples.get("train") or len(names) < 2:
            raise GenaugError(
                f"dataset.root={self.root}: {len(samples.get('train', []))} training images in {len(names)} class(es) are too "
                "few. Name the columns with dataset.label and dataset.split."
            )
        carved = tuple(split for split in ("val", "test") if split not in samples)
        for split, fraction in (("test", self.test_fraction), ("val", self.val_fraction)):
            if split in carved:
                samples["train"], samples[split] = carve(samples["train"], len(names), fraction, self.split_seed)
        tree = walk(root)
        left_out = tree.every_unusable()
        left_out["images_in_no_row"] = sum(path not in every for path in tree.every_image())
        return Dataset(
            name=self.name,
            task=self.task,
            class_names=tuple(name.replace("_", " ") for name in names),
            train=tuple(samples["train"]),
            val=tuple(samples["val"]),
            test=tuple(samples["test"]),
            carved=carved,
            notes={reason: number for reason, number in left_out.items() if number},
        )

    def _tables(self) -> dict[str, Path]:
        """Tables by split; one for all stands under ``train``."""
        root = self.folder()
        if self.table is not None:
            if not (root / self.table).is_file():
                raise GenaugError(f"dataset.table={self.table} is not a file below dataset.root={self.root}.")
            return {"train": root / self.table}
        by_split = {
            split: folder / name
            for folder in sorted(path for path in root.iterdir() if path.is_dir())
            for name in ("metadata.jsonl", "metadata.csv", "metadata.parquet")
            if (split := split_of(folder.name)) in ("train", "val", "test") and (folder / name).is_file()
        }
        if "train" in by_split:
            return by_split
        found = [path for path in sorted(root.iterdir()) if path.suffix.lower() in SUFFIXES]
        named = [path for path in found if path.stem.lower() in ("metadata", "labels", "train")] or found
        if len(named) != 1:
            listed = ", ".join(path.name for path in named) or "no table"
            raise GenaugError(
                f"dataset.root={self.root} holds {listed}: name the table of the classes with dataset.table=FILE "
                f"({', '.join(SUFFIXES)})."
            )
        return {"train": named[0]}

    def _rows(self) -> dict[str, list[tuple[Path, Any, str]]]:
        """(image file, class, place) of each row, by split."""
        found: dict[str, list[tuple[Path, Any, str]]] = {}
        for split, table in self._tables().items():
            rows = read_table(table)
            columns = list(rows[0][1]) if rows else []
            image = self._column("image", self.image, IMAGE, columns, table)
            label = self._column("label", self.label, LABEL, columns, table)
            named = self.split or next((name for name in columns if name.lower() in SPLIT), None)
            for where, row in rows:
                said = split if named is None else str(row.get(named))
                part = split_of(said)
                if part not in ("train", "val", "test"):
                    raise GenaugError(f"{where} has the split {said!r} ({named}): write train, val or test.")
                found.setdefault(part, []).append(
                    (self._image(str(row.get(image)), table, where), row.get(label), where)
                )
        return found

    def _column(self, key: str, wanted: str | None, usual: tuple[str, ...], columns: list[str], table: Path) -> str:
        by_name = {name.lower(): name for name in columns}
        column = wanted or next((by_name[name] for name in usual if name in by_name), None)
        if column is None or column not in columns:
            raise GenaugError(
                f"{table} has the columns {', '.join(columns) or 'none'}: name one with dataset.{key}=COLUMN."
            )
        return column

    def _image(self, name: str, table: Path, where: str) -> Path:
        root = self.folder()
        folders = [table.parent, root / "images", root / "train", root / "train_images", root]
        if self.image_dir is not None:
            folders = [root / self.image_dir]
        for folder in folders:
            for suffix in ("", ".jpg", ".png", ".jpeg", *sorted(extensions())):
                path = folder / f"{name}{suffix}".replace("\\", "/")
                with boundary(f"{where}: the image {name[:80]!r} cannot be looked for"):
                    if path.is_file() and path.suffix.lower() in extensions():
                        if not any(path.resolve().is_relative_to(place.resolve()) for place in (root, folder)):
                            raise GenaugError(f"{where}: the image {name[:80]!r} leads out of {folder}.")
                        return path
        raise GenaugError(f"{where}: there is no image {name[:80]!r} in {folders[0]}. Write dataset.image_dir=FOLDER.")


def read_table(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """(place, row) of each row of a table."""
    with boundary(f"The table {path} cannot be read", "Save it as CSV with a head, or as JSON lines."):
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet  # pyright: ignore[reportMissingImports]

            rows = pyarrow.parquet.read_table(path).to_pylist()
            return [(f"{path}, row {number}", row) for number, row in enumerate(rows)]
        lines = read_text(path).splitlines()
        if path.suffix.lower() == ".jsonl":
            rows = [(f"{path}:{i}", json.loads(line)) for i, line in enumerate(lines, start=1) if line.strip()]
        else:
            head = lines[0] if lines else ""
            delimiter = max("\t;,", key=head.count)
            rows = [(f"{path}:{i}", row) for i, row in enumerate(csv.DictReader(lines, delimiter=delimiter), start=2)]
        if not all(isinstance(row, dict) for _, row in rows):
            raise GenaugError(f"{path}: each line must be a JSON object with file_name and label.")
        return rows
