"""Masks for inpainting around labelled boxes: float32 [h, w], 1 = known, 0 = to be generated.

The rules of Hprairie/Synthetic-ImgGen-PSLD (``img_utils.py``), exactly. K is the union of the boxes grown by a margin,
d the Euclidean distance to K over its maximum, so 0 in K and at most 1. The distance masks are salt and pepper.
"""

from collections.abc import Sequence

import numpy as np
import scipy
from PIL import Image, ImageDraw

from genaug.generators.labelling.pixel_boxes import PixelBox, union

BOX_AWARE = ("outpainting", "random_outpainting", "random_entirepainting", "random_erasing_ore", "keep_object")
BOX_FREE = ("box", "center_box", "random", "extreme", "free_form")
MASK_TYPES = (*BOX_AWARE, *BOX_FREE)
SPECKLED = ("random_outpainting", "random_entirepainting", "random")
"""Masks whose known pixels are scattered."""


def corners(xc: float, yc: float, w: float, h: float, width: int, height: int) -> tuple[float, float, float, float]:
    """Normalised centre and size, as in a YOLO label row, to corners in pixels."""
    return (
        xc * width - w * width / 2,
        yc * height - h * height / 2,
        xc * width + w * width / 2,
        yc * height + h * height / 2,
    )


def distance(inside: np.ndarray) -> np.ndarray:
    """d: float64 [h, w]; 0 everywhere where K is the whole frame."""
    raw = scipy.ndimage.distance_transform_edt(~inside)
    assert isinstance(raw, np.ndarray)
    return raw / max(float(raw.max()), 1e-12)


def outpainting(inside: np.ndarray) -> np.ndarray:
    """Only K is known (l.179)."""
    return inside.astype(np.float32)


def random_outpainting(
    inside: np.ndarray, rng: np.random.Generator, mu: float = 0.0, sigma: float = 0.32
) -> np.ndarray:
    """K is known, and each pixel with d < r, r ~ N(mu, sigma) per pixel (l.298): the more distant, the less."""
    return (inside | (distance(inside) < rng.normal(mu, sigma, inside.shape))).astype(np.float32)


def random_entirepainting(
    inside: np.ndarray, rng: np.random.Generator, mu: float = 0.0, sigma: float = 0.32
) -> np.ndarray:
    """Each pixel with d < r is known (l.353): inside K one in two."""
    return (distance(inside) < rng.normal(mu, sigma, inside.shape)).astype(np.float32)


def erased_rectangle(box: PixelBox, u: Sequence[float]) -> PixelBox:
    """The rectangle that ORE erases in a grown box, from four uniforms: height, width, x offset, y offset."""
    x1, y1, x2, y2 = box
    height, width = int(u[0] * (y2 - y1)), int(u[1] * (x2 - x1))
    x, y = x1 + int(u[2] * (x2 - x1 - width)), y1 + int(u[3] * (y2 - y1 - height))
    return x, y, x + width, y + height


def random_erasing_ore(
    boxes: Sequence[PixelBox],
    width: int,
    height: int,
    rng: np.random.Generator,
    erase_range: tuple[float, float] = (0.2, 0.8),
) -> np.ndarray:
    """All is known but one rectangle inside each grown box (l.407)."""
    erased = [
        erased_rectangle(box, rng.uniform(*erase_range, size=4).tolist())
        for box in boxes
        if box[2] > box[0] and box[3] > box[1]
    ]
    return 1 - union(erased, width, height).astype(np.float32)


def box(width: int, height: int, rng: np.random.Generator, share: float = 0.5) -> np.ndarray:
    """A rectangle of ``share`` of each side at a random place is unknown (256 px of 512, 16 px from the border)."""
    mask = np.ones((height, width), dtype=np.float32)
    h, w = round(share * height), round(share * width)
    gap_y, gap_x = round(height / 32), round(width / 32)
    top = int(rng.integers(gap_y, max(height - gap_y - h, gap_y) + 1))
    left = int(rng.integers(gap_x, max(width - gap_x - w, gap_x) + 1))
    mask[top : top + h, left : left + w] = 0
    return mask


def center_box(width: int, height: int, share: float = 0.5) -> np.ndarray:
    """The centred rectangle of ``share`` of each side is unknown (the PSLD paper's box)."""
    mask = np.ones((height, width), dtype=np.float32)
    h, w = round(share * height), round(share * width)
    top, left = (height - h) // 2, (width - w) // 2
    mask[top : top + h, left : left + w] = 0
    return mask


def random(width: int, height: int, rng: np.random.Generator, low: float = 0.3, high: float = 0.7) -> np.ndarray:
    """A share p ~ U(low, high), one per image, of the pixels is unknown."""
    count = int(width * height * rng.uniform(low, high))
    mask = np.ones(width * height, dtype=np.float32)
    mask[rng.choice(width * height, count, replace=False)] = 0
    return mask.reshape(height, width)


def extreme(width: int, height: int, rng: np.random.Generator, share: float = 0.5) -> np.ndarray:
    """Only the rectangle of ``box`` is known."""
    return 1 - box(width, height, rng, share)


def free_form(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Four broad random strokes are unknown."""
    canvas = Image.new("L", (width, height), 1)
    pen = ImageDraw.Draw(canvas)
    side = min(width, height)
    for _ in range(4):
        points = [(float(x), float(y)) for x, y in rng.uniform(0, 1, (int(rng.integers(3, 7)), 2)) * (width, height)]
        pen.line(points, fill=0, width=max(int(rng.uniform(0.06, 0.16) * side), 1), joint="curve")
    return np.asarray(canvas, dtype=np.float32)
