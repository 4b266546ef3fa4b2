"""Which data set a folder of any kind holds, and the preset that reads it."""

import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genaug.core.errors import GenaugError, boundary
from genaug.data.sources.box_table import CORNERS, OBJECTS
from genaug.data.sources.coco import Coco
from genaug.data.sources.folder_names import split_of
from genaug.data.sources.layout import Layout, class_folders
from genaug.data.sources.rows import (
    IMAGE,
    LABEL,
    SPLIT,
    SUFFIXES,
    USUAL,
    find_image,
    find_tables,
    read_table,
    usual_column,
)
from genaug.data.sources.tree import check_folder
from genaug.data.sources.voc import voc_folders

LAYOUTS = {
    "image_folder": "class folders",
    "coco": "COCO annotations",
    "voc": "PASCAL VOC annotations",
    "yolo": "YOLO labels",
    "table": "images with a table of labels",
    "box_table": "images with a table of boxes",
    "hf": "a data set of the Hub, its images inside Parquet files",
    "hf_detection": "a data set of the Hub, its images inside Parquet files",
}
"""What each preset reads, in words."""
KEYS = ("names", "train")
"""What a description of YOLO data has."""
UNREAD = set(".json .xml .xlsx .xls .ods .mat .npz .pkl .zip .tar .gz .tgz .7z .rar".split())
"""Endings of files that may hold labels or images in a form that nothing here reads."""
FIRST = 8
"""Rows of a table that are looked at for names of image files."""


def recognise(root: Path, named_table: str | None = None) -> Layout:
    """The data set in a folder, or the one of a table that is named, a file below it.

    Raises:
        GenaugError: if it holds none that can be read, or several; the message says what to write.
    """
    check_folder(root, str(root))
    if named_table is not None:
        (table,) = find_tables(root, named_table).values()
        return _layout_of(root, table) or Layout(root=root, preset="table", task="classification")
    if (coco := _coco(root)) is not None:
        return coco
    if voc_folders(root):
        return Layout(root=root, preset="voc", task="detection")
    if (description := _yolo_description(root)) is not None:
        named = (f"dataset.yaml={description.name}",) if description.name != "data.yaml" else ()
        return Layout(root=root, preset="yolo", task="detection", overrides=named)
    if (packed := _packed(root)) is not None:
        return packed
    table = _table(root)
    if table is not None and table.stem.lower() in USUAL:
        return _layout_of(root, table) or Layout(root=root, preset="table", task="classification")
    try:
        return class_folders(root)
    except GenaugError as error:
        if table is not None and (found_layout := _layout_of(root, table)) is not None:
            return found_layout
        if table is None and sum(path.suffix.lower() in SUFFIXES for path in root.iterdir()) > 1:
            find_tables(root, None)  # says that there are several
        others = sorted(path.name for path in root.iterdir() if path.suffix.lower() in UNREAD)
        if not others:
            raise
        more = f" and {len(others) - 1} more files" if len(others) > 1 else ""
        raise GenaugError(
            f"{error} What {others[0]}{more} may say is not read: unpack archives, and save labels as CSV, or boxes as "
            "COCO, YOLO or Pascal VOC."
        ) from None


def _coco(root: Path) -> Layout | None:
    """COCO's JSON files, whatever they are called; None where there are none.

    Raises:
        GenaugError: for several, of which no name says its split.
    """
    if "train" in Coco(root=str(root), seed=0).json_files():
        return Layout(root=root, preset="coco", task="detection")
    found = [path for place in ("", "annotations/", "coco/") for path in sorted(root.glob(f"{place}*.json"))]
    names = {path.relative_to(root).as_posix(): _said_split(path.stem) for path in found if _is_coco(path)}
    if not names:
        return None
    if len(names) == 1:
        remark = f"All splits are taken from {next(iter(names))}."
        how = (f"dataset.train_json={next(iter(names))}",)
        return Layout(root=root, preset="coco", task="detection", overrides=how, remarks=(remark,))
    twice = Counter(names.values())
    if None in twice or "train" not in twice or max(twice.values()) > 1:
        raise GenaugError(
            f"{root} has several files of COCO annotations, {', '.join(names)}: write dataset=coco dataset.train_json=FILE, "
            "and dataset.val_json and dataset.test_json where there are such."
        )
    named = tuple(f"dataset.{split}_json={name}" for name, split in names.items())
    return Layout(root=root, preset="coco", task="detection", overrides=named)


def _is_coco(path: Path) -> bool:
    text = path.read_text(encoding="utf-8", errors="replace")
    return all(f'"{key}"' in text for key in ("images", "annotations"))


def _said_split(stem: str) -> str | None:
    """The split that a word of a file's name says: ``birds_train_v2`` is train."""
    return next((split for word in re.split(r"[\W_\d]+", stem) if word and (split := split_of(word))), None)


