"""Tables that name image files: where they lie, what their columns are called, and the files that their rows name."""

import csv
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genaug.core.errors import GenaugError, boundary
from genaug.data.annotations import read_text
from genaug.data.images import extensions
from genaug.data.sources.folder_names import IMAGES, plain, split_of

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
IMAGE = ("file_name", "filename", "image", "image_path", "path", "file", "image_id", "id")
LABEL = ("label", "class", "category", "class_name", "target", "breed", "species", "diagnosis")
SPLIT = ("split", "set", "subset", "partition")
"""Names that columns usually have, in lower case."""
USUAL = ("metadata", "labels", "train", "_annotations")
"""Stems of tables that say what a data set's images show."""
IN_A_SPLIT = ("metadata.jsonl", "metadata.csv", "metadata.parquet", "_annotations.csv")
"""Tables in the folder of a split: the Hub's, and Roboflow's."""


def find_tables(root: Path, stated: str | None) -> dict[str, Path]:
    """Tables by split; one for all stands under ``train``.

    Args:
        root: folder of the data set.
        stated: the table, relative to the root; None looks for it.

    Raises:
        GenaugError: if there is none, or several that may be meant.
    """
    if stated is not None:
        if not (root / stated).is_file():
            raise GenaugError(f"dataset.table={stated} is not a file below dataset.root={root}.")
        return {"train": root / stated}
    by_split = {
        split: folder / name
        for folder in sorted(path for path in root.iterdir() if path.is_dir())
        for name in IN_A_SPLIT
        if (split := split_of(folder.name)) in ("train", "val", "test") and (folder / name).is_file()
    }
    if "train" in by_split:
        return by_split
    found = [path for path in sorted(root.iterdir()) if path.suffix.lower() in SUFFIXES]
    named = [path for path in found if path.stem.lower() in USUAL] or found
    if len(named) != 1:
        listed = ", ".join(path.name for path in named) or "no table"
        raise GenaugError(
            f"dataset.root={root} holds {listed}: name the table of the images with dataset.table=FILE "
            f"({', '.join(SUFFIXES)})."
        )
    return {"train": named[0]}


def find_column(key: str, wanted: str | None, usual: Sequence[str], columns: Sequence[str], table: Path) -> str:
    """The column that ``dataset.<key>`` names, or one that is called as usual."""
    column = wanted or usual_column(usual, columns)
    if not columns:
        raise GenaugError(f"{table} has no rows: write one for each image.")
    if column is None or column not in columns:
        raise GenaugError(f"{table} has the columns {', '.join(columns)}: name one with dataset.{key}=COLUMN.")
    return column


def usual_column(usual: Sequence[str], columns: Sequence[str]) -> str | None:
    by_name = {name.lower(): name for name in columns}
    return next((by_name[name] for name in usual if name in by_name), None)


def one_hot(row: dict[str, Any], columns: Sequence[str], where: str) -> int:
    """The position of the one column that holds a 1, of columns of zeros and ones.

    Raises:
        GenaugError: if a column is missing, or not exactly one holds a 1 and the others 0.
    """
    missing = [name for name in columns if name not in row]
    if missing:
        raise GenaugError(f"{where} has no column {missing[0]!r}, only {', '.join(map(str, row))}.")
    with boundary(f"{where}: its classes cannot be read", f"Write 0 or 1 below {', '.join(columns)}."):
        values = [float(row[name]) for name in columns]
    if sorted(values) != [0.0] * (len(columns) - 1) + [1.0]:
        raise GenaugError(
            f"{where} has {', '.join(f'{name}={value:g}' for name, value in zip(columns, values, strict=True))}: an image "
            "has one class, so write 1 once and 0 elsewhere."
        )
    return values.index(1.0)


def named_split(value: Any, column: str, where: str) -> str:
    """The split that a row says it is of."""
    part = split_of(str(value))
    if part not in ("train", "val", "test"):
        raise GenaugError(f"{where} has the split {str(value)!r} ({column}): write train, val or test.")
    return part


def find_image(name: str, table: Path, root: Path, image_dir: str | None, where: str) -> Path:
    """The image file of a row: relative to the table or to ``image_dir``, in images/ or train/, with or without its ending."""
    folders = [table.parent, *_image_folders(root, root.stat().st_mtime_ns)]
    if image_dir is not None:
        folders = [root / image_dir]
    for folder in folders:
        for suffix in ("", ".jpg", ".png", ".jpeg", *sorted(extensions())):
            path = folder / f"{name}{suffix}".replace("\\", "/")
            with boundary(f"{where}: the image {name[:80]!r} cannot be looked for"):
                if path.is_file() and path.suffix.lower() in extensions():
                    if not any(path.resolve().is_relative_to(place.resolve()) for place in (root, folder)):
                        raise GenaugError(f"{where}: the image {name[:80]!r} leads out of {folder}.")
                    return path
    if Path(name).is_absolute():
        raise GenaugError(f"{where}: there is no image {name[:80]!r}. Correct its path, or remove the row.")
    raise GenaugError(
        f"{where}: there is no image {name[:80]!r} in {folders[0]}. Write dataset.image_dir=FOLDER, or remove the row."
    )


@functools.lru_cache(maxsize=8)
def _image_folders(root: Path, mtime_ns: int) -> list[Path]:
    """Where images of a data set with a table usually lie."""
    inner = sorted(path for path in root.iterdir() if path.is_dir())
    called_so = [path for path in inner if plain(path.name) in {*IMAGES, "train", "trainimages"}]
    return [root / "images", root / "train", root / "train_images", *called_so, root]


def _is_file_name(text: str) -> bool:
    return Path(text.strip()).suffix.lower() in extensions()


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
            image = next(
                (name for name in next(csv.reader([head], delimiter=delimiter), ()) if _is_file_name(name)), None
            )
            if image is not None:
                raise GenaugError(
                    f"{path}:1 names the image {image[:80]!r} where the columns' names are expected: write a line with these "
                    f"above it, e.g. file_name{delimiter}label."
                )
            rows = [(f"{path}:{i}", row) for i, row in enumerate(csv.DictReader(lines, delimiter=delimiter), start=2)]
        if not all(isinstance(row, dict) for _, row in rows):
            raise GenaugError(f"{path}: each line must be a JSON object with file_name and label.")
        return rows
