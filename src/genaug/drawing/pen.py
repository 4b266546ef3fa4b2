"""A pen whose letters go beyond those of English: class names are written in every script that matplotlib's font has."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

LETTERS = 10
"""Height in pixels."""


def pen_on(picture: Image.Image) -> ImageDraw.ImageDraw:
    """Draws and writes on a picture."""
    from matplotlib import get_data_path

    pen = ImageDraw.Draw(picture)
    pen.font = ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", LETTERS)
    return pen
