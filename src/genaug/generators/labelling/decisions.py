"""What may keep its label after inpainting, decided per box by how many of its pixels are known, and per image by gates.

v is the share of known pixels of the box itself, without the mask's margin.

| case | decision |
|---|---|
| v >= 0.98 and known pixels are pasted back | ``exact``: the whole box is pasted back, its pixels equal the source's |
| a detector trained on the real train fold finds the class at IoU >= 0.5, score >= 0.5 | ``verified`` |
| neither | ``unconfirmed``: restored from the source, or ignored (a crowd region), or the image is rejected |
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy

from genaug.data.detections import Detections
from genaug.data.sample import Boxes
from genaug.generators.labelling.config import Audit, Labels
from genaug.generators.labelling.pixel_boxes import PixelBox, grow, union

MAX_PROTECTED_CHANGE = 5.0
"""Mean absolute change of pixels under exact labels above which an image is rejected, of 255."""
MIN_STORED_SCORE = 0.1
"""Least score of a detection that the manifest keeps."""


@dataclass(slots=True)
class Verdict:
    """What became of an image and its boxes."""

    pixels: np.ndarray
    """uint8 [h, w, 3]."""
    boxes: Boxes | None
    rejected: str | None = None
    about: dict[str, Any] = field(default_factory=dict)


def paste_weights(mask: np.ndarray, inside: np.ndarray, paste_back: str, kept: np.ndarray, feather: int) -> np.ndarray:
    """Weight of the source's pixels: float32 [h, w] in [0, 1], 0 in the hole.

    Args:
        mask: M, 1 = known.
        inside: bool [h, w], where known pixels may be put back.
        paste_back: ``none``, ``hard`` or ``feathered``.
        kept: bool [h, w], where the boxes themselves are: never blended.
        feather: width of the ramp in pixels.
    """
    if paste_back == "none":
        return np.zeros(mask.shape, dtype=np.float32)
    region = (mask > 0.5) & inside
    if paste_back == "hard" or feather < 1 or region.all():
        return region.astype(np.float32)
    depth = scipy.ndimage.distance_transform_edt(region)
    assert isinstance(depth, np.ndarray)
    return np.where(kept & region, 1.0, np.clip(depth / (feather + 1), 0, 1)).astype(np.float32)


def paste(generated: np.ndarray, source: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3]: the source where the weight is 1, bit for bit, and a blend below."""
    blend = weights[:, :, None] * source.astype(np.float64) + (1 - weights[:, :, None]) * generated.astype(np.float64)
    return np.where(weights[:, :, None] == 1, source, np.round(blend).astype(np.uint8))


def known_fractions(mask: np.ndarray, xyxy: np.ndarray) -> list[float]:
    """v of every box [n, 4]: the share of known among the pixels that it touches."""
    height, width = mask.shape
    result = []
    for box in xyxy:
        x1, y1, x2, y2 = grow(box, width, height, 0)
        part = mask[y1:y2, x1:x2]
        result.append(float(part.mean()) if part.size else 0.0)
    return result


