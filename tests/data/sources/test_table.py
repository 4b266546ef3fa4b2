"""Classes in a table: Kaggle's CSV, the Hub's metadata.jsonl, Parquet."""

import json

import pytest

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.data.sources.recognition import recognise
from genaug.data.sources.table import ImageTable
from tests.data.pictures import picture


def load(root, **keys):
    return ImageTable(root=str(root), seed=0, **keys).load()


def kaggle(root, head="id,breed", line="{},{}"):
    rows = [line.format(f"x{i}", "ab"[i % 2]) for i in range(8)]
    for i in range(8):
        picture(root / "train" / f"x{i}.png")
    picture(root / "test" / "y.png")
    (root / "labels.csv").write_text("\n".join([head, *rows]) + "\n")
    return root


def test_a_csv_beside_loose_images_is_read_and_images_without_a_row_are_counted(tmp_path):
    dataset = load(kaggle(tmp_path))
    assert dataset.class_names == ("a", "b") and dataset.notes == {"images_in_no_row": 1}
    labels = {s.id: s.class_index for part in (dataset.train, dataset.val, dataset.test) for s in part}
    assert labels == {f"train/x{i}.png": i % 2 for i in range(8)}
    assert recognise(tmp_path).preset == "table"


def test_the_hubs_folders_with_metadata_are_the_splits(tmp_path):
    for split, number in (("train", 4), ("test", 2)):
        rows = []
        for i in range(number):
            picture(tmp_path / split / f"{i}.png")
            rows.append(json.dumps({"file_name": f"{i}.png", "label": ["None", "cat"][i % 2]}))
        (tmp_path / split / "metadata.jsonl").write_text("\n".join(rows))
    dataset = load(tmp_path, val_fraction=0.0)
    assert dataset.class_names == ("None", "cat") and (len(dataset.train), len(dataset.test)) == (4, 2)
    assert recognise(tmp_path).preset == "table"


def test_images_are_found_in_a_folder_that_is_called_so(tmp_path):
    kaggle(tmp_path)
    (tmp_path / "train").rename(tmp_path / "IMGs")
    assert len(load(tmp_path).train) + len(load(tmp_path).test) > 4


def test_a_column_may_name_the_split(tmp_path):
    root = kaggle(tmp_path, "id;split;label", "{};train;{}")
    text = (root / "labels.csv").read_text().replace("x6;train", "x6;Test").replace("x7;train", "x7;valid")
    (root / "labels.csv").write_text(text)
    dataset = load(root)
    assert [s.id for s in dataset.test] == ["train/x6.png"] and [s.id for s in dataset.val] == ["train/x7.png"]


def test_parquet_is_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra hf is not installed")
    import pyarrow.parquet as parquet

    for i in range(4):
        picture(tmp_path / "images" / f"{i}.png")
    table = pyarrow.table({"image": [f"{i}.png" for i in range(4)], "label": ["a", "b", "a", "b"]})
    parquet.write_table(table, tmp_path / "set.parquet")
    assert load(tmp_path).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("head", "line", "said"),
    [
        ("id,breed", "{},", r'labels\.csv:2 has the label ""'),
        ("id,size", "{},{}", r"columns id, size: name one with dataset\.label"),
        ("id,breed", "gone{},{}", r"labels\.csv:2: there is no image 'gonex0'"),
        ("id,split,label", "{},other,{}", "has the split 'other'"),
        ("id,breed", "x0,{1}", "stands in 8 rows"),
    ],
)
def test_a_wrong_table_is_named_with_its_row(tmp_path, head, line, said):
    with pytest.raises(GenaugError, match=said):
        load(kaggle(tmp_path, head, line))


def test_several_tables_are_not_guessed_among(tmp_path):
    (kaggle(tmp_path) / "train.csv").write_text("id,label\n")
    with pytest.raises(GenaugError, match=r"labels\.csv, train\.csv: name the table"):
        load(tmp_path)
    assert load(tmp_path, table="labels.csv").class_names == ("a", "b")


def test_an_image_outside_the_root_is_not_read(tmp_path):
    picture(tmp_path / "outside.png")
    with pytest.raises(GenaugError, match=r"labels\.csv:2: the image '\.\./\.\./outside' leads out of"):
        load(kaggle(tmp_path / "set", line="../../outside,{1}"))


def test_a_table_of_any_name_is_recognised_by_its_columns_unless_there_are_class_folders(tmp_path):
    root = kaggle(tmp_path / "one", "image_path,diagnosis")
    (root / "labels.csv").rename(root / "my photos.csv")
    assert recognise(root).preset == "table"
    for name in ("a", "b"):
        picture(tmp_path / "two" / name / "0.png")
    (tmp_path / "two" / "notes.csv").write_text("image,label\n")
    assert recognise(tmp_path / "two").preset == "image_folder"


def test_a_column_of_any_name_is_found_by_what_it_holds_where_only_one_can_be_meant(tmp_path):
    root = kaggle(tmp_path / "one", "photo of it,kind of thing")
    (root / "labels.csv").rename(root / "things.csv")
    layout = recognise(root)
    assert layout.overrides == ("dataset.image=photo of it", "dataset.label=kind of thing")
    assert "'kind of thing'" in layout.remarks[0]
    assert compose_typed(["dataset=table", f"dataset.root={root}", *layout.overrides]).dataset.load().class_names
    lines = (root / "things.csv").read_text().splitlines()
    (root / "things.csv").write_text("\n".join(f"{line},{i % 2 if i else 'farm'}" for i, line in enumerate(lines)))
    with pytest.raises(
        GenaugError,
        match=r"kind of thing, farm may hold .*dataset=table 'dataset\.image=photo of it' dataset\.label=COLUMN",
    ):
        recognise(root)


def test_a_column_whose_values_never_repeat_holds_no_classes(tmp_path):
    root = kaggle(tmp_path, "photo of it,serial number")
    lines = [f"x{i},{7 * i}" for i in range(8)]
    (root / "labels.csv").rename(root / "things.csv")
    (root / "things.csv").write_text("\n".join(["photo of it,serial number", *lines]))
    with pytest.raises(GenaugError, match=r"labels in a table are read with dataset=table\.|no class folders"):
        recognise(root)
