"""The pictures of DiffuseMix (arXiv 2405.14881, section 3.3):

H = (1 - M) * source + M * edit           M: 0 on the source's half, 1 on the other, linear in the seam
A = (1 - lambda) H + lambda F             F: a fractal
"""

from typing import Any

import numpy as np
from PIL import Image

from genaug.core.seeding import choice, derive, uniform
from genaug.data.images import decode
from genaug.generators.collage.config import Collage

ITERATIONS = 48


def composed(
    config: Collage, source: Image.Image, edit: Image.Image, identity: str
) -> tuple[Image.Image, dict[str, Any]]:
    """The picture that is trained on, of pictures of one size, and columns for the manifest.

    Args:
        identity: of the image; half, side and fractal are drawn from it alone.
    """
    original, pixels = np.asarray(source, np.float64), np.asarray(edit, np.float64)
    about: dict[str, Any] = {}
    if config.halves != "none":
        vertical = config.halves == "vertical" or (config.halves == "random" and choice(2, identity, "half") == 1)
        swapped = config.swap and choice(2, identity, "side") == 1
        weights = half_mask(*pixels.shape[:2], vertical=vertical, seam=config.seam)
        pixels = (
            (1 - weights) * original + weights * pixels if not swapped else (1 - weights) * pixels + weights * original
        )
        about["source_half"] = ("lower" if swapped else "upper") if vertical else ("right" if swapped else "left")
    if config.fractal_share > 0:
        over = fractal(config, edit.size, identity)
        pixels = (1 - config.fractal_share) * pixels + config.fractal_share * np.asarray(over, np.float64)
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8)), about


def half_mask(height: int, width: int, *, vertical: bool, seam: float) -> np.ndarray:
    """M, float64 [h, w, 1]: 0 in the left (or upper) half, 1 in the other, from 0 to 1 over ``seam`` of the side between."""
    side = height if vertical else width
    blend = max(round(seam * side), 1)
    first = side // 2 - blend // 2
    line = np.concatenate([np.zeros(first), np.linspace(0, 1, blend), np.ones(side - first - blend)])
    return np.broadcast_to(line[:, None, None] if vertical else line[None, :, None], (height, width, 1))


def fractal(config: Collage, size: tuple[int, int], identity: str) -> Image.Image:
    """One of the folder's images, or a Julia set of its own."""
    if config.fractals is None:
        return julia(size, derive(identity, "fractal"))
    files = config.files()
    return decode(files[choice(len(files), identity, "fractal")])[0].resize(size, Image.Resampling.BICUBIC)


def julia(size: tuple[int, int], seed: int) -> Image.Image:
    """The Julia set of z^2 + c, coloured by the smooth number of iterations until |z| > 2.

    c lies near the boundary of the Mandelbrot set's main cardioid, where Julia sets are intricate.
    """
    phase = 2 * np.pi * uniform(seed, "c")
    c = 1.02 * (np.exp(1j * phase) / 2 - np.exp(2j * phase) / 4)
    width, height = size
    y, x = np.mgrid[-1.2 : 1.2 : height * 1j, -1.5 : 1.5 : width * 1j]
    z, count = x + 1j * y, np.zeros((height, width))
    for _ in range(ITERATIONS):
        inside = np.abs(z) <= 2
        z = np.where(inside, z * z + c, z)
        count += inside
    smooth = (
        np.where(count < ITERATIONS, count - np.log2(np.log2(np.maximum(np.abs(z), 2.0001))), ITERATIONS) / ITERATIONS
    )
    shifts = np.array([uniform(seed, "colour", channel) for channel in range(3)])
    colours = 0.5 + 0.5 * np.cos(2 * np.pi * (3 * smooth[..., None] + shifts))
    return Image.fromarray((255 * colours).round().astype(np.uint8))
