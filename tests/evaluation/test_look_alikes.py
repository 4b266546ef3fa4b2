"""Which pictures are taken for one thing."""

import numpy as np
import pytest
from PIL import Image

from genaug.evaluation.look_alikes import PATCHES, neighbours, saved_again


def thumbnails(*more: np.ndarray) -> np.ndarray:
    """[n, 8, 8, 3] of 40 smooth pictures that have nothing in common, and of those given."""
    every = [*pictures(), *more]
    small = [Image.fromarray(one).resize((PATCHES, PATCHES), Image.Resampling.BOX) for one in every]
    return np.asarray([np.asarray(one) for one in small], dtype=np.float32)


def pictures() -> list[np.ndarray]:
    coarse = np.random.default_rng(0).integers(0, 255, (40, 6, 6, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(one).resize((128, 128), Image.Resampling.BICUBIC)) for one in coarse]


def test_pictures_that_have_nothing_in_common_are_no_pairs():
    assert neighbours(thumbnails()) == (set(), set())


def test_a_small_shift_is_a_neighbour_and_a_blend_with_another_picture_is_none():
    first, second = pictures()[:2]
    shifted = np.roll(first, 1, axis=1)
    blend = (0.7 * first + 0.3 * second).astype(np.uint8)
    assert neighbours(thumbnails(shifted)) == ({(0, 40)}, set())
    assert neighbours(thumbnails(blend)) == (set(), set())


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_each_way_to_lay_a_picture_is_found_and_the_plain_one_is_no_turn(quarters, mirrored):
    laid = np.rot90(pictures()[3], quarters)
    found = neighbours(thumbnails(laid[:, ::-1] if mirrored else laid))
    assert found == (({(3, 40)}, set()) if (quarters, mirrored) == (0, False) else (set(), {(3, 40)}))


def test_two_pictures_alone_say_nothing_of_what_is_usual():
    assert neighbours(thumbnails()[:2]) == (set(), set())


def test_a_picture_that_was_saved_again_is_one_pair_and_one_of_other_pixels_is_none():
    rng = np.random.default_rng(0)
    bits, grey = rng.random((4, 64)) < 0.5, rng.uniform(0, 255, (4, 32, 32)).astype(np.float32)
    bits[1] = bits[2] = bits[0]
    bits[1, :4] ^= True
    grey[1] = grey[0] + 4
    assert saved_again(bits, grey) == {(0, 1)}
    bits[1, 4] ^= True
    assert saved_again(bits, grey) == set()
