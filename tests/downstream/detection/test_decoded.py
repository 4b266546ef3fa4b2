"""A detector's pictures are decoded once for all runs, when they are first drawn, and are what decoding each time gives."""

import numpy as np
import pytest
from PIL import Image

from genaug.core.store import Store
from genaug.data.sample import Sample
from genaug.downstream import decoded
from genaug.downstream.detection.batches import BoxedImages

SIZES = (
    (64, 64),
    (100, 40),
    (30, 90),
    (3, 200),
    (20, 10),
)  # as large, wider, higher, very thin, smaller than 64 pixels


@pytest.fixture
def samples(tmp_path):
    rng, found = np.random.default_rng(0), []
    for width, height in SIZES:
        path = tmp_path / f"{width}x{height}.png"
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
        found.append(Sample(id=path.name, digest=path.name, image=path))
    return found


def assert_same(images, others, samples):
    for sample in samples:
        (pixels, scales), (expected, expected_scales) = images.pixels(sample), others.pixels(sample)
        assert np.array_equal(pixels, expected) and np.array_equal(scales, expected_scales)


def test_shared_pictures_are_those_that_are_decoded_each_time(samples, tmp_path):
    shared = BoxedImages(64, samples[:4], Store(tmp_path / "store"))
    for _ in range(2):
        assert_same(shared, BoxedImages(64), samples)  # the last one is not shared


def test_a_picture_is_decoded_when_it_is_first_drawn_and_never_again(samples, tmp_path, monkeypatch):
    store, opened = Store(tmp_path / "store"), []
    open_it = Sample.open
    monkeypatch.setattr(Sample, "open", lambda sample: opened.append(sample.id) or open_it(sample))
    first = BoxedImages(64, samples, store)
    assert opened == []
    first.pixels(samples[1])
    first.pixels(samples[1])
    again = BoxedImages(64, samples[::-1], store)  # another run, in another order
    again.pixels(samples[1])
    again.pixels(samples[2])
    assert opened == [samples[1].id, samples[2].id]
    BoxedImages(32, samples, store).pixels(samples[1])
    assert opened[2:] == [samples[1].id]


def test_a_row_that_was_cut_is_made_again(samples, tmp_path):
    store = Store(tmp_path / "store")
    BoxedImages(64, samples, store).pixels(samples[0])
    path = store.root / "decoded" / "64-boxes" / decoded.PIXELS
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert_same(BoxedImages(64, samples, store), BoxedImages(64), samples)
