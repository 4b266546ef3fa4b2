"""One check of annotations for every format: right, or one sentence that names file and entry."""

import copy
import json
import os

import numpy as np
import pytest
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.data.annotations import check_segmentation
from genaug.data.sources.coco import Coco
from genaug.data.sources.voc import Voc
from genaug.data.sources.yolo import Yolo
from tests.data.pictures import picture, turned

SIZE = (32, 24)
SQUARE = [[2, 3, 12, 3, 12, 15, 2, 15]]
NAN = float("nan")


def content(num=6):
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": SIZE[0], "height": SIZE[1]} for i in range(num)],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": 1 + i % 2,
                "bbox": [2, 3, 10, 12],
                "area": 77.5,
                "segmentation": SQUARE,
            }
            for i in range(num)
        ],
    }


def coco(root, change=None, encode=lambda text: text.encode(), **how):
    """A COCO set of six pictures whose file was changed."""
    for i in range(6):
        picture(root / "images" / f"{i}.jpg", SIZE, **how)
    data = copy.deepcopy(content())
    if change is not None:
        change(data)
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "instances_train.json").write_bytes(encode(json.dumps(data)))
    return root


def load(root, **keys):
    return Coco(root=str(root), seed=0, **keys).load()


def everything(dataset):
    return {sample.id: sample for part in (dataset.train, dataset.val, dataset.test) for sample in part}


def entry(part, **values):
    return lambda data: data[part][2].update(values)


def without(part, key):
    return lambda data: data[part][1].pop(key)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (entry("annotations", bbox=[NAN, 1, 2, 3]), "annotation 2 has bbox .*nan is no place"),
        (entry("annotations", bbox=["1", 2, 3, 4]), "annotation 2 has bbox .*four numbers"),
        (entry("annotations", bbox=[20, 3, -5, 4]), "annotation 2 has bbox .*below 0"),
        (entry("annotations", bbox=None), "annotation 2 has bbox None"),
        (entry("annotations", id=1), "annotation 1 occurs twice"),
        (entry("annotations", area=-1), "annotation 2 has area -1"),
        (entry("annotations", iscrowd="0"), "annotation 2 has iscrowd '0'"),
        (entry("annotations", category_id=[1]), r"annotation 2 has category_id \[1\]"),
        (entry("annotations", segmentation=[[NAN, 1, 2, 3, 4, 5]]), "annotation 2 has a segmentation with"),
        (entry("annotations", segmentation=[[1e308, 1, 2, 3, 4, 5]]), "annotation 2 has a segmentation with"),
        (entry("annotations", segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "annotation 2 has a polygon of 7"),
        (entry("annotations", segmentation="x"), "annotation 2 has a segmentation that is neither"),
        (entry("annotations", segmentation={"size": [25, 32], "counts": [800]}), r"run lengths of size \[25, 32\]"),
        (entry("annotations", segmentation={"size": [32, 24], "counts": [768]}), r"run lengths of size \[32, 24\]"),
        (entry("annotations", segmentation={"size": [24, 32], "counts": [5]}), "do not add up to the 768"),
        (entry("annotations", segmentation={"size": [24, 32], "counts": "zz"}), "do not add up to the 768"),
        (entry("images", id=1), "2 entries of 'images' have the id 1"),
        (entry("images", id="2"), "ids of 'images' are numbers and texts"),
        (entry("images", file_name="1.jpg"), "2 images have the file_name 1.jpg"),
        (entry("images", file_name=None), "image 2 has file_name None"),
        (entry("images", file_name="../../secret.jpg"), "image 2.*leads out of"),
        (entry("images", file_name="no\0where.jpg"), "is in none of"),
        (entry("images", width=3.5), r"image 2 \(2.jpg\) has width 3.5"),
        (
            entry("images", width=320, height=240),
            "annotated as 320 x 240 pixels, but the file 32 x 24.*rescale_boxes=true",
        ),
        (entry("images", width=32, height=32), "32 x 32 pixels, but the file 32 x 24, which is another shape"),
        (without("categories", "id"), r"entry 1 of 'categories' \(b\) has the id None"),
        (without("categories", "name"), "category 2 has name None"),
        (lambda data: data.update(images="x"), "'images' must be a list"),
        (lambda data: data.update(annotations=[]), "nothing to detect"),
        (lambda data: [a.update(iscrowd=1) for a in data["annotations"]], "nothing to detect.*6 crowd_regions"),
        (lambda data: [a.update(bbox=[200, 9, 9, 9]) for a in data["annotations"]], "6 of 6 boxes reach beyond"),
    ],
)
def test_a_wrong_entry_of_a_coco_file_is_named(tmp_path, change, said):
    picture(tmp_path / "secret.jpg", SIZE)
    with pytest.raises(GenaugError, match=said):
        load(coco(tmp_path / "set", change))


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (entry("annotations", segmentation=[[2, 3, 12, 3]]), "segmentations_of_fewer_than_3_points_taken_as_their_box"),
        (entry("annotations", segmentation=[[]]), "segmentations_of_fewer_than_3_points_taken_as_their_box"),
        (entry("annotations", segmentation=[]), None),
        (entry("annotations", segmentation=None), None),
        (entry("images", width=None, height=None), None),
        (entry("images", file_name="images\\2.jpg"), None),
    ],
)
def test_what_exports_really_hold_is_read(tmp_path, change, note):
    dataset = load(coco(tmp_path, change), val_fraction=0.01, test_fraction=0.01)
    assert len(dataset.train) == 6 and dataset.notes == ({note: 1} if note else {})
    assert all(s.boxes is not None and s.boxes.xyxy.tolist() == [[2, 3, 12, 15]] for s in dataset.train)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_with_a_mark_are_read(tmp_path, encoding):
    assert load(coco(tmp_path, encode=lambda text: text.encode(encoding))).class_names == ("a", "b")


