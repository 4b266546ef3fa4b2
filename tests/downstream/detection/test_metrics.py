"""Average precision is COCO's: as pycocotools reads it from files, by hand, and where there is nothing to find."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from genaug.core.errors import GenaugError
from genaug.core.identity import fingerprint
from genaug.data.detections import Detections
from genaug.data.sample import Boxes, Sample
from genaug.downstream.detection.config import Detector
from genaug.downstream.detection.metrics import EVALUATORS, STATISTICS, average_precision

NAMES = ["cell", "platelet", "never there"]


def sample(xyxy, labels, crowd=None, area=None, name="x"):
    boxes = Boxes(
        xyxy=np.asarray(xyxy, dtype=np.float32).reshape(-1, 4),
        labels=np.asarray(labels, dtype=np.int64),
        crowd=np.zeros(len(labels), dtype=bool) if crowd is None else np.asarray(crowd),
        area=None if area is None else np.asarray(area, dtype=np.float32),
    )
    return Sample(id=name, digest=name, image=np.zeros((300, 300, 3), dtype=np.uint8), boxes=boxes)


def detections(xyxy, labels, scores):
    return Detections(
        xyxy=np.asarray(xyxy, dtype=np.float32).reshape(-1, 4),
        labels=np.asarray(labels, dtype=np.int64),
        scores=np.asarray(scores, dtype=np.float32),
    )


def random_boxes(random, count):
    corners = random.uniform(0, 180, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(5, 115, (count, 2))], axis=1)
    return boxes.astype(np.float32)


def test_all_twelve_numbers_are_those_of_pycocotools_on_files_with_crowds_ties_and_areas(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    samples, found, annotations, results = [], [], [], []
    for i in range(12):
        boxes, labels = random_boxes(random, 8), random.integers(0, 2, 8)
        crowd, area = random.random(8) < 0.15, random.uniform(100, 20000, 8).astype(np.float32)
        samples.append(sample(boxes, labels, crowd, area, name=str(i)))
        guesses = np.concatenate([boxes + random.normal(0, 6, boxes.shape), random_boxes(random, 6)])
        guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
        guesses = guesses.astype(np.float32)
        guessed, scores = np.concatenate([labels, random.integers(0, 2, 6)]), random.integers(1, 5, 14) / 4  # many ties
        found.append(detections(guesses, guessed, scores))
        for j in range(8):
            left, top, right, bottom = map(float, boxes[j])
            objects = {"image_id": i, "category_id": int(labels[j]), "bbox": [left, top, right - left, bottom - top]}
            number = {"id": 8 * i + j + 1, "iscrowd": int(crowd[j]), "area": float(area[j])}
            annotations.append(objects | number)
        for (left, top, right, bottom), label, score in zip(guesses.tolist(), guessed, scores, strict=True):
            box = [left, top, right - left, bottom - top]
            results.append({"image_id": i, "category_id": int(label), "bbox": box, "score": float(score)})
    truth = {
        "images": [{"id": i, "width": 300, "height": 300} for i in range(12)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES)],
        "annotations": annotations,
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    coco = COCO(tmp_path / "truth.json")
    evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "results.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    ours = average_precision(samples, found, NAMES)
    assert 0 < ours["map_small"] < ours["map"] < 1
    assert [ours[name] for name in STATISTICS] == pytest.approx(evaluation.stats.tolist(), abs=1e-12)


def test_an_object_is_small_by_the_area_that_its_annotation_states() -> None:
    thin = sample([[0, 0, 200, 200]], [0], area=[500])  # a thin object across a large box
    found = detections([[0, 0, 200, 200]], [0], [0.9])
    assert average_precision([thin], [found], NAMES)["map_small"] == pytest.approx(1)
    assert average_precision([thin], [found], NAMES)["map_large"] is None
    assert average_precision([sample([[0, 0, 200, 200]], [0])], [found], NAMES)["map_large"] == pytest.approx(1)


@pytest.mark.parametrize("found", [([], [], []), ([[200, 200, 250, 250]], [0], [0.9])])
def test_what_has_no_objects_is_null_and_what_is_missed_is_zero(found) -> None:
    truth = sample([[0, 0, 20, 20], [100, 100, 290, 290]], [0, 1], crowd=[False, True])
    result = average_precision([truth], [detections(*found)], NAMES)
    assert (result["map"], result["map_small"], result["mar_100"], result["mar_small"]) == (0, 0, 0, 0)
    assert result["map_medium"] is None and result["map_large"] is None and result["mar_large"] is None
    assert result["per_class"]["cell"] == {"ap": 0, "ap_50": 0, "ar_100": 0, "objects": 1}
    assert result["per_class"]["platelet"] == {"ap": None, "ap_50": None, "ar_100": None, "objects": 0}  # a crowd alone


def test_a_class_has_its_own_row() -> None:
    truth = sample([[0, 0, 20, 20], [50, 50, 110, 110]], [0, 1])
    result = average_precision([truth], [detections([[0, 0, 20, 20]], [0], [0.5])], NAMES)
    assert result["per_class"]["cell"]["ap"] == pytest.approx(1)
    assert result["per_class"]["platelet"]["ap"] == 0 and result["per_class"]["never there"]["ap"] is None
    assert result["map"] == pytest.approx(0.5)


def test_the_faster_evaluator_gives_the_same_numbers_with_crowds_ties_sizes_and_empty_images() -> None:
    pytest.importorskip("faster_coco_eval")
    for seed in range(6):
        random = np.random.default_rng(seed)
        samples, found = [], []
        for i in range(10):
            count = int(random.integers(0, 9))
            boxes, labels = random_boxes(random, count), random.integers(0, 2, count)
            crowd, area = random.random(count) < 0.2, random.uniform(100, 20000, count).astype(np.float32)
            samples.append(sample(boxes, labels, crowd, area if seed % 2 else None, name=str(i)))
            guesses = np.concatenate([boxes + random.normal(0, 4, boxes.shape), random_boxes(random, 120 * (i % 2))])
            guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
            scores = random.integers(1, 5, len(guesses)) / 4 if seed % 3 else random.random(len(guesses))
            found.append(detections(guesses, random.integers(0, 2, len(guesses)), scores))
        slow, fast = (average_precision(samples, found, NAMES, name) for name in EVALUATORS)
        for key in STATISTICS:
            assert (slow[key] is None) == (fast[key] is None)
            assert slow[key] is None or fast[key] == pytest.approx(slow[key], abs=1e-12)  # sums in another order
        assert slow["map"] > 0
        for name, values in slow["per_class"].items():
            assert fast["per_class"][name] == pytest.approx(values, abs=1e-12)


def test_a_missing_faster_evaluator_is_said_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(GenaugError, match=r"genaug\[coco\].*evaluator=pycocotools"):
        Detector(name="d", seed=0, image_size=64, evaluator="faster").check("detection")


def test_the_evaluator_is_no_part_of_the_identity_and_named_in_the_result() -> None:
    one, other = (Detector(name="d", seed=0, image_size=64, evaluator=name) for name in EVALUATORS)
    assert fingerprint(one) == fingerprint(other)
    assert EVALUATORS[other.evaluator] == "faster-coco-eval bbox"
