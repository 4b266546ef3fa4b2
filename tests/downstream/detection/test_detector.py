"""The detector: what it is fed, how it is scored, that it resumes, and what it refuses."""

import dataclasses

import numpy as np
import pytest
import torch

from genaug.core.errors import GenaugError
from genaug.data.augmentation import Augment
from genaug.data.detections import Detections
from genaug.data.mixing import RealOnly, Stream
from genaug.data.sample import Boxes, Sample
from genaug.data.sources.digit_scenes import DigitScenes
from genaug.downstream.base import TrainingData
from genaug.downstream.detection.batches import BoxedBatches, BoxedImages, mosaic, transformed
from genaug.downstream.detection.config import Detector
from genaug.downstream.detection.metrics import average_precision, repeat_factors, repeated
from genaug.downstream.detection.network import build_network
from genaug.downstream.trainer import TrainerConfig
from genaug.tracking.record import Record


@pytest.fixture(scope="module")
def scenes():
    return DigitScenes(seed=0, num_train=6, num_val=2, num_test=3).load()


def detector(**changes):
    return Detector(**{"name": "detector", "seed": 0, "image_size": 64, "batch_size": 2, "warmup_steps": 0, **changes})


def train(config, dataset, folder, augment=None, **trainer):
    folder.mkdir(exist_ok=True)
    data = TrainingData(dataset=dataset, mix=RealOnly(), pool=None, augment=augment or Augment())
    return config.train(data, TrainerConfig(accelerator="cpu", **trainer), folder, Record(folder))


def with_boxes(size, *rows, crowd=None):
    corners = np.asarray([row[:4] for row in rows], dtype=np.float32).reshape(-1, 4)
    labels = np.asarray([row[4] for row in rows], dtype=np.int64)
    flags = np.zeros(len(rows), dtype=bool) if crowd is None else np.asarray(crowd)
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    return Sample(id="x", digest="x", image=pixels, boxes=Boxes(xyxy=corners, labels=labels, crowd=flags))


def predicted(*rows):
    return Detections(
        xyxy=np.asarray([r[:4] for r in rows], dtype=np.float32).reshape(-1, 4),
        labels=np.asarray([r[4] for r in rows], dtype=np.int64),
        scores=np.asarray([r[5] for r in rows], dtype=np.float32),
    )


def test_selection_by_validation_images_without_objects_is_refused_before_training(scenes):
    empty = tuple(dataclasses.replace(sample, boxes=with_boxes((64, 64)).boxes) for sample in scenes.val)
    blind = dataclasses.replace(scenes, val=empty)
    detector().check_dataset(blind)
    with pytest.raises(GenaugError, match="No val image of digit_scenes has a box that is no crowd region"):
        detector(select="best_val", eval_every=2).check_dataset(blind)


def test_perfect_detections_have_an_average_precision_of_one_by_size_and_class():
    sample = with_boxes((300, 300), (0, 0, 20, 20, 0), (50, 50, 110, 110, 1), (150, 150, 290, 290, 1))
    perfect = predicted((0, 0, 20, 20, 0, 0.9), (50, 50, 110, 110, 1, 0.8), (150, 150, 290, 290, 1, 0.7))
    result = average_precision([sample], [perfect], ["a", "b"])
    assert [result[key] for key in ("map", "map_50", "map_small", "map_medium", "map_large")] == pytest.approx([1] * 5)
    assert [result["per_class"][name]["ap"] for name in ("a", "b")] == pytest.approx([1, 1])
    assert [result["per_class"][name]["objects"] for name in ("a", "b")] == [1, 2]


def test_average_precision_of_a_miss_and_a_false_alarm_is_known():
    sample = with_boxes((100, 100), (0, 0, 20, 20, 0), (50, 50, 80, 80, 0))
    result = average_precision([sample], [predicted((50, 50, 80, 80, 0, 0.9), (0, 60, 20, 90, 0, 0.8))], ["a"])
    assert result["map"] == pytest.approx(51 / 101)  # recall 1/2 at precision 1, on COCO's 101 recall points
    assert result["map_large"] is None
    assert average_precision([sample], [predicted()], ["a"])["map"] == 0


def test_crowd_regions_are_neither_hits_nor_misses():
    sample = with_boxes((100, 100), (0, 0, 20, 20, 0), (40, 40, 100, 100, 0), crowd=[False, True])
    found = predicted((0, 0, 20, 20, 0, 0.5), (50, 50, 70, 70, 0, 0.9))
    assert average_precision([sample], [found], ["a"])["map"] == pytest.approx(1)


def test_boxes_are_scaled_with_the_image_and_crowds_are_not_trained_on():
    sample = with_boxes((128, 64), (16, 8, 48, 40, 2), (0, 0, 10, 10, 1), crowd=[False, True])
    image, boxes, labels = BoxedImages(64).example(sample)
    assert image.shape == (3, 32, 64) and boxes.tolist() == [[8, 4, 24, 20]] and labels.tolist() == [2]


def test_flip_and_crop_move_boxes_with_their_objects(scenes):
    images = BoxedImages(64)
    transform = Augment(horizontal_flip_prob=1.0).image_transform(64)
    for sample in scenes.train[:3]:
        image, boxes, _ = images.example(sample)
        flipped, moved, _ = transformed((image, boxes, torch.arange(len(boxes))), transform, seed=1)
        assert torch.equal(flipped, image.flip(2))
        assert torch.allclose(moved[:, [0, 2]], 64 - boxes[:, [2, 0]])
    crop = Augment(crop_min_area=0.2).image_transform(64)
    for seed in range(20):
        image, boxes, labels = transformed(images.example(scenes.train[0]), crop, seed)
        assert image.shape == (3, 64, 64) and len(boxes) == len(labels)
        assert len(boxes) == 0 or (boxes.min() >= 0 and boxes.max() <= 64 and (boxes[:, 2:] - boxes[:, :2]).min() >= 2)


