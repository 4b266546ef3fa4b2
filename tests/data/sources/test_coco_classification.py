"""COCO as DA-Fusion classifies it: the annotation with the largest area names the image."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genaug.core.errors import GenaugError
from genaug.data.masks import Segmentations
from genaug.data.sources.coco_classification import CocoClassification, largest_annotations

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"

# of the sample's README: (largest mask, largest box), crowd regions left out
DISAGREEING = {
    "000000000450.jpg": ("pizza", "dining table"),
    "000000000520.jpg": ("person", "bird"),
    "000000144941.jpg": ("toilet", "potted plant"),
    "000000173350.jpg": ("toilet", "dog"),
    "000000412151.jpg": ("person", "bicycle"),
    "000000579003.jpg": ("sink", "person"),
}


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """The official layout, of the free COCO pictures."""
    source = DATA / "coco_cc"
    if not source.is_dir():
        pytest.skip("sample data not present: ../shared/data/coco_cc")
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"{split}2017").mkdir()
        text = (source / "coco" / f"instances_{split}2017.json").read_text()
        (tmp_path / "annotations" / f"instances_{split}2017.json").write_text(text)
        for image in json.loads(text)["images"]:
            (tmp_path / f"{split}2017" / image["file_name"]).symlink_to(source / "JPEGImages" / image["file_name"])
    return tmp_path


def instances(coco: Path, split: str = "train") -> dict[str, Any]:
    return json.loads((coco / "annotations" / f"instances_{split}2017.json").read_text())


def test_label_by_largest_area_differs_from_largest_box_in_exactly_the_six_named_images(coco: Path) -> None:
    everything = instances(coco)
    names = {category["id"]: category["name"] for category in everything["categories"]}
    files = {image["id"]: image["file_name"] for image in everything["images"]}
    by_area = largest_annotations(everything, crowd=False)
    boxes = [{**a, "area": a["bbox"][2] * a["bbox"][3]} for a in everything["annotations"]]
    by_box = largest_annotations({**everything, "annotations": boxes}, crowd=False)
    pairs = {files[i]: (names[by_area[i]["category_id"]], names[by_box[i]["category_id"]]) for i in by_area}
    assert {file: pair for file, pair in pairs.items() if pair[0] != pair[1]} == DISAGREEING
    dataset = CocoClassification(root=str(coco), split="reference", crowd=False, seed=0).load()
    labels = {Path(s.id).name: dataset.class_names[s.class_index] for s in dataset.train}
    assert {file: labels[file] for file in DISAGREEING} == {file: pair[0] for file, pair in DISAGREEING.items()}


def test_images_without_annotation_are_left_out_and_counted(coco: Path) -> None:
    dataset = CocoClassification(root=str(coco), split="reference", seed=0).load()
    assert len(dataset.class_names) == 80
    assert (len(dataset.train), len(dataset.test)) == (45, 18)
    assert dataset.notes == {"images_without_annotation_skipped": 3}


def test_crowd_regions_name_an_image_only_if_asked(coco: Path) -> None:
    # in 000000000544 the crowd is the largest annotation
    everything = instances(coco)
    image_id = next(image["id"] for image in everything["images"] if image["file_name"] == "000000000544.jpg")
    assert largest_annotations(everything, crowd=True)[image_id]["iscrowd"] == 1
    assert largest_annotations(everything, crowd=False)[image_id]["iscrowd"] == 0


def test_ties_go_to_the_earlier_annotation() -> None:
    annotations = [{"image_id": 1, "area": 4.0, "category_id": c} for c in (3, 1, 2)]
    assert largest_annotations({"annotations": annotations}, crowd=True)[1]["category_id"] == 3


def test_masks_are_decoded_from_polygons_and_from_both_forms_of_rle(coco: Path) -> None:
    pytest.importorskip("pycocotools")
    dataset = CocoClassification(root=str(coco), split="reference", seed=0, masks=True).load()
    everything = {Path(s.id).name: s for s in dataset.train}
    for file in ("000000000450.jpg", "000000000544.jpg"):  # polygon, uncompressed RLE of a crowd
        mask = everything[file].read_mask()
        assert isinstance(mask, np.ndarray) and mask.dtype == bool and mask.any()
        assert mask.shape[::-1] == everything[file].open().size
    square = [[1, 1, 5, 1, 5, 4, 1, 4]]
    assert Segmentations([square], 8, 8, "").read().sum() == 12


def test_missing_data_names_the_archives_and_the_page(tmp_path: Path) -> None:
    with pytest.raises(GenaugError, match=r"train2017\.zip.*19\.3 GB.*cocodataset\.org.*Licence"):
        CocoClassification(root=str(tmp_path), seed=0).identity()
    with pytest.raises(GenaugError, match="is not fetched"):
        CocoClassification(root=str(tmp_path), seed=0, download=True)
