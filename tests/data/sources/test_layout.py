"""Trees of class folders as people and archives make them: understood, or refused with what to write."""

import os
import shutil

import pytest
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.data.sources.folder_names import split_of
from genaug.data.sources.image_folder import ImageFolder
from genaug.data.sources.layout import class_folders
from genaug.data.sources.recognition import recognise
from tests.data.pictures import classes, picture

YOLO = "path: .\nnames: [a]\ntrain: images\n"
COCO = '{"images": [], "annotations": [], "categories": []}'


def counts(root, **how):
    layout = class_folders(root, **how)
    return {split: {name: len(paths) for name, paths in found.items()} for split, found in layout.splits.items()}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(
            (name, "train")
            for name in ("train", "Training", "TRAIN_SET", "training-set", "seg_train", "train2017", "TrainImages")
        ),
        *((name, "val") for name in ("val", "Valid", "validation_set", "dev", "images_val")),
        *((name, "test") for name in ("test", "Testing", "test_set", "seg_test", "test1", "evaluation")),
        *((name, "trainval") for name in ("trainval", "train-val", "train_val")),
        *(
            (name, None)
            for name in ("cats", "images", "training wheels", "contest", "trains", "protest", "valley", "tests of time")
        ),
    ],
)
def test_split_names_are_known_in_any_spelling(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set/training_set", "test_set/test_set"),
        ("Train", "TEST"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train/images", "test/images"),
        ("archive/train", "archive/testing"),
    ],
)
def test_splits_are_found_under_their_usual_names(tmp_path, train, test):
    classes(tmp_path / train)
    classes(tmp_path / test, count=2)
    assert counts(tmp_path) == {"train": {"cat": 4, "dog": 4}, "test": {"cat": 2, "dog": 2}}


def test_a_class_may_be_called_train(tmp_path):
    classes(tmp_path, ("bus", "car", "train"))
    assert set(counts(tmp_path)["train"]) == {"bus", "car", "train"}


def test_class_folders_inside_one_folder_or_beside_annotations_are_found(tmp_path):
    classes(tmp_path / "zip" / "PetImages")
    assert set(counts(tmp_path / "zip")["train"]) == {"cat", "dog"}
    classes(tmp_path / "cub" / "images")
    classes(tmp_path / "cub" / "segmentations")
    layout = class_folders(tmp_path / "cub")
    assert set(layout.class_names) == {"cat", "dog"} and layout.left_out == {"pictures_in_annotation_folders": 8}
    assert layout.remarks == ("The class folders are those of images/.",)


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("a/train/x", "a/train/y", "b/train/x"), r"a/ is a data set of its own: write dataset\.root=.*/a"),
        (("a/x", "a/y", "b/u", "b/v"), r"lie in further folders \(a/x/, a/y/.*dataset\.class_names=\[a,b\]"),
        (("images", "masks"), r"looks like images and annotations.*class_names=\[images,masks\]"),
        (("train", "test"), "hold images, but no class folders"),
        (("train/cat", "train/dog", "spare/cat"), "train/ beside spare/: is it a split or a class"),
        (("train2014/cat", "train2014/dog", "train2017/cat", "train2017/dog"), "several folders for the train split"),
        (("test/cat", "test/dog"), "no train folder beside"),
        (("train/Cat", "train/dog", "test/cat"), "'cat', which is 'Cat' in the training split"),
        (("train/cat", "train/dog", "test/bird"), r"test split has the class 'bird' \(1 images\)"),
        (("cat",), "1 image.s. in 1 class folder"),
        ((".",), "1 image.s. in 0 class folder"),
    ],
)
def test_other_trees_are_refused_with_what_to_write(tmp_path, folders, said):
    for folder in folders:
        picture(tmp_path / folder / "0.png")
    with pytest.raises(GenaugError, match=said):
        class_folders(tmp_path)


