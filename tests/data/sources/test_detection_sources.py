"""Detection data sets: what becomes of odd boxes, and what a fault in a file says."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.data.annotations import BoxRules, LabelledObject
from genaug.data.sources.coco import Coco
from genaug.data.sources.coco_json import read_coco
from genaug.data.sources.digit_scenes import DigitScenes
from genaug.data.sources.recognition import recognise
from genaug.data.sources.voc import Voc, read_voc
from genaug.data.sources.yolo import Yolo, read_yolo

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")


def picture(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def voc_xml(*boxes, name="cell"):
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>\n"
        for a, b, c, d in boxes
    )
    return f"<annotation>\n<size><width>40</width><height>30</height></size>\n{objects}</annotation>"


@pytest.fixture
def voc(tmp_path):
    for i in range(8):
        picture(tmp_path / "JPEGImages" / f"{i}.png", i)
        path = tmp_path / "Annotations" / f"{i}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(voc_xml((1, 1, 10, 10)))
    return tmp_path


def test_voc_boxes_become_zero_based_with_exclusive_ends_and_odd_ones_are_counted(voc):
    boxes = ((1, 1, 40, 30), (5, 5, 5, 9), (5, 5, 5, 5), (30, 20, 60, 25), (100, 100, 120, 120))
    (voc / "Annotations" / "0.xml").write_text(voc_xml(*boxes))
    dataset = Voc(root=str(voc), seed=0).read()
    sample = next(s for s in (*dataset.train, *dataset.val, *dataset.test) if s.id.endswith("/0.png"))
    assert sample.boxes is not None
    assert sample.boxes.xyxy.tolist() == [
        [0, 0, 40, 30],
        [4, 4, 5, 9],
        [29, 19, 40, 25],
    ]  # the second is one pixel wide
    assert dataset.notes == {"boxes_clipped": 1, "boxes_outside_dropped": 1, "boxes_without_area_dropped": 1}
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (5, 1, 2)


def test_voc_files_in_a_folder_called_xml_are_found(voc):
    (voc / "Annotations").rename(voc / "xml")
    (voc / "JPEGImages").rename(voc / "images")
    assert recognise(voc).preset == "voc"
    assert len(Voc(root=str(voc), seed=0).read().train) == 5


def test_voc_that_does_not_parse_names_file_and_line(voc):
    path = voc / "Annotations" / "3.xml"
    path.write_text("<annotation>\n<object>\n<name>cell</nome>\n")
    with pytest.raises(GenaugError, match=r"3\.xml:3: not well-formed"):
        Voc(root=str(voc), seed=0).read()
    path.write_text("<annotation>\n\n<object><name>cell</name><bndbox><xmin>a</xmin></bndbox></object></annotation>")
    with pytest.raises(GenaugError, match=r"3\.xml:3: the object 'cell' needs numbers"):
        read_voc(path)


def test_voc_class_outside_the_given_names_is_refused_with_file_and_line(voc):
    (voc / "Annotations" / "2.xml").write_text(voc_xml((1, 1, 9, 9), name="plant"))
    with pytest.raises(GenaugError, match=r"2\.xml:3: the class 'plant' is not among"):
        Voc(root=str(voc), seed=0, class_names=["cell"]).read()


def test_difficult_objects_are_crowd_regions(voc):
    text = voc_xml((1, 1, 9, 9)).replace("<name>", "<difficult>1</difficult><name>")
    (voc / "Annotations" / "0.xml").write_text(text)
    assert read_voc(voc / "Annotations" / "0.xml").objects[0].crowd


def test_shots_are_refused_and_fraction_is_nested(voc):
    with pytest.raises(GenaugError, match=r"dataset\.fraction"):
        Voc(root=str(voc), seed=0, shots=4)
    half, all_of_it = (Voc(root=str(voc), seed=1, fraction=f).load() for f in (0.5, 1.0))
    assert {s.id for s in half.train} < {s.id for s in all_of_it.train}


def coco_json(**changes):
    data = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(6)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "ant"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 0,
                "category_id": 7,
                "bbox": [1, 2, 10, 10],
                "segmentation": [[1, 2, 11, 2, 11, 12, 1, 12]],
            },
            {"id": 2, "image_id": 0, "category_id": 3, "bbox": [5, 5, 0, 4]},
            {"id": 3, "image_id": 1, "category_id": 3, "bbox": [5, 5, 9, 4], "iscrowd": 1},
        ],
    }
    return {**data, **changes}


@pytest.fixture
def coco(tmp_path):
    for i in range(6):
        picture(tmp_path / "images" / f"{i}.png", i)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(coco_json()))
    return tmp_path


def test_coco_keeps_crowds_apart_and_decodes_masks(coco):
    dataset = Coco(root=str(coco), seed=0).read()
    assert dataset.class_names == ("ant", "cat")
    samples = {s.id: s for s in (*dataset.train, *dataset.val, *dataset.test)}
    first, second = samples["images/0.png"], samples["images/1.png"]
    assert first.boxes is not None and second.boxes is not None
    assert first.boxes.xyxy.tolist() == [[1, 2, 11, 12]] and first.boxes.labels.tolist() == [1]
    assert second.boxes.crowd.tolist() == [True]
    mask = first.read_mask()
    assert mask is not None and mask.shape == (30, 40) and mask.sum() == 100 and mask[2, 1] and not mask[1, 1]
    assert dataset.notes["boxes_without_area_dropped"] == 1 and dataset.notes["crowd_regions"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"images": [],\n "annotations": [}', r"instances_train2017\.json:2: not valid JSON"),
        (json.dumps({"images": []}), "lacks annotations, categories"),
        (json.dumps(coco_json(categories=[{"id": 3, "name": "ant"}])), "annotation 1 has category_id 7"),
        (json.dumps(coco_json(images=[])), "annotation 1 has image_id 0"),
    ],
)
def test_coco_faults_are_named(coco, text, said):
    path = coco / "annotations" / "instances_train2017.json"
    path.write_text(text)
    with pytest.raises(GenaugError, match=said):
        read_coco(path)


@pytest.mark.parametrize(
    "place", ["../../../label-studio/data/media/upload/3/", "C:\\Users\\me\\parts\\", "/srv/parts/", "../"]
)
def test_coco_images_are_found_by_the_last_part_of_paths_of_another_computer(coco, place):
    path = coco / "annotations" / "instances_train2017.json"
    data = json.loads(path.read_text())
    before = Coco(root=str(coco), seed=0).read()
    for image in data["images"]:
        image["file_name"] = f"{place}{image['file_name']}"
    path.write_text(json.dumps(data))
    after = Coco(root=str(coco), seed=0).read()
    assert [(s.id, s.boxes.xyxy.tolist()) for s in after.train] == [(s.id, s.boxes.xyxy.tolist()) for s in before.train]
    told = after.notes.get("images_found_by_the_last_part_of_their_paths", 0)
    assert told == (0 if place == "../" else len(data["images"]))
    data["images"][1]["file_name"] = f"/elsewhere/{Path(data['images'][0]['file_name'].replace(chr(92), '/')).name}"
    path.write_text(json.dumps(data))
    with pytest.raises(GenaugError, match=r"image \d+ and .*image \d+ both mean .*\. Give each file a name of its own"):
        Coco(root=str(coco), seed=0).read()


def test_coco_image_that_is_nowhere_is_named(coco):
    (coco / "images" / "4.png").unlink()
    with pytest.raises(GenaugError, match=r"4\.png is in none of"):
        Coco(root=str(coco), seed=0).read()


@pytest.fixture
def yolo(tmp_path):
    for split, first in (("train", 0), ("valid", 4), ("test", 6)):
        for i in range(first, first + 2):
            picture(tmp_path / split / "images" / f"{i}.png", i)
            label = tmp_path / split / "labels" / f"{i}.txt"
            label.parent.mkdir(exist_ok=True)
            label.write_text("1 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [a, b]\n"
    )
    return tmp_path


def test_yolo_rows_and_polygons_become_pixels(yolo):
    (yolo / "train" / "labels" / "0.txt").write_text("0 0.25 0.2 0.75 0.2 0.75 0.6\n")
    dataset = Yolo(root=str(yolo), seed=0).read()
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (2, 2, 2)
    polygon, row = (s.boxes for s in dataset.train)
    assert polygon is not None and row is not None
    assert polygon.xyxy[0].tolist() == pytest.approx([10, 6, 30, 18])
    assert row.xyxy[0].tolist() == pytest.approx([10, 7.5, 30, 22.5]) and row.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("row", "said"),
    [("2 .5 .5 .1 .1", "class 2 is not among"), ("0 .5 .5 .1", "4 fields"), ("cat .5 .5 .1 .1", "row of numbers")],
)
def test_yolo_faults_name_file_and_line(yolo, row, said):
    path = yolo / "train" / "labels" / "0.txt"
    path.write_text(f"0 .5 .5 .1 .1\n{row}\n")
    with pytest.raises(GenaugError, match=rf"0\.txt:2: .*{said}"):
        read_yolo(path, {0: "a", 1: "b"}, 40, 30)


def test_yolo_image_without_a_label_file_is_background(yolo):
    (yolo / "train" / "labels" / "0.txt").unlink()
    assert Yolo(root=str(yolo), seed=0).read().notes == {"images_without_a_label_file": 1, "images_without_boxes": 1}


def test_boxes_within_half_a_pixel_of_the_border_are_rounding_not_a_fault():
    rules = BoxRules({"a": 0})
    boxes = rules.apply([LabelledObject(category="a", xyxy=(-0.2, 0, 40.3, 30))], 40, 30)
    assert boxes.xyxy.tolist() == [[0, 0, 40, 30]] and not rules.notes


@pytest.mark.parametrize(
    ("xyxy", "said"),
    [
        ((-1, -1, 40, 31), None),
        ((-2, 0, 40, 30), "1 of 1 boxes reach beyond"),
        ((0.1, 0.2, 0.9, 1), "No coordinate of the 1 boxes is above 1: "),
    ],
)
def test_boxes_of_other_pixels_and_of_none_are_refused_but_counting_from_0_or_1_is_no_matter(xyxy, said):
    rules = BoxRules({"a": 0})
    rules.apply([LabelledObject(category="a", xyxy=xyxy)], 40, 30)
    with contextlib.nullcontext() if said is None else pytest.raises(GenaugError, match=said):
        rules.check_inside()


def test_digit_scenes_have_exact_boxes_and_do_not_depend_on_their_number():
    few, more = (DigitScenes(seed=0, num_train=n, num_val=2, num_test=3).load() for n in (4, 6))
    assert [s.digest for s in few.train] == [s.digest for s in more.train[:4]]
    for sample in (*few.train, *few.test):
        assert sample.boxes is not None and isinstance(sample.mask, np.ndarray) and len(sample.boxes.xyxy) >= 1
        union = np.zeros_like(sample.mask)
        for x1, y1, x2, y2 in sample.boxes.xyxy.astype(int):
            inside = sample.mask[y1:y2, x1:x2]
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()  # tight
            union[y1:y2, x1:x2] = True
        assert not (sample.mask & ~union).any()
    assert len(DigitScenes(seed=0, num_train=20, num_val=2, num_test=3, fraction=0.25).load().train) == 5


@needs_shared
def test_bccd_is_read_with_its_two_boxes_without_area_dropped():
    dataset = Voc(root=str(SHARED / "bccd"), seed=0).load()
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (205, 87, 72)
    assert dataset.class_names == ("Platelets", "RBC", "WBC")
    assert dataset.notes == {"boxes_without_area_dropped": 2}
    counts = np.bincount(np.concatenate([s.boxes.labels for s in dataset.test if s.boxes is not None]))
    assert counts.tolist() == [69, 805, 71]


@needs_shared
def test_coco_cc_is_read_with_masks_crowds_and_empty_images():
    dataset = Coco(root=str(SHARED / "coco_cc"), seed=0).load()
    assert len(dataset.train) + len(dataset.val) == 46 and len(dataset.test) == 20
    assert dataset.notes == {"crowd_regions": 5, "images_without_boxes": 3, "val_list_used_as_test": 1}
    masks = [mask for s in dataset.train if (mask := s.read_mask()) is not None]
    assert len(masks) > 30 and all(mask.any() for mask in masks)


def flat_voc(root, splits=("train", "valid", "test")):
    """As Roboflow exports VOC and labelling programs write it: XML beside the images, one name in every split."""
    for s, split in enumerate(splits):
        for i in range(4):
            picture(root / split / f"{i}.jpg", 10 * s + i)
            (root / split / f"{i}.xml").write_text(voc_xml((1, 1, 10, 10 + s)))
    return root


def test_voc_beside_its_images_is_read_with_the_splits_of_its_folders(tmp_path):
    dataset = Voc(root=str(flat_voc(tmp_path)), seed=0).load()
    assert recognise(tmp_path).preset == "voc"
    assert [s.id for s in dataset.val] == [f"valid/{i}.jpg" for i in range(4)]
    assert [s.boxes.xyxy[0].tolist() for s in dataset.test] == [[0, 0, 10, 12]] * 4 and len(dataset.train) == 4


def test_voc_beside_its_images_in_one_folder_is_split_and_other_xml_is_none(tmp_path):
    flat_voc(tmp_path, (".",))
    dataset = Voc(root=str(tmp_path), seed=0).load()
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test)] == [2, 1, 1]
    other = tmp_path / "other"
    for name in "ab":
        picture(other / name / "0.png", ord(name))
    (other / "project.xml").write_text("<project/>")
    assert recognise(other).preset == "image_folder"


def test_images_outside_the_root_that_are_numbered_alike_in_each_split_are_different_images(yolo, tmp_path):
    for split, first in (("valid", 4), ("test", 6)):
        for kind in ("images", "labels"):
            for path in (yolo / split / kind).iterdir():
                path.rename(path.with_stem(str(int(path.stem) - first)))
    described = tmp_path / "described"
    described.mkdir()
    text = (yolo / "data.yaml").read_text().replace("../", "")
    (described / "data.yaml").write_text(f"path: {yolo}\n{text}")
    dataset = Yolo(root=str(described), seed=0).load()
    assert [s.id for s in dataset.train] == ["train/images/0.png", "train/images/1.png"]
    assert [s.id for s in dataset.test] == ["test/images/0.png", "test/images/1.png"]
