"""VOC as DA-Fusion classifies it: which object names an image."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.data.sources.voc_classification import NAMES, VocClassification, largest_instance


def values(*boxes: tuple[slice, slice, int], fill: int = 0) -> np.ndarray:
    """uint8 [20, 20] with rectangles painted in order."""
    array = np.full((20, 20), fill, dtype=np.uint8)
    for rows, columns, value in boxes:
        array[rows, columns] = value
    return array


def voc_tree(
    root: Path, per_class: int = 3, classes: tuple[int, ...] = (1, 2), folder: str = "VOCdevkit/VOC2012"
) -> Path:
    """The archive's layout: lists, JPEGs, and palette images of classes and instances."""
    voc = root / folder
    rng = np.random.default_rng(0)
    for name in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (voc / name).mkdir(parents=True)
    number = 0
    for split, factor in (("train", 2), ("val", 1)):
        names = []
        for value in classes:
            for _ in range(per_class * factor):
                name = f"2007_{number:06d}"
                number += 1
                objects = values((slice(2, 12), slice(2, 12), 1), (slice(2, 3), slice(2, 12), 255))
                palette(voc / "SegmentationObject" / f"{name}.png", objects)
                palette(
                    voc / "SegmentationClass" / f"{name}.png", np.where(objects == 1, value, objects).astype(np.uint8)
                )
                pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(voc / "JPEGImages" / f"{name}.jpg")
                names.append(name)
        (voc / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(reversed(names)) + "\n")
    return root


def palette(path: Path, array: np.ndarray) -> None:
    image = Image.fromarray(array, mode="P")
    image.putpalette([channel for i in range(256) for channel in (i, 255 - i, i // 2)])
    image.save(path)


BIG, SMALL = (slice(0, 10), slice(0, 10)), (slice(12, 16), slice(12, 16))


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        (values((*BIG, 1), (*SMALL, 2), (slice(18, 20), slice(0, 20), 255)), 5),  # with void
        (values((*BIG, 1), (*SMALL, 2)), 5),  # without void: the released code drops id 2 instead
        (values((*SMALL, 1), (*BIG, 2)), 7),  # the largest is the last id
        (values((*SMALL, 2), fill=1), 5),  # no background: the released code drops id 1
        (values(fill=1), 5),  # one object fills the image: the released code ends as class -1, television
        (values((*BIG, 255), (*SMALL, 2)), 7),  # void is larger than the object
    ],
)
def test_the_largest_instance_names_the_image_with_and_without_void_and_background(
    objects: np.ndarray, expected: int
) -> None:
    classes = np.select([objects == 1, objects == 2], [5, 7], objects.astype(int)).astype(np.uint8)
    found = largest_instance(objects, classes)
    assert found is not None and found[0] == expected
    assert (found[1] == (objects == (1 if expected == 5 else 2))).all()


def test_one_big_instance_beats_a_class_with_more_pixels_in_total() -> None:
    objects = values((slice(0, 8), slice(0, 8), 1), (slice(10, 16), slice(0, 8), 2), (slice(10, 16), slice(10, 18), 3))
    classes = np.select([objects == 1, objects >= 2], [5, 7], 0).astype(np.uint8)
    found = largest_instance(objects, classes)
    assert found is not None and found[0] == 5
    assert (classes == 7).sum() > (classes == 5).sum()


def test_an_image_without_an_object_has_no_label() -> None:
    assert largest_instance(values(), values()) is None
    assert largest_instance(values(fill=255), values(fill=255)) is None


def test_official_lists_are_read_with_masks_of_the_training_images(tmp_path: Path) -> None:
    dataset = VocClassification(root=str(voc_tree(tmp_path)), seed=0, val_fraction=0.5).load()
    assert dataset.class_names == NAMES
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (6, 6, 6)
    assert {sample.class_index for sample in dataset.train} == {0, 1}  # value 1 is the first class
    mask = dataset.train[0].mask
    assert isinstance(mask, np.ndarray) and mask.sum() == 90 and mask[3, 2] and not mask[2, 2]


def test_the_reference_split_carves_nothing_and_keeps_the_order_of_the_lists(tmp_path: Path) -> None:
    dataset = VocClassification(root=str(voc_tree(tmp_path)), seed=0, split="reference").load()
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (12, 0, 6)
    assert [sample.id for sample in dataset.train] == sorted((s.id for s in dataset.train), reverse=True)


def test_the_folder_itself_can_be_the_root_and_identity_ignores_where_it_lies(tmp_path: Path) -> None:
    one = VocClassification(root=str(voc_tree(tmp_path / "a")), seed=0)
    two = VocClassification(root=str(voc_tree(tmp_path / "b", folder=".")), seed=3)
    assert one.identity() == two.identity()  # without a few-shot draw every seed sees the same images


def test_images_without_object_are_counted(tmp_path: Path) -> None:
    root = voc_tree(tmp_path)
    name = (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt").read_text().split()[0]
    for folder in ("SegmentationObject", "SegmentationClass"):
        palette(root / "VOCdevkit/VOC2012" / folder / f"{name}.png", values(fill=255))
    assert VocClassification(root=str(root), seed=0).load().notes == {"images_without_object_skipped": 1}


def test_missing_data_says_what_to_download_from_where_how_large_and_where_to(tmp_path: Path) -> None:
    with pytest.raises(GenaugError) as error:
        VocClassification(root=str(tmp_path), seed=0).identity()
    for part in ("VOCtrainval_11-May-2012.tar", "host.robots.ox.ac.uk", "2.0 GB", str(tmp_path), "Licence"):
        assert part in str(error.value)


def test_an_unknown_split_is_refused_with_those_on_offer() -> None:
    with pytest.raises(GenaugError, match="official or reference"):
        VocClassification(root="x", seed=0, split="halves")