def test_named_classes_are_read_whatever_they_look_like(tmp_path):
    classes(tmp_path, ("images", "masks", "cat"))
    assert counts(tmp_path, class_names=["images", "masks"]) == {"train": {"images": 4, "masks": 4}}
    assert class_folders(tmp_path, ["images", "masks"]).left_out == {"images_of_classes_not_chosen": 4}
    with pytest.raises(GenaugError, match="no folder 'dog'"):
        class_folders(tmp_path, ["images", "dog"])


def test_one_name_in_two_unicode_forms_is_one_class(tmp_path):
    classes(tmp_path / "train", ("caf\u00e9", "th\u00e9"))
    classes(tmp_path / "test", ("cafe\u0301", "th\u00e9"), count=1)
    dataset = ImageFolder(root=str(tmp_path), seed=0).load()
    assert dataset.class_names == ("caf\u00e9", "th\u00e9") and len(dataset.test) == 2


def test_every_image_like_file_that_is_not_used_is_counted_by_reason(tmp_path):
    classes(tmp_path / "train")
    picture(tmp_path / "train" / "loose.png")
    picture(tmp_path / "test" / "unlabelled.png")
    picture(tmp_path / "extra" / "a.png")
    picture(tmp_path / "train" / "cat" / "@eaDir" / "0.png" / "thumb.jpg")
    picture(tmp_path / "__MACOSX" / "a.png")
    (tmp_path / "train" / "cat" / "._0.png").write_bytes(b"x")
    (tmp_path / "train" / "cat" / "empty.jpg").write_bytes(b"")
    (tmp_path / "train" / "cat" / "raw.nef").write_bytes(b"x")
    os.symlink(tmp_path, tmp_path / "train" / "cat" / "back")
    os.symlink(tmp_path / "nowhere", tmp_path / "train" / "dog" / "gone.png")
    assert class_folders(tmp_path).left_out == {
        ".nef_files_without_a_reader": 1,
        "broken_links": 1,
        "empty_files": 1,
        "images_beside_the_splits": 1,
        "images_without_class_folder": 1,
        "links_to_a_folder_above_them": 1,
        "thumbnails_and_hidden_files": 3,
        "unlabelled_images": 1,
    }


def test_linked_folders_and_files_are_read(tmp_path):
    root = classes(tmp_path / "set")
    classes(tmp_path / "elsewhere", ("bird",))
    os.symlink(tmp_path / "elsewhere" / "bird", root / "bird")
    os.symlink(tmp_path / "elsewhere" / "bird" / "0.png", root / "cat" / "linked.png")
    assert counts(root) == {"train": {"bird": 4, "cat": 5, "dog": 4}}


@pytest.mark.parametrize("suffix", ["jfif", "JPG", "avif", "webp", "jp2", "tga", "bmp"])
def test_every_format_that_pillow_reads_is_an_image(tmp_path, suffix):
    classes(tmp_path)
    picture(tmp_path / "cat" / "other.png").unlink()
    kind = {"jfif": "JPEG", "JPG": "JPEG", "jp2": "JPEG2000"}.get(suffix, suffix.upper())
    Image.new("RGB", (16, 16), "red").save(tmp_path / "cat" / f"x.{suffix}", kind)
    dataset = ImageFolder(root=str(tmp_path), seed=0).load()
    samples = {s.id: s for part in (dataset.train, dataset.val, dataset.test) for s in part}
    assert samples[f"cat/x.{suffix}"].open().getpixel((8, 8))[0] > 200


def test_a_class_that_nothing_here_can_read_says_what_to_install(tmp_path):
    classes(tmp_path)
    (tmp_path / "bird").mkdir()
    (tmp_path / "bird" / "0.heic").write_bytes(b"x")
    with pytest.raises(GenaugError, match=r"class 'bird'.*only \.heic files: pip install pillow-heif"):
        class_folders(tmp_path)


def test_classes_called_none_and_false_are_classes(tmp_path):
    classes(tmp_path, ("None", "False", "nan"))
    assert ImageFolder(root=str(tmp_path), seed=0).load().class_names == ("False", "None", "nan")


