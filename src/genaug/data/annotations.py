"""What an annotation may be: one check for COCO, VOC, YOLO, Hub sets and folders. Faults are named with file and entry."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from genaug.core.errors import GenaugError
from genaug.data.images import MOST_PIXELS, Facts, turned_boxes
from genaug.data.sample import Boxes

FAR = 1e6
"""No coordinate in pixels is larger: what pycocotools is given beyond it does not come back."""


@dataclass(kw_only=True, frozen=True, slots=True)
class LabelledObject:
    """One annotated object."""

    category: str
    xyxy: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels; right and bottom exclusive."""
    crowd: bool = False
    area: float | None = None
    """In square pixels as the annotation states it; None where it does not."""
    segmentation: Any = None
    """COCO polygons or run lengths."""
    where: str = ""
    """File and line or entry, for messages."""


@dataclass(kw_only=True, frozen=True, slots=True)
class Annotation:
    """The annotation of one image."""

    file_name: str
    width: int
    """0 where the file does not say."""
    height: int
    objects: tuple[LabelledObject, ...] = ()
    where: str = ""
    """File and entry, for messages."""


@dataclass(kw_only=True, frozen=True, slots=True)
class Fit:
    """How the pixels that annotations count become those of the upright image."""

    width: int
    """Of the picture that was annotated."""
    height: int
    scale: tuple[float, float] = (1.0, 1.0)
    orientation: int = 1
    """EXIF orientation that is applied after scaling; 1 for none."""

    def apply(self, item: LabelledObject) -> LabelledObject:
        """The object in the pixels of the upright image."""
        if self.scale == (1.0, 1.0) and self.orientation == 1:
            return item
        sx, sy = self.scale
        xyxy = np.asarray([item.xyxy], dtype=np.float64) * [sx, sy, sx, sy]
        box = turned_boxes(xyxy, round(self.width * sx), round(self.height * sy), self.orientation)[0].tolist()
        return replace(item, xyxy=tuple(box), area=None if item.area is None else item.area * sx * sy)


def fit(annotation: Annotation, facts: Facts, rescale: bool, notes: Counter[str]) -> Fit:
    """How an image's annotations lie on its file: as they are, turned with its EXIF orientation, or scaled.

    Raises:
        GenaugError: if the annotation states another size than the file has, with both.
    """
    stated = (annotation.width, annotation.height)
    if min(stated) < 1 or stated == facts.size:
        if facts.orientation != 1:
            notes["images_turned_by_exif_with_boxes_taken_as_upright"] += 1
        return Fit(width=facts.width, height=facts.height)
    if stated == facts.stored_size:
        notes["images_turned_by_exif_and_their_boxes_with_them"] += 1
        return Fit(width=stated[0], height=stated[1], orientation=facts.orientation)
    both = f"{stated[0]} x {stated[1]} pixels, but the file {facts.width} x {facts.height}"
    for size, orientation in ((facts.size, 1), (facts.stored_size, facts.orientation)):
        if same_shape(stated, size):
            if not rescale:
                raise GenaugError(
                    f"{annotation.where}: the image {annotation.file_name} is annotated as {both}. Write "
                    "dataset.rescale_boxes=true to scale the boxes, or use the images that were annotated."
                )
            notes["images_with_rescaled_boxes"] += 1
            scale = (size[0] / stated[0], size[1] / stated[1])
            return Fit(width=stated[0], height=stated[1], scale=scale, orientation=orientation)
    raise GenaugError(
        f"{annotation.where}: the image {annotation.file_name} is annotated as {both}, which is another shape, so that its "
        "boxes cannot be scaled. Use the images that were annotated."
    )


def same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes have one aspect ratio, up to rounding either to whole pixels."""
    scale = max(other) / max(one)
    return abs(one[0] * scale - other[0]) <= max(1.0, scale) and abs(one[1] * scale - other[1]) <= max(1.0, scale)


def numbers(values: Any, count: int | None, where: str, what: str) -> list[float]:
    """The values as finite numbers of a picture's size.

    Raises:
        GenaugError: if there are others than ``count``, or one is not a number, not finite or beyond any picture.
    """
    wanted = "numbers" if count is None else {4: "four numbers"}.get(count, f"{count} number(s)")
    if not isinstance(values, list | tuple) or (count is not None and len(values) != count):
        raise GenaugError(f"{where} has {what} {str(values)[:80]}: {wanted} are needed.")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise GenaugError(f"{where} has {what} {str(values)[:80]}: {wanted} are needed.")
        if not math.isfinite(value) or abs(value) > FAR:
            raise GenaugError(f"{where} has {what} {str(values)[:80]}: {value} is no place in an image.")
    return [float(value) for value in values]


def stated_area(value: Any, where: str) -> float | None:
    """The area of an object in square pixels; None where the annotation states none.

    Raises:
        GenaugError: if it is no number of a picture's size.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= FAR**2:
        raise GenaugError(f"{where} has area {value!r}: a number of square pixels is needed.")
    return value


