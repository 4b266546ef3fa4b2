"""Boxes and pixels on the way into a frame."""

import numpy as np
import pytest
from PIL import Image

from genaug.core.errors import GenaugError
from genaug.data.geometry import Letterbox, bucket


def in_frame(letterbox, boxes):
    return letterbox.scale_boxes(boxes) + np.tile(letterbox.offset, 2)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (333, 517), (64, 64), (1000, 90)])
@pytest.mark.parametrize("frame", [(64, 64), (512, 384), (96, 32)])
def test_boxes_stay_inside_the_frame(size, frame):
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 0.6, (20, 2))
    boxes = np.concatenate([start, start + rng.uniform(0.1, 0.4, (20, 2))], 1) * np.tile(size, 2)
    letterbox = Letterbox(*size, *frame)
    there = in_frame(letterbox, boxes)
    assert there.min() >= 0 and (there[:, 2] <= frame[0]).all() and (there[:, 3] <= frame[1]).all()


def test_a_marked_object_is_where_its_box_says():
    pixels = np.zeros((480, 640, 3), dtype=np.uint8)
    pixels[100:300, 200:500] = 255
    letterbox = Letterbox(640, 480, 64, 64)
    frame = letterbox.into_frame(np.asarray(letterbox.scale_image(Image.fromarray(pixels))))
    x1, y1, x2, y2 = in_frame(letterbox, np.asarray([[200, 100, 500, 300.0]]))[0]
    bright = np.argwhere(frame[:, :, 0] > 127)
    assert np.allclose(
        [bright[:, 1].min(), bright[:, 0].min(), bright[:, 1].max() + 1, bright[:, 0].max() + 1],
        [x1, y1, x2, y2],
        atol=1,
    )
    assert letterbox.crop(frame).shape == (48, 64, 3)


def test_an_image_of_the_frames_size_is_not_touched():
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    letterbox = Letterbox(64, 64, 64, 64)
    assert np.array_equal(
        letterbox.crop(letterbox.into_frame(np.asarray(letterbox.scale_image(Image.fromarray(pixels))))), pixels
    )


def test_a_line_stays_a_pixel_wide():
    letterbox = Letterbox(2000, 3, 64, 64)
    assert letterbox.scale_image(Image.new("RGB", (2000, 3))).size == letterbox.inner == (64, 1)


def test_bucket_takes_the_nearest_aspect_ratio():
    assert bucket(640, 480, 384, 64) == (512, 384)
    assert bucket(480, 640, 384, 64) == (384, 512)
    assert bucket(350, 350, 384, 64) == (384, 384)
    assert bucket(64, 64, 64, 32) == (64, 64)
    with pytest.raises(GenaugError, match="larger size"):
        bucket(640, 480, 32, 64)