def test_mosaic_keeps_the_corners_that_touch_its_centre():
    parts = [
        (
            torch.full((3, 40, 40), value, dtype=torch.uint8),
            torch.tensor([[30.0, 30, 40, 40], [0, 0, 10, 10]]),
            torch.tensor([0, 1]),
        )
        for value in (1, 2, 3, 4)
    ]
    canvas, boxes, labels = mosaic(parts, 64, (0.5, 0.5))
    assert [int(canvas[0, y, x]) for y, x in ((31, 31), (31, 32), (32, 31), (32, 32))] == [1, 2, 3, 4]
    assert boxes[0].tolist() == [22, 22, 32, 32] and boxes[1][:2].tolist() == [0, 0]
    assert len(labels) == 8


def test_batch_is_a_function_of_its_step(scenes):
    stream = Stream(RealOnly(), scenes.train, None, seed=3)
    batches = BoxedBatches(
        stream, BoxedImages(64), 4, 0, Augment(crop_min_area=0.5).image_transform(64), mosaic_prob=0.5
    )
    images, targets = batches[5]
    again, same = BoxedBatches(
        stream, BoxedImages(64), 4, 0, Augment(crop_min_area=0.5).image_transform(64), mosaic_prob=0.5
    )[5]
    assert all(torch.equal(a, b) for a, b in zip(images, again, strict=True))
    assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(targets, same, strict=True))


def test_repeat_factors_follow_the_rarest_class():
    samples = [with_boxes((64, 64), (0, 0, 9, 9, 0))] * 9 + [with_boxes((64, 64), (0, 0, 9, 9, 0), (0, 0, 9, 9, 1))]
    factors = repeat_factors(samples, 2, threshold=0.4)
    assert factors[0] == 1 and factors[9] == pytest.approx((0.4 / 0.1) ** 0.5)
    assert len(repeated(samples, 2, 0.4, seed=0)) == 11


def test_interrupted_training_ends_as_if_it_had_not_been(scenes, tmp_path):
    whole = train(detector(num_steps=4), scenes, tmp_path / "whole", checkpoint_every=2)
    cut = detector(num_steps=4)
    broken = dataclasses.replace(scenes)

    class Stop(RuntimeError):
        pass

    record_log, seen = Record.log, []

    def stop(self, metrics, step):
        seen.append(step)
        if len(seen) == 3:
            raise Stop
        record_log(self, metrics, step)

    Record.log = stop  # type: ignore[method-assign]
    try:
        with pytest.raises(Stop):
            train(cut, broken, tmp_path / "cut", checkpoint_every=2)
    finally:
        Record.log = record_log  # type: ignore[method-assign]
    resumed = train(cut, scenes, tmp_path / "cut", checkpoint_every=2)
    assert resumed["metrics"] == whole["metrics"] and resumed["predictions"] == whole["predictions"]
    assert len(whole["predictions"]) == len(scenes.test) and "test/per_class" in whole["metrics"]
    assert (tmp_path / "whole" / "detections.png").is_file()


@pytest.mark.parametrize("architecture", ["faster_rcnn", "retinanet", "fcos"])
def test_paper_scale_detectors_learn_from_images_with_and_without_boxes(architecture):
    config = detector(architecture=architecture, trainable_layers=0)
    network = build_network(config, 3)
    boxes = torch.tensor([[4.0, 4, 30, 30]])
    targets = [
        {"boxes": boxes, "labels": torch.tensor([2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    losses = network([torch.rand(3, 64, 64), torch.rand(3, 48, 64)], targets)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert torch.isfinite(total)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": "coco"}, "weights=none"),
        ({"weights_path": "x.pth"}, "weights=backbone or coco"),
        ({"select": "best_val"}, "eval_every"),
        ({"num_steps": 10, "warmup_steps": 10}, "warmup_steps"),
        ({"mosaic_prob": 2.0}, "mosaic_prob"),
        ({"architecture": "yolo"}, "faster_rcnn"),
    ],
)
def test_bad_configurations_are_refused(changes, said):
    with pytest.raises(GenaugError, match=said):
        detector(**changes)


def test_augmentation_that_cannot_move_boxes_is_refused():
    trainer = TrainerConfig(accelerator="cpu")
    with pytest.raises(GenaugError, match="cannot move boxes"):
        detector().check_training(RealOnly(), Augment(policy="randaugment"), trainer, online=False)


def test_missing_weights_file_is_named():
    with pytest.raises(GenaugError, match=r"nowhere\.pth is not a file"):
        build_network(detector(architecture="fcos", weights="coco", weights_path="nowhere.pth"), 2)


def test_the_moving_average_is_scored_and_the_best_evaluation_selected(scenes, tmp_path):
    averaged = detector(num_steps=4, ema_decay=0.9, select="best_val", eval_every=2)
    outcome = train(averaged, scenes, tmp_path / "averaged")
    history = outcome["protocol"]["history"]
    assert [entry["step"] for entry in history] == [2, 4]
    best = max(history, key=lambda entry: entry["val/map"])
    assert outcome["protocol"]["selected_step"] == best["step"] and not outcome["protocol"]["oracle"]
    assert outcome["metrics"]["val/map"] == pytest.approx(best["val/map"])
    plain = train(detector(num_steps=4), scenes, tmp_path / "plain")
    assert plain["predictions"] != outcome["predictions"]
