"""What ``genaug check`` names of faults that were planted in small folders."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.data.sources.recognition import recognise
from genaug.evaluation.folder_check import check_folder


def picture(seed, size=(48, 48), mode="RGB"):
    """Smooth random colours, no two alike."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def class_folders(root: Path, splits=("train", "test"), classes=("cat", "dog"), count=12):
    """Sound class folders."""
    for s, split in enumerate(splits):
        for c, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture(1000 * s + 100 * c + i).save(folder / f"{i}.png")
    return root


def yolo(root: Path, line="0 0.5 0.5 0.4 0.4", names="[cat, dog]", count=12):
    """A sound YOLO folder, unless ``line`` is not."""
    for split in ("train", "val", "test"):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
        for i in range(count):
            picture({"train": 0, "val": 100, "test": 200}[split] + i).save(root / split / "images" / f"{i}.png")
            text = line if i == 3 else f"{i % 2} 0.5 0.5 0.4 0.4"
            (root / split / "labels" / f"{i}.txt").write_text(text)
    splits = "\n".join(f"{split}: {split}/images" for split in ("train", "val", "test"))
    (root / "data.yaml").write_text(f"{splits}\nnames: {names}\n")
    return root


def truncated(root):
    path = class_folders(root) / "train" / "cat" / "3.png"
    path.write_bytes(path.read_bytes()[:200])


def empty_file(root):
    (class_folders(root) / "train" / "cat" / "3.png").write_bytes(b"")


def copy_in_test(root):
    shutil.copy(class_folders(root) / "train/cat/3.png", root / "test/cat/copy.png")


def saved_again_in_test(root):
    picture(3).resize((40, 40)).save(class_folders(root) / "test/cat/again.jpg", quality=85)


def copy_in_train(root):
    shutil.copy(class_folders(root) / "train/cat/3.png", root / "train/cat/copy.png")


def two_labels(root):
    shutil.copy(class_folders(root) / "train/cat/3.png", root / "train/dog/copy.png")


def one_image(root):
    class_folders(root)
    for path in sorted((root / "train/dog").iterdir())[1:]:
        path.unlink()


def unreadable_kind(root):
    (class_folders(root) / "train/cat/raw.cr2").write_bytes(b"raw")


def class_without_training_images(root):
    class_folders(root)
    shutil.copytree(root / "test/cat", root / "test/bird")


def class_without_test_images(root):
    class_folders(root)
    shutil.rmtree(root / "test/dog")


def images_without_class(root):
    picture(77).save(class_folders(root) / "train" / "loose.png")


def grey_class(root):
    class_folders(root)
    for split in ("train", "test"):
        for path in (root / split / "dog").iterdir():
            Image.open(path).convert("L").save(path)


def blank_image(root):
    Image.new("RGB", (48, 48), "white").save(class_folders(root) / "train/cat/3.png")


def tiny_image(root):
    picture(5, (9, 9)).save(class_folders(root) / "train/cat/3.png")


def names_by_case(root):
    class_folders(root, classes=("traffic_light", "Traffic-Light", "dog"))


def numbered_classes(root):
    class_folders(root, classes=("class_1", "class_2"))


def imbalance(root):
    class_folders(root)
    for i in range(150):
        picture(5000 + i).save(root / f"train/cat/more{i}.png")


def boxes_in_pixels(root):
    yolo(root, line="0 24 24 10 10")


def unknown_class_of_a_box(root):
    yolo(root, line="7 0.5 0.5 0.4 0.4")


def box_around_everything(root):
    yolo(root, line="0 0.5 0.5 1 1")


