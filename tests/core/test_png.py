import io

import numpy as np
import pytest
from PIL import Image

from genaug.core.png import encode, texts


def picture(name: str, width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(0)
    pixels = {
        "noise": rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "black": np.zeros((height, width, 3), dtype=np.uint8),
        "white": np.full((height, width, 3), 255, dtype=np.uint8),  # sums of neighbours beyond a byte
        "ramp": (np.add.outer(np.arange(height), np.arange(width))[..., None] * [1, 3, 5]).astype(np.uint8),
    }
    return Image.fromarray(pixels[name])


@pytest.mark.parametrize("name", ["noise", "black", "white", "ramp"])
@pytest.mark.parametrize("size", [(1, 1), (7, 1), (1, 9), (33, 17), (64, 64)])
def test_pixels_and_texts_come_back_as_they_were(name, size):
    image = picture(name, *size)
    data = encode(image, {"genaug": '{"t0": 0.5}', "more": ""})
    with Image.open(io.BytesIO(data)) as back:
        assert back.format == "PNG" and back.mode == "RGB" and back.size == size
        assert np.array_equal(np.asarray(back), np.asarray(image))
        assert back.text == {"genaug": '{"t0": 0.5}', "more": ""}
    assert texts(data) == {"genaug": '{"t0": 0.5}', "more": ""} and texts(encode(image)) == {}


@pytest.mark.parametrize("mode", ["L", "RGBA", "1", "P", "LA"])
def test_images_of_other_modes_are_written_too(mode):
    image = picture("ramp", 20, 10).convert(mode)
    with Image.open(io.BytesIO(encode(image, {"genaug": "x"}))) as back:
        assert back.mode == mode and np.array_equal(np.asarray(back.convert("RGBA")), np.asarray(image.convert("RGBA")))
    assert texts(encode(image, {"genaug": "x"})) == {"genaug": "x"}


def test_flat_pictures_stay_small_and_noise_costs_little_more_than_its_pixels():
    assert len(encode(picture("black", 256, 256))) < 3000
    assert len(encode(picture("noise", 64, 64))) < 1.02 * 3 * 64 * 64


def test_what_is_no_png_file_is_refused():
    with pytest.raises(ValueError, match="no PNG"):
        texts(b"GIF89a")
