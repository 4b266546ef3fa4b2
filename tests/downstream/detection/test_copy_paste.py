"""Objects pasted into other training images: pixels, boxes and what they cover, on pictures drawn by hand."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from genaug.composition import compose_typed
from genaug.core.errors import GenaugError
from genaug.data.augmentation import CopyPaste
from genaug.data.mixing import Paste, RealOnly, Stream
from genaug.data.pool import Pool
from genaug.data.sample import Boxes, Sample, SyntheticSample
from genaug.downstream.detection import copy_paste as module
from genaug.downstream.detection.batches import BoxedBatches, BoxedImages
from genaug.downstream.detection.copy_paste import copy_paste

PASTED, BELOW = 200, 10


def picture(value, *boxes, size=(40, 40)):
    image = torch.full((3, *size), value, dtype=torch.uint8)
    return image, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.arange(len(boxes))


@pytest.fixture
def unscaled(monkeypatch):
    monkeypatch.setattr(module, "SCALES", (1.0, 1.0))
    monkeypatch.setattr(module, "SUBSET_PROB", 1.0)


def bounds(pixels):
    rows, columns = torch.nonzero(pixels, as_tuple=True)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("seed", range(8))
def test_a_box_is_pasted_whole_and_its_new_box_is_where_its_pixels_are(unscaled, seed):
    target = picture(BELOW)
    image, boxes, labels = copy_paste(target, None, picture(PASTED, (3, 5, 13, 25)), None, 0.3, seed)
    assert int((image[0] == PASTED).sum()) == 10 * 20
    assert boxes.tolist() == [bounds(image[0] == PASTED)] and labels.tolist() == [0]
    assert (target[0] == BELOW).all()


def test_places_differ(unscaled):
    found = [copy_paste(picture(BELOW), None, picture(PASTED, (3, 5, 13, 25)), None, 0.3, seed)[1] for seed in range(8)]
    assert len({tuple(boxes[0].tolist()) for boxes in found}) > 4


@pytest.mark.parametrize("seed", range(8))
def test_only_the_masks_pixels_are_pasted_and_the_box_follows_them(unscaled, seed):
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[8:12, 4:10] = True
    image, boxes, _ = copy_paste(picture(BELOW), None, picture(PASTED, (3, 5, 13, 25)), mask, 0.3, seed)
    assert int((image[0] == PASTED).sum()) == 4 * 6
    assert boxes.tolist() == [bounds(image[0] == PASTED)]


def covering(share, min_visible, mask=None):
    """Boxes after the left ``share`` of the object (0, 0, 40, 40) is covered by one of the target's height."""
    source = picture(PASTED, (0, 0, round(40 * share), 40), size=(40, round(40 * share)))
    for seed in range(300):
        image, boxes, labels = copy_paste(picture(BELOW, (0, 0, 40, 40)), mask, source, None, min_visible, seed)
        if (image[0, :, 0] == PASTED).all():
            return boxes, labels
    raise AssertionError("never at the left")


def test_an_object_loses_its_box_under_the_stated_share_and_keeps_what_is_in_sight_above_it(unscaled):
    boxes, labels = covering(0.6, min_visible=0.3)
    assert boxes.tolist() == [[24, 0, 40, 40], [0, 0, 24, 40]] and labels.tolist() == [0, 0]
    boxes, _ = covering(0.8, min_visible=0.3)
    assert boxes.tolist() == [[0, 0, 32, 40]]
    boxes, _ = covering(1.0, min_visible=0.0)
    assert boxes.tolist() == [[0, 0, 40, 40]]


def test_the_share_in_sight_is_that_of_the_mask_where_there_is_one(unscaled):
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[:, :10] = True  # all of the object is at the left
    boxes, _ = covering(0.5, min_visible=0.1, mask=mask)
    assert boxes.tolist() == [[0, 0, 20, 40]]


def test_what_is_not_covered_keeps_its_box_to_the_last_digit(unscaled):
    target = picture(BELOW, (0.25, 0.5, 3.75, 3.25), size=(80, 80))
    kept = 0
    for seed in range(10):
        image, boxes, _ = copy_paste(target, None, picture(PASTED, (3, 5, 13, 25)), None, 0.3, seed)
        if (image[0, :4, :4] == BELOW).all():
            kept += 1
            assert boxes[0].tolist() == [0.25, 0.5, 3.75, 3.25]
    assert kept > 5


@pytest.mark.parametrize("seed", range(20))
def test_an_image_of_any_size_keeps_the_targets_size_and_boxes_inside(seed):
    source = picture(PASTED, (0, 0, 90, 70), (10, 10, 14, 14), (50, 2, 51, 3), size=(100, 100))
    image, boxes, labels = copy_paste(picture(BELOW, (5, 5, 20, 20), size=(30, 50)), None, source, None, 0.3, seed)
    assert image.shape == (3, 30, 50) and len(boxes) == len(labels)
    assert (boxes >= 0).all() and (boxes <= torch.tensor([50, 30, 50, 30])).all()
    assert ((boxes[:, 2:] - boxes[:, :2]) > 0).all()


def test_a_subset_of_the_objects_is_pasted_one_at_least():
    source = picture(PASTED, (0, 0, 5, 5), (10, 0, 15, 5), (20, 0, 25, 5))
    counts = {len(copy_paste(picture(BELOW, size=(90, 90)), None, source, None, 0.3, seed)[1]) for seed in range(40)}
    assert counts == {1, 2, 3}


def test_batches_paste_real_training_objects_as_often_as_asked_and_the_same_every_time():
    def sample(name, value, mask=None):
        pixels = np.full((32, 32, 3), value, dtype=np.uint8)
        boxes = Boxes(
            xyxy=np.array([[4, 4, 12, 12]], np.float32), labels=np.array([value % 3]), crowd=np.array([False])
        )
        return Sample(id=name, digest=name, image=pixels, boxes=boxes, mask=mask)

    mask = np.zeros((32, 32), dtype=bool)
    mask[6:8, 6:8] = True
    train = (sample("a", 50), sample("b", 100, mask))

    def images(prob):
        stream = Stream(RealOnly(), train, None, seed=0)
        return BoxedBatches(stream, BoxedImages(32), 8, 0, paste=CopyPaste(paste_prob=prob))[0]

    plain, pasted = images(0.0), images(1.0)
    assert all(len(torch.unique(image)) == 1 for image in plain[0])
    changed = [len(torch.unique(image)) == 2 for image in pasted[0]]
    assert any(changed) and [len(target["boxes"]) for target in plain[1]] == [1] * 8
    again = images(1.0)
    assert all(torch.equal(a, b) for a, b in zip(pasted[0], again[0], strict=True))
    few = [
        int((image == 100).sum()) // 3 for image in pasted[0] if 50 in image and 100 in image and image[0, 31, 31] == 50
    ]
    assert few and max(few) <= 9  # the mask's four pixels at most half again as wide and high, not the box's 64


def test_objects_of_generated_images_are_pasted_into_real_ones_alone():
    def sample(name, value, **more):
        pixels = np.full((32, 32, 3), value, dtype=np.uint8)
        boxes = Boxes(xyxy=np.array([[4, 4, 12, 12]], np.float32), labels=np.array([1]), crowd=np.array([False]))
        return (SyntheticSample if more else Sample)(id=name, digest=name, image=pixels, boxes=boxes, **more)

    train = (sample("a", 50), sample("b", 100))
    made = tuple(sample(f"a/{j}", 200 + j, source_id="a", index=j) for j in range(2))
    crowd = dataclasses.replace(made[0].boxes, crowd=np.array([True]))
    nothing = dataclasses.replace(made[0], image=np.full((32, 32, 3), 220, np.uint8), boxes=crowd)
    pool = Pool(fingerprint="0" * 16, folder=Path("nowhere"), samples=(*made, nothing))
    stream = Stream(Paste(m=2), train, pool, seed=0)
    images, targets = BoxedBatches(stream, BoxedImages(32), 64, 0, paste=CopyPaste(paste_prob=1.0))[0]
    values = [set(torch.unique(image).tolist()) for image in images]
    assert all(len(found & {50, 100}) == 1 and len(found) == 2 and len(t["boxes"]) >= 1
               for found, t in zip(values, targets, strict=True))  # fmt: skip
    assert set.union(*values) == {50, 100, 200, 201}


def test_a_mix_that_lends_objects_needs_an_augmentation_that_pastes_them():
    words = ["dataset=digit_scenes", "downstream=detector_tiny", "generator=psld", "mix=paste"]
    compose_typed([*words, "augment=copy_paste"]).check()
    for more in (["augment=flip_crop"], ["dataset=digits", "downstream=classifier_tiny", "generator=real_guidance"]):
        with pytest.raises(GenaugError, match=r"mix=paste lends the pool's objects to augment=copy_paste"):
            compose_typed([*words, *more]).check()


def test_classification_cannot_paste_objects():
    CopyPaste(name="copy_paste").check("detection")
    with pytest.raises(GenaugError, match="augment=copy_paste pastes objects, which classification has not"):
        CopyPaste(name="copy_paste").check("classification")