def test_other_encodings_are_named(tmp_path):
    change = lambda data: data["categories"][0].update(name="caf\u00e9")
    root = coco(
        tmp_path, change, encode=lambda text: json.dumps(json.loads(text), ensure_ascii=False).encode("latin-1")
    )
    with pytest.raises(GenaugError, match=r"instances_train\.json:1: the text is not UTF-8"):
        load(root)


def test_an_image_that_is_a_link_out_of_the_root_is_refused_but_a_linked_folder_of_images_is_read(tmp_path):
    root = coco(tmp_path / "set")
    (root / "images").rename(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", root / "images")
    assert len(everything(load(root))) == 6
    outside = picture(tmp_path / "outside.jpg", SIZE)
    (tmp_path / "elsewhere" / "2.jpg").unlink()
    os.symlink(outside, tmp_path / "elsewhere" / "2.jpg")
    with pytest.raises(GenaugError, match="leads out of"):
        load(root)


def test_boxes_masks_and_areas_are_scaled_when_asked(tmp_path):
    def change(data):
        for image in data["images"]:
            image.update(width=320, height=240)
        for item in data["annotations"]:
            item.update(bbox=[20, 30, 100, 120], area=7750, segmentation=[[10 * value for value in SQUARE[0]]])

    sample = load(coco(tmp_path, change), rescale_boxes=True).train[0]
    assert sample.boxes is not None and sample.boxes.area is not None
    assert sample.boxes.xyxy.tolist() == [[2, 3, 12, 15]] and sample.boxes.area.tolist() == [77.5]
    mask = sample.read_mask()
    assert mask is not None and mask.shape == (24, 32) and mask[3:15, 2:12].all() and mask.sum() == 120


def test_areas_count_where_each_object_of_an_image_has_one(tmp_path):
    def change(data):
        data["annotations"] += [{**item, "id": 10 + item["id"]} for item in data["annotations"]]
        del data["annotations"][0]["area"]

    samples = everything(load(coco(tmp_path, change)))
    areas = {name: sample.boxes.area for name, sample in samples.items()}
    assert areas.pop("images/0.jpg") is None and all(area.tolist() == [77.5, 77.5] for area in areas.values())


def test_boxes_that_were_drawn_before_the_exif_turn_are_turned_with_the_image(tmp_path):
    dataset = load(coco(tmp_path / "stored", exif=turned(6)))
    sample = dataset.train[0]
    mask = sample.read_mask()
    assert sample.open().size == (24, 32) and sample.boxes is not None and mask is not None
    assert sample.boxes.xyxy.tolist() == [[9, 2, 21, 12]] and mask[2:12, 9:21].all() and mask.sum() == 120
    assert dataset.notes["images_turned_by_exif_and_their_boxes_with_them"] == 6
    upright = lambda data: [image.update(width=24, height=32) for image in data["images"]]
    sample = load(coco(tmp_path / "upright", upright, exif=turned(6))).train[0]
    assert sample.boxes is not None and sample.boxes.xyxy.tolist() == [[2, 3, 12, 15]]


def test_a_category_that_only_groups_the_others_is_no_class(tmp_path):
    def change(data):
        data["categories"] = [
            {"id": 0, "name": "things", "supercategory": "none"},
            *({**category, "supercategory": "things"} for category in data["categories"]),
        ]

    dataset = load(coco(tmp_path, change))
    assert dataset.class_names == ("a", "b") and "'things' has no box" in dataset.remarks[0]


def test_two_years_of_one_split_are_refused(tmp_path):
    root = coco(tmp_path)
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content()))
    with pytest.raises(
        GenaugError, match=r"several files for the train split: .*train_json=annotations/instances_train.json"
    ):
        load(root)
    assert load(root, train_json="annotations/instances_train.json").train


