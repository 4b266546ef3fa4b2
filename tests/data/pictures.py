"""Small pictures and trees of them, for tests of readers."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, size: tuple[int, int] = (12, 10), **how: object) -> Path:
    """A picture of noise that no other path gets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = [ord(letter) for letter in str(path)]
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **how)
    return path


def classes(root: Path, names: tuple[str, ...] = ("cat", "dog"), count: int = 4) -> Path:
    """``count`` pictures in a folder of each name."""
    for name in names:
        for i in range(count):
            picture(root / name / f"{i}.png")
    return root


def turned(orientation: int) -> Image.Exif:
    """Metadata that asks for a turn."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif
