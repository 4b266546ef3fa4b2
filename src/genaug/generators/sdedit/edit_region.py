"""What of an image an edit may change: all of it, the surround of its object, or the object alone.

DA-Fusion's mask ablation: the object's mask is scaled by nearest neighbour and grown by a maximum filter, then inverted
for ``keep_object``. A side of 16 pixels reaches 7 up and left and 8 down and right (scipy's window, the released code's too).
"""

from dataclasses import dataclass

import numpy as np
import scipy
from PIL import Image, ImageOps

from genaug.data.geometry import Letterbox, bucket
from genaug.data.sample import Sample
from genaug.generators.labelling.pixel_boxes import MIN_EDITABLE, box_pixels, scaled_boxes

EDIT_MASKS = ("none", "keep_object", "edit_object")


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """A source as the prior sees it: a square, or, where it has boxes, a frame of its own aspect ratio."""

    geometry: Letterbox | None
    """The source in its frame; None for a square."""
    size: tuple[int, int]
    """Width and height of what the prior is given."""
    editable: np.ndarray
    """bool [height, width]: where the image may change; never in the frame's padding."""
    refused: str | None
    """Why the image is not edited at all."""


def lay_out(sample: Sample, size: int, multiple: int, mask: str, dilation: int, resize: str = "squash") -> Layout:
    """How ``sample`` is given to a prior of ``size`` pixels, and where it may change.

    Args:
        sample: its object is its mask and its boxes together.
        size: side in pixels; a frame has about as many pixels as a square of that side.
        multiple: what the sides of a frame must be multiples of.
        mask: one of ``EDIT_MASKS``.
        dilation: side in pixels of the maximum filter that grows the object; 0 and 1 leave it.
        resize: ``squash``, ``crop`` or ``tile``, for squares.
    """
    if sample.boxes is None:
        editable, refused = edit_region(sample, size, size, mask, dilation, resize)
        return Layout(None, (size, size), editable, refused)
    picture = sample.open()
    frame = bucket(picture.width, picture.height, size, multiple)
    geometry = Letterbox(picture.width, picture.height, *frame)
    editable, refused = edit_region(sample, *geometry.inner, mask, dilation)
    return Layout(geometry, frame, geometry.into_frame(editable, fill=False), refused)


def edit_region(
    sample: Sample, width: int, height: int, mask: str, dilation: int, resize: str = "squash"
) -> tuple[np.ndarray, str | None]:
    """Where ``sample``, scaled to ``width`` x ``height``, may change (bool [height, width]), and why it may not at all."""
    everywhere = np.ones((height, width), dtype=bool)
    if not sample.has_class:
        return everywhere, "no_boxes"
    if mask == "none":
        return everywhere, None
    inside = box_pixels(scaled_boxes(sample, width, height), width, height)
    if sample.mask is not None:
        pixels = sample.read_mask()
        assert pixels is not None
        picture = Image.fromarray(pixels.astype(np.uint8))
        square = width == height and sample.boxes is None
        nearest = Image.Resampling.NEAREST
        small = to_square(picture, width, resize, nearest) if square else picture.resize((width, height), nearest)
        inside |= np.asarray(small) > 0
    if not inside.any():
        return everywhere, "no_object"
    grown = np.asarray(scipy.ndimage.maximum_filter(inside, size=max(dilation, 1)), dtype=bool)
    editable = ~grown if mask == "keep_object" else grown
    return editable, "no_editable_area" if editable.mean() < MIN_EDITABLE else None


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
