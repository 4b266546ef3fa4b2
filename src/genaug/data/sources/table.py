"""Images with their classes in a table: CSV, TSV, Parquet, or the Hub's ``imagefolder`` convention (``metadata.jsonl``)."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from genaug.core.errors import GenaugError
from genaug.core.fields import bounded
from genaug.core.identity import content_digest
from genaug.core.registry import component
from genaug.data.images import check_readable, inspect_all
from genaug.data.sample import Dataset, Sample
from genaug.data.sources.base import FolderSource
from genaug.data.sources.hub import class_index
from genaug.data.sources.rows import (
    IMAGE,
    LABEL,
    SPLIT,
    find_column,
    find_image,
    find_tables,
    named_split,
    one_hot,
    read_table,
)
from genaug.data.sources.tree import walk
from genaug.data.splits import carve


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
    label: Any = None
    """Column of the classes, or a list of columns, one per class, of which one holds a 1 and the others 0."""
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
        yield from find_tables(self.folder(), self.table).values()
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

    def _rows(self) -> dict[str, list[tuple[Path, Any, str]]]:
        """(image file, class, place) of each row, by split."""
        found: dict[str, list[tuple[Path, Any, str]]] = {}
        for split, table in find_tables(self.folder(), self.table).items():
            rows = read_table(table)
            columns = list(rows[0][1]) if rows else []
            image = find_column("image", self.image, IMAGE, columns, table)
            label = None if isinstance(self.label, list) else find_column("label", self.label, LABEL, columns, table)
            named = self.split or next((name for name in columns if name.lower() in SPLIT), None)
            for where, row in rows:
                part = split if named is None else named_split(row.get(named), named, where)
                image_file = find_image(str(row.get(image)), table, self.folder(), self.image_dir, where)
                value = self.label[one_hot(row, self.label, where)] if label is None else row.get(label)
                found.setdefault(part, []).append((image_file, value, where))
        return found