def test_masks_are_not_decoded_until_something_needs_them(tmp_path, monkeypatch):
    from pycocotools import mask as coco_mask

    def refuse(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(coco_mask, "frPyObjects", refuse)
    source = Coco(root=str(coco(tmp_path)), seed=0)
    assert source.load().train_identity()
    with pytest.raises(GenaugError, match="cannot be decoded"):
        source.load().train[0].read_mask()


def test_compressed_run_lengths_are_checked_without_pycocotools():
    from pycocotools import mask as coco_mask

    pixels = np.zeros((24, 32), dtype=np.uint8, order="F")
    pixels[3:20, 4:9] = 1
    pixels[0, 1::2] = 1
    packed = coco_mask.encode(pixels)
    lengths = {"size": [24, 32], "counts": packed["counts"].decode()}
    assert check_segmentation(lengths, 32, 24, "here") == lengths
    with pytest.raises(GenaugError, match="here has run lengths that do not add up"):
        check_segmentation({**lengths, "counts": lengths["counts"][:-1]}, 32, 24, "here")


def test_a_mask_of_more_pixels_than_any_image_is_refused_before_it_is_made():
    polygon = [[0, 0, 9, 0, 9, 9]]
    assert check_segmentation(polygon, 20_000, 8_000, "here") == polygon
    with pytest.raises(
        GenaugError, match="here has a segmentation of an image that is said to have 20000 x 10000 pixels"
    ):
        check_segmentation(polygon, 20_000, 10_000, "here")


def yolo(root, description, row="0 0.5 0.5 0.5 0.5\n"):
    for split in ("train", "valid"):
        for i in range(3):
            picture(root / split / "images" / f"{i}.jpg", SIZE)
            label = root / split / "labels" / f"{i}.txt"
            label.parent.mkdir(exist_ok=True)
            label.write_text(row)
    (root / "data.yaml").write_text(description)
    return Yolo(root=str(root), seed=0).load()


USUAL = "train: train/images\nval: valid/images\n"


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ("[yes, no]", ("yes", "no")),
        ("{cat: 0, dog: 1}", ("cat", "dog")),
        ("{1: dog, 0: cat}", ("cat", "dog")),
        ("[None, 1.0, null]", ("None", "1.0", "null")),
        ("classes.txt", ("cat", "dog")),
    ],
)
def test_yolo_names_are_taken_as_they_are_written(tmp_path, names, wanted):
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert yolo(tmp_path, f"{USUAL}names: {names}\n").class_names == wanted


@pytest.mark.parametrize(
    ("description", "row", "said"),
    [
        (USUAL + "names: [a]", "0 12 14 10 5", r"0\.txt:1: 14 is no share of the image.*in pixels"),
        (USUAL + "names: [a]", "0 nan .5 .5 .5", r"0\.txt:1: .*not finite"),
        (USUAL + "names: [a]", "0.5 .5 .5 .1 .1", r"0\.txt:1: class 0\.5 is not among"),
        (USUAL + "names: [a]", "0 .5 .5 .5 .5 .1 .2 2 .3 .4 2", r"0\.txt:1: .*kpt_shape: \[2, 3\]"),
        (USUAL + "names: [a]\nkpt_shape: [3, 2]", "0 .5 .5 .5 .5 .1 .2 .3 .4", "9 fields.*11 fields by kpt_shape"),
        (USUAL + "names: [a]\nkpt_shape: 3", "", "'kpt_shape: 3' cannot be read"),
        (USUAL + "names: [a, a]", "", "'a' twice"),
        (USUAL + "names: [a]\nnc: 2", "", "'nc: 2' does not agree"),
        (USUAL + "names: absent.txt", "", "'names: absent.txt' is neither"),
        (USUAL + "names: []", "", "'names' is empty"),
        ("names: [a]", "", "needs the keys 'train'"),
        ("train: nowhere\nnames: [a]", "", "'train: nowhere' is not a folder"),
    ],
)
def test_a_fault_in_a_yolo_set_is_named(tmp_path, description, row, said):
    with pytest.raises(GenaugError, match=said):
        yolo(tmp_path, description + "\n", row + "\n")


