"""Average precision by COCO's evaluator, and repeat factors."""

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from genaug.data.detections import Detections
from genaug.data.sample import Boxes, Sample

STATISTICS = (
    *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
    *("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"),
)
"""COCO's twelve numbers in its order. AP at IoU .50:.95, .50 and .75; average recall with 1, 10 and 100 detections per image;
both for objects of less than 32², up to 96², and more square pixels of the original image."""
EVALUATORS = {"pycocotools": "pycocotools bbox", "faster": "faster-coco-eval bbox"}
"""What may compute them, and how results name it."""
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, math.inf)}


def average_precision(
    samples: Sequence[Sample],
    predictions: Sequence[Detections],
    class_names: Sequence[str],
    evaluator: str = "pycocotools",
) -> dict[str, Any]:
    """``STATISTICS`` by name, and ``per_class``: for each class name its ``ap``, ``ap_50``, ``ar_100`` and number of objects.

    What has no objects (a size, a class) is None. An object's size is the area that its annotation states, else its box's.

    Args:
        samples: images with their boxes; crowd regions are neither hits nor misses.
        predictions: what was found in each image, in its pixels.
        evaluator: one of ``EVALUATORS``; their numbers agree to the last bits of a double.
    """
    counted = [entry for entry in _annotations(samples) if not entry["iscrowd"]]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its tables
        evaluation = matched(samples, predictions, class_names, evaluator)
        if evaluation is None:
            return _nothing_found(counted, class_names)
        evaluation.accumulate()
        evaluation.summarize()
    result: dict[str, Any] = {
        name: _known(value) for name, value in zip(STATISTICS, evaluation.stats[:12], strict=True)
    }
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoU, recall, class], all areas, 100 detections
    recall = evaluation.eval["recall"][:, :, 0, -1]  # [IoU, class]
    result["per_class"] = {
        name: {
            "ap": _known(_mean(precision[:, :, i])),
            "ap_50": _known(_mean(precision[:1, :, i])),
            "ar_100": _known(_mean(recall[:, i])),
            "objects": sum(entry["category_id"] == i + 1 for entry in counted),
        }
        for i, name in enumerate(class_names)
    }
    return result


def matched(
    samples: Sequence[Sample],
    predictions: Sequence[Detections],
    class_names: Sequence[str],
    evaluator: str = "pycocotools",
    sizes: bool = True,
) -> Any:
    """COCO's evaluator with every detection matched to an object or to none; None where nothing was found.

    Args:
        samples, predictions, evaluator: as for ``average_precision``; the matches of single images are pycocotools' alone.
        sizes: false matches among objects of all sizes alone.
    """
    if evaluator == "faster":
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    else:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

    detections = [
        {**_entry(image_id, box, label, None), "score": score}
        for image_id, found in enumerate(predictions, start=1)
        for box, label, score in found.rows()
    ]
    if not detections:
        return None
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth: Any = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(1, len(samples) + 1)],
            "annotations": _annotations(samples),
            "categories": [{"id": i, "name": name} for i, name in enumerate(class_names, start=1)],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        if not sizes:
            evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
        evaluation.evaluate()
    return evaluation


def _annotations(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    entries = [
        {**_entry(image_id, box, label, area), "iscrowd": int(crowd)}
        for image_id, sample in enumerate(samples, start=1)
        if sample.boxes is not None
        for box, label, crowd, area in _objects(sample.boxes)
    ]
    return [{**entry, "id": number} for number, entry in enumerate(entries, start=1)]


def _nothing_found(counted: Sequence[dict[str, Any]], class_names: Sequence[str]) -> dict[str, Any]:
    """0 for all that has objects and None for the rest, as COCO's evaluator would say if it took an empty list."""
    there = {name: any(low <= entry["area"] <= high for entry in counted) for name, (low, high) in SIZES.items()}
    result: dict[str, Any] = {
        name: 0.0 if there.get(name.rpartition("_")[2], bool(counted)) else None for name in STATISTICS
    }
    per_class = {}
    for i, name in enumerate(class_names, start=1):
        number = sum(entry["category_id"] == i for entry in counted)
        score = 0.0 if number else None
        per_class[name] = {"ap": score, "ap_50": score, "ar_100": score, "objects": number}
    return {**result, "per_class": per_class}


def _objects(boxes: Boxes) -> Iterator[tuple[list[float], int, bool, float | None]]:
    """Corners, class, crowd and stated area of each object."""
    areas = [None] * len(boxes.labels) if boxes.area is None else boxes.area.tolist()
    return zip(boxes.xyxy.tolist(), boxes.labels.tolist(), boxes.crowd.tolist(), areas, strict=True)


def _entry(image_id: int, box: Sequence[float], label: int, area: float | None) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {
        "image_id": image_id,
        "category_id": label + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1) if area is None else area,
    }


def _mean(precision: np.ndarray) -> float:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else -1.0


def _known(value: float) -> float | None:
    """COCO writes -1 where there are no objects."""
    return None if value < 0 else float(value)


def repeat_factors(samples: Sequence[Sample], num_classes: int, threshold: float) -> list[float]:
    """LVIS: r(image) = max over its classes c of max(1, sqrt(t / f(c))), f(c) = share of the images with c."""
    present = [set() if s.boxes is None else {int(i) for i in s.boxes.labels[~s.boxes.crowd]} for s in samples]
    share = [sum(c in classes for classes in present) / max(len(samples), 1) for c in range(num_classes)]
    factor = [max(1.0, math.sqrt(threshold / f)) if f > 0 else 1.0 for f in share]
    return [max((factor[c] for c in classes), default=1.0) for classes in present]


def repeated(samples: Sequence[Sample], num_classes: int, threshold: float, seed: int) -> tuple[Sample, ...]:
    """Every sample as often as its repeat factor, the fraction by a seeded draw."""
    rng = np.random.default_rng(seed)
    result: list[Sample] = []
    for sample, factor in zip(samples, repeat_factors(samples, num_classes, threshold), strict=True):
        result += [sample] * (int(factor) + int(rng.random() < factor - int(factor)))
    return tuple(result)
