"""What a pool says of its images."""

from pathlib import Path

import numpy as np
import pytest

from genaug.data.pool import Pool
from genaug.data.sample import Boxes, SyntheticSample


def sample(index: int, **about: float) -> SyntheticSample:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    boxes = Boxes(xyxy=np.array([[0, 0, 2, 2]], np.float32), labels=np.array([0]), crowd=np.array([False]))
    return SyntheticSample(
        id=str(index), digest=str(index), image=pixels, boxes=boxes, source_id="s", index=index, about=about
    )


def test_sharpness_is_the_images_gradient_outside_their_boxes_as_a_share_of_the_sources() -> None:
    blurred = sample(0, gradient_outside=2.0, gradient_outside_source=10.0)
    sharper = sample(1, gradient_outside=4.0, gradient_outside_source=20.0)
    pool = Pool(fingerprint="p", folder=Path(), samples=(blurred, sharper, sample(2)))
    assert pool.sharpness == pytest.approx(6 / 30)
    assert Pool(fingerprint="p", folder=Path(), samples=(sample(0),)).sharpness is None
    assert Pool(fingerprint="p", folder=Path(), samples=(), rejected={"dark": 2}).sharpness is None