def test_a_set_is_called_like_its_folder_unless_it_has_a_name(tmp_path):
    root = classes(tmp_path / "my birds")
    assert ImageFolder(root=f"{root}/", seed=0).load().name == "my birds"
    assert ImageFolder(root=str(root), seed=0, name="b").load().name == "b"


@pytest.mark.parametrize("root", ["", "  "])
def test_an_empty_root_is_refused(root):
    with pytest.raises(GenaugError, match=r"dataset\.root= is empty"):
        ImageFolder(root=root, seed=0).identity()


def test_recognise_names_the_preset_of_other_layouts(tmp_path, shared):
    assert recognise(shared("bccd")).preset == "voc"
    assert recognise(shared("coco_cc")).preset == "coco"
    assert recognise(shared("custom_coco_256")).class_names[0] == "bench"
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "dataset.yaml").write_text("train: images\nnames: [a]\n")
    found = recognise(tmp_path / "yolo")
    assert (found.preset, found.overrides) == ("yolo", ("dataset.yaml=dataset.yaml",))
    with pytest.raises(GenaugError, match="bccd/ is a data set of its own"):
        recognise(shared("bccd").parent)


@pytest.mark.parametrize(
    ("files", "overrides"),
    [
        (
            {"birds.yaml": YOLO, "notes.yaml": "names: [x]\n"},
            "dataset.yaml=birds.yaml",
        ),
        ({"data.yaml": YOLO, "birds.yaml": YOLO}, ""),
        ({"result.json": COCO}, "dataset.train_json=result.json"),
        ({"annotations/instances_default.json": COCO}, "dataset.train_json=annotations/instances_default.json"),
        ({"annotations/train.json": COCO, "annotations/val.json": COCO}, ""),
        (
            {"birds_train_v2.json": COCO, "birds_valid_v2.json": COCO, "info.json": "{}"},
            "dataset.train_json=birds_train_v2.json dataset.val_json=birds_valid_v2.json",
        ),
    ],
)
def test_annotations_are_recognised_by_what_they_hold_whatever_they_are_called(files, overrides, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = recognise(tmp_path)
    assert found.preset == ("yolo" if "birds.yaml" in files else "coco")
    assert " ".join(found.overrides) == overrides


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            ("one.json", "two.json"),
            r"several files of COCO annotations, one\.json, two\.json: .*dataset\.train_json=FILE",
        ),
        (
            ("one.yaml", "two.yml"),
            r"several descriptions of YOLO data, one\.yaml, two\.yml: write dataset=yolo dataset",
        ),
    ],
)
def test_annotations_of_which_any_may_be_meant_are_refused(files, said, tmp_path):
    for name in files:
        (tmp_path / name).write_text(COCO if name.endswith("json") else "train: images\nnames: [a]\n")
    with pytest.raises(GenaugError, match=said):
        recognise(tmp_path)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            ("obj_train_data/0.png", "obj_train_data/0.txt", "obj.data"),
            r"looks like dataset=yolo, whose data\.yaml is miss",
        ),
        (
            ("images/train/0.png", "annotations/train/0.xml"),
            r"Pascal VOC are read with dataset=voc where each lies beside",
        ),
    ],
)
def test_annotations_in_places_that_are_not_read_are_told_what_they_look_like(files, said, tmp_path):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("<annotation></annotation>")
    Image.new("RGB", (8, 8)).save(tmp_path / files[0])
    with pytest.raises(GenaugError, match=said):
        recognise(tmp_path)


def test_a_class_that_loses_all_its_images_is_no_silent_loss(tmp_path):
    classes(tmp_path)
    shutil.rmtree(tmp_path / "dog")
    (tmp_path / "dog").mkdir()
    classes(tmp_path, ("bird",))
    layout = class_folders(tmp_path)
    assert layout.class_names == ("bird", "cat")
    assert layout.remarks == ("train: the folder dog/ holds no image, so it is no class.",)
