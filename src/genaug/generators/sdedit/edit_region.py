"""What of an image an edit may change: all of it, the surround of its object, or the object alone.

DA-Fusion's mask ablation: the object's mask is scaled by nearest neighbour and grown by a maximum filter, then inverted
for ``keep_object``. A side of 16 pixels reaches 7 up and left and 8 down and right (scipy's window, the released code's too).
"""

from dataclasses import dataclass

import numpy as np
import scipy
from PIL import Image, ImageOps

from genaug.data.sample import Boxes, Sample
from genaug.generators.psld.labels import paste
from genaug.generators.psld.masks import MIN_EDITABLE, grow, union

EDIT_MASKS = ("none", "keep_object", "edit_object")


@dataclass(frozen=True, slots=True, eq=False)
class EditRegion:
    """Where one image may change."""

    editable: np.ndarray
    """bool [size, size]."""
    refused: str | None
    """Why the image is not edited at all."""


def edit_region(sample: Sample, size: int, mask: str, dilation: int, resize: str = "squash") -> EditRegion:
    """Where ``sample``, scaled to a square of ``size`` pixels, may change.

    Args:
        sample: its object is its mask and its boxes together.
        size: side in pixels.
        mask: one of ``EDIT_MASKS``.
        dilation: side in pixels of the maximum filter that grows the object; 0 and 1 leave it.
        resize: ``squash``, ``crop`` or ``tile``, as the image.
    """
    everywhere = np.ones((size, size), dtype=bool)
    if not sample.has_class:
        return EditRegion(everywhere, "no_boxes")
    if mask == "none":
        return EditRegion(everywhere, None)
    inside = box_pixels(sample, size)
    if (pixels := sample.read_mask()) is not None:
        picture = to_square(Image.fromarray(pixels.astype(np.uint8)), size, resize, Image.Resampling.NEAREST)
        inside |= np.asarray(picture) > 0
    if not inside.any():
        return EditRegion(everywhere, "no_object")
    grown = np.asarray(scipy.ndimage.maximum_filter(inside, size=max(dilation, 1)), dtype=bool)
    editable = ~grown if mask == "keep_object" else grown
    return EditRegion(editable, "no_editable_area" if editable.mean() < MIN_EDITABLE else None)


def to_square(picture: Image.Image, size: int, resize: str, resample: Image.Resampling) -> Image.Image:
    """The picture squashed to a square, its centre square, or a mosaic of it; the very same where nothing is scaled."""
    if picture.size == (size, size):
        return picture
    if resize == "tile":
        return Image.fromarray(mosaic(np.asarray(picture), size))
    if resize == "squash":
        return picture.resize((size, size), resample)
    return ImageOps.fit(picture, (size, size), resample)


def mosaic(image: np.ndarray, size: int) -> np.ndarray:
    """[size, size, ...]: copies of ``image`` [h, w, ...], one of them in the very centre (rounded up and left)."""
    h, w = image.shape[:2]
    top, left = (size - h) // 2, (size - w) // 2
    rows, columns = (np.arange(size) - top) % h, (np.arange(size) - left) % w
    return image[np.ix_(rows, columns)]


def mosaic_centre(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The copy of ``size`` (width, height) in the centre of a mosaic; all of a mosaic that is smaller."""
    size = (min(size[0], picture.width), min(size[1], picture.height))
    left, top = (picture.width - size[0]) // 2, (picture.height - size[1]) // 2
    return picture.crop((left, top, left + size[0], top + size[1]))


def squashed_boxes(sample: Sample, size: int) -> Boxes | None:
    """The boxes of an image squashed to a square of ``size`` pixels, in its pixels."""
    if sample.boxes is None:
        return None
    width, height = sample.open().size
    scale = np.asarray([size / width, size / height] * 2)
    return Boxes(
        xyxy=(sample.boxes.xyxy * scale).astype(np.float32), labels=sample.boxes.labels, crowd=sample.boxes.crowd
    )


def box_pixels(sample: Sample, size: int) -> np.ndarray:
    """bool [size, size]: every pixel that a box of the squashed image touches."""
    boxes = squashed_boxes(sample, size)
    rows = [] if boxes is None else boxes.xyxy.tolist()
    return union([grow(row, size, size, 0) for row in rows], size, size)


def with_source_boxes(picture: Image.Image, sample: Sample) -> Image.Image:
    """An edited square picture with the source's own pixels inside its boxes, bit for bit."""
    size = picture.width
    source = to_square(sample.open(), size, "squash", Image.Resampling.BILINEAR)
    weights = box_pixels(sample, size).astype(np.float32)
    return Image.fromarray(paste(np.asarray(picture), np.asarray(source), weights))