def _yolo_description(root: Path) -> Path | None:
    """The YAML file that names classes and training images, whatever it is called; None where there is none.

    Raises:
        GenaugError: for several, none of which is called as usual.
    """
    files = sorted(path for path in root.iterdir() if path.suffix.lower() in (".yaml", ".yml") and path.is_file())
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in files}
    found = [path for path in files if all(re.search(rf"^{key}:", texts[path], re.MULTILINE) for key in KEYS)]
    usual = [path for path in found if path.stem.lower() in ("data", "dataset")] or found
    if len(usual) > 1:
        raise GenaugError(
            f"{root} has several descriptions of YOLO data, {', '.join(path.name for path in usual)}: write dataset=yolo "
            f"dataset.yaml={usual[0].name}, or another one."
        )
    return usual[0] if usual else None


def _table(root: Path) -> Path | None:
    try:
        return find_tables(root, None)["train"]
    except GenaugError:  # none, or several
        return None


def _layout_of(root: Path, table: Path) -> Layout | None:
    """How a table says what its images show; None where it names no images.

    Raises:
        GenaugError: if any of several columns may hold the classes.
    """
    rows = [row for _, row in read_table(table)]
    columns = list(rows[0]) if rows else []
    of_images = [name for name in columns if any(_names_image(row, name, table, root) for row in rows[:FIRST])]
    image = usual_column(IMAGE, columns) or next(iter(of_images), None)
    if image is None:
        return None
    several = len({str(row.get(image)) for row in rows}) < len(rows)  # of an image, one a box
    if (
        usual_column(OBJECTS, columns)
        or all(usual_column(usual, columns) for usual in CORNERS)
        or (several and usual_column(("bbox", "box"), columns))
    ):
        return Layout(root=root, preset="box_table", task="detection")
    words = [] if usual_column(IMAGE, columns) else [f"dataset.image={image}"]
    remarks = []
    split = usual_column(SPLIT, columns) or next((name for name in columns if _names_splits(rows, name)), None)
    if split is not None and split.lower() not in SPLIT:
        words.append(f"dataset.split={split}")
        remarks.append(f"The splits are those of the column {split!r} of {table.name}.")
    if usual_column(LABEL, columns) is None:
        rest = [name for name in columns if name not in (image, split) and _may_be_classes(rows, name)]
        if not rest or image not in of_images:
            return None
        if len(rest) > 1:
            raise GenaugError(
                f"{table} names images, and each of its columns {', '.join(rest)} may hold their classes: write "
                f"{' '.join(map(shlex.quote, ['dataset=table', *words]))} dataset.label=COLUMN."
            )
        words.append(f"dataset.label={rest[0]}")
        remarks.append(f"The classes are those of the column {rest[0]!r} of {table.name}.")
    return Layout(root=root, preset="table", task="classification", overrides=tuple(words), remarks=tuple(remarks))


def _names_image(row: dict[str, Any], column: str, table: Path, root: Path) -> bool:
    try:
        find_image(str(row.get(column)), table, root, None, "")
    except GenaugError:
        return False
    return True


def _names_splits(rows: Sequence[dict[str, Any]], column: str) -> bool:
    """Whether a column says train, and val or test, and nothing else."""
    splits = {split_of(str(row.get(column))) for row in rows}
    return "train" in splits and 1 < len(splits) and splits <= {"train", "val", "test"}


def _may_be_classes(rows: Sequence[dict[str, Any]], column: str) -> bool:
    """Whether values repeat as those of classes do: at least two, each of two rows on average, and no fractions."""
    values = {str(row.get(column)) for row in rows}
    return 2 <= len(values) <= len(rows) / 2 and not any(re.fullmatch(r"-?\d+\.\d*[1-9]\d*", value) for value in values)


def _packed(root: Path) -> Layout | None:
    """A data set of the Hub whose images lie in Parquet files, as ``datasets`` loads it; None for other folders."""
    files = sorted((*root.glob("*.parquet"), *root.glob("data/*.parquet")))
    if not files:
        return None
    with boundary(f"The table {files[0]} cannot be read"):
        import pyarrow.parquet  # pyright: ignore[reportMissingImports]

        schema = pyarrow.parquet.read_schema(files[0])
        packed = [name for name, kind in zip(schema.names, schema.types, strict=True) if "binary" in str(kind)]
    if not packed:
        return None
    boxes = usual_column(OBJECTS, schema.names)
    label = usual_column(LABEL, schema.names) or _declared_classes(schema.metadata or {})
    how = [f"dataset.image={packed[0]}"]
    if boxes is None and label is None:
        raise GenaugError(
            f"{root} is a data set of the Hub with the columns {', '.join(schema.names)}: write dataset=hf "
            f"dataset.path={root} {how[0]} dataset.label=COLUMN."
        )
    how.append(f"dataset.objects={boxes}" if boxes else f"dataset.label={label}")
    splits = {split_of(word): word for word in (re.split(r"[-.]", file.stem)[0] for file in files)}
    how += [f"dataset.{split}_split={splits.get(split, 'null')}" for split in ("val", "test")]
    return Layout(
        root=root,
        preset="hf_detection" if boxes else "hf",
        key="dataset.path",
        task="detection" if boxes else "classification",
        overrides=tuple(how),
    )


def _declared_classes(metadata: Mapping[bytes, bytes]) -> str | None:
    """The column that ``datasets`` declared to hold classes."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return next((name for name, feature in features.items() if feature.get("_type") == "ClassLabel"), None)
