"""Contact sheets: captions fit their picture."""

from PIL import Image, ImageDraw

from genaug.drawing.contact_sheet import _fitting


def test_captions_end_where_their_picture_ends():
    pen = ImageDraw.Draw(Image.new("RGB", (200, 20)))
    assert _fitting(pen, "short", 80) == "short"
    cut = _fitting(pen, "random_outpainting of a long name", 80)
    assert cut and pen.textlength(cut) <= 80 < pen.textlength(cut + "xx")
