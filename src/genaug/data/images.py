"""Image files: which are read, how they become upright 8-bit RGB, and what is wrong with those that cannot.

``decode`` is the only way to an image's pixels: ``Sample.open`` and the check before a run (``inspect``) both call it, so an
image that passes the check opens in training.
"""

import contextlib
import functools
import io
import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from genaug.core.errors import GenaugError, first_line
from genaug.core.shards import Packed

NOT_PICTURES = {".bufr", ".emf", ".eps", ".grib", ".h5", ".hdf", ".mpeg", ".mpg", ".ps", ".wmf"}
"""Endings that Pillow knows, but has no decoder for of its own."""
NEEDS_PLUGIN = {".heic": "pillow-heif", ".heif": "pillow-heif", ".hif": "pillow-heif", ".jxl": "pillow-jxl-plugin"}
"""Endings that Pillow reads with a package beside it."""
UNREADABLE = {".arw", ".cr2", ".cr3", ".dcm", ".dng", ".exr", ".nef", ".nii", ".orf", ".raf", ".raw", ".rw2", ".svg"}
"""Endings of pictures that have to be converted first."""
DEPTHS = (255, 1023, 4095, 16383, 65535)
"""White of 8, 10, 12, 14 and 16 bits."""
ORIENTATION = 0x0112  # EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
QUARTER_TURNS = (5, 6, 7, 8)
"""Orientations that swap width and height."""

MOST_PIXELS = 2 * 89_478_485
"""Of one picture: Pillow opens no file that says it has more."""

warnings.filterwarnings(
    "ignore", module=r"PIL\."
)  # of odd metadata and large images; a fault is an exception, and is said


@functools.cache
def extensions() -> frozenset[str]:
    """Endings in lower case, with the dot, of every picture that can be opened here."""
    for module in ("pillow_heif", "pillow_jxl"):
        with contextlib.suppress(ImportError):
            plugin = __import__(module)
            if hasattr(plugin, "register_heif_opener"):
                plugin.register_heif_opener()
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return frozenset(known - NOT_PICTURES)


def is_image(path: Path) -> bool:
    """Whether a file's ending says that it can be opened here."""
    return path.suffix.lower() in extensions()


def looks_like_image(path: Path) -> bool:
    """Whether a file's ending says that it is a picture, readable or not."""
    suffix = path.suffix.lower()
    return suffix in extensions() or suffix in NEEDS_PLUGIN or suffix in UNREADABLE


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image turned as its EXIF orientation says."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def turned_boxes(xyxy: np.ndarray, width: int, height: int, orientation: int) -> np.ndarray:
    """Boxes [n, 4] of an image of ``width`` x ``height`` stored pixels, in the pixels of the upright image."""
    x1, y1, x2, y2 = np.moveaxis(xyxy.reshape(-1, 4), 1, 0)
    left, right = (width - x2, width - x1) if orientation in (2, 3, 7, 8) else (x1, x2)
    top, bottom = (height - y2, height - y1) if orientation in (3, 4, 6, 7) else (y1, y2)
    if orientation in QUARTER_TURNS:
        left, top, right, bottom = top, left, bottom, right
    return np.stack([left, top, right, bottom], axis=1)


