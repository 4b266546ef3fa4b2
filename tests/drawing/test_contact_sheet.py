"""Contact sheets: captions fit their picture, data are those that the cell read."""

from dataclasses import asdict

from PIL import Image, ImageDraw

from genaug.app import compose_typed
from genaug.drawing.contact_sheet import _fitting, dataset_of


def test_real_data_are_what_the_cell_read_whatever_the_preset_says_now():
    """A preset edited after the run: the stored configuration counts."""
    config = asdict(compose_typed(["dataset=digits"]))
    config["dataset"]["image_size"] = 48
    dataset = dataset_of({"overrides": ["dataset=digits"], "config": config})
    assert dataset.train[0].open().size == (48, 48)


def test_captions_end_where_their_picture_ends():
    pen = ImageDraw.Draw(Image.new("RGB", (200, 20)))
    assert _fitting(pen, "short", 80) == "short"
    cut = _fitting(pen, "random_outpainting of a long name", 80)
    assert cut and pen.textlength(cut) <= 80 < pen.textlength(cut + "xx")