def check_segmentation(segmentation: Any, width: int, height: int, where: str) -> Any:
    """Polygons or run lengths that pycocotools takes, or None where there is nothing or no area.

    Args:
        width, height: of the image as the annotation counts its pixels.

    Raises:
        GenaugError: for coordinates that are no finite numbers, run lengths of another size than the image's, and images that
            are said to have more than ``MOST_PIXELS``, all of which a mask would hold.
    """
    if segmentation is None or segmentation == [] or segmentation == {}:
        return None
    if width * height > MOST_PIXELS:
        raise GenaugError(
            f"{where} has a segmentation of an image that is said to have {width} x {height} pixels: at most {MOST_PIXELS} are "
            "decoded. Correct the width and height that the annotations state."
        )
    if isinstance(segmentation, list):
        polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
        for polygon in polygons:
            if len(numbers(polygon, None, where, "a segmentation with")) % 2:
                raise GenaugError(f"{where} has a polygon of {len(polygon)} coordinates: write pairs of x and y.")
        kept = [polygon for polygon in polygons if len(polygon) >= 6]
        return kept if len(kept) == len(polygons) else None
    if not isinstance(segmentation, dict) or "counts" not in segmentation or "size" not in segmentation:
        raise GenaugError(f"{where} has a segmentation that is neither polygons nor run lengths with counts and size.")
    if list(segmentation["size"]) != [height, width]:
        raise GenaugError(
            f"{where} has run lengths of size {segmentation['size']}, but its image is [{height}, {width}] (height, width). "
            "Export the masks again, or write dataset.masks=false to use the boxes alone."
        )
    counts = segmentation["counts"]
    runs = _unpacked(counts) if isinstance(counts, str) else counts
    if (
        not isinstance(runs, list)
        or not all(isinstance(run, int) and run >= 0 for run in runs)
        or (sum(runs) != width * height)
    ):
        raise GenaugError(
            f"{where} has run lengths that do not add up to the {width * height} pixels of its image. Export the masks "
            "again, or write dataset.masks=false to use the boxes alone."
        )
    return segmentation


def _unpacked(text: str) -> list[int] | None:
    """COCO's compressed run lengths as numbers; None where the text is cut off or holds other characters."""
    runs: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            if place == len(text):
                return None
            bits = ord(text[place]) - 48
            if not 0 <= bits < 64:
                return None
            value |= (bits & 0x1F) << (5 * shift)
            more = bool(bits & 0x20)
            place, shift = place + 1, shift + 1
            if not more and bits & 0x10:
                value -= 1 << (5 * shift)
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


@dataclass(slots=True)
class BoxRules:
    """What becomes of boxes that cannot be trained on, and how often it did (``Dataset.notes``)."""

    class_index: dict[str, int]
    notes: Counter[str] = field(default_factory=Counter)
    num_boxes: int = 0
    num_beyond: int = 0
    """Boxes that reach beyond their images by more than the pixel by which counting from 0 and from 1 differ."""
    beyond: str = ""
    """The first of them."""
    reach: float = 0.0
    """The greatest coordinate of all boxes with area, in pixels."""

    def apply(self, objects: Sequence[LabelledObject], width: int, height: int) -> Boxes:
        """Boxes of one image, clipped to it; those outside it or without area are dropped; crowds are kept apart.

        Raises:
            GenaugError: if an object's class is not among the data set's, or a coordinate is no number, with file and line.
        """
        kept: list[LabelledObject] = []
        corners: list[list[float]] = []
        for item in objects:
            if item.category not in self.class_index:
                near = ", ".join(list(self.class_index)[:12])
                raise GenaugError(f"{item.where}: the class {item.category!r} is not among the data set's: {near}.")
            x1, y1, x2, y2 = numbers(item.xyxy, 4, item.where, "a box with")
            self.num_boxes += 1
            if x2 <= x1 or y2 <= y1:
                turned = x2 < x1 or y2 < y1
                self.notes["boxes_with_swapped_corners_dropped" if turned else "boxes_without_area_dropped"] += 1
                continue
            self.reach = max(self.reach, x2, y2)
            inside = [min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)]
            if inside[2] <= inside[0] or inside[3] <= inside[1]:
                self.notes["boxes_outside_dropped"] += 1
                self._count_beyond(item)
                continue
            excess = max(abs(a - b) for a, b in zip(inside, item.xyxy, strict=True))
            if excess > 0.5:  # less is rounding of the format
                self.notes["boxes_clipped"] += 1
            if excess > 1:
                self._count_beyond(item)
            if item.crowd:
                self.notes["crowd_regions"] += 1
            kept.append(item)
            corners.append(inside)
        if not kept:
            self.notes["images_without_boxes"] += 1
        areas = [item.area for item in kept]
        return Boxes(
            xyxy=np.asarray(corners, dtype=np.float32).reshape(-1, 4),
            labels=np.asarray([self.class_index[item.category] for item in kept], dtype=np.int64),
            crowd=np.asarray([item.crowd for item in kept], dtype=bool),
            area=None if None in areas or not areas else np.asarray(areas, dtype=np.float32),
        )

    def _count_beyond(self, item: LabelledObject) -> None:
        self.num_beyond += 1
        self.beyond = self.beyond or item.where

    def check_inside(self) -> None:
        """Raise ``GenaugError`` if most boxes reach beyond their images, so that they count the pixels of other pictures, or if
        all lie in the first pixels of theirs, so that they count none."""
        if 0 < self.reach < 2:
            raise GenaugError(
                f"No coordinate of the {self.num_boxes} boxes is above {self.reach:g}: they seem to be shares of the images' "
                "sides. Write them in pixels: multiply them by width and height."
            )
        if self.num_beyond > self.num_boxes / 2:
            raise GenaugError(
                f"{self.num_beyond} of {self.num_boxes} boxes reach beyond their images, the first in {self.beyond}: they seem "
                "to count the pixels of pictures of another size, or to be written in another form (two corners for a corner "
                "or the centre with width and height, or the reverse). Use the images that were annotated, or write the boxes "
                "as the format wants them."
            )


def read_text(path: Path) -> str:
    """A text file in UTF-8, or in what its byte order mark says.

    Raises:
        GenaugError: if it is neither.
    """
    data = path.read_bytes()
    marks = (
        (b"\xef\xbb\xbf", "utf-8-sig"),
        (b"\xff\xfe\0\0", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    )
    encoding = next((encoding for mark, encoding in marks if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise GenaugError(f"{path}:{line}: the text is not {encoding.upper()}. Save the file as UTF-8.") from error