def test_the_boxes_of_pose_data_are_read_by_kpt_shape(tmp_path):
    dataset = yolo(tmp_path, USUAL + "names: [a]\nkpt_shape: [2, 2]\n", "0 .5 .5 .5 .5 .1 .1 .9 .9\n")
    assert all(s.boxes is not None and s.boxes.xyxy.tolist() == [[8, 6, 24, 18]] for s in dataset.train)
    assert "keypoints are not" in dataset.remarks[0]


def test_valid_is_another_word_for_val(tmp_path):
    dataset = yolo(tmp_path, "train: train/images\nvalid: valid/images\nnames: [a]\n")
    assert {sample.id.split("/")[0] for sample in dataset.test} == {"valid"}


def voc(root, name=lambda i: f"IMG {i}", size="", box=(1, 1, 9, 9)):
    x1, y1, x2, y2 = box
    for i in range(6):
        picture(root / "JPEGImages" / f"{name(i)}.jpg", SIZE)
        path = root / "Annotations" / f"{name(i)}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f"<annotation>{size}<object><name>cat</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>"
            f"<ymax>{y2}</ymax></bndbox></object></annotation>"
        )
    return root


@pytest.mark.parametrize("line", ["IMG {}", "IMG {}.jpg", "IMG {}  1", "IMG {} -1"])
def test_voc_lists_may_name_images_with_blanks(tmp_path, line):
    root = voc(tmp_path)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split, numbers in (("train", range(3)), ("val", (3, 4)), ("test", (5,))):
        text = "".join(line.format(i) + "\n" for i in numbers)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(text)
    dataset = Voc(root=str(root), seed=0).load()
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (3, 2, 1)
    (root / "ImageSets" / "Main" / "train.txt").unlink()
    text = "".join(line.format(i) + "\n" for i in range(5))
    (root / "ImageSets" / "Main" / "trainval.txt").write_text(text)
    assert Voc(root=str(root), seed=0).load().train_identity() == dataset.train_identity()


def test_voc_masks_are_those_of_segmentation_object(tmp_path):
    root = voc(tmp_path, str)
    (root / "SegmentationObject").mkdir()
    for i in range(6):
        values = np.zeros((SIZE[1], SIZE[0]), dtype=np.uint8)
        values[2:8, 3:9], values[10:12, 3:5], values[0] = 1, 7, 255
        Image.fromarray(values).save(root / "SegmentationObject" / f"{i}.png")
    source = Voc(root=str(root), seed=0)
    dataset, identity = source.load(), source.identity()
    mask = dataset.train[0].read_mask()
    assert mask is not None and mask.sum() == 40 and mask[2:8, 3:9].all() and mask[10:12, 3:5].all()
    assert dataset.train_identity() and dataset.notes == {}
    Image.fromarray(np.zeros((SIZE[1], SIZE[0]), dtype=np.uint8)).save(root / "SegmentationObject" / "0.png")
    assert source.identity() != identity
    Image.new("L", (5, 5)).save(root / "SegmentationObject" / f"{dataset.train[0].id[-5]}.png")
    with pytest.raises(GenaugError, match="has 5 x 5 pixels, but its image 32 x 24"):
        source.load()


@pytest.mark.parametrize(
    ("size", "box", "said"),
    [
        ("<size><width>64</width><height>48</height></size>", (1, 1, 9, 9), "64 x 48 pixels, but the file 32 x 24"),
        ("<size><width>a</width></size>", (1, 1, 9, 9), "width and height in <size>"),
        ("", ("nan", 1, 9, 9), "a bndbox with .*nan"),
        ("", (9, 9, 1, 1), "nothing to detect.*6 boxes_with_swapped_corners_dropped"),
    ],
)
def test_a_fault_in_a_voc_file_is_named(tmp_path, size, box, said):
    with pytest.raises(GenaugError, match=said):
        Voc(root=str(voc(tmp_path, str, size, box)), seed=0).load()


def test_an_image_that_no_annotation_names_is_counted(tmp_path):
    root = coco(tmp_path)
    picture(root / "images" / "extra.jpg", SIZE)
    (root / "images" / "empty.jpg").write_bytes(b"")
    assert load(root).notes == {"empty_files": 1, "images_without_annotations": 1}
