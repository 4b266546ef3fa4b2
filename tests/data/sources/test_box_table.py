"""Boxes in a table: the Hub's imagefolder with objects, Roboflow's and Kaggle's CSV with a row per box."""

import json

import pytest

from genaug.core.errors import GenaugError
from genaug.data.sources.box_table import BoxTable
from genaug.data.sources.recognition import recognise
from tests.data.pictures import picture as save_picture


def picture(path):
    save_picture(path, (48, 48))


def load(root, **keys):
    return BoxTable(root=str(root), seed=0, **keys).load()


def hub(root, objects=None, count=4):
    for split in ("train", "test"):
        rows = []
        for i in range(count):
            picture(root / split / f"{i}.png")
            found = {"bbox": [[2, 3, 10, 12]], "category": [["cat", "dog"][i % 2]]} if objects is None else objects
            rows.append(json.dumps({"file_name": f"{i}.png", "objects": found if i else {"bbox": [], "category": []}}))
        (root / split / "metadata.jsonl").write_text("\n".join(rows))
    return root


def csv(root, head="filename,width,height,class,xmin,ymin,xmax,ymax", line="{}.png,48,48,{},2,3,12,15"):
    for split in ("train", "valid", "test"):
        for i in range(4):
            picture(root / split / f"{i}.png")
        rows = [line.format(i, ["cat", "dog"][i % 2]) for i in (0, 1, 1, 2, 3)]
        (root / split / "_annotations.csv").write_text("\n".join([head, *rows]))
    return root


def test_the_hubs_imagefolder_with_objects_is_recognised_and_read(tmp_path):
    layout = recognise(hub(tmp_path))
    assert (layout.preset, layout.task) == ("box_table", "detection")
    dataset = load(tmp_path, val_fraction=0.0)
    assert dataset.class_names == ("cat", "dog") and len(dataset.train) == len(dataset.test) == 4
    assert [s.boxes.xyxy.tolist() for s in dataset.test] == [[], *[[[2, 3, 12, 15]]] * 3]


def test_objects_may_be_a_list_of_mappings_with_categories_of_another_name(tmp_path):
    dataset = load(hub(tmp_path, [{"bbox": [2, 3, 12, 15], "label": 7}]), box_format="xyxy")
    assert dataset.class_names == ("7",) and dataset.test[1].boxes.xyxy.tolist() == [[2, 3, 12, 15]]


def test_crowds_and_areas_of_the_objects_are_read(tmp_path):
    objects = [
        {"bbox": [2, 3, 10, 12], "category": "cat", "area": 60.5, "iscrowd": 0},
        {"bbox": [4, 4, 20, 20], "category": "dog", "area": 300, "iscrowd": 1},
    ]
    boxes = load(hub(tmp_path, objects)).test[1].boxes
    assert boxes.crowd.tolist() == [False, True] and boxes.area.tolist() == [60.5, 300]
    columns = {key: [item[key] for item in objects] for key in objects[0]}
    columns["crowd"] = columns.pop("iscrowd")
    boxes = load(hub(tmp_path, columns)).test[1].boxes
    assert boxes.crowd.tolist() == [False, True] and boxes.area.tolist() == [60.5, 300]


def test_a_csv_with_a_row_per_box_is_recognised_and_read(tmp_path):
    assert recognise(csv(tmp_path)).preset == "box_table"
    dataset = load(tmp_path)
    assert [len(s.boxes.labels) for s in dataset.train] == [1, 2, 1, 1] and len(dataset.val) == 4
    assert dataset.test[1].boxes.xyxy[0].tolist() == [2, 3, 12, 15] and dataset.test[1].boxes.labels.tolist() == [1, 1]


def test_boxes_in_one_column_of_a_csv_are_told_how_to_write_them(tmp_path):
    picture(tmp_path / "0.png")
    rows = [f'0.png,48,"[{i}, 1, 20, 20]",usask_1' for i in range(3)]
    (tmp_path / "train.csv").write_text("\n".join(["image_id,width,bbox,source", *rows]))
    assert recognise(tmp_path).preset == "box_table"
    with pytest.raises(GenaugError, match="boxes stand in a column objects, or in columns xmin, ymin, xmax and ymax"):
        load(tmp_path)


def test_one_table_for_all_is_split_by_its_column_and_a_row_without_numbers_is_background(tmp_path):
    for i in range(6):
        picture(tmp_path / "images" / f"{i}.png")
    rows = [f"{i},{'train' if i < 3 else 'test'},{'cat,1,2,30,40' if i else ',,,,'}" for i in range(6)]
    (tmp_path / "boxes.csv").write_text("\n".join(["image_id,split,label,x1,y1,x2,y2", *rows]))
    assert recognise(tmp_path).preset == "box_table"
    dataset = load(tmp_path, val_fraction=0.0)
    assert [len(s.boxes.labels) for s in dataset.train] == [0, 1, 1] and len(dataset.test) == 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: hub(root, {"category": ["cat"]}), r"metadata\.jsonl:2: its objects have category, but no bbox"),
        (
            lambda root: hub(root, {"bbox": [[1, 2, 3, 4]], "kind": ["cat"]}),
            r"name the classes with dataset\.label=KEY",
        ),
        (
            lambda root: hub(root, {"bbox": [[1, 2, 3, 4]], "category": ["cat"], "area": [-3]}),
            r"metadata\.jsonl:2, box 0 has area -3: a number of square pixels",
        ),
        (lambda root: hub(root, {"bbox": [[1, 2, 3]], "category": ["cat"]}), "four numbers are needed"),
        (lambda root: csv(root, line="{}.png,48,48,{},2,3,twelve,15"), r"_annotations\.csv:2: its box is"),
        (lambda root: csv(root, line="gone{}.png,48,48,{},2,3,12,15"), "there is no image 'gone0.png'"),
        (
            lambda root: csv(root, head="filename,a,b,class,c,d,e,f"),
            "boxes stand in a column objects, or in columns xmin",
        ),
    ],
)
def test_what_is_wrong_in_a_table_of_boxes_is_named_with_its_row(tmp_path, make, said):
    with pytest.raises(GenaugError, match=said):
        load(make(tmp_path))
