"""The interval of a difference of average precision: its numbers are COCO's, and it says what is sure and what is not."""

import numpy as np
import pytest

from genaug.downstream.detection.metrics import average_precision
from genaug.evaluation.map_interval import (
    _image,
    matches,
    mean_average_precision,
    resampled_map,
    two_level_map_interval,
)

NUM_IMAGES, NUM_CLASSES = 12, 3


def predictions(seed: int, noise: float, missed: float = 0.2) -> list[dict]:
    """Of random scenes, the same for every seed: boxes found with noise, some missed, some of nothing, one on a crowd."""
    scenes, rng = np.random.default_rng(0), np.random.default_rng(seed + 1)
    rows = []
    for i in range(NUM_IMAGES):
        count = int(scenes.integers(1, 5))
        corner, labels = scenes.uniform(0, 40, (count, 2)), scenes.integers(0, NUM_CLASSES, count)
        targets = np.concatenate([corner, corner + scenes.uniform(8, 20, (count, 2))], axis=1)
        crowd = scenes.random(count) < 0.1
        kept = rng.random(count) >= missed
        ghosts = np.array([[1.0, 1, 9, 9]]) + rng.uniform(0, 30)
        boxes = np.concatenate([targets[kept] + noise * rng.normal(size=(int(kept.sum()), 4)), ghosts])
        rows.append(
            {
                "id": str(i),
                "target_boxes": targets.tolist(),
                "target_labels": labels.tolist(),
                "target_crowd": crowd.tolist(),
                "boxes": boxes.tolist(),
                "labels": [*labels[kept].tolist(), 0],
                "scores": rng.uniform(0.05, 1, len(boxes)).tolist(),
            }
        )
    return rows


def coco(rows: list[dict]) -> float:
    samples, found = zip(*map(_image, rows), strict=True)
    return average_precision(samples, found, [str(i) for i in range(NUM_CLASSES)])["map"]


def test_equal_weights_give_cocos_number():
    for seed in range(4):
        rows = predictions(seed, noise=1.0)
        ours = mean_average_precision(matches(rows, NUM_CLASSES), np.ones((1, NUM_IMAGES)))
        assert ours == pytest.approx(coco(rows), abs=1e-9)


def test_a_weight_of_two_is_an_image_that_is_there_twice_and_one_of_zero_an_image_that_is_not():
    rows = predictions(1, noise=1.0)
    weights = np.ones((2, NUM_IMAGES))
    weights[0, [0, 3]] = 0
    weights[1] = 2
    without, twofold = mean_average_precision(matches(rows, NUM_CLASSES), weights)
    left = [row for i, row in enumerate(rows) if i not in (0, 3)]
    assert without == pytest.approx(coco(left), abs=1e-9)
    twice = [{**row, "id": f"{row['id']}/{k}"} for row in rows for k in range(2)]
    assert twofold == pytest.approx(coco(twice), abs=0.02)


def test_a_class_of_which_a_resample_has_no_object_is_left_out_of_its_mean():
    rows = predictions(1, noise=1.0)
    lonely = {**rows[0], "target_labels": [3] * len(rows[0]["target_labels"]), "target_crowd": [False] * 9}
    lonely["target_crowd"] = lonely["target_crowd"][: len(lonely["target_labels"])]
    every = [lonely, *rows[1:]]
    weights = np.ones((1, NUM_IMAGES))
    weights[0, 0] = 0
    without = mean_average_precision(matches(every, NUM_CLASSES + 1), weights)
    assert without == pytest.approx(coco(rows[1:]), abs=1e-9)


def test_a_sure_difference_has_an_interval_above_zero_and_none_has_one_around_it():
    def pairs(noise: float, noise_of_baseline: float):
        return [
            (
                resampled_map(predictions(s, noise), num_resamples=200),
                resampled_map(predictions(s + 50, noise_of_baseline), num_resamples=200),
            )
            for s in range(8)
        ]

    assert two_level_map_interval(pairs(0.3, 4.0)).low > 0
    interval = two_level_map_interval(pairs(1.0, 1.0))
    assert interval.low < 0 < interval.high


def test_a_run_that_found_nothing_has_no_precision():
    rows = [{**row, "boxes": [], "labels": [], "scores": []} for row in predictions(0, noise=1.0)]
    assert mean_average_precision(matches(rows, NUM_CLASSES), np.ones((1, NUM_IMAGES))) == 0


def test_runs_are_resampled_alike_so_that_one_paired_with_itself_differs_nowhere():
    run, other = resampled_map(predictions(0, noise=1.0), 120), resampled_map(predictions(1, noise=1.0), 120)
    assert run.shape == (120,) and run.std() > 0  # in more than one piece, of which the last is shorter
    interval = two_level_map_interval([(run, run), (other, other)])
    assert interval.low == interval.high == 0
