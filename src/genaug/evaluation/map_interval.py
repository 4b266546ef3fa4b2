"""How sure is a difference of average precision: an interval over seeds and test images, from the detections that runs keep.

Each resample draws seeds and test images with replacement. An image that is drawn twice counts twice, its objects and its
detections alike: detections are matched to objects within their image, so the matches of one evaluation serve all resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genaug.data.detections import Detections
from genaug.data.sample import Boxes, Sample
from genaug.downstream.detection.metrics import matched
from genaug.evaluation.statistics import ENDS, Interval

RECALLS = np.linspace(0, 1, 101)
"""Where COCO reads the precision."""


@dataclass(frozen=True, slots=True)
class ClassMatches:
    """Detections of one class in all test images, the most confident first."""

    image_d: np.ndarray
    """int [d]: index of the image."""
    hit_td: np.ndarray
    """float [IoU thresholds, d]: 1 where it found an object."""
    miss_td: np.ndarray
    """float [IoU thresholds, d]: 1 where it found none; neither for one on a crowd region."""
    objects_n: np.ndarray
    """int [images]: objects of the class."""

    def precision(self, weight_rn: np.ndarray) -> np.ndarray | None:
        """Average over thresholds of the average precision, [resamples], with images counted by weight.

        Precision is read at hits alone: between two of them it only falls. None for a class without objects; NaN in a
        resample that draws none of them.
        """
        if not self.objects_n.any():
            return None
        objects_r = weight_rn @ self.objects_n
        weight_rd = weight_rn[:, self.image_d]
        all_rd = np.cumsum(weight_rd, axis=1)
        values_r = np.zeros(len(weight_rn))
        for hit_d, miss_d in zip(self.hit_td, self.miss_td, strict=True):
            places = np.flatnonzero(hit_d)
            counted_d = hit_d + miss_d
            # few detections lie on crowds, so that most thresholds share one sum
            counted = (all_rd if counted_d.all() else np.cumsum(weight_rd * counted_d, axis=1))[:, places]
            hits = np.cumsum(weight_rd[:, places], axis=1)
            precision = hits / np.maximum(counted, np.finfo(float).eps)
            precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            recall = hits / np.maximum(objects_r, 1)[:, None]
            reached = np.searchsorted(RECALLS, recall, side="right")  # points of recall up to each hit
            values_r += (precision * np.diff(reached, axis=1, prepend=0)).sum(axis=1)
        return np.where(objects_r > 0, values_r / (len(self.hit_td) * len(RECALLS)), np.nan)


def matches(rows: Sequence[Mapping[str, Any]], num_classes: int) -> list[ClassMatches]:
    """The matches of one run, from its kept predictions (``predictions.json``: boxes, labels, scores and the targets)."""
    samples, found = zip(*map(_image, rows), strict=True)
    evaluation = matched(samples, found, [str(i) for i in range(num_classes)], sizes=False)
    result = []
    for k in range(num_classes):
        objects = np.array([((s.boxes.labels == k) & ~s.boxes.crowd).sum() for s in samples])
        # COCO's order: classes, then images
        entries = [] if evaluation is None else evaluation.evalImgs[k * len(samples) : (k + 1) * len(samples)]
        kept = [(i, entry) for i, entry in enumerate(entries) if entry is not None]
        if not kept:
            none = np.zeros((1, 0))
            result.append(ClassMatches(np.zeros(0, dtype=int), none, none, objects))
            continue
        order = np.argsort(-np.concatenate([entry["dtScores"] for _, entry in kept]), kind="mergesort")
        counted = ~np.concatenate([entry["dtIgnore"] for _, entry in kept], axis=1)[:, order].astype(bool)
        taken = np.concatenate([entry["dtMatches"] for _, entry in kept], axis=1)[:, order] > 0
        image = np.concatenate([np.full(len(entry["dtScores"]), i) for i, entry in kept])[order]
        result.append(ClassMatches(image, (taken & counted).astype(float), (~taken & counted).astype(float), objects))
    return result


def mean_average_precision(of_classes: Sequence[ClassMatches], weight_rn: np.ndarray) -> np.ndarray:
    """COCO's mean over classes and IoU thresholds, [resamples], with images counted by weight; 0 without objects."""
    values = [value for one in of_classes if (value := one.precision(weight_rn)) is not None]
    if not values:
        return np.zeros(len(weight_rn))
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)


def resampled_map(rows: Sequence[Mapping[str, Any]], num_resamples: int = 1000) -> np.ndarray:
    """mAP of one run in each resample of its test images, [resamples]: the same resamples for all runs with as many images.

    Args:
        rows: its kept predictions.
    """
    num_classes = 1 + max((label for row in rows for label in row["target_labels"]), default=-1)
    draws = np.random.default_rng(0).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=num_resamples)
    found, weight_rn = matches(rows, num_classes), draws.astype(float)
    pieces = np.split(weight_rn, range(50, num_resamples, 50))  # 50 x detections weights at a time
    return np.concatenate([mean_average_precision(found, piece) for piece in pieces])


def two_level_map_interval(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Interval:
    """95 % percentile interval of the difference of mAP over seeds and test images.

    Args:
        pairs: for each seed the ``resampled_map`` of method and baseline, of the same images in the same order.
    """
    difference_rs = np.stack([method - baseline for method, baseline in pairs], axis=1)
    share = np.full(len(pairs), 1 / len(pairs))
    seeds_rs = np.random.default_rng(1).multinomial(len(pairs), share, size=len(difference_rs)) * share
    low, high = np.quantile((seeds_rs * difference_rs).sum(axis=1), ENDS)
    return Interval(low=float(low), high=float(high))


def _image(row: Mapping[str, Any]) -> tuple[Any, Detections]:
    target = Boxes(
        xyxy=np.array(row["target_boxes"], dtype=np.float32).reshape(-1, 4),
        labels=np.array(row["target_labels"], dtype=np.int64),
        crowd=np.array(row["target_crowd"], dtype=bool),
    )
    found = Detections(
        xyxy=np.array(row["boxes"], dtype=np.float32).reshape(-1, 4),
        labels=np.array(row["labels"], dtype=np.int64),
        scores=np.array(row["scores"], dtype=np.float32),
    )
    return Sample(id=row["id"], digest="", image=np.empty((0, 0, 3), dtype=np.uint8), boxes=target), found
