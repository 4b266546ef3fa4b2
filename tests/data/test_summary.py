"""What a run says of its data set before it begins."""

import numpy as np

from genaug.data.sample import Boxes, Dataset, Sample
from genaug.data.summary import counted, summary


def sample(name, label):
    return Sample(id=name, digest=name, image=np.zeros((4, 4, 3), np.uint8), label={label: 1.0})


def lines(names, train, test, **more):
    parts = {"train": train, "test": test}
    samples = {split: tuple(sample(f"{split}{i}", label) for i, label in enumerate(p)) for split, p in parts.items()}
    return summary(Dataset(name="d", task="classification", class_names=names, val=(), **samples, **more))


def test_it_names_classes_images_per_class_and_what_was_left_out():
    found = lines(("a", "b"), [0, 0, 1], [0, 1], notes={"empty_files": 2}, remarks=("Read from x/.",))
    assert found == [
        "d: 3 train, 0 val, 2 test images, 2 classes: a, b",
        "images per class: train 1 (b) to 2 (a), test 1",
        "of the files: 2 empty files",
        "Read from x/.",
    ]


def test_it_names_classes_that_the_test_lacks_and_over_how_many_averages_are():
    assert lines(("a", "b", "c"), [0, 1, 2], [1])[2] == (
        "2 of 3 classes have no images in test (a, c): averages over classes are over the other 1"
    )


def test_many_and_long_names_are_shortened():
    names = (*(f"n{i}" for i in range(99)), "x" * 400)
    first = lines(names, [0], [0])[0]
    assert "100 classes: n0, n1, " in first and first.endswith(f" … {'x' * 39}…") and len(first) < 200


def test_boxes_are_counted_without_crowds():
    boxes = Boxes(
        xyxy=np.asarray([[0, 0, 2, 2], [0, 0, 3, 3]], np.float32),
        labels=np.asarray([0, 1]),
        crowd=np.asarray([False, True]),
    )
    one = Sample(id="x", digest="x", image=np.zeros((4, 4, 3), np.uint8), boxes=boxes)
    data = Dataset(name="d", task="detection", class_names=("a", "b"), train=(one,), val=(), test=(one,))
    assert summary(data)[1] == "boxes per class: train 0 (b) to 1 (a), test 0 (b) to 1 (a)"
    assert one.class_index == 0  # the crowd region is larger, but names no image


def test_one_of_a_kind_is_said_in_the_singular():
    said = [
        counted(1, reason)
        for reason in (
            "images_without_boxes",
            "boxes_clipped",
            ".cr2_files_without_a_reader",
            ".heic_files_without_a_reader",
        )
    ]
    assert said == [
        "1 image without boxes",
        "1 box clipped",
        "1 .cr2 file without a reader (convert .cr2 to PNG)",
        "1 .heic file without a reader (pip install pillow-heif)",
    ]
    assert counted(2, "images_without_boxes") == "2 images without boxes"
