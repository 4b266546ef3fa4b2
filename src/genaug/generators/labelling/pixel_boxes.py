"""Boxes in whole pixels."""

import math
from collections.abc import Sequence

import numpy as np

from genaug.data.sample import Boxes, Sample

MIN_EDITABLE = 0.05
"""Share of an image that must be left to edit; less is rejected as no_editable_area."""

PixelBox = tuple[int, int, int, int]
"""x1, y1, x2, y2; the ends are exclusive."""


def grow(box: Sequence[float], width: int, height: int, margin: int, reference_edge: bool = False) -> PixelBox:
    """A box in pixels, truncated towards zero and grown by ``margin`` inside the frame.

    ``reference_edge``: the released code stops at the last row and column, which so never belong to K.
    """
    x1, y1, x2, y2 = (int(value) for value in box) if reference_edge else _outwards(box)
    edge = 1 if reference_edge else 0
    return max(0, x1 - margin), max(0, y1 - margin), min(width - edge, x2 + margin), min(height - edge, y2 + margin)


def _outwards(box: Sequence[float]) -> PixelBox:
    """Every pixel that the box touches."""
    x1, y1, x2, y2 = box
    return math.floor(x1 + 1e-4), math.floor(y1 + 1e-4), math.ceil(x2 - 1e-4), math.ceil(y2 - 1e-4)


def union(boxes: Sequence[PixelBox], width: int, height: int) -> np.ndarray:
    """K: bool [h, w]."""
    inside = np.zeros((height, width), dtype=bool)
    for x1, y1, x2, y2 in boxes:
        inside[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
    return inside


def scaled_boxes(sample: Sample, width: int, height: int) -> Boxes | None:
    """The boxes of an image scaled to ``width`` x ``height``, in its pixels."""
    if sample.boxes is None:
        return None
    picture = sample.open()
    scale = np.asarray([width / picture.width, height / picture.height] * 2)
    xyxy = (sample.boxes.xyxy * scale).astype(np.float32)
    return Boxes(xyxy=xyxy, labels=sample.boxes.labels, crowd=sample.boxes.crowd)


def box_pixels(boxes: Boxes | None, width: int, height: int) -> np.ndarray:
    """bool [height, width]: every pixel that a box touches."""
    rows = [] if boxes is None else boxes.xyxy.tolist()
    return union([grow(row, width, height, 0) for row in rows], width, height)
