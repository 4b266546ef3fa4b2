"""Average precision by COCO's evaluator, and repeat factors."""

import contextlib
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from genaug.data.sample import Sample

STATISTICS = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")
"""COCO's AP at IoU .50:.95, .50, .75, and for areas below 32², between, and above 96² pixels of the original image."""


def average_precision(
    samples: Sequence[Sample], predictions: Sequence[dict[str, Any]], class_names: Sequence[str]
) -> dict[str, Any]:
    """AP by name; ``map_per_class`` is a list in class order. Sizes and classes without objects give None.

    Args:
        samples: images with their boxes; crowd regions are neither hits nor misses.
        predictions: per image ``{"boxes": [[x1, y1, x2, y2], …], "scores": […], "labels": […]}`` in pixels of the image.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, detections = [], []
    for image_id, (sample, predicted) in enumerate(zip(samples, predictions, strict=True), start=1):
        if sample.boxes is not None:
            for box, label, crowd in zip(
                sample.boxes.xyxy.tolist(), sample.boxes.labels, sample.boxes.crowd, strict=True
            ):
                entry = _entry(image_id, box, int(label))
                annotations.append({**entry, "id": len(annotations) + 1, "iscrowd": int(crowd)})
        for box, score, label in zip(predicted["boxes"], predicted["scores"], predicted["labels"], strict=True):
            detections.append({**_entry(image_id, box, int(label)), "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its tables
        truth: Any = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(1, len(samples) + 1)],
            "annotations": annotations,
            "categories": [{"id": i, "name": name} for i, name in enumerate(class_names, start=1)],
        }
        truth.createIndex()
        if not detections:
            return {**dict.fromkeys(STATISTICS, 0.0), "map_per_class": [0.0] * len(class_names)}
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    result: dict[str, Any] = {name: _known(value) for name, value in zip(STATISTICS, evaluation.stats, strict=False)}
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoU, recall, class], all areas, 100 detections
    result["map_per_class"] = [_known(_mean(precision[:, :, i])) for i in range(len(class_names))]
    return result


def _entry(image_id: int, box: Sequence[float], label: int) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {
        "image_id": image_id,
        "category_id": label + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
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
