"""Which data set a folder of any kind holds, and the preset that reads it."""

import json
from pathlib import Path

from genaug.core.errors import GenaugError, boundary
from genaug.data.annotations import read_text
from genaug.data.sources.box_table import CORNERS, OBJECTS
from genaug.data.sources.layout import MARKERS, Layout, class_folders
from genaug.data.sources.rows import IMAGE, LABEL, USUAL, find_tables, read_table, usual_column
from genaug.data.sources.tree import check_folder
from genaug.data.sources.voc import voc_folders

LAYOUTS = {
    "image_folder": "class folders",
    "coco": "COCO annotations",
    "voc": "PASCAL VOC annotations",
    "yolo": "YOLO labels",
    "table": "images with a table of labels",
    "box_table": "images with a table of boxes",
}
"""What each preset reads, in words."""


def recognise(root: Path) -> Layout:
    """The data set in a folder.

    Raises:
        GenaugError: if it holds none that can be read, or several; the message says what to write.
    """
    check_folder(root, str(root))
    for preset, pattern in MARKERS:
        if preset == "table" or not (found := sorted(root.glob(pattern))):
            continue
        if preset == "yolo" and "names:" not in found[0].read_text(encoding="utf-8", errors="replace"):
            continue
        yaml = (f"dataset.yaml={found[0].name}",) if preset == "yolo" and found[0].name != "data.yaml" else ()
        return Layout(root=root, preset=preset, task="detection", overrides=yaml)
    if voc_folders(root):
        return Layout(root=root, preset="voc", task="detection")
    _refuse_packed(root)
    table = _table(root)
    if table is not None and table.stem.lower() in USUAL:
        return _layout_of(root, table) or Layout(root=root, preset="table", task="classification")
    try:
        return class_folders(root)
    except GenaugError:
        if table is not None and (found_layout := _layout_of(root, table)) is not None:
            return found_layout
        raise


def _table(root: Path) -> Path | None:
    try:
        return find_tables(root, None)["train"]
    except GenaugError:  # none, or several
        return None


def _layout_of(root: Path, table: Path) -> Layout | None:
    """How a table says what its images show; None where its columns are called otherwise."""
    columns = _columns(table)
    if usual_column(IMAGE, columns) is None:
        return None
    if usual_column(OBJECTS, columns) or all(usual_column(usual, columns) for usual in CORNERS):
        return Layout(root=root, preset="box_table", task="detection")
    known = usual_column(LABEL, columns) is not None
    return Layout(root=root, preset="table", task="classification") if known else None


def _columns(table: Path) -> list[str]:
    with boundary(f"The table {table} cannot be read", "Save it as CSV with a head, or as JSON lines."):
        if table.suffix.lower() == ".parquet":
            import pyarrow.parquet  # pyright: ignore[reportMissingImports]

            return list(pyarrow.parquet.read_schema(table).names)
        if table.suffix.lower() == ".jsonl":
            lines = (line for line in read_text(table).splitlines() if line.strip())
            return list(json.loads(next(lines, "{}")))
        return list(read_table(table)[0][1])


def _refuse_packed(root: Path) -> None:
    """Raise ``GenaugError`` for a data set of the Hub whose images lie in Parquet files: it has no folder of images."""
    for file in sorted((*root.glob("*.parquet"), *root.glob("data/*.parquet")))[:1]:
        with boundary(f"The table {file} cannot be read"):
            import pyarrow.parquet  # pyright: ignore[reportMissingImports]

            schema = pyarrow.parquet.read_schema(file)
            packed = [name for name, kind in zip(schema.names, schema.types, strict=True) if "binary" in str(kind)]
        if packed:
            preset = "hf_detection" if usual_column(OBJECTS, schema.names) else "hf"
            raise GenaugError(
                f"{root} is a data set of the Hub with its images inside Parquet files: write dataset={preset} "
                f"dataset.path={root} dataset.image={packed[0]} in place of dataset.root."
            )
