"""Object masks in annotation files, decoded only when a generator asks for the pixels."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genaug.core.errors import GenaugError, boundary
from genaug.core.identity import content_digest, digest_bytes

if TYPE_CHECKING:
    from genaug.data.sample import Sample

LEAST_OVERLAP = 0.5
"""IoU of a box and a mask's own box from which the mask is that of the box."""
VOID = 255  # of VOC's masks: borders and objects too hard to call


@dataclass(frozen=True, slots=True, eq=False)
class Segmentations:
    """The union of COCO segmentations of one image, each checked before (``annotations.check_segmentation``)."""

    parts: Sequence[Any]
    """Polygons ``[[x1, y1, x2, y2, x3, y3, …], …]`` or run lengths ``{"size": [h, w], "counts": …}``, one per object."""
    width: int
    height: int
    """Of the image as the annotations count its pixels."""
    where: str
    """File and entry, for messages."""
    scale: tuple[float, float] = (1.0, 1.0)
    """From those pixels to the image's, where the annotations were made on another size."""
    orientation: int = 1
    """EXIF orientation that turns those pixels upright; 1 where they are upright."""

    @property
    def digest(self) -> str:
        about = [self.parts, self.width, self.height, self.scale, self.orientation]
        return digest_bytes(json.dumps(about, sort_keys=True, default=str).encode())

    def read(self) -> np.ndarray:
        total = np.zeros((self.height, self.width), dtype=bool)
        for part in self._decoded():
            total |= part
        return _turned(total, self.scale, self.orientation)

    def read_each(self) -> list[np.ndarray]:
        return [_turned(part, self.scale, self.orientation) for part in self._decoded()]

    def _decoded(self) -> Iterator[np.ndarray]:
        from pycocotools import mask as coco_mask

        for lengths in self.parts:
            with boundary(f"{self.where}: the segmentation cannot be decoded", "Repair or remove it."):
                if isinstance(lengths, list):
                    lengths = coco_mask.merge(coco_mask.frPyObjects(lengths, self.height, self.width))
                elif isinstance(lengths["counts"], list):
                    lengths = coco_mask.frPyObjects(lengths, self.height, self.width)
                yield coco_mask.decode(lengths).astype(bool)


@dataclass(frozen=True, slots=True, eq=False)
class MaskImage:
    """A mask in a picture of its own, as VOC's ``SegmentationObject``: 0 is background, 255 void, the rest objects."""

    path: Path
    width: int
    height: int
    """Of its image."""

    @property
    def digest(self) -> str:
        return content_digest(self.path)

    def check(self) -> None:
        """Raise ``GenaugError`` if the picture has another size than its image; from its header."""
        from PIL import Image

        with boundary(f"The mask {self.path} cannot be read", "Copy the file again."), Image.open(self.path) as image:
            if image.size != (self.width, self.height):
                raise GenaugError(
                    f"{self.path} has {image.width} x {image.height} pixels, but its image {self.width} x {self.height}: "
                    "export the masks again at the size of the images."
                )

    def read(self) -> np.ndarray:
        values = palette_values(self.path)
        return (values != 0) & (values != VOID)

    def read_each(self) -> list[np.ndarray]:
        values = palette_values(self.path)
        return [values == value for value in np.unique(values) if value not in (0, VOID)]


def object_masks(sample: "Sample") -> list[np.ndarray]:
    """The pixels of each box's object, bool [h, w] in the image's size.

    Of the object masks of its annotation a box takes the one around which it fits best; without a fitting one, the pixels of
    the box that lie in the image's mask (in all of the box without any) and in no other box.
    """
    width, height = sample.open().size
    assert sample.boxes is not None
    mask = sample.mask
    each = mask.read_each() if isinstance(mask, Segmentations | MaskImage) else []
    whole = sample.read_mask()
    boxes = [_pixels(box, width, height) for box in sample.boxes.xyxy.tolist()]
    found = []
    for place, box in enumerate(boxes):
        fits = [_iou(sample.boxes.xyxy[place].tolist(), part) for part in each]
        if fits and max(fits) >= LEAST_OVERLAP:
            found.append(each[int(np.argmax(fits))])
            continue
        others = np.zeros((height, width), dtype=bool)
        for other in boxes[:place] + boxes[place + 1 :]:
            others[other] = True
        own = np.zeros((height, width), dtype=bool)
        own[box] = True
        found.append(own & ~others if whole is None else own & ~others & whole)
    return found


def _pixels(box: Sequence[float], width: int, height: int) -> tuple[slice, slice]:
    """Rows and columns of a box, rounded to whole pixels."""
    x1, y1, x2, y2 = (round(value) for value in box)
    return slice(max(y1, 0), min(y2, height)), slice(max(x1, 0), min(x2, width))


def _iou(box: Sequence[float], mask: np.ndarray) -> float:
    """Intersection over union of a box and the box around a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0.0
    x1, y1, x2, y2 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    inner = max(min(box[2], x2) - max(box[0], x1), 0) * max(min(box[3], y2) - max(box[1], y1), 0)
    return inner / ((box[2] - box[0]) * (box[3] - box[1]) + (x2 - x1) * (y2 - y1) - inner)


def palette_values(path: Path) -> np.ndarray:
    """The values of an annotation picture, uint8 [height, width]: palette indices or grey levels.

    Raises:
        GenaugError: if it does not open, or holds colours, which stand for no index.
    """
    from PIL import Image

    with boundary(f"The mask {path} cannot be read", "Copy the file again."), Image.open(path) as image:
        if image.mode not in ("P", "L", "1"):
            raise GenaugError(
                f"{path} has mode {image.mode}: masks are palette or grey images, as VOC's. Unpack the archive again."
            )
        return np.asarray(image.convert("L") if image.mode == "1" else image)


def _turned(mask: np.ndarray, scale: tuple[float, float], orientation: int) -> np.ndarray:
    """The mask in the image's own size, upright."""
    from PIL import Image

    from genaug.data.images import upright

    picture = Image.fromarray(mask)
    if scale != (1.0, 1.0):
        size = (round(picture.width * scale[0]), round(picture.height * scale[1]))
        picture = picture.resize(size, Image.Resampling.NEAREST)
    return np.asarray(upright(picture, orientation), dtype=bool)