@dataclass(kw_only=True, frozen=True, slots=True)
class Facts:
    """What the check of one file found."""

    width: int = 0
    """Of the upright image."""
    height: int = 0
    orientation: int = 1
    """EXIF orientation: 1 is upright, 5 to 8 swap width and height."""
    deep: str = ""
    """Empty for 8 bits per channel; ``integer`` or ``float`` for finer grey, ``colour`` for 16 bits per channel."""
    peak: float = 0.0
    """The greatest value of an image that is ``deep``."""
    num_frames: int = 1
    fault: str | None = None
    """Why it cannot be read; None where it can."""

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height before the EXIF orientation is applied."""
        return (self.height, self.width) if self.orientation in QUARTER_TURNS else (self.width, self.height)


def decode(path: Path | Packed, white: float | None = None) -> tuple[Image.Image, Facts]:
    """The file as upright 8-bit RGB (its first frame), and what was found in it.

    Args:
        white: grey value that becomes 255 in an image with more than 8 bits, 0 stays 0; None takes ``white_of`` the greatest
            value of this image.

    Raises:
        Exception: Pillow's own, of any kind; ``Sample.open`` and ``inspect`` turn it into a sentence.
    """
    extensions()  # with the plugins
    with Image.open(io.BytesIO(path.read()) if isinstance(path, Packed) else path) as image:
        num_frames = getattr(image, "n_frames", 1)
        turns_itself = image.format == "TIFF"
        deep = "float" if image.mode == "F" else "integer" if image.mode.startswith("I") else ""
        if not deep and _bits_per_channel(image) > 8:
            deep = "colour"
        orientation = 1
        with contextlib.suppress(Exception):  # metadata that cannot be read turns nothing, as in any viewer
            orientation = int(image.getexif().get(ORIENTATION, 1))
        orientation = orientation if orientation in TURNS else 1
        rgb, peak = to_rgb(image, white)
    if deep == "colour":  # Pillow keeps the upper 8 of 16 bits
        peak = float(np.asarray(rgb).max()) * 256 + 255
    if not turns_itself:
        rgb = upright(rgb, orientation)
    return rgb, Facts(
        width=rgb.width,
        height=rgb.height,
        orientation=orientation,
        deep=deep,
        peak=peak,
        num_frames=num_frames,
    )


def to_rgb(image: Image.Image, white: float | None = None) -> tuple[Image.Image, float]:
    """8-bit RGB from any mode: palettes expanded, deep grey scaled, transparency laid over white; and its greatest value.

    Raises:
        ValueError: if grey values lie outside [0, 65535], where nothing says what is white.
    """
    peak = 0.0
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64)
        low, peak = float(values.min()), float(values.max())
        if not (low >= 0 and peak <= DEPTHS[-1]):  # also for NaN
            raise ValueError(
                f"its grey values of mode {image.mode} go from {low:g} to {peak:g}; save them as 0 to 255, "
                "0 to 65535 or, as floats, 0 to 1"
            )
        top = white_of(peak, image.mode == "F") if white is None else white
        image = Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB"), peak


def white_of(peak: float, is_float: bool) -> float:
    """The white point of grey values up to ``peak``: the least of 8, 10, 12, 14 and 16 bits, or of floats 1, 255 and 65535."""
    return next(top for top in ((1.0, 255.0, 65535.0) if is_float else DEPTHS) if peak <= top)


def inspect(path: Path) -> Facts:
    """Decode a file as training will, once per process and per change of the file."""
    try:
        stat = path.stat()
    except OSError as error:
        return Facts(fault=first_line(error))
    return _inspect(str(path), stat.st_size, stat.st_mtime_ns)


@functools.cache
def _inspect(path: str, size: int, mtime_ns: int) -> Facts:
    if size == 0:
        return Facts(fault="the file is empty")
    try:
        return decode(Path(path))[1]
    except Exception as error:  # Pillow and its plugins raise what they like; the reason becomes a sentence
        return Facts(fault=first_line(error))


def inspect_all(paths: Iterable[Path]) -> dict[Path, Facts]:
    """``inspect`` of many files, decoded by threads."""
    paths = list(dict.fromkeys(paths))
    with ThreadPoolExecutor() as threads:
        return dict(zip(paths, threads.map(inspect, paths), strict=True))


def check_readable(facts: Mapping[Path, Facts], then: str = "Repair or remove them.") -> None:
    """Raise ``GenaugError`` with the number of files that cannot be read and the first of them."""
    bad = [(path, found.fault) for path, found in facts.items() if found.fault is not None]
    if bad:
        raise GenaugError(f"{len(bad)} image(s) cannot be read, the first is {bad[0][0]} ({bad[0][1]}). {then}")


def _bits_per_channel(image: Image.Image) -> int:
    """Bits per channel as the file states them, for the two formats of which Pillow keeps the upper 8 of 16 colour bits."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,)))  # type: ignore[attr-defined]
    if image.format == "PNG":
        tile = image.tile[0].args if image.tile else ""  # type: ignore[attr-defined]
        return 16 if "16" in str(tile) else 8
    return 8
