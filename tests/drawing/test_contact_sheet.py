"""Contact sheets: captions fit their picture."""

from PIL import Image, ImageDraw

from genaug.drawing.contact_sheet import _fitting
from genaug.drawing.pen import pen_on


def test_captions_end_where_their_picture_ends():
    pen = ImageDraw.Draw(Image.new("RGB", (200, 20)))
    assert _fitting(pen, "short", 80) == "short"
    cut = _fitting(pen, "random_outpainting of a long name", 80)
    assert cut and pen.textlength(cut) <= 80 < pen.textlength(cut + "xx")


def test_letters_of_many_scripts_are_written():
    shown = set()
    for text in ("ü", "é", "ß", "ñ", "Ж", "λ", "\U0010ffff"):  # the last has no picture in any font
        picture = Image.new("L", (20, 20))
        pen_on(picture).text((2, 2), text, fill=255)
        shown.add(picture.tobytes())
    assert len(shown) == 7