def iou(box: Sequence[float] | np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with [n, 4]."""
    if not len(others):
        return np.zeros(0)
    lower, upper = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = (upper - lower).clip(0).prod(1)
    area = lambda b: np.prod(np.asarray(b)[..., 2:] - np.asarray(b)[..., :2], axis=-1)
    return shared / np.maximum(area(box) + area(others) - shared, 1e-9)


def decide(
    generated: np.ndarray,
    source: np.ndarray,
    mask: np.ndarray,
    weights: np.ndarray,
    boxes: Boxes | None,
    found: Detections | None,
    labels: Labels | None,
    audit: Audit,
    margin: int,
) -> Verdict:
    """Paste back, keep, verify, restore, ignore or reject.

    Args:
        generated: uint8 [h, w, 3] before pasting.
        source: uint8 [h, w, 3].
        mask: M [h, w], 1 = known.
        weights: as ``paste_weights``.
        boxes: labels in pixels of these images; None for classification.
        found: the audit's detections on the pasted image; None without an audit.
        labels: what may keep its label; None keeps every label unchecked.
        audit: what those detections must say.
        margin: pixels around a box that are restored with it.
    """
    weights = weights.copy()
    about: dict[str, Any] = {}
    rejected = None
    crowd = boxes.crowd.copy() if boxes is not None else np.zeros(0, dtype=bool)
    exact: list[PixelBox] = []
    if boxes is not None and labels is not None:
        height, width = mask.shape
        rows = []
        fractions = known_fractions(mask, boxes.xyxy)
        for i, (box, v) in enumerate(zip(boxes.xyxy.astype(np.float64), fractions, strict=True)):
            score = _confirmation(box, int(boxes.labels[i]), found, audit)
            if v >= labels.exact_fraction and weights.any():
                decision = "exact"
            elif boxes.crowd[i]:
                decision = "ignored"
            elif score >= audit.confirm_score:
                decision = "verified"
            elif labels.on_unconfirmed == "restore":
                decision = "restored"
            elif labels.on_unconfirmed == "ignore":
                decision = "ignored"
            else:
                decision, rejected = "rejected", "unconfirmed_box"
            if decision in ("exact", "restored"):
                x1, y1, x2, y2 = grow(box, width, height, 0 if decision == "exact" else margin)
                weights[y1:y2, x1:x2] = 1
                exact.append(grow(box, width, height, 0))
            crowd[i] |= decision == "ignored"
            rows.append({"known": round(v, 4), "score": round(score, 4), "decision": decision})
        about["box_decisions"] = rows
        for number in _hallucinations(boxes, found, audit):
            assert found is not None
            about["hallucinations"] = about.get("hallucinations", 0) + 1
            if audit.on_hallucination == "reject":
                rejected = rejected or "hallucinated_object"
            elif audit.on_hallucination == "restore":
                x1, y1, x2, y2 = grow(found.xyxy[number], width, height, 0)
                weights[y1:y2, x1:x2] = 1
    pixels = paste(generated, source, weights)
    change = np.abs(pixels.astype(np.float64) - source).mean(2)
    hole = mask < 0.5
    about["hole_change"] = round(float(change[hole].mean()), 3) if hole.any() else 0.0
    if boxes is not None:
        about |= sharpness(pixels, source, boxes)
    if labels is not None:
        if about["hole_change"] < labels.min_change:
            rejected = rejected or "unchanged"
        protected = max(
            (float(change[y1:y2, x1:x2].mean()) for x1, y1, x2, y2 in exact if y2 > y1 and x2 > x1), default=0
        )
        if protected > MAX_PROTECTED_CHANGE:
            rejected = rejected or "protected_changed"
    kept = None if boxes is None else Boxes(xyxy=boxes.xyxy, labels=boxes.labels, crowd=crowd)
    return Verdict(pixels, kept, rejected, about)


def sharpness(pixels: np.ndarray, source: np.ndarray, boxes: Boxes) -> dict[str, float]:
    """Mean gradient outside the boxes of an image and of its source, in grey levels per pixel.

    Crisp objects on a ground that a diffusion model blurred are told apart by a detector for the wrong reason.
    """
    height, width = pixels.shape[:2]
    outside = ~union([grow(box, width, height, 0) for box in boxes.xyxy], width, height)
    if not outside.any():
        return {}
    return {
        name: round(float(gradient(image)[outside].mean()), 3)
        for name, image in (("gradient_outside", pixels), ("gradient_outside_source", source))
    }


def gradient(pixels: np.ndarray) -> np.ndarray:
    """Length of the grey values' gradient at each pixel: float64 [h, w] of uint8 [h, w, 3]."""
    grey = pixels.astype(np.float64).mean(2)
    down, across = (np.gradient(grey, axis=axis) if grey.shape[axis] > 1 else np.zeros_like(grey) for axis in (0, 1))
    return np.hypot(down, across)


def audit_rows(found: Detections, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The detections that the manifest keeps, so that thresholds can be swept afterwards: box, score and class name."""
    return [
        {"bbox": [round(v, 2) for v in box], "score": round(score, 5), "category": class_names[label]}
        for box, label, score in found.rows()
        if score >= MIN_STORED_SCORE and 0 <= label < len(class_names)
    ]


def _confirmation(box: np.ndarray, label: int, found: Detections | None, audit: Audit) -> float:
    """The best score of a detection of this class on this box; 0 without one."""
    if found is None or not len(found.scores):
        return 0.0
    confirming = (found.labels == label) & (iou(box, found.xyxy) >= audit.confirm_iou)
    return float(found.scores[confirming].max(initial=0.0))


def _hallucinations(boxes: Boxes, found: Detections | None, audit: Audit) -> list[int]:
    """Numbers of the detections that no label explains."""
    if found is None:
        return []
    labelled = boxes.xyxy.astype(np.float64)
    return [
        i
        for i, (box, _, score) in enumerate(found.rows())
        if score >= audit.hallucination_score
        and iou(np.asarray(box), labelled).max(initial=0.0) < audit.hallucination_iou
    ]
