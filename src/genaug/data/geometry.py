"""Letterbox geometry: an image and its boxes into a frame, and back."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from genaug.core.errors import GenaugError


@dataclass(frozen=True, slots=True)
class Letterbox:
    """An image of ``width`` x ``height`` scaled to fit a frame, centred, aspect ratio kept."""

    width: int
    height: int
    frame_width: int
    frame_height: int

    @property
    def inner(self) -> tuple[int, int]:
        """Width and height of the scaled image."""
        scale = min(self.frame_width / self.width, self.frame_height / self.height)
        return max(round(self.width * scale), 1), max(round(self.height * scale), 1)

    @property
    def offset(self) -> tuple[int, int]:
        """Left and top of the scaled image in the frame."""
        return (self.frame_width - self.inner[0]) // 2, (self.frame_height - self.inner[1]) // 2

    @property
    def scales(self) -> np.ndarray:
        """Pixels of the frame per pixel of the image, x and y (equal up to the rounding of the inner size)."""
        return np.asarray([self.inner[0] / self.width, self.inner[1] / self.height])

    def scale_image(self, image: Image.Image, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
        """The image at its inner size, anti-aliased; the very same pixels where nothing is scaled."""
        return image if image.size == self.inner else image.resize(self.inner, resample)

    def into_frame(self, pixels: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """[inner height, inner width, …] laid into the frame."""
        frame = np.full((self.frame_height, self.frame_width, *pixels.shape[2:]), fill, dtype=pixels.dtype)
        left, top = self.offset
        frame[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        return frame

    def crop(self, frame: np.ndarray) -> np.ndarray:
        """The part [inner height, inner width, …] of a frame that is no padding."""
        left, top = self.offset
        return frame[top : top + self.inner[1], left : left + self.inner[0]]

    def scale_boxes(self, xyxy: np.ndarray) -> np.ndarray:
        """Boxes [n, 4] of the image in the scaled image, which begins at 0, 0."""
        return (xyxy.astype(np.float64) * np.tile(self.scales, 2)).reshape(-1, 4)


def bucket(width: int, height: int, size: int, multiple: int) -> tuple[int, int]:
    """Width and height of a frame of about ``size`` squared pixels, nearest in aspect ratio to an image.

    Sides are multiples of ``multiple``; the area lies between 3/4 and 4/3 of the wanted one, so that 4:3 at 384 px is
    512 x 384.

    Raises:
        GenaugError: if no such frame exists.
    """
    area = size * size
    options = []
    for w in range(multiple, 4 * size + multiple, multiple):
        for h in range(multiple, 4 * size + multiple, multiple):
            if 0.75 <= w * h / area <= 4 / 3 + 1e-9:
                stretch = abs(math.log(w / h * height / width))
                options.append((round(stretch, 9), abs(w * h - area), w, h))
    if not options:
        raise GenaugError(
            f"No frame of about {size} x {size} pixels has sides in multiples of {multiple}: write a larger size."
        )
    return min(options)[2:]