def coco_image_that_is_missing(root):
    (root / "train").mkdir()
    images = [{"id": i, "file_name": f"{i}.png", "width": 48, "height": 48} for i in range(10)]
    for i in range(9):
        picture(i).save(root / "train" / f"{i}.png")
    boxes = [{"id": i + 1, "image_id": i, "category_id": 1, "bbox": [4, 4, 20, 20], "iscrowd": 0} for i in range(10)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (root / "train" / "_annotations.coco.json").write_text(json.dumps(content))


def table_that_names_no_file(root):
    (root / "images").mkdir()
    for i in range(12):
        picture(i).save(root / "images" / f"{i}.png")
    rows = [f"{i}.png,{'cat' if i % 2 else 'dog'}" for i in range(12)] + ["gone.png,cat"]
    (root / "labels.csv").write_text("\n".join(["image,label", *rows]))


def table_without_head(root):
    for i in range(12):
        picture(i).save(root / f"{i}.png")
    (root / "labels.csv").write_text("\n".join(f"{i}.png;{'cat' if i % 2 else 'dog'}" for i in range(12)))


def table_of_file_names(root, classes, head="image,label"):
    for i in range(len(classes)):
        picture(i).save(root / f"{i}.png")
    (root / "labels.csv").write_text("\n".join([head, *(f'{i}.png,"{name}"' for i, name in enumerate(classes))]))


def several_classes_in_one_cell(root):
    table_of_file_names(root, ["cat", "dog", "cat, dog"] * 8)


def a_class_for_each_image(root):
    table_of_file_names(root, [f"picture {'abcdefghijklmnopqrst'[i]}" for i in range(20)])


def table_without_rows(root):
    class_folders(root / "images", splits=(".",))
    (root / "labels.csv").write_text("image,label\n")


def coco_file_that_is_cut(root):
    (root / "images").mkdir()
    picture(0).save(root / "images" / "0.png")
    whole = {"images": [{"id": 1, "file_name": "0.png"}], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (root / "annotations.json").write_text(json.dumps(whole)[:-40])


def spreadsheet(root):
    picture(0).save(root / "0.png")
    (root / "labels.xlsx").write_bytes(b"PK")


def too_few_for_a_test(root):
    class_folders(root, splits=(".",), count=2)


def rival_data_set(root):
    class_folders(root / "one")
    class_folders(root / "two")


def neighbour_in_test(root):
    """As the next picture of a film: moved by a little, and saved again."""
    path = class_folders(root, count=20) / "train/cat/3.png"
    Image.open(path).crop((1, 1, 48, 48)).resize((48, 48)).save(root / "test/cat/next.jpg", quality=70)


def mirrored_in_test(root):
    path = class_folders(root, count=20) / "train/cat/3.png"
    ImageOps.mirror(Image.open(path)).save(root / "test/cat/mirrored.png")


def turned_in_test(root):
    path = class_folders(root, count=20) / "train/cat/3.png"
    Image.open(path).rotate(90).save(root / "test/cat/turned.jpg")


def one_folder_for_two_splits(root):
    text = (yolo(root) / "data.yaml").read_text()
    (root / "data.yaml").write_text(text.replace("val/images", "train/images"))


def background_in_train_alone(root):
    for i in range(9):
        (yolo(root) if i == 0 else root).joinpath(f"train/labels/{i}.txt").unlink()


def corners_for_a_centre(root):
    yolo(root)
    for path in root.rglob("labels/*.txt"):
        path.write_text("0 0.6 0.6 0.9 0.9")


def no_boxes_to_test_on(root):
    for path in (yolo(root) / "test/labels").iterdir():
        path.write_text("")


def exported_copies_in_test(root):
    yolo(root)
    for split, copy in (("train", "a"), ("test", "b")):
        for kind, ending in (("images", "png"), ("labels", "txt")):
            path = root / split / kind / f"3.{ending}"
            path.rename(path.with_name(f"3_jpg.rf.{copy}.{ending}"))


def corners_swapped(root):
    head = "filename,class,xmin,ymin,xmax,ymax"
    rows = [f"{i}.png,{'cat' if i % 2 else 'dog'},4,4,20,20" for i in range(12)]
    for i in range(12):
        picture(i).save(root / f"{i}.png")
    (root / "_annotations.csv").write_text("\n".join([head, *rows, "3.png,cat,30,30,22,40"]))


def two_lists_of_boxes(root):
    shutil.copy(yolo(root) / "train/images/2.png", root / "train/images/copy.png")
    (root / "train/labels/copy.txt").write_text("1 0.5 0.5 0.4 0.4")


PLANTED = [
    (truncated, r"cannot be read.*3\.png"),
    (empty_file, "1 empty files"),
    (copy_in_test, r"in two splits, e.g. .*3\.png"),
    (saved_again_in_test, r"different splits look alike, e.g. .*3\.png.*again\.jpg"),
    (copy_in_train, r"copies of another one of their split, e.g. .*copy\.png"),
    (two_labels, "under two classes"),
    (one_image, "fewer than 4 images to train on in dog"),
    (unreadable_kind, r"1 \.cr2 files without a reader"),
    (class_without_training_images, "'bird'"),
    (class_without_test_images, "no images in test of dog"),
    (images_without_class, "1 images without class folder"),
    (grey_class, "colour mode of a file tells its class"),
    (blank_image, r"show nothing .*3\.png"),
    (tiny_image, r"smaller than 16 px, e.g. .*3\.png"),
    (names_by_case, "differ by case"),
    (numbered_classes, "say nothing to a prompt"),
    (imbalance, r"commonest class has \d+ images to train on, the rarest \d+: read test/accuracy_macro"),
    (boxes_in_pixels, r"3\.txt:1: 24 is no share of the image"),
    (unknown_class_of_a_box, "class 7 is not among"),
    (box_around_everything, "box around all of the image"),
    (coco_image_that_is_missing, r"9\.png"),
    (table_that_names_no_file, r"no image 'gone\.png'"),
    (table_without_head, r"labels\.csv:1 names the image '0\.png' .* e\.g\. file_name;label"),
    (several_classes_in_one_cell, "'cat, dog' looks like several classes at once"),
    (a_class_for_each_image, r"20 classes for 20 images: are picture a, picture b, picture c … classes\?"),
    (table_without_rows, r"labels\.csv has no rows: write one for each image"),
    (coco_file_that_is_cut, r"annotations\.json:1: not valid JSON"),
    (spreadsheet, r"What labels\.xlsx may say is not read: .*save labels as CSV"),
    (too_few_for_a_test, "no test images: nothing could be measured"),
    (rival_data_set, "data set of its own"),
    (neighbour_in_test, r"different splits look alike, e.g. .*3\.png.*next\.jpg"),
    (mirrored_in_test, r"1 pair\(s\) .* look alike after a turn or mirrored, e.g. .*3\.png.*mirrored\.png"),
    (turned_in_test, r"1 pair\(s\) .* look alike after a turn or mirrored, e.g. .*3\.png.*turned\.jpg"),
    (one_folder_for_two_splits, r"12 image\(s\) are in two splits.*Name each file for one split alone"),
    (background_in_train_alone, r"9 image\(s\) of train have no box"),
    (corners_for_a_centre, r"reach beyond their images.*written in another form"),
    (no_boxes_to_test_on, "No test image of data has a box that is no crowd region"),
    (
        exported_copies_in_test,
        r"1 picture\(s\) have copies .*3_jpg\.rf\.a.* and .*3_jpg\.rf\.b.*Write dataset=roboflow",
    ),
    (corners_swapped, "1 boxes with swapped corners dropped"),
    (two_lists_of_boxes, "have two lists of boxes, e.g."),
]


def named(root: Path) -> str:
    """All that the check says of a folder."""
    try:
        layout = recognise(root)
    except GenaugError as error:
        return str(error)
    found = check(root, layout)
    notes = {**layout.left_out, **(found.dataset.notes if found.dataset else {})}
    left_out = [f"{count} {reason.replace('_', ' ')}" for reason, count in notes.items()]
    return "\n".join([*found.faults, *found.warnings, *left_out])


def check(root: Path, layout):
    detector = ["downstream=detector_tiny", "augment=none"] if layout.task == "detection" else []
    words = [f"dataset={layout.preset}", f"dataset.root={root}", *layout.overrides, *detector]
    return check_folder(compose_typed(words).dataset)


@pytest.mark.parametrize(("plant", "expected"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_a_planted_fault_is_named(plant, expected, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    plant(root)
    assert re.search(expected, named(root), re.DOTALL)


def test_turned_copies_of_one_split_and_of_small_images_are_no_leak(tmp_path):
    root = class_folders(tmp_path / "data", count=20)
    ImageOps.mirror(picture(3)).save(root / "train/cat/mirrored.png")
    small = picture(5000, (24, 24))
    small.save(root / "train/cat/small.png")
    ImageOps.mirror(small).save(root / "test/cat/small.png")
    assert "look alike" not in named(root)


def test_colours_of_one_brightness_are_a_picture(tmp_path):
    root = class_folders(tmp_path / "data")
    stripes = np.full((48, 48, 3), (200, 60, 60), dtype=np.uint8)
    stripes[:, ::8] = stripes[:, 1::8] = stripes[:, 2::8] = (60, 131, 60)
    picture = Image.fromarray(stripes)
    assert np.ptp(np.asarray(picture.convert("L"))) <= 1
    picture.save(root / "train/cat/3.png")
    assert "show nothing" not in named(root)


@pytest.mark.parametrize("make", [class_folders, yolo])
def test_a_sound_folder_has_nothing_said_against_it(make, tmp_path):
    root = make(tmp_path / "data")
    found = check(root, recognise(root))
    assert found.faults == [] and found.warnings == []


def test_a_folder_with_unreadable_images_is_looked_at_without_them(tmp_path):
    root = tmp_path / "data"
    truncated(root)
    found = check(root, recognise(root))
    assert found.overrides == ["dataset.skip_corrupt=true"]
    assert found.dataset is not None and len(found.looks) == 47


def test_different_digits_are_not_called_alike(tmp_path):
    """Simple images have similar hashes; their pixels tell them apart."""
    digits = compose_typed(["dataset=digits"]).dataset.load()
    root = tmp_path / "digits"
    for sample in digits.train[:300]:
        folder = root / digits.class_names[sample.class_index]
        folder.mkdir(parents=True, exist_ok=True)
        sample.open().save(folder / f"{sample.digest}.png")
    said = [line for line in check(root, recognise(root)).warnings if "look alike" in line]
    assert all(int(line.split()[0]) < 5 for line in said)
