"""The check of an image is its use: what passes opens, and what opens is upright 8-bit RGB."""

import numpy as np
import pytest
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.data.images import TURNS, decode, inspect, turned_boxes
from genaug.data.sample import Sample
from genaug.data.sources.image_folder import ImageFolder
from tests.data.pictures import classes, picture, turned


def grey(path, value, mode=np.uint16):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, dtype=mode)).save(path)


def opened(dataset):
    return {s.id: s.open().getpixel((0, 0))[0] for part in (dataset.train, dataset.val, dataset.test) for s in part}


def test_one_white_point_for_the_whole_set_is_chosen_from_the_bit_depth_and_said(tmp_path):
    classes(tmp_path)
    grey(tmp_path / "cat" / "dark.png", 800)  # alone it would be taken for 10 bits
    grey(tmp_path / "dog" / "light.tif", 4000)
    grey(tmp_path / "dog" / "medium.tif", 900)
    dataset = ImageFolder(root=str(tmp_path), seed=0).load()
    levels = opened(dataset)
    assert levels["cat/dark.png"] == 800 * 255 // 4095 and levels["dog/light.tif"] == 4000 * 255 // 4095
    assert dataset.notes == {"images_of_more_than_8_bits_with_white_at_4095": 3}
    dark = next(s for part in (dataset.train, dataset.val, dataset.test) for s in part if s.id == "cat/dark.png")
    assert dark.identity()["white"] == 4095


def test_twelve_bits_in_a_file_of_sixteen_are_not_black(tmp_path):
    grey(tmp_path / "x.tif", 2048)
    assert Sample(id="x", digest="x", image=tmp_path / "x.tif").open().getpixel((0, 0))[0] == 2048 * 255 // 4095


def test_sixteen_bit_colour_that_uses_its_lower_bits_alone_is_refused(tmp_path):
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + np.full((8, 3), 3000, ">u2").tobytes() for _ in range(8))
    head = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    classes(tmp_path)
    (tmp_path / "cat" / "deep.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    with pytest.raises(GenaugError, match=r"16 bits per colour, e\.g\. deep\.png.*8 bits per colour"):
        ImageFolder(root=str(tmp_path), seed=0).load()


@pytest.mark.parametrize("orientation", list(TURNS))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_exif_turns_pixels_and_boxes_alike(tmp_path, orientation, suffix):
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[2:8, 5:16] = 255
    Image.fromarray(pixels).save(tmp_path / f"x.{suffix}", exif=turned(orientation))
    image, facts = decode(tmp_path / f"x.{suffix}")
    assert facts.stored_size == (30, 20) and facts.size == image.size
    x1, y1, x2, y2 = turned_boxes(np.asarray([[5, 2, 16, 8]]), 30, 20, orientation)[0]
    inside = np.asarray(image)[..., 0] > 128
    assert inside[y1:y2, x1:x2].all() and inside.sum() == 6 * 11


def test_an_exif_block_that_cannot_be_written_back_hinders_nobody(tmp_path):
    exif = turned(6)
    exif[0x829A] = (1, 0)  # an exposure time that is no rational
    path = tmp_path / "x.jpg"
    Image.new("RGB", (20, 10)).save(path)
    data = path.read_bytes()
    block = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\x9a\x82\x05\0\x01\0\0\0\xff\xff\xff\x7f\0\0\0\0"
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:])
    assert inspect(path).fault is None and Sample(id="x", digest="x", image=path).open().size == (10, 20)


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "bomb", "absent"])
def test_what_the_check_refuses_does_not_open_and_the_other_way_round(tmp_path, kind):
    path = tmp_path / "x.png"
    if kind == "bomb":
        Image.new("1", (20000, 10000)).save(path)
    elif kind != "absent":
        picture(path, (200, 200))
        data = path.read_bytes()
        path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"hello"}[kind])
    assert inspect(path).fault
    with pytest.raises(GenaugError, match=r"Cannot read the image .*x\.png"):
        Sample(id="x", digest="x", image=path).open()


def test_transparency_is_laid_over_white():
    from genaug.data.images import to_rgb

    palette = Image.new("P", (4, 4), 3)
    palette.info["transparency"] = 3
    for image in (palette, Image.new("RGBA", (4, 4), (0, 0, 0, 0)), Image.new("LA", (4, 4), (0, 0))):
        assert to_rgb(image)[0].getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "PA", "LA", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_every_mode_becomes_rgb(mode):
    from genaug.data.images import to_rgb

    assert to_rgb(Image.new(mode, (4, 4)))[0].mode == "RGB"
